//! Converts a record of the journal to an entry: its subject, user, caller and result.

use mayfly_verify::{DelegationId, TrustDomain, Workload, workload_id};
use uuid::Uuid;

use super::entry::{Draft, Opening, Outcome, Person, issued};
use super::kinds::{kind, unit};
use crate::caller::{Caller, Origin};
use crate::clock::{SECOND, rfc3339};
use crate::journal::record::record::Body;
use crate::journal::record::{self, Admitted, Answered, Asked, Cut, Delegated, Exchanged, Minted, Record, cut, reopened};
use crate::ledger::Noted;
use crate::state::{Agent, Delegation, State, View};

/// Converts records with the help of the current state of agents and delegations.
pub(super) struct Translator<'a> {
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) state: &'a State,
    /// Whether the records were read from the journal after a stop.
    pub(super) late: bool,
}

impl Translator<'_> {
    /// The entry of a record, apart from its decision.
    pub(super) fn draft(&self, noted: &Noted) -> Draft {
        let Record { at, operator, body } = &noted.record;
        let mut draft = Draft::new(kind(body.as_ref()), *at, Outcome::Recorded);
        draft.leaf.revision = noted.revision;
        draft.opening.late = self.late;
        self.body(&mut draft, body.as_ref());
        if !operator.is_empty() {
            draft.opening.caller.clone_from(operator);
        }
        if let Some(origin) = &noted.origin {
            from(&mut draft.opening, origin);
        }
        if draft.opening.caller.is_empty() {
            draft.opening.caller = "issuer".into();
        }
        draft
    }

    fn body(&self, draft: &mut Draft, body: Option<&Body>) {
        match body {
            Some(Body::Opened(opened)) => {
                draft.opening.reason = format!("incarnation {}", Uuid::from_slice(&opened.incarnation).unwrap_or_default());
            }
            Some(Body::TicketMade(made)) => {
                draft.leaf.root_id = self.workload(&made.workload);
                draft.opening.ends_at = made.ends_at / SECOND;
            }
            Some(Body::Certified(certified)) => {
                draft.leaf.root_id = self.workload(&certified.workload);
                draft.opening.caller.clone_from(&draft.leaf.root_id);
                credential(draft, &certified.key, &certified.serial, certified.ends_at);
            }
            Some(Body::Delegated(delegated)) => self.delegated(draft, delegated),
            Some(Body::Admitted(admitted)) => self.admitted(draft, admitted),
            Some(Body::Redeemed(r)) => self.certificate(draft, &r.agent, (&r.key, &r.serial, r.ends_at)),
            Some(Body::Renewed(r)) => {
                self.certificate(draft, &r.agent, (&r.key, &r.serial, r.ends_at));
                if r.narrowed {
                    draft.opening.scopes.clone_from(&r.scopes);
                    draft.opening.audiences.clone_from(&r.audiences);
                }
            }
            Some(Body::Used(used)) => self.by_itself(draft, &used.agent),
            Some(Body::FirstUse(first)) => {
                self.by_itself(draft, &first.agent);
                draft.opening.audiences = vec![first.audience.clone()];
            }
            Some(Body::WorkloadUsed(used)) => {
                draft.leaf.root_id = self.workload(&used.workload);
                draft.opening.caller.clone_from(&draft.leaf.root_id);
            }
            Some(Body::Extended(extended)) => {
                self.by_itself(draft, &extended.agent);
                draft.opening.ends_at = extended.lease_ends_at;
                draft.opening.target = format!("token covered by sha256:{}", hex::encode(&extended.proof));
            }
            Some(Body::Minted(minted)) => self.minted(draft, minted),
            Some(Body::Exchanged(exchanged)) => self.exchanged(draft, exchanged),
            Some(Body::Asked(asked)) => self.asked(draft, asked),
            Some(Body::Answered(answered)) => self.answered(draft, answered),
            Some(Body::Ended(ended)) => {
                self.agent(draft, &ended.agent);
                draft.opening.caller.clone_from(&ended.by);
            }
            Some(Body::Cut(cut)) => self.cut(draft, cut),
            Some(Body::Reopened(reopened)) => match &reopened.target {
                Some(reopened::Target::User(user)) => for_user(draft, user),
                Some(reopened::Target::Workload(name)) => self.for_workload(draft, name),
                Some(reopened::Target::Class(class)) => for_class(draft, class),
                Some(reopened::Target::Issuer(iss)) => for_issuer(draft, iss),
                None => {}
            },
            Some(Body::Configured(configured)) => {
                draft.opening.target = format!("classes {}", hex::encode(&configured.classes));
                if !configured.policies.is_empty() {
                    draft.opening.target.push_str(&format!(", policies {}", hex::encode(&configured.policies)));
                }
                if !configured.written.is_empty() {
                    draft.opening.target += &format!(", file {}", hex::encode(&configured.written));
                }
            }
            Some(Body::Authorities(authorities)) => draft.opening.target = slots(authorities),
            Some(Body::Reserved(r)) => self.budgeted(draft, &r.agent, &r.by, format!("reserved {} {}", r.amount, unit(r.unit))),
            Some(Body::Spent(s)) => self.budgeted(draft, &s.agent, &s.by, format!("spent {} {}", s.amount, unit(s.unit))),
            Some(Body::Released(r)) => self.budgeted(draft, &r.agent, &r.by, format!("released reservation {}", r.reservation)),
            Some(Body::Resumed(resumed)) => {
                draft.opening.reason = format!("resumed; the last known time was {}", rfc3339(resumed.last / SECOND));
            }
            Some(Body::Passed(_)) => draft.opening.reason = "time has passed".into(),
            Some(Body::TimeRepaired(repaired)) => {
                draft.opening.reason = format!("the time was repaired, for the records from revision {} on", repaired.first);
            }
            None => {}
        }
    }

    fn delegated(&self, draft: &mut Draft, d: &Delegated) {
        draft.leaf.root_id = self.workload(&d.workload);
        draft.opening.caller.clone_from(&draft.leaf.root_id);
        draft.opening.delegation_id = hex::encode(&d.id);
        draft.opening.user = Some(Person { iss: d.iss.clone(), sub: d.sub.clone() });
        draft.opening.ends_at = d.ends_at / SECOND;
        if d.scopes_limited {
            draft.opening.scopes.clone_from(&d.scopes);
        }
        // The digest of the token that proved the user. A holder of the token can compute it again.
        draft.opening.target = format!("token sha256:{}", hex::encode(&d.token));
    }

    fn admitted(&self, draft: &mut Draft, a: &Admitted) {
        self.agent(draft, &a.agent);
        // An agent that ended long ago may no longer be in the state, but its record is here.
        if draft.leaf.agent_id.is_empty() {
            let uuid = Uuid::from_slice(&a.agent).unwrap_or_default();
            draft.leaf.agent_id = format!("spiffe://{}/agent/{}/{uuid}", self.trust_domain, a.class);
            draft.leaf.root_id = self.workload(&a.workload);
            draft.leaf.class.clone_from(&a.class);
            let id = <[u8; 32]>::try_from(a.delegation.as_slice()).ok().map(DelegationId);
            if let Some(delegation) = id.and_then(|id| self.state.known_delegation(&id)) {
                delegation_of(&mut draft.opening, delegation);
            }
        }
        let above = draft.opening.chain.first().unwrap_or(&draft.leaf.root_id);
        draft.opening.caller = above.clone();
        credential(draft, &a.key, &a.serial, a.svid_ends_at);
        if a.keyless {
            draft.opening.target = "without a key: its parent asks for it".into();
            draft.opening.ends_at = a.lease_ends_at;
        }
        draft.opening.scopes.clone_from(&a.scopes);
        draft.opening.audiences.clone_from(&a.audiences);
        if !a.clipped.is_empty() {
            draft.opening.asked = a.scopes.iter().chain(&a.clipped).cloned().collect();
        }
    }

    fn minted(&self, draft: &mut Draft, m: &Minted) {
        self.by_itself(draft, &m.agent);
        credential(draft, &[], &m.jti, m.ends_at);
        if !m.certificate.is_empty() {
            // The parent of an agent without a key made the call.
            draft.opening.caller = draft.opening.chain.first().cloned().unwrap_or_default();
            draft.opening.target = format!("bound to the certificate sha256:{}", hex::encode(&m.certificate));
        }
        draft.opening.audiences = std::iter::once(&m.audience).chain(&m.further_audiences).cloned().collect();
        if m.narrowed {
            draft.opening.scopes.clone_from(&m.scopes);
        }
    }

    fn exchanged(&self, draft: &mut Draft, e: &Exchanged) {
        self.by_itself(draft, &e.agent);
        credential(draft, &[], &e.jti, e.ends_at);
        draft.opening.audiences = vec![e.audience.clone()];
        draft.opening.scopes.clone_from(&e.scopes);
        draft.opening.target = format!("{} {}", issued(e), e.subject);
        if !e.details.is_empty() {
            draft.opening.target.push_str(&format!(", for {}", e.details));
        }
        if let Some(by) = &e.approved_by {
            let by = format!(", by approval {} of user {} of {}", hex::encode(&e.approval), by.sub, by.iss);
            draft.opening.target.push_str(&by);
        }
    }

    fn asked(&self, draft: &mut Draft, a: &Asked) {
        self.by_itself(draft, &a.agent);
        draft.opening.asked.clone_from(&a.scopes);
        draft.opening.audiences = vec![a.audience.clone()];
        draft.opening.reason.clone_from(&a.reason);
        draft.opening.ends_at = a.ends_at / SECOND;
        draft.opening.target =
            format!("approval {} asked for {}", hex::encode(&a.id), a.details).trim_end_matches(" for ").to_owned();
    }

    /// The person who answered, the subject of the approval, and the token.
    fn answered(&self, draft: &mut Draft, a: &Answered) {
        let answer = if a.approved { "approved" } else { "denied" };
        let (id, evidence) = (hex::encode(&a.id), hex::encode(&a.evidence));
        draft.opening.target = format!("approval {id} {answer}, {} sha256:{evidence}", evidence_of(a));
        if !a.acr.is_empty() {
            draft.opening.target.push_str(&format!(", acr {}", a.acr));
        }
        let known = <[u8; 16]>::try_from(a.id.as_slice()).ok().and_then(|id| self.state.approval(&id));
        if let Some(approval) = known {
            self.agent(draft, approval.agent.as_bytes());
            draft.opening.audiences = vec![approval.audience.clone()];
            draft.opening.reason.clone_from(&approval.reason);
            if a.approved {
                let scopes = a.narrowed.as_ref().map_or(&approval.scopes, |narrowed| &narrowed.scopes);
                draft.opening.scopes.clone_from(scopes);
                draft.opening.ends_at = a.ends_at / SECOND;
            }
            if !approval.details.is_empty() {
                draft.opening.target.push_str(&format!(", {}", approval.details));
            }
            if let Some(narrowed) = &a.narrowed {
                draft.opening.target.push_str(&format!(", narrowed to {}", narrowed.details));
            }
        }
        if let Some(by) = &a.by {
            draft.opening.caller = format!("user {} of {}", by.sub, by.iss);
        }
    }

    fn budgeted(&self, draft: &mut Draft, agent: &[u8], by: &str, what: String) {
        self.agent(draft, agent);
        by.clone_into(&mut draft.opening.caller);
        draft.opening.target = what;
    }

    fn certificate(&self, draft: &mut Draft, agent: &[u8], (key, serial, ends_at): (&[u8], &[u8], u64)) {
        self.by_itself(draft, agent);
        credential(draft, key, serial, ends_at);
    }

    fn by_itself(&self, draft: &mut Draft, agent: &[u8]) {
        self.agent(draft, agent);
        draft.opening.caller.clone_from(&draft.leaf.agent_id);
    }

    fn cut(&self, draft: &mut Draft, c: &Cut) {
        draft.opening.caller.clone_from(&c.by);
        draft.opening.reason.clone_from(&c.reason);
        match &c.target {
            Some(cut::Target::Agent(uuid)) => {
                self.agent(draft, uuid);
                draft.opening.target = format!("agent {}", Uuid::from_slice(uuid).unwrap_or_default());
            }
            Some(cut::Target::User(user)) => for_user(draft, user),
            Some(cut::Target::TrustDomain(_)) => {
                draft.opening.target = format!("everything recorded before {}", rfc3339(c.time / SECOND));
            }
            Some(cut::Target::Delegation(id)) => {
                let known = <[u8; 32]>::try_from(id.as_slice()).ok().map(DelegationId);
                if let Some(delegation) = known.and_then(|id| self.state.known_delegation(&id)) {
                    delegation_of(&mut draft.opening, delegation);
                    draft.leaf.root_id = delegation.workload.id(self.trust_domain);
                }
                draft.opening.target = format!("delegation {}", hex::encode(id));
            }
            Some(cut::Target::Workload(name)) => self.for_workload(draft, name),
            Some(cut::Target::Class(class)) => for_class(draft, class),
            Some(cut::Target::Issuer(iss)) => for_issuer(draft, iss),
            Some(cut::Target::Key(key)) => {
                draft.leaf.key = hex::encode(key);
                draft.opening.target = format!("key {}", draft.leaf.key);
            }
            Some(cut::Target::Token(jti)) => draft.opening.target = format!("access token {jti}"),
            None => {}
        }
        if c.closes {
            draft.opening.target.push_str(", closed");
        }
    }

    fn for_workload(&self, draft: &mut Draft, name: &str) {
        draft.leaf.root_id = self.workload(name);
        draft.opening.target = format!("workload {name}");
    }

    fn agent(&self, draft: &mut Draft, uuid: &[u8]) {
        let Some(agent) = Uuid::from_slice(uuid).ok().and_then(|uuid| self.state.agent(&uuid)) else { return };
        about(draft, agent, self.trust_domain);
    }

    fn workload(&self, name: &str) -> String {
        match name.parse::<Workload>() {
            Ok(workload) => workload.id(self.trust_domain),
            Err(_) => name.to_owned(),
        }
    }
}

