//! Secret discovery (SDS) of Envoy: `envoy.service.secret.v3.SecretDiscoveryService`, with the names that SPIRE's agents answer to.
//!
//! | name | secret |
//! |---|---|
//! | `default`, or the SPIFFE ID of the identity | certificate chain and private key, as one |
//! | `ROOTCA`, or `spiffe://` and the trust domain | the roots of that trust domain |
//! | `ALL` | the roots of every trust domain, for Envoy's SPIFFE validator |
//!
//! A request without names gets the identity and each bundle. A request with any other name is refused as a whole, because Envoy
//! would wait for a secret that never comes.
//!
//! A stream gets all requested secrets at once, and again when one of them has changed. Delta is UNIMPLEMENTED.
//!
//! Every client gets the private key, so access to the socket must be restricted (T197).

mod secrets;
mod stream;

pub use secrets::Material;
pub use stream::{Admit, Sds, service};

/// Full name of the service, for health and reflection.
pub const SERVICE: &str = "envoy.service.secret.v3.SecretDiscoveryService";
/// File descriptors for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));
