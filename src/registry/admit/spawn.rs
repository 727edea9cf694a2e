//! Admit a spawn: who asks, what it may give, what it uses up.

use std::sync::Arc;

use mayfly_verify::{Binding, BindingError, DelegationId, Stamp, Target, User, Workload, sha256};
use serde_json::json;
use uuid::Uuid;

use super::certify::token_of;
use super::{BACKDATE, Batch, key_in_use, random, request_record, serial, unknown_agent};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::policy::limits::{self, Full, Limit, Measure, Per, Reading};
use crate::policy::{self, Class, Grant};
use crate::registry::proposal::{Credential, Outcome, Proof, Spawn};
use crate::registry::state::mandate::Words;
use crate::registry::state::{Agent, Count, Delegation, Done, Lineage, Misfit, Seat, State, Token, seconds};

impl Batch<'_> {
    pub(super) fn spawn(&mut self, caller: &Caller, spawn: &Spawn) -> Result<Outcome, No> {
        if let Some(done) = self.done(spawn.request.as_ref())? {
            return self.spawned_before(&done, &spawn.credential);
        }
        let class = self.rules.classes.get(&spawn.class).ok_or_else(|| policy::unknown_class(&spawn.class))?;
        let now = self.at / SECOND;
        // Who asks, and what it may give.
        let (by, delegation, fresh, lineage, permit) = match caller {
            Caller::Workload { .. } | Caller::Foreign { .. } => {
                let by = caller.workload().ok_or_else(|| Fault::new("spawn", "the caller is no workload"))?;
                let known = spawn.proof.as_ref().map(|proof| self.delegation(&by, proof)).transpose()?;
                let grant = known.as_ref().map(|(d, _)| Grant {
                    user: &d.user,
                    scopes: d.scopes.as_deref(),
                    ends_at: d.ends_at / SECOND,
                });
                let permit = policy::decide_spawn(class, &policy::Standing::Workload(&by, grant), &spawn.asked, now)?;
                let (delegation, fresh) = known.unzip();
                (by, delegation, fresh.flatten(), None, permit)
            }
            Caller::Agent { id, .. } => {
                if spawn.proof.is_some() {
                    return Err(policy::token_of_agent().into());
                }
                let parent = self.agent(&id.uuid).ok_or_else(|| Fault::new("spawn", "the caller is gone"))?;
                let standing = policy::Standing::Agent(policy::Parent {
                    class: &parent.mandate.class,
                    mode: parent.mode(),
                    scopes: &parent.mandate.scopes,
                    audiences: &parent.mandate.audiences,
                    depth_left: parent.mandate.depth_left,
                    lease_ends_at: parent.lease_ends_at,
                });
                let permit = policy::decide_spawn(class, &standing, &spawn.asked, now)?;
                (parent.mandate.workload.clone(), parent.delegation.clone(), None, Some(parent.lineage_below()), permit)
            }
            _ => return Err(Denial::denied("ROLE_NOT_ALLOWED", "only workloads and agents spawn agents").into()),
        };
        // Below a root or an ancestor that was cut nobody lives who could ask: what is left is who asks first.
        self.check_workload(&by)?;
        self.check_class(&class.name)?;
        if let Some(audience) = &spawn.audience {
            policy::decide_mint(Some(class), &permit.audiences, audience)?;
        }
        if let Credential::Key(key) = &spawn.credential {
            self.check_key(key)?;
        }
        let (key, ticket, life) = match &spawn.credential {
            Credential::Key(key) if self.owner(key).is_some() => return Err(key_in_use().into()),
            Credential::Key(key) => (key.to_vec(), Vec::new(), class.svid_ttl),
            Credential::Ticket(hash, life) => (Vec::new(), hash.to_vec(), *life),
        };
        let svid_ends_at = self.svid_end(life, permit.lease_ends_at)?;
        let uuid = self.new_agent_id()?;
        let charges = self.charge(&by, delegation.as_deref(), lineage.as_deref(), class)?;
        let admitted = record::Admitted {
            agent: uuid.as_bytes().to_vec(),
            class: class.name.to_string(),
            workload: by.to_string(),
            parent: lineage.as_ref().and_then(|l| l.agents.first()).map(|(_, p)| p.as_bytes().to_vec()).unwrap_or_default(),
            delegation: delegation.as_ref().map(|d| d.id.0.to_vec()).unwrap_or_default(),
            key,
            scopes: permit.scopes,
            audiences: permit.audiences,
            depth_left: permit.depth_left,
            lease_ends_at: permit.lease_ends_at,
            svid_ends_at,
            svid_begins_at: now.saturating_sub(BACKDATE),
            serial: serial()?.to_vec(),
            request: spawn.request.as_ref().map(request_record),
            clipped: permit.clipped,
            ticket,
            charges,
        };
        let next = self.top.revision + 1 + u64::from(fresh.is_some());
        let words = Words::of(&admitted);
        let mandate = self.base.mandates.known(&words).map_or_else(|| self.top.mandates.share(&words), Ok);
        let agent = mandate.map_err(|what| Misfit { revision: next, what });
        let agent = agent.and_then(|mandate| Agent::admitted(next, self.at, &admitted, mandate, delegation.clone(), lineage));
        let agent = agent.map_err(|e| Fault::new("admit", e))?;
        let admission = self.admission(&agent, agent.current.clone())?;
        // DESIGN 3: a binding that would exceed its size is a denial before commit. A first token's has the next revision.
        let too_large = |e: BindingError| Denial::denied("BINDING_TOO_LARGE", e.to_string());
        admission.binding.check_size().map_err(too_large)?;
        if spawn.audience.is_some() {
            Binding { revision: next + 1, ..Binding::clone(&admission.binding) }.check_size().map_err(too_large)?;
        }

        if let Some(delegated) = fresh {
            self.push(caller, Body::Delegated(delegated))?;
        }
        self.push_with(caller, Body::Admitted(admitted), Some(agent))?;
        let mut mint = None;
        if let Some(audience) = &spawn.audience {
            let lease = admission.agent.lease_ends_at;
            let minted = self.minted(uuid, std::slice::from_ref(audience), lease, spawn.request.as_ref(), None)?;
            let revision = self.push(caller, Body::Minted(minted.clone()))?;
            mint = Some(self.mint_of(token_of(&minted, uuid, revision)?)?);
        }
        Ok(Outcome::Spawned(admission, mint))
    }

    /// What a spawn uses up of every limit that it meets; all of it, or the refusal of the first that is full.
    pub(super) fn charge(
        &self,
        root: &Workload,
        delegation: Option<&Delegation>,
        lineage: Option<&Lineage>,
        class: &Class,
    ) -> Result<Vec<record::Charge>, Denial> {
        let mut charges = Vec::new();
        for limit in &self.rules.limits {
            let agents = lineage.map(|l| l.agents.as_slice()).unwrap_or_default();
            let targets: Vec<Target> = match limit.per {
                Per::User => delegation.iter().map(|d| Target::User(d.user.clone())).collect(),
                Per::Root => vec![Target::Workload(root.clone())],
                Per::Workload if agents.is_empty() => vec![Target::Workload(root.clone())],
                Per::Workload => vec![],
                // Only the spawner has children; what lives below counts for everybody above.
                Per::Parent if matches!(limit.measure, Measure::FanOut(_)) => {
                    agents.first().map(|(_, uuid)| Target::Agent(*uuid)).into_iter().collect()
                }
                Per::Parent => agents.iter().map(|(_, uuid)| Target::Agent(*uuid)).collect(),
                Per::Class => vec![Target::Class(class.name.clone())],
            };
            for target in targets {
                let subject = target.subject();
                let refuse = |full: Full| refused(limit, full);
                match limit.measure {
                    Measure::Live(most) => {
                        let count = match limit.per {
                            Per::Class => Count::OfClass,
                            Per::Workload => Count::DirectlyBelow,
                            _ => Count::Below,
                        };
                        limits::live(self.seats(Seat(count, subject)), most).map_err(refuse)?;
                    }
                    Measure::FanOut(most) => {
                        limits::live(self.seats(Seat(Count::DirectlyBelow, subject)), most).map_err(refuse)?;
                    }
                    Measure::Rate { period, burst } => {
                        let meter = meter(limit, &subject.0);
                        charges.push((meter, limits::rate(self.meter(&meter), period, burst, self.at).map_err(refuse)?));
                    }
                    Measure::Total { most, window } => {
                        let meter = meter(limit, &subject.0);
                        charges.push((meter, limits::total(self.meter(&meter), most, window, self.at).map_err(refuse)?));
                    }
                }
            }
        }
        let charge = |(meter, r): ([u8; 16], Reading)| record::Charge { meter: meter.to_vec(), value: r.value, until: r.until };
        Ok(charges.into_iter().map(charge).collect())
    }

    /// The delegation behind a proof, and its record if it is new.
    pub(super) fn delegation(&self, by: &Workload, proof: &Proof) -> Result<(Arc<Delegation>, Option<record::Delegated>), No> {
        let look = |state: &'_ State| match proof {
            Proof::Token { proof, .. } | Proof::Recorded(proof) => state.delegation_by_proof(proof, self.at).cloned(),
            Proof::Delegation(id) => state.delegation(id, self.at).cloned(),
        };
        if let Some(known) = look(&self.top).or_else(|| look(self.base)) {
            if known.workload != *by {
                // T13: an id proves nothing; of another's delegation nothing is told.
                if let Proof::Delegation(id) = proof {
                    return Err(unknown_delegation(id).into());
                }
                tracing::warn!(recorded = %known.workload, presented = %by, "a user token was presented by another workload");
                let message = "this user token belongs to another workload: every workload brings its own";
                return Err(Denial::denied("USER_TOKEN_OF_ANOTHER", message).into());
            }
            self.check_user(&known.user, None)?;
            let everything = Stamp { subject: Target::TrustDomain.subject(), since: known.revision };
            if self.killed(&known.stamps()) || self.dead(&everything) {
                let message = "what this user token allowed was revoked: bring one that was issued after that";
                return Err(Denial::denied("DELEGATION_REVOKED", message).into());
            }
            return Ok((known, None));
        }
        if let Proof::Delegation(id) = proof {
            return Err(unknown_delegation(id).into());
        }
        let Proof::Token { user, proof, token, issued_at, ends_at, workloads, scopes } = proof else {
            return Err(Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token").into());
        };
        if !workloads.contains(by) {
            let message = format!("workload `{by}` may not present tokens of this audience");
            return Err(Denial::denied("USER_TOKEN_AUDIENCE", message).into());
        }
        self.check_user(user, Some(*issued_at))?;
        if self.at >= seconds(*ends_at) {
            return Err(Denial::denied("USER_TOKEN_EXPIRED", "the user token has expired: bring a fresh one").into());
        }
        // RFC 8785: members sorted, no white space; integers and strings only.
        let canonical = json!({ "ends_at": ends_at, "iss": user.iss, "nonce": hex::encode(random::<16>()?),
            "scopes": scopes, "sub": user.sub, "workload": by.to_string() });
        let id = DelegationId(sha256(canonical.to_string().as_bytes()));
        let body = record::Delegated {
            id: id.0.to_vec(),
            iss: user.iss.clone(),
            sub: user.sub.clone(),
            workload: by.to_string(),
            proof: proof.to_vec(),
            token: token.to_vec(),
            scopes_limited: scopes.is_some(),
            scopes: scopes.clone().unwrap_or_default(),
            ends_at: seconds(*ends_at),
        };
        let delegation = Delegation::recorded(self.top.revision + 1, &body).map_err(|e| Fault::new("admit", e))?;
        Ok((Arc::new(delegation), Some(body)))
    }

    /// A closed user admits nothing; a proof counts only if it was issued after the user's last cut or reopening.
    pub(super) fn check_user(&self, user: &User, issued_at: Option<u64>) -> Result<(), Denial> {
        let standing = self.target(&Target::User(user.clone()));
        if standing.is_some_and(|s| s.closed) {
            return Err(Denial::denied("USER_CLOSED", "this user was revoked: an operator must reopen them"));
        }
        let everything = self.target(&Target::TrustDomain);
        let since = standing.into_iter().chain(everything).map(|s| s.since).max();
        // A token tells whole seconds: one from the second of the cut may be from before it.
        if issued_at.zip(since).is_some_and(|(at, since)| at <= since / SECOND) {
            return Err(Denial::denied(
                "USER_TOKEN_TOO_EARLY",
                "the user token is from before the user's revocation: bring a fresh one",
            ));
        }
        Ok(())
    }

    pub(super) fn spawned_before(&self, done: &Done, credential: &Credential) -> Result<Outcome, No> {
        let uuid = done.agent.ok_or_else(|| Fault::new("spawn", "a request without its agent"))?;
        let agent = self.agent(&uuid).ok_or_else(unknown_agent)?;
        if let Some((code, message)) = self.standing(agent).refusal() {
            return Err(Denial::denied(code, message).into());
        }
        if let Some(certificate) = &agent.current {
            self.check_key(&certificate.key)?;
        }
        let first = match credential {
            Credential::Key(_) => agent.last().is_some_and(|c| c.revision == agent.revision),
            Credential::Ticket(hash, _) => agent.rare.ticket == Some(*hash) && agent.current.is_none(),
        };
        if !first {
            let message = "the agent of this request has its identity already, and has moved on from the first one";
            return Err(Denial::new(Kind::Conflict, "REQUEST_DONE", message).into());
        }
        let mint = done.token.as_ref().map(|token| self.mint_of(Token::clone(token))).transpose()?;
        Ok(Outcome::Spawned(self.admission(agent, agent.current.clone())?, mint))
    }

    pub(super) fn new_agent_id(&self) -> Result<Uuid, Fault> {
        let uuid = uuid::Builder::from_unix_timestamp_millis(self.at / 1000, &random::<10>()?).into_uuid();
        // 74 random bits per millisecond; a repeat means the source of chance is broken.
        if self.agent(&uuid).is_some() { Err(Fault::new("spawn", "the same id twice")) } else { Ok(uuid) }
    }
}