/// Sets the agent, class, root, user and delegation of an entry.
pub(super) fn about(draft: &mut Draft, agent: &Agent, trust_domain: &TrustDomain) {
    draft.leaf.agent_id = agent.id(trust_domain).to_string();
    draft.leaf.class = agent.mandate.class.to_string();
    let mut chain = agent.chain(trust_domain);
    draft.leaf.root_id = chain.pop().unwrap_or_default();
    draft.opening.chain = chain;
    if let Some(delegation) = &agent.delegation {
        delegation_of(&mut draft.opening, delegation);
    }
}

/// Sets the caller, its address, and what it asked for.
pub(super) fn from(opening: &mut Opening, origin: &Origin) {
    if let Some(caller) = origin.caller.get().filter(|caller| !matches!(caller, Caller::Stranger)) {
        opening.caller = caller.scope();
    } else if let Some(claimed) = origin.claimed.get() {
        opening.caller.clone_from(claimed);
    }
    origin.method.clone_into(&mut opening.method);
    opening.peer = origin.from.map(|from| from.to_string()).unwrap_or_default();
    opening.request_id = origin.request_id.get().map(ToString::to_string).unwrap_or_default();
    if let Some(asked) = origin.asked.get().filter(|asked| opening.asked.is_empty() && !asked.scopes.is_empty()) {
        opening.asked.clone_from(&asked.scopes);
    }
}

