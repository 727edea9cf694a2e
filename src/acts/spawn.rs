//! Spawn: a workload or an agent asks for a new agent.

mod many;
mod recorded;
mod request;

use mayfly_verify::{Binding, BindingError, ClassName, Workload};
use uuid::Uuid;

use crate::authority::{Seal, Signed};
use crate::caller::Caller;
use crate::csr::Key;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::bound::Proved;
use crate::judge::keyless::Held;
use crate::judge::policy::{self, Asked};
use crate::judge::{
    Act, Admission, BACKDATE, Chance, Check, Judgement, Mint, Proof, Proposed, RequestId, Use, release, request_record,
    unknown_agent,
};
use crate::ledger::Recorded;
use crate::pipeline::{Behalf, Issue};
use crate::policies::Action;
use crate::state::{Agent, Delegation, Done, Lineage, State, Token, View};
pub use many::{Many, spawn_many};
pub(crate) use recorded::AskedSpawn;
pub use request::{BATCH, Holds, Keys, SpawnRequest, Spawned, TICKET_LIFE, spawn};
pub(crate) use request::{asked, question};

use std::sync::Arc;

/// A spawn.
#[derive(Clone, Debug)]
pub struct Spawn {
    /// The class of the new agent.
    pub class: ClassName,
    /// How the agent gets its first certificate.
    pub credential: Credential,
    /// Proof of the user. With `None`, a workload's new agent is autonomous, and an agent's new agent inherits its user.
    pub proof: Option<Proof>,
    /// The authority that is asked for.
    pub asked: Asked,
    /// Audience of a first JWT-SVID. `None` asks for no token.
    pub audience: Option<String>,
    /// Makes a retry the same record.
    pub request: Option<RequestId>,
}

/// How a new agent gets its first certificate.
#[derive(Clone, Debug)]
pub enum Credential {
    /// At once, for this key.
    Key(Key),
    /// By a ticket.
    Ticket {
        /// The ticket's secret is derived from this nonce and the request id, so that a retry gets the same secret.
        nonce: [u8; 16],
        /// SHA-256 of its secret.
        hash: [u8; 32],
        /// Seconds for which it may be redeemed.
        life: u64,
    },
    /// The agent gets no certificate: its parent mints its tokens, on the connection with this certificate.
    Keyless(Proved),
}

/// The parts of the spawner that the new agent inherits.
struct Spawner {
    workload: Workload,
    delegation: Option<Arc<Delegation>>,
    /// The record of the delegation, if it is new.
    fresh: Option<record::Delegated>,
    lineage: Option<Arc<Lineage>>,
    permit: policy::Permit,
    /// Unix seconds at which the last certificate of a spawning agent expires. Not used if the spawner is a workload.
    certified_until: u64,
}

impl Spawner {
    /// The new agent, in the form in which policies judge it.
    fn proposes<'a>(&'a self, class: &'a policy::Class) -> Proposed<'a> {
        Proposed {
            class,
            workload: &self.workload,
            delegation: self.delegation.as_deref(),
            lineage: self.lineage.as_deref(),
            scopes: &self.permit.scopes,
            audiences: &self.permit.audiences,
            lease_ends_at: self.permit.lease_ends_at,
        }
    }
}

