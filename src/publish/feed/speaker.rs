//! Heartbeats: signed statements that no other cut exists up to a head.

use std::sync::Arc;

use mayfly_agent::api::v1;
use mayfly_verify::TrustDomain;
use mayfly_verify::feed::{Heartbeat, heartbeat_message};
use uuid::Uuid;

use super::ring::At;
use crate::authority::Authority;
use crate::denial::Fault;

/// Signs the heartbeats of one epoch of the journal.
pub(super) struct Speaker {
    pub(super) trust_domain: TrustDomain,
    pub(super) incarnation: Uuid,
    pub(super) authority: Arc<Authority>,
}

impl Speaker {
    /// States that at `as_of`, in Unix microseconds, the journal was `at` this head, and that `count` cuts with this `digest`
    /// were in force. Fails if the key cannot sign.
    pub(super) fn heartbeat(&self, at: At, as_of: u64, count: u64, digest: [u8; 32]) -> Result<v1::Heartbeat, Fault> {
        let unsigned = Heartbeat {
            trust_domain: self.trust_domain.clone(),
            incarnation: self.incarnation,
            head: at.revision,
            as_of,
            count,
            digest,
            chain: at.chain,
            signature: [0; 64],
        };
        let signature = self.authority.sign_heartbeat(&heartbeat_message(&unsigned))?;
        Ok(v1::Heartbeat {
            trust_domain: self.trust_domain.to_string(),
            incarnation: self.incarnation.as_bytes().to_vec(),
            head: at.revision,
            as_of,
            count,
            digest: digest.to_vec(),
            chain: at.chain.map(Vec::from).unwrap_or_default(),
            signature,
        })
    }
}
