//! The stories: what a request goes through, as columns of steps over the rooms.

pub mod desk;
pub mod inspect;
pub mod issue;
pub mod revoke;

use std::sync::Arc;

use mayfly_verify::{BindingOid, Bundle, TrustDomain, sha256};
use rustls_pki_types::CertificateDer;

use crate::assertion::Assertions;
use crate::authority::Authority;
use crate::caller::{Caller, Proved, authenticate, prove};
use crate::clock::Clock;
use crate::denial::Denial;
use crate::registry::{Registry, RequestId};
use desk::Desk;

/// Everything a story needs, built once.
pub struct Issuer {
    /// Ours.
    pub trust_domain: TrustDomain,
    /// State and the way to change it.
    pub registry: Registry,
    /// Who signs.
    pub authority: Arc<Authority>,
    /// Who verifies user tokens.
    pub assertions: Assertions,
    /// Where groups are verified, committed and signed.
    pub desk: Desk,
    /// The public half of the authorities.
    pub bundle: Bundle,
    /// Tells the time.
    pub clock: Clock,
    /// What tickets tell their holders to connect to: `host:port`.
    pub address: String,
}

impl Issuer {
    /// What a peer's certificates prove; once for a connection.
    pub fn prove(&self, chain: &[CertificateDer<'_>]) -> Result<Proved, Denial> {
        prove(chain, &self.bundle, self.oid(), self.clock.seconds())
    }

    /// Who a proved peer is at this call.
    pub fn caller(&self, peer: &Proved) -> Result<Caller, Denial> {
        let cut = |incarnation, stamps: &[_]| self.registry.read(|state| state.is_cut(incarnation, stamps));
        authenticate(peer, cut, self.clock.seconds())
    }

    /// Under which OID the binding stands.
    pub fn oid(&self) -> &BindingOid {
        self.authority.oid()
    }
}

/// A request id of one caller and method, with a digest of what is asked; none when the client gave none.
fn request_id(caller: &Caller, method: &str, id: &str, asked: &[&[u8]]) -> Result<Option<RequestId>, Denial> {
    if id.is_empty() {
        return Ok(None);
    }
    if id.len() > 64 || !id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Denial::malformed("REQUEST_ID_MALFORMED", "the request id has 1 to 64 visible ASCII characters"));
    }
    let key = digest(&[caller.scope().as_bytes(), method.as_bytes(), id.as_bytes()]);
    Ok(Some(RequestId { key, digest: digest(asked) }))
}

/// SHA-256 over parts, each with its length before it.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256(&bytes)
}
