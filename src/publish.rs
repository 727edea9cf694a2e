//! Publish: what verifiers get. It follows the records; no request waits for it.

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
    /// For our own use.
    pub bundle: Bundle,
    /// The same as a SPIFFE bundle document, UTF-8 JSON.
    pub document: Vec<u8>,
    /// Who signs, signed and will sign.
    pub authorities: Arc<Authorities>,
    /// The key of heartbeats: an uncompressed P-256 point.
    pub feed_key: Vec<u8>,
}

/// Keeps what is published up to date.
#[derive(Clone)]
pub struct Publisher {
    ledger: Ledger,
    authority: Arc<Authority>,
    refresh: u64,
    now: watch::Sender<Arc<Published>>,
}

impl Publisher {
    /// Publishes what stands. Verifiers are told to look again after `refresh` seconds.
    pub fn start(ledger: &Ledger, authority: &Arc<Authority>, refresh: u64) -> Result<Publisher, Fault> {
        let first = published(ledger, authority, refresh)?;
        let (ledger, authority) = (ledger.clone(), Arc::clone(authority));
        Ok(Publisher { ledger, authority, refresh, now: watch::Sender::new(Arc::new(first)) })
    }

    /// Publishes what stands now, if it is not what was published before. Called after every change, by whoever made it.
    pub fn follow(&self) -> Result<(), Fault> {
        let next = published(&self.ledger, &self.authority, self.refresh)?;
        // BU-2: a sequence never goes back, whoever comes last.
        self.now.send_if_modified(|now| {
            let newer = next.bundle.sequence() > now.bundle.sequence();
            if newer {
                *now = Arc::new(next);
            }
            newer
        });
        Ok(())
    }

    /// What is published.
    pub fn now(&self) -> Arc<Published> {
        Arc::clone(&self.now.borrow())
    }

    /// What is published, and each change of it; of several only the last.
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
