//! TLS between agents and services, by SPIFFE ID: complete settings for rustls, and their verifiers.
//!
//! ```no_run
//! # fn example(identity: mayfly_agent::tls::Identity, verifier: mayfly_agent::peers::Verifier)
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
//! Both ends of every connection have these properties:
//!
//! - The peer's chain leads to the bundle of its own trust domain (XV-1), its leaf has the SPIFFE profile (XV-2 to XV-4), and an
//!   agent has its binding. It is not expired, and nothing that it relies on is revoked. The TLS alert names the reason:
//!   certificate expired, certificate revoked, access denied. If it is unknown whether it is revoked, it is refused too.
//! - No session is resumed, and no session ticket is sent (T40): each connection is verified from the beginning.
//! - The server's host name has no meaning. Its SPIFFE ID says who it is, and only [`Authorize`] decides whether that is right.
//! - TLS 1.2 and 1.3, with the signature algorithms of the provider. ALPN offers `h2` and `http/1.1`; `alpn_protocols` is the one
//!   setting that you may change.
//!
//! These settings act at handshakes only. For the time in between see [`listen`](crate::listen) and
//! [`delegation`](crate::delegation).

mod identity;
mod server;
mod signatures;
mod verifier;

use std::sync::Arc;

pub(crate) use identity::certified;
pub use identity::{CurrentIdentity, Identity};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};
pub use server::ServerVerifier;
pub use verifier::PeerVerifier;

use crate::peers::{Authorize, Verifier};

/// Settings of a server. Every client must present a certificate of a peer that `authorize` allows.
pub fn server_config(own: &CurrentIdentity, verifier: &Verifier, authorize: Authorize) -> Result<ServerConfig, rustls::Error> {
    server(own, verifier, PeerVerifier::new(verifier.clone(), authorize))
}

/// The same for a server that also accepts clients without a certificate, which may have a bearer token. A certificate that is
/// presented must still be valid and allowed.
pub fn server_config_optional(
    own: &CurrentIdentity,
    verifier: &Verifier,
    authorize: Authorize,
) -> Result<ServerConfig, rustls::Error> {
    server(own, verifier, PeerVerifier::new(verifier.clone(), authorize).optional())
}

/// Settings of a client. The server must be a peer that `authorize` allows, and our own certificate is presented.
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
    // T40: no sessions are kept and no tickets sent.
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