impl Act for Spawn {
    type Permit = (Admission, Option<Mint>);

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<Self::Permit, No> {
        // 1. A retry is the same agent again.
        if let Some(done) = j.done(self.request.as_ref())? {
            return self.again(j, &done);
        }
        if let Credential::Keyless(_) = &self.credential {
            j.may_spawn_keyless(caller)?;
        }
        // 2. The class, the user, and the authority that the spawner can give.
        j.checking(Check::ClassKnown);
        let class = j.rules().classes.get(&self.class).ok_or_else(|| policy::unknown_class(&self.class))?;
        let spawner = self.spawner(j, caller, class, chance)?;
        // An agent of a closed root, or below a revoked ancestor, cannot call at all, so only the workload and the class are
        // checked here.
        j.check_workload(&spawner.workload)?;
        j.check_class(&class.name)?;
        if let Some(audience) = &self.audience {
            j.checking(Check::Audience);
            policy::decide_mint(Some(class), &spawner.permit.audiences, audience)?;
            j.token_signer(std::slice::from_ref(audience))?;
        }
        j.policies_on_spawn(&spawner.proposes(class))?;
        // 3. The key, and how long its certificate lasts.
        let (key, ticket, nonce, life) = match &self.credential {
            Credential::Key(key) => {
                let key = key.proved()?.digest();
                j.check_key(&key)?;
                j.check_owner(&key, |_| false)?;
                (key.to_vec(), Vec::new(), Vec::new(), Some(class.svid_ttl))
            }
            Credential::Ticket { hash, nonce, life } => (Vec::new(), hash.to_vec(), nonce.to_vec(), Some(*life)),
            Credential::Keyless(_) => (Vec::new(), Vec::new(), Vec::new(), None),
        };
        let keyless = life.is_none();
        // An agent without a key has no certificate. It expires with the parent's certificate, and lives on when the parent renews.
        let svid_ends_at = match life {
            Some(life) => j.svid_end(life, spawner.permit.lease_ends_at)?,
            None => spawner.certified_until.min(spawner.permit.lease_ends_at),
        };
        let uuid = new_agent_id(j, chance)?;
        // 4. The agent as it will be recorded, and the limits.
        let Spawner { workload, delegation, fresh, lineage, permit, .. } = spawner;
        let parent = lineage.as_ref().and_then(|lineage| lineage.agents.first());
        let mut admitted = record::Admitted {
            agent: uuid.as_bytes().to_vec(),
            class: class.name.to_string(),
            workload: workload.to_string(),
            parent: parent.map(|(_, parent)| parent.as_bytes().to_vec()).unwrap_or_default(),
            delegation: delegation.as_ref().map(|d| d.id.0.to_vec()).unwrap_or_default(),
            key,
            scopes: permit.scopes,
            audiences: permit.audiences,
            depth_left: permit.depth_left,
            lease_ends_at: permit.lease_ends_at,
            svid_ends_at,
            svid_begins_at: j.now().saturating_sub(BACKDATE),
            serial: if keyless { Vec::new() } else { chance.serial().to_vec() },
            request: self.request.as_ref().map(request_record),
            clipped: permit.clipped,
            ticket,
            charges: Vec::new(),
            ticket_nonce: nonce,
            keyless,
        };
        let revision = j.view().revision() + 1 + u64::from(fresh.is_some());
        let mandate = j.view_mut().mandate(&admitted).map_err(|what| Fault::new("spawn", what))?;
        admitted.charges = j.charge(&mandate, delegation.as_deref(), lineage.as_deref())?;
        let agent = Agent::admitted(revision, j.at(), &admitted, mandate, delegation, lineage);
        let agent = agent.map_err(|e| Fault::new("spawn", e))?;
        let admission = j.admission(&agent, agent.current.clone())?;
        self.check_binding(j, &admission)?;
        if let Some(audience) = &self.audience {
            let audiences = std::slice::from_ref(audience);
            // T262: a first token is a mint, whoever asks for it.
            let of = Use { action: Action::Mint, audience: Some(audience), scopes: &agent.mandate.scopes, audiences };
            j.policies_on_use(&agent, of)?;
            j.claims(&agent, audiences)?;
        }
        // 5. Its records. Nothing is denied from here on.
        if let Some(delegated) = fresh {
            j.push(caller, Body::Delegated(delegated))?;
        }
        j.push_with(caller, Body::Admitted(admitted), Some(agent))?;
        let mint = match &self.audience {
            None => None,
            Some(audience) => {
                let audiences = std::slice::from_ref(audience);
                let held = match &self.credential {
                    Credential::Keyless(proved) => Some(Held::of(proved)?),
                    _ => None,
                };
                let of = super::mint::For { agent: uuid, lease: admission.agent().lease_ends_at, held };
                j.note_first_uses(caller, uuid, audiences)?;
                let minted = super::mint::minted(j, of, audiences, self.request.as_ref(), None, chance)?;
                let token = super::mint::push(j, caller, minted)?;
                Some(j.mint(token)?)
            }
        };
        Ok((admission, mint))
    }
}

impl Spawn {
    fn spawner(&self, j: &mut Judgement<'_>, caller: &Caller, class: &policy::Class, chance: &Chance) -> Result<Spawner, No> {
        let now = j.now();
        match caller {
            Caller::Workload { .. } | Caller::Foreign { .. } => {
                let workload = caller.workload().ok_or_else(|| Fault::new("spawn", "the caller is no workload"))?;
                if let Some(jag) = self.proof.as_ref().and_then(Proof::id_jag) {
                    j.check_id_jag(jag, &[workload.id(&j.rules().trust_domain)])?;
                    jag.check_plain()?;
                }
                let known = match &self.proof {
                    Some(proof) => Some(j.grant(&workload, proof, chance)?),
                    None => None,
                };
                let grant = known.as_ref().map(|(delegation, _)| policy::Grant {
                    user: &delegation.user,
                    scopes: delegation.scopes.as_deref(),
                    ends_at: delegation.ends_at / crate::clock::SECOND,
                });
                j.checking(Check::Authority);
                let permit = policy::decide_spawn(class, &policy::Standing::Workload(&workload, grant), &self.asked, now)?;
                let (delegation, fresh) = known.unzip();
                Ok(Spawner { workload, delegation, fresh: fresh.flatten(), lineage: None, permit, certified_until: u64::MAX })
            }
            Caller::Agent { id, .. } => {
                j.checking(Check::Grant);
                if self.proof.is_some() {
                    return Err(policy::token_of_agent().into());
                }
                j.check_generation(caller)?;
                let parent = j.view().agent(&id.uuid).ok_or_else(|| Fault::new("spawn", "the caller is gone"))?;
                if let Some(delegation) = &parent.delegation {
                    j.check_issuer(&delegation.user)?;
                }
                let standing = policy::Standing::Agent(policy::Parent {
                    class: &parent.mandate.class,
                    mode: parent.mode(),
                    scopes: &parent.mandate.scopes,
                    audiences: &parent.mandate.audiences,
                    depth_left: parent.mandate.depth_left,
                    lease_ends_at: parent.lease_ends_at,
                });
                j.checking(Check::Authority);
                let permit = policy::decide_spawn(class, &standing, &self.asked, now)?;
                Ok(Spawner {
                    workload: parent.mandate.workload.clone(),
                    delegation: parent.delegation.clone(),
                    fresh: None,
                    lineage: Some(parent.lineage_below()),
                    permit,
                    certified_until: parent.svid_ends_at,
                })
            }
            _ => Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads and agents spawn agents").into()),
        }
    }

