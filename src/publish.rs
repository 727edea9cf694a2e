//! Publishes the bundle and the feed to verifiers. Both follow the records, and no request waits for them.

pub mod crl;
pub mod feed;

use std::sync::Arc;

use mayfly_verify::Bundle;
use tokio::sync::watch;

use crate::authority::Authority;
use crate::denial::Fault;
use crate::ledger::Ledger;
use crate::state::Authorities;

/// The public half of the authorities, at one revision.
pub struct Published {
    /// The bundle, for the issuer's own use.
    pub bundle: Bundle,
    /// The same bundle as a SPIFFE bundle document, JSON in UTF-8.
    pub document: Vec<u8>,
    /// Every recorded authority that is prepared, active, retired or tainted.
    pub authorities: Arc<Authorities>,
    /// Public key of heartbeats: an uncompressed P-256 point, 65 bytes.
    pub feed_key: Vec<u8>,
}

/// Publishes the bundle, and a new one after each change.
#[derive(Clone)]
pub struct Publisher {
    ledger: Ledger,
    authority: Arc<Authority>,
    refresh: u64,
    now: watch::Sender<Arc<Published>>,
}

impl Publisher {
    /// Publishes the bundle of the recorded authorities. Its refresh hint is `refresh` seconds. Fails if a recorded key cannot be
    /// encoded.
    pub fn start(ledger: &Ledger, authority: &Arc<Authority>, refresh: u64) -> Result<Publisher, Fault> {
        let first = published(ledger, authority, refresh)?;
        let now = watch::Sender::new(Arc::new(first));
        Ok(Publisher { ledger: ledger.clone(), authority: Arc::clone(authority), refresh, now })
    }

    /// Publishes the bundle again if its sequence has grown. The rotation calls this after each change of the authorities. Fails
    /// if a recorded key cannot be encoded.
    pub fn follow(&self) -> Result<(), Fault> {
        let next = published(&self.ledger, &self.authority, self.refresh)?;
        // BU-2: a sequence never goes back, in whatever order concurrent callers arrive.
        self.now.send_if_modified(|now| {
            let newer = next.bundle.sequence() > now.bundle.sequence();
            if newer {
                *now = Arc::new(next);
            }
            newer
        });
        Ok(())
    }

    /// What is published now.
    pub fn now(&self) -> Arc<Published> {
        Arc::clone(&self.now.borrow())
    }

    /// Notifies of each change. A receiver that is slow sees only the last one.
    pub fn watch(&self) -> watch::Receiver<Arc<Published>> {
        self.now.subscribe()
    }
}

fn published(ledger: &Ledger, authority: &Authority, refresh: u64) -> Result<Published, Fault> {
    let authorities = ledger.read(|state| Arc::clone(&state.authorities));
    let fault = |e: mayfly_verify::BundleError| Fault::new("publish", e);
    let bundle = authority.bundle(&authorities, refresh).map_err(fault)?;
    let document = bundle.to_json().map_err(fault)?.to_string().into_bytes();
    Ok(Published { bundle, document, authorities, feed_key: authority.feed_key() })
}
