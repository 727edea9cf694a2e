//! Permits: credentials that may be signed once they are recorded, and the checks for them that several acts share.

use std::sync::Arc;

use mayfly_verify::{AgentId, Binding, ClassName, Target, User, Workload, WorkloadName};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Check, DistinguishedName, Judgement, check_issuer_open, policy, who};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record;
use crate::state::authority::{Kind as AuthorityKind, Slot};
use crate::state::{Agent, Certificate, Done, Generation, Owner, Token, View};

/// How far the start of a certificate is backdated, in seconds, for verifiers whose clocks are behind.
pub(crate) const BACKDATE: u64 = 10;

/// The permit to sign an agent's X.509-SVID, or to return its ticket.
#[derive(Clone, Debug)]
pub struct Admission {
    id: AgentId,
    agent: Agent,
    certificate: Option<Certificate>,
    binding: Arc<Binding>,
    subject: Option<Arc<DistinguishedName>>,
    authority: Arc<str>,
}

impl Admission {
    /// The agent's SPIFFE ID.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The agent as it is recorded.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The certificate that may be signed. `None` while the agent has only a ticket.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// The binding that the certificate carries.
    pub fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    /// The Subject of the certificate. `None` means that it is empty.
    pub fn subject(&self) -> Option<&DistinguishedName> {
        self.subject.as_deref()
    }

    /// Id of the authority that was active when this was judged.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}

/// The permit to sign an agent's JWT-SVID.
#[derive(Clone, Debug)]
pub struct Mint {
    id: AgentId,
    token: Token,
    binding: Arc<Binding>,
    claims: Arc<Map<String, Value>>,
    authority: Arc<str>,
}

impl Mint {
    /// The agent's SPIFFE ID.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The token as it is recorded.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The binding that the token carries.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The further claims that the audience's configuration adds.
    pub fn claims(&self) -> &Arc<Map<String, Value>> {
        &self.claims
    }

    /// Id of the authority that was active when this was judged.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}

/// The permit to sign a workload's certificate.
#[derive(Clone, Debug)]
pub struct Certification {
    workload: WorkloadName,
    certificate: Certificate,
    authority: Arc<str>,
}

impl Certification {
    /// A permit for a certificate as it is recorded, to be signed by `authority`.
    pub(crate) fn new(workload: WorkloadName, certificate: Certificate, authority: Arc<str>) -> Certification {
        Certification { workload, certificate, authority }
    }

    /// The workload.
    pub fn workload(&self) -> &WorkloadName {
        &self.workload
    }

    /// The certificate as it is recorded.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Id of the authority that was active when this was judged.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}

/// A request id, with a digest of the request that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// SHA-256 of caller, method and id.
    pub key: [u8; 32],
    /// SHA-256 of the request.
    pub digest: [u8; 32],
}

/// A request id as a record has it.
pub(crate) fn request_record(request: &RequestId) -> record::Request {
    record::Request { key: request.key.to_vec(), digest: request.digest.to_vec() }
}

impl Judgement<'_> {
    /// The outcome of the same request, if it was made before. Another request under its id is denied.
    pub fn done(&self, request: Option<&RequestId>) -> Result<Option<Done>, Denial> {
        self.checking(Check::Request);
        let Some(request) = request else { return Ok(None) };
        match self.view().request(&request.key) {
            Some(done) if done.digest != request.digest => {
                let message = "the request id stands for another request: use a new one";
                Err(Denial::new(Kind::Conflict, "REQUEST_ID_REUSED", message))
            }
            done => Ok(done.cloned()),
        }
    }

    /// The authority of this kind that is active now.
    pub fn signer(&self, kind: AuthorityKind) -> Result<&Slot, Denial> {
        self.view().authorities().active(kind).filter(|slot| slot.ends_at > self.now()).ok_or_else(|| {
            let message = format!("no {kind} authority is active: an operator prepares and activates one");
            Denial::new(Kind::Unavailable, "AUTHORITY_MISSING", message)
        })
    }

    /// The authority that signs a token for these audiences. Fails if they do not verify the same algorithm.
    pub fn token_signer(&self, audiences: &[String]) -> Result<&Slot, Denial> {
        self.signer(self.rules().token_kind(audiences)?)
    }

    /// End of a certificate of `life` seconds, in Unix seconds: not after the lease, nor after the authority that signs (T16,
    /// T17).
    pub fn svid_end(&self, life: u64, lease_ends_at: u64) -> Result<u64, No> {
        self.checking(Check::Lifetime);
        let authority = self.signer(AuthorityKind::X509)?;
        let ends_at = self.now().saturating_add(life).min(lease_ends_at).min(authority.ends_at);
        if ends_at > self.now() { Ok(ends_at) } else { Err(Fault::new("certify", "the lease has ended").into()) }
    }

    /// Checks that a caller may get or give authority. On a connection from when it was current, an agent's replaced certificate
    /// may still be used for other calls, but gets nothing new, because somebody may hold a copy of it.
    pub fn check_generation(&self, caller: &Caller) -> Result<(), Denial> {
        self.checking(Check::Generation);
        let Caller::Agent { id, serial, .. } = caller else { return Ok(()) };
        if self.view().agent(&id.uuid).is_some_and(|agent| agent.generation(serial) == Generation::Past) {
            let message = "this connection is from before the last renewal: connect with the renewed certificate";
            return Err(Denial::denied("GENERATION_PAST", message));
        }
        Ok(())
    }

    /// Checks that the provider of a delegation's user is still configured.
    pub fn check_issuer(&self, user: &User) -> Result<(), Denial> {
        self.checking(Check::Grant);
        if self.rules().issuers.contains_key(&user.iss) {
            return check_issuer_open(self.view(), &user.iss);
        }
        let message = format!("the provider `{}` is no longer configured: what its users allowed has ended", user.iss);
        Err(Denial::denied("USER_TOKEN_ISSUER_UNKNOWN", message))
    }