    /// A binding that would not fit into its credential is a denial, before anything is recorded. The first token has the next
    /// revision.
    fn check_binding(&self, j: &Judgement<'_>, admission: &Admission) -> Result<(), Denial> {
        j.checking(Check::BindingSize);
        let too_large = |e: BindingError| Denial::denied("BINDING_TOO_LARGE", e.to_string());
        admission.binding().check_size().map_err(too_large)?;
        if self.audience.is_some() {
            let binding = Binding::clone(admission.binding());
            Binding { revision: binding.revision + 1, ..binding }.check_size().map_err(too_large)?;
        }
        Ok(())
    }

    /// The answer to the same request once more: the same agent, signed again.
    fn again(&self, j: &Judgement<'_>, done: &Done) -> Result<<Spawn as Act>::Permit, No> {
        let uuid = done.agent.ok_or_else(|| Fault::new("spawn", "a request without its agent"))?;
        let agent = j.view().agent(&uuid).ok_or_else(unknown_agent)?;
        if let Some((code, message)) = View::standing(j.view(), agent, j.at()).refusal() {
            return Err(Denial::denied(code, message).into());
        }
        if let Some(certificate) = &agent.current {
            j.check_key(&certificate.key)?;
        }
        j.checking(Check::Request);
        let first = match &self.credential {
            Credential::Key(_) => agent.last().is_some_and(|certificate| certificate.revision.get() == agent.revision),
            // The secret is derived again from the nonce that was recorded.
            Credential::Ticket { .. } => agent.rare.ticket.is_some() && agent.current.is_none(),
            Credential::Keyless(_) => agent.is_keyless(),
        };
        if !first {
            let message = "the agent of this request has its identity already, and has moved on from the first one";
            return Err(Denial::new(Kind::Conflict, "REQUEST_DONE", message).into());
        }
        let mint = done.token.as_ref().map(|token| j.mint(Token::clone(token))).transpose()?;
        Ok((j.admission(agent, agent.current.clone())?, mint))
    }
}

/// A new UUIDv7. An id is never used twice.
fn new_agent_id(j: &Judgement<'_>, chance: &Chance) -> Result<Uuid, Fault> {
    let uuid = uuid::Builder::from_unix_timestamp_millis(j.at() / 1000, &chance.agent()).into_uuid();
    // There are 74 random bits for each millisecond: a repeat means that the source of randomness is broken.
    if j.view().agent(&uuid).is_some() { Err(Fault::new("spawn", "the same id twice")) } else { Ok(uuid) }
}

/// The signatures of a spawn.
pub struct Signatures {
    /// The agent.
    pub admission: Admission,
    /// Its certificate. `None` if it got a ticket, or has no key.
    pub certificate: Option<Signed>,
    /// Its first token, if one was asked for.
    pub jwt: Option<(Mint, String)>,
}

impl Issue for Spawn {
    type Answer = Signatures;

    fn behalf<'a>(&'a self, state: &'a State) -> Behalf<'a> {
        let delegation = match &self.proof {
            None => None,
            Some(Proof::Token { user, .. }) => return Behalf::User(user),
            Some(Proof::IdJag(jag)) => return Behalf::User(&jag.user),
            Some(Proof::Recorded(proof)) => state.delegation_by_proof(proof, state.at),
            Some(Proof::Delegation(id)) => state.delegation(id, state.at),
        };
        delegation.map_or(Behalf::Caller, |delegation| Behalf::User(&delegation.user))
    }

    fn prove(&mut self) -> Result<(), Denial> {
        match &mut self.credential {
            Credential::Key(key) => key.prove(),
            Credential::Ticket { .. } | Credential::Keyless(_) => Ok(()),
        }
    }

    fn sign(&self, permit: Recorded<Self::Permit>, seal: &Seal) -> Result<Signatures, Fault> {
        let (admission, mint) = permit.split();
        let (admission, certificate) = match &self.credential {
            Credential::Key(key) => {
                let (admission, signed) = seal.agent(admission, key.proved()?)?;
                (admission, Some(signed))
            }
            Credential::Ticket { .. } | Credential::Keyless(_) => (admission.spend(), None),
        };
        let jwt = mint.map(|mint| seal.token(mint)).transpose()?;
        Ok(Signatures { admission, certificate, jwt })
    }

    fn look_again(answer: &Signatures, state: &State) -> Result<(), Denial> {
        release::admission(state, &answer.admission)?;
        answer.jwt.as_ref().map_or(Ok(()), |(mint, _)| release::mint(state, mint))
    }
}
