//! The TLS configuration of a server.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::clock::Clock;

/// A server's TLS configuration. `chain` has the leaf first, `key` is PKCS#8 DER. With `roots`, client certificates are asked for
/// and not required; `None` means that they are not asked for. `clock` is the clock of verification; `None` means the machine's.
/// Fails if the key does not belong to the leaf, or if `roots` is empty.
pub fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: &Zeroizing<Vec<u8>>,
    roots: Option<rustls::RootCertStore>,
    clock: Option<Clock>,
) -> Result<ServerConfig, rustls::Error> {
    tls_with(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec())), roots, clock)
}

/// As [`tls`], with a key of any encoding.
pub fn tls_with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<rustls::RootCertStore>,
    clock: Option<Clock>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = match clock {
        Some(clock) => ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(clock)),
        None => ServerConfig::builder_with_provider(Arc::clone(&provider)),
    };
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                // T97: the subjects of the roots would tell strangers which trust domains are trusted. Clients do not need them.
                .clear_root_hint_subjects()
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    // T40: a resumed session would skip the verification of the client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
