//! The key that signs heartbeats, and the bytes that it signs.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};

use super::{FeedError, Heartbeat};

/// Prefix of the signed bytes: a signature by this key is valid for a heartbeat and for nothing else.
const PREFIX: &[u8] = b"mayfly feed v1\0";
/// The same for a heartbeat with the digest of the journal.
const CHAINED: &[u8] = b"mayfly feed v2\0";

/// The public half of the feed's key.
#[derive(Clone, Debug)]
pub struct FeedKey(ParsedPublicKey);

impl FeedKey {
    /// Reads an uncompressed P-256 point, as in `mayfly.v1.Bundle.feed_key`.
    pub fn from_point(point: &[u8]) -> Result<FeedKey, FeedError> {
        // The cryptographic library also accepts compressed points; the feed's key has one form.
        if point.len() != 65 || point.first() != Some(&4) {
            return Err(FeedError::Key);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map(FeedKey).map_err(|_| FeedError::Key)
    }

    /// Whether this key signed the heartbeat.
    pub fn verify(&self, heartbeat: &Heartbeat) -> Result<(), FeedError> {
        self.0.verify_sig(&heartbeat_message(heartbeat), &heartbeat.signature).map_err(|_| FeedError::Signature)
    }
}

/// The bytes that the feed's key signs: a fixed prefix; the trust domain, preceded by its length; the incarnation; head, as_of
/// and count; the digest; and the digest of the journal, where there is one. Numbers are 8 bytes, big-endian. The heartbeat's own
/// signature is not included.
pub fn heartbeat_message(heartbeat: &Heartbeat) -> Vec<u8> {
    let trust_domain = heartbeat.trust_domain.as_str().as_bytes();
    let mut message = heartbeat.chain.map_or(PREFIX, |_| CHAINED).to_vec();
    message.extend(u64::try_from(trust_domain.len()).unwrap_or(u64::MAX).to_be_bytes());
    message.extend(trust_domain);
    message.extend(heartbeat.incarnation.as_bytes());
    for number in [heartbeat.head, heartbeat.as_of, heartbeat.count] {
        message.extend(number.to_be_bytes());
    }
    message.extend(heartbeat.digest);
    message.extend(heartbeat.chain.iter().flatten());
    message
}