/// The id of a caller's own workload, if it is one.
pub(super) fn root_of(caller: &Caller, trust_domain: &TrustDomain) -> Option<String> {
    match caller {
        Caller::Workload { name, .. } => Some(workload_id(trust_domain, name)),
        Caller::Foreign { id, .. } => Some(id.to_string()),
        Caller::Operator { by: Some(by), .. } | Caller::Auditor { by: Some(by), .. } => root_of(by, trust_domain),
        _ => None,
    }
}

fn delegation_of(opening: &mut Opening, delegation: &Delegation) {
    opening.user = Some(Person { iss: delegation.user.iss.clone(), sub: delegation.user.sub.clone() });
    opening.delegation_id = delegation.id.to_string();
}

fn for_user(draft: &mut Draft, user: &record::User) {
    draft.opening.user = Some(Person { iss: user.iss.clone(), sub: user.sub.clone() });
    draft.opening.target = format!("user {} of {}", user.sub, user.iss);
}

fn for_issuer(draft: &mut Draft, iss: &str) {
    draft.opening.target = format!("issuer of users {iss}");
}

fn for_class(draft: &mut Draft, class: &str) {
    class.clone_into(&mut draft.leaf.class);
    draft.opening.target = format!("class {class}");
}

fn credential(draft: &mut Draft, key: &[u8], serial: &[u8], ends_at: u64) {
    draft.leaf.key = hex::encode(key);
    draft.leaf.serial = hex::encode(serial);
    draft.opening.ends_at = ends_at;
}

/// Each authority with its status.
fn slots(authorities: &record::Authorities) -> String {
    let slot = |a: &record::Authority| {
        let kind = a.kind().as_str_name().to_lowercase();
        format!("{kind} {} {}", a.id, a.status().as_str_name().to_lowercase())
    };
    authorities.authorities.iter().map(slot).collect::<Vec<_>>().join(", ")
}

/// Whether a record belongs to the decision of the one before it: by the numbers of their acts or, if these are unknown, by their
/// content.
pub(super) fn follows(before: &Noted, record: &Noted) -> bool {
    if record.act > 0 {
        return record.act == before.act;
    }
    match (&before.record.body, &record.record.body) {
        (Some(Body::Delegated(delegated)), Some(Body::Admitted(admitted))) => admitted.delegation == delegated.id,
        (Some(Body::Admitted(admitted)), Some(Body::Minted(minted))) => {
            minted.agent == admitted.agent && record.record.at == before.record.at
        }
        _ => false,
    }
}

/// What the digest of an answer is of.
fn evidence_of(a: &Answered) -> &'static str {
    match (a.at_provider, a.approved) {
        (false, _) => "token",
        (true, true) => "asked at their provider, ID token",
        (true, false) => "asked at their provider, request",
    }
}
