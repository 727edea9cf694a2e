//! The stories: what a request goes through, as columns of steps over the rooms.

pub mod desk;
pub mod inspect;
pub mod issue;
pub mod revoke;
pub mod rotate;

use std::sync::Arc;

use mayfly_verify::{AgentId, BindingOid, TrustDomain, WorkloadName, inspect_x509, sha256};
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;

use crate::assertion::Assertions;
use crate::authority::Authority;
use crate::caller::{Caller, Proved, authenticate, prove, prove_foreign, unauthenticated};
use crate::clock::{Clock, SECOND};
use crate::denial::{Denial, No};
use crate::foreign::{Foreign, Newest};
use crate::publish::Publisher;
use crate::publish::feed::Feed;
use crate::registry::state::{Generation, State};
use crate::registry::{Ask, Proposal, Registry, RequestId};
use desk::Desk;
use rotate::Rotator;

/// Everything a story needs, built once.
pub struct Issuer {
    /// Ours.
    pub trust_domain: TrustDomain,
    /// State and the way to change it.
    pub registry: Registry,
    /// Who signs.
    pub authority: Arc<Authority>,
    /// Bundles of foreign trust domains, and whose listed workloads may spawn.
    pub foreign: Arc<Foreign>,
    /// Who verifies user tokens.
    pub assertions: Assertions,
    /// Where groups are verified, committed and signed.
    pub desk: Desk,
    /// The public half of the authorities.
    pub publisher: Publisher,
    /// What tells verifiers of cuts.
    pub feed: Arc<Feed>,
    /// Who rotates them.
    pub rotator: Rotator,
    /// Workloads that are operators too.
    pub operators: Vec<WorkloadName>,
    /// A dry run looks at every agent: one at a time.
    pub counting: Semaphore,
    /// Tells the time.
    pub clock: Clock,
    /// What tickets tell their holders to connect to: `host:port`.
    pub address: String,
}

impl Issuer {
    /// What a peer's certificates prove; once for a connection, which was accepted when the journal's head was `opened`.
    pub fn prove(&self, chain: &[CertificateDer<'_>], opened: u64) -> Result<Proved, Denial> {
        let now = self.clock.seconds();
        match self.foreign_bundle(chain) {
            Some(newest) => prove_foreign(chain, (newest.bundle(), newest.generation()), self.oid(), opened, now),
            None => prove(chain, &self.publisher.now().bundle, self.oid(), opened, now),
        }
    }

    /// A foreign bundle may have changed since its peer was proved: then the chain is proved again.
    pub fn prove_again(&self, peer: &Proved, chain: &[CertificateDer<'_>]) -> Result<(), Denial> {
        let Some(id) = peer.foreign() else { return Ok(()) };
        let gone = || unauthenticated("CREDENTIAL_UNTRUSTED", "there is no bundle of the caller's trust domain any more");
        let newest = self.foreign.newest(id.trust_domain()).ok_or_else(gone)?;
        peer.prove_again(chain, (newest.bundle(), newest.generation()), self.oid(), self.clock.seconds())
    }

    /// XV-1: by which bundle a chain is judged follows from the trust domain that its leaf names, and from nothing else. None:
    /// by ours, which refuses every other trust domain.
    fn foreign_bundle(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<Newest>> {
        if self.foreign.is_empty() {
            return None;
        }
        let claimed = inspect_x509(chain.first()?, &self.trust_domain, self.oid()).ok()?;
        self.foreign.newest(claimed.id.trust_domain())
    }

    /// Who a proved peer is at this call.
    pub async fn caller(&self, peer: &Proved) -> Result<Caller, No> {
        let (caller, generation) = self.judge(peer)?;
        // The first use of a renewed certificate is recorded, and the use of a past one has consequences: at commit.
        if generation != Generation::Current {
            self.desk.run(Ask { caller: caller.clone(), proposal: Proposal::Present }, Vec::new()).await?;
        }
        Ok(caller)
    }

    /// Whether a connection's peer is nobody any more: everything it calls would be refused.
    pub fn is_over(&self, peer: &Proved) -> bool {
        self.judge(peer).is_err()
    }

    /// Who a proved peer is now, and by which of its certificates; nothing is recorded.
    fn judge(&self, peer: &Proved) -> Result<(Caller, Generation), Denial> {
        let now = self.clock.now();
        // What is known of an agent says more than what is cut: that comes below.
        let cut = |id: &AgentId, incarnation, stamps: &[_]| {
            let dead = |state: &State| {
                let known = incarnation == state.incarnation && state.agent(&id.uuid).is_some();
                !known && state.is_cut(incarnation, stamps)
            };
            self.registry.read(dead)
        };
        let caller = authenticate(peer, |id| self.foreign.spawner(id), cut, now / SECOND)?;
        if let Caller::Agent { authority, .. } | Caller::Workload { authority, .. } = &caller
            && self.registry.read(|state| state.authorities.tainted(authority))
        {
            // T42: the chain still leads to our root; who signed it says that it does not hold.
            let message = "the authority that signed this certificate is tainted: nothing it signed holds";
            return Err(unauthenticated("AUTHORITY_TAINTED", message));
        }
        if let Caller::Agent { key, .. } | Caller::Workload { key, .. } = &caller
            && self.registry.read(|state| state.key_revoked(key))
        {
            return Err(unauthenticated("KEY_REVOKED", "the key of this certificate was revoked: make a new one"));
        }
        let Caller::Agent { id, serial, incarnation, .. } = &caller else { return Ok((caller, Generation::Current)) };
        let known = |state: &State| {
            let agent = state.agent(&id.uuid).filter(|_| *incarnation == state.incarnation)?;
            Some((state.standing(agent, now), agent.generation(serial)))
        };
        let Some((standing, generation)) = self.registry.read(known) else {
            return Err(unauthenticated("AGENT_UNKNOWN", "this issuer does not know the agent"));
        };
        match standing.refusal() {
            Some((code, message)) => Err(unauthenticated(code, message)),
            None => Ok((caller, generation)),
        }
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
