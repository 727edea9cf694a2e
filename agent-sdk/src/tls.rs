//! TLS between agents and services, by SPIFFE ID: complete settings for rustls, and the verifiers in them.
//!
//! ```no_run
//! # fn example(identity: mayfly_agent::channel::Identity, verifier: mayfly_agent::peers::Verifier)
//! # -> Result<(), rustls::Error> {
//! use mayfly_agent::peers::Authorize;
//! use mayfly_agent::tls::{CurrentIdentity, client_config, server_config};
//!
//! let own = CurrentIdentity::new(identity)?;
//! let ours = Authorize::trust_domain(verifier.own().clone());
//! let server = server_config(&own, &verifier, ours.clone())?;
//! let client = client_config(&own, &verifier, ours)?;
//! // When the identity was renewed: own.replace(renewed)?
//! # let _ = (server, client);
//! # Ok(())
//! # }
//! ```
//!
//! What holds for both ends, and may be asked of every connection:
//!
//! - The peer's chain leads to the bundle of its own trust domain (XV-1), its leaf has the profile (XV-2 to XV-4), and an
//!   agent its binding; it is in time, and nothing that it relies on is cut. The alert says which: certificate expired,
//!   certificate revoked, access denied. What is revoked and not known is refused: unknown CA, as elsewhere.
//! - No session is resumed and no ticket given (T40): each connection proves all of this anew.
//! - The server's name has no meaning. Who it is stands in its SPIFFE ID, and only [`Authorize`] says whether that is right.
//! - Versions 1.2 and 1.3, with the signature algorithms of the provider; ALPN offers `h2` and `http/1.1`. `alpn_protocols` is
//!   the one setting to change.
//!
//! Between handshakes nothing is looked at here: see [`listen`](crate::listen) and [`delegation`](crate::delegation).

mod identity;
pub(crate) mod signatures;
mod verifier;

use std::sync::Arc;

pub use identity::CurrentIdentity;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};
pub use verifier::PeerVerifier;

use crate::peers::{Authorize, Verifier};

/// A server's settings: every client must prove that it is one of those whom `authorize` allows.
pub fn server_config(own: &CurrentIdentity, verifier: &Verifier, authorize: Authorize) -> Result<ServerConfig, rustls::Error> {
    server(own, verifier, PeerVerifier::new(verifier.clone(), authorize))
}

/// The same for a server that also takes clients without a certificate, which prove nothing: for those with a bearer token.
/// A certificate that does not hold is refused all the same.
pub fn server_config_optional(
    own: &CurrentIdentity,
    verifier: &Verifier,
    authorize: Authorize,
) -> Result<ServerConfig, rustls::Error> {
    server(own, verifier, PeerVerifier::new(verifier.clone(), authorize).optional())
}

/// A client's settings: the server must prove that it is one of those whom `authorize` allows, and we show who we are.
pub fn client_config(own: &CurrentIdentity, verifier: &Verifier, authorize: Authorize) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(verifier.clock().clone()))
        .with_safe_default_protocol_versions()?
        .dangerous() // It replaces the check of the name by the check of the SPIFFE ID.
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(verifier.clone(), authorize)))
        .with_client_cert_resolver(Arc::new(own.clone()));
    // T40: a resumed session would skip the verifier.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn();
    Ok(config)
}

fn server(own: &CurrentIdentity, verifier: &Verifier, peers: PeerVerifier) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(verifier.clock().clone()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(peers))
        .with_cert_resolver(Arc::new(own.clone()));
    // T40.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn();
    Ok(config)
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