    /// The permit for a certificate of an agent; `None` for an agent with a ticket.
    pub fn admission(&self, agent: &Agent, certificate: Option<Certificate>) -> Result<Admission, Denial> {
        let signer = self.signer(AuthorityKind::X509)?;
        // Only a retry can bring a certificate that was recorded under an earlier authority.
        if certificate.as_ref().is_some_and(|c| c.ends_at > signer.ends_at) {
            let message = "the credential of this request outlasts the authority that signs now: make a new request";
            return Err(Denial::new(Kind::Conflict, "REQUEST_DONE", message));
        }
        let revision = certificate.as_ref().map_or(agent.revision, |c| c.revision.get());
        let td = &self.rules().trust_domain;
        let binding = agent.binding(td, self.view().incarnation(), revision, &agent.mandate.scopes);
        Ok(Admission {
            id: agent.id(td),
            agent: agent.clone(),
            certificate,
            binding: Arc::new(binding),
            subject: self.subject(agent)?.map(Arc::new),
            authority: Arc::clone(&signer.id),
        })
    }

    /// The permit for the last certificate of an agent.
    pub fn last_certificate(&self, uuid: &Uuid) -> Result<Admission, No> {
        let agent = self.view().agent(uuid).ok_or_else(|| Fault::new("certify", "the agent is gone"))?;
        Ok(self.admission(agent, agent.last().cloned())?)
    }

    /// The permit for a token.
    pub fn mint(&self, token: Token) -> Result<Mint, No> {
        let agent = self.view().agent(&token.agent).ok_or_else(|| Fault::new("mint", "the agent is gone"))?;
        let scopes = token.narrowed.as_ref().unwrap_or(&agent.mandate.scopes);
        let td = &self.rules().trust_domain;
        let binding = agent.binding(td, self.view().incarnation(), token.revision, scopes);
        let authority = Arc::clone(&self.token_signer(&token.audiences)?.id);
        let claims = Arc::new(self.claims(agent, &token.audiences)?);
        Ok(Mint { id: agent.id(td), token, binding: Arc::new(binding), claims, authority })
    }

    /// The remaining authority of an agent under the present configuration: its own, limited by its class and by the class of every
    /// ancestor.
    pub fn authority_left(&self, agent: &Agent) -> Result<policy::Kept, Denial> {
        if let Some(delegation) = &agent.delegation {
            self.check_issuer(&delegation.user)?;
        }
        self.checking(Check::AuthorityLeft);
        let classes = &self.rules().classes;
        let left = |of: &Agent| policy::decide_again(classes.get(&of.mandate.class), &of.mandate.scopes, &of.mandate.audiences);
        let mut kept = left(agent)?;
        for ancestor in agent.ancestors().filter_map(|uuid| self.view().agent(&uuid)) {
            let allowed = left(ancestor)?;
            kept.scopes.retain(|scope| allowed.scopes.contains(scope));
            kept.audiences.retain(|audience| allowed.audiences.contains(audience));
        }
        if kept.scopes.is_empty() && !agent.mandate.scopes.is_empty() {
            return Err(Denial::denied("NOTHING_LEFT", "the agent's ancestors may no longer do any of what it may"));
        }
        Ok(kept)
    }

    /// Checks that a key was not revoked, because a revoked key is never certified again.
    pub fn check_key(&self, key: &[u8; 32]) -> Result<(), Denial> {
        self.checking(Check::Key);
        if self.view().key_revoked(key) {
            return Err(Denial::denied("KEY_REVOKED", "this key was revoked: make a new one"));
        }
        Ok(())
    }

    /// Checks that a key has no other owner, because a key belongs to one agent or workload. `may` says which owner may have it
    /// certified again.
    pub fn check_owner(&self, key: &[u8; 32], may: impl FnOnce(Owner<'_>) -> bool) -> Result<(), Denial> {
        self.checking(Check::Key);
        if self.view().owner(key).is_some_and(|owner| !may(owner)) {
            let message = "the key is certified already: a key belongs to one agent or workload, make a new one";
            return Err(Denial::new(Kind::Conflict, "KEY_IN_USE", message));
        }
        Ok(())
    }

    /// Checks that a workload is open, because a closed one gets nothing new.
    pub fn check_workload(&self, workload: &Workload) -> Result<(), Denial> {
        self.checking(Check::WorkloadOpen);
        let closed = self.view().is_closed(&Target::Workload(workload.clone()));
        if closed { Err(who::workload_closed()) } else { Ok(()) }
    }

    /// Checks that a class is open, because a closed one gets no new agents.
    pub fn check_class(&self, class: &ClassName) -> Result<(), Denial> {
        self.checking(Check::ClassOpen);
        if self.view().is_closed(&Target::Class(class.clone())) {
            let message = format!("class `{class}` was revoked: an operator must reopen it");
            return Err(Denial::denied("CLASS_CLOSED", message));
        }
        Ok(())
    }

    /// Unix microseconds by which every certificate or token that has been signed so far has expired.
    pub fn last_ends(&self, kind: AuthorityKind) -> u64 {
        let (life, until) = match (self.view().configured(), kind) {
            (Some((c, _)), AuthorityKind::X509) => (c.x509_life, c.x509_until),
            (Some((c, _)), AuthorityKind::Jwt | AuthorityKind::Rs256) => (c.jwt_life, c.jwt_until),
            (None, _) => (0, 0),
        };
        self.at().saturating_add(life.saturating_mul(SECOND)).max(until.saturating_mul(SECOND))
    }
}
