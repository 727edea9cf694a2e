//! What we show: an identity that is replaced while running.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::provider;
use crate::channel::Identity;

/// What every handshake shows from its beginning on. Clones share it.
///
/// Where there is nothing to show any more, servers end each handshake, and clients show nothing.
#[derive(Clone)]
pub struct CurrentIdentity(Arc<ArcSwapOption<CertifiedKey>>);

impl CurrentIdentity {
    /// Refuses a chain that is empty or whose leaf has another key.
    pub fn new(identity: Identity) -> Result<CurrentIdentity, rustls::Error> {
        Ok(CurrentIdentity::of(Arc::new(certified(identity)?)))
    }

    /// Of a key that is held elsewhere and never given away.
    pub(crate) fn of(certified: Arc<CertifiedKey>) -> CurrentIdentity {
        CurrentIdentity(Arc::new(ArcSwapOption::new(Some(certified))))
    }

    /// Shows this from the next handshake on.
    pub(crate) fn show(&self, certified: Arc<CertifiedKey>) {
        self.0.store(Some(certified));
    }

    /// Of somebody who is nobody yet.
    pub(crate) fn nobody() -> CurrentIdentity {
        CurrentIdentity(Arc::default())
    }

    /// Shows nothing from the next handshake on.
    pub(crate) fn hide(&self) {
        self.0.store(None);
    }

    /// Shows this from the next handshake on. Where it is refused, what was shown before stays.
    pub fn replace(&self, identity: Identity) -> Result<(), rustls::Error> {
        self.0.store(Some(Arc::new(certified(identity)?)));
        Ok(())
    }
}

fn certified(identity: Identity) -> Result<CertifiedKey, rustls::Error> {
    let Identity { chain, key } = identity;
    if chain.is_empty() {
        return Err(rustls::Error::NoCertificatesPresented);
    }
    CertifiedKey::from_der(chain, key, &provider())
}

impl fmt::Debug for CurrentIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentIdentity")
    }
}

impl ResolvesServerCert for CurrentIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
