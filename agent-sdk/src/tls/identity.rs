//! Our own certificate and key, replaced at run time.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::provider;
use crate::validity::Validity;

/// A certificate chain with its key, as one end of a connection presents it. It has no `Debug`, because of the key.
pub struct Identity {
    /// The leaf, then its issuing CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

/// The certificate that the next handshake presents. Clones share it.
///
/// While there is none, a server refuses every handshake, and a client presents no certificate.
#[derive(Clone)]
pub struct CurrentIdentity(Arc<ArcSwapOption<CertifiedKey>>);

impl CurrentIdentity {
    /// Fails if the chain is empty, or if its leaf belongs to another key.
    pub fn new(identity: Identity) -> Result<CurrentIdentity, rustls::Error> {
        Ok(CurrentIdentity::of(Arc::new(certified(identity)?)))
    }

    /// The certificate of a key that is held elsewhere and cannot be extracted.
    pub(crate) fn of(certified: Arc<CertifiedKey>) -> CurrentIdentity {
        CurrentIdentity(Arc::new(ArcSwapOption::new(Some(certified))))
    }

    /// Presents this certificate from the next handshake on.
    pub(crate) fn show(&self, certified: Arc<CertifiedKey>) {
        self.0.store(Some(certified));
    }

    /// Starts without a certificate.
    pub(crate) fn empty() -> CurrentIdentity {
        CurrentIdentity(Arc::default())
    }

    /// From when and until when the certificate is valid. `None` if there is none.
    pub fn validity(&self) -> Option<Validity> {
        self.0.load().as_ref().and_then(|own| Validity::of(own.cert.first()?))
    }

    /// Presents no certificate from the next handshake on.
    pub(crate) fn hide(&self) {
        self.0.store(None);
    }

    /// Presents this certificate from the next handshake on. If it is refused, the previous one stays.
    pub fn replace(&self, identity: Identity) -> Result<(), rustls::Error> {
        self.0.store(Some(Arc::new(certified(identity)?)));
        Ok(())
    }
}

pub(crate) fn certified(identity: Identity) -> Result<CertifiedKey, rustls::Error> {
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