fn unknown_delegation(id: &DelegationId) -> Denial {
    let message = format!("there is no delegation `{id}` that names this workload, or it has ended: bring a user token");
    Denial::new(Kind::NotFound, "DELEGATION_UNKNOWN", message)
}

/// A limit's refusal: which, its value, what is used, and when to ask again.
fn refused(limit: &Limit, full: Full) -> Denial {
    let (per, measure) = (limit.per.as_str(), limit.measure.as_str());
    let message = format!(
        "limit `{}` ({measure} per {per}) is reached: {} of {} are used{}",
        limit.name,
        full.used,
        full.limit,
        if full.retry.is_some() { "" } else { "; places come back when agents end or expire" }
    );
    let denial = Denial::new(Kind::Exhausted, "LIMIT_REACHED", message).with("limit", limit.name.clone());
    let denial = denial.with("per", per).with("measure", measure).with("value", full.limit.to_string());
    denial.with("used", full.used.to_string()).retry_after(full.retry)
}

/// Which meter a limit has for a subject.
fn meter(limit: &Limit, subject: &[u8; 16]) -> [u8; 16] {
    let name = limit.name.as_bytes();
    let kind = limit.measure.as_str().as_bytes();
    let parts: [&[u8]; 5] = [name, b"\0", kind, b"\0", subject];
    let mut meter = [0u8; 16];
    for (to, from) in meter.iter_mut().zip(sha256(&parts.concat())) {
        *to = from;
    }
    meter
}
