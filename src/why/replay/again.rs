//! Decides one decision of the journal again: an admission with its first token, a token, an access token, or a renewal, each as a request
//! for exactly what was given.
//!
//! The record proves the caller, so its certificate is not checked; it may no longer be in the state. A subject token, a proof of a key
//! and an ID-JAG can only have made an access token narrower or shorter, so it is asked for without them, and may end no later than it
//! would today.

use mayfly_verify::{DelegationId, Possession, Workload};
use uuid::Uuid;

use crate::acts::exchange::Exchange;
use crate::acts::mint;
use crate::acts::spawn::{Credential, Spawn, TICKET_LIFE};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::No;
use crate::journal::record::{Admitted, Exchanged, Minted, Record, Renewed, record::Body};
use crate::judge::action::read_actions;
use crate::judge::bound::Proved;
use crate::judge::policy::Asked;
use crate::judge::{Act, Chance, Judgement, Presented, Proof, Rules, Use};
use crate::policies::Action;
use crate::state::{Agent, State};

/// A decision, and what it would be again.
pub(super) struct Told {
    /// What was asked for: `spawn`, `mint`, `exchange` or `renew`.
    pub(super) action: &'static str,
    pub(super) revision: u64,
    pub(super) at: u64,
    pub(super) agent: Uuid,
    pub(super) class: String,
    /// What was given.
    pub(super) then: String,
    /// What would be given.
    pub(super) now: String,
}

impl Told {
    /// A decision that cannot be asked again, because something that it relied on is not known.
    fn unknown(mut self, what: &str) -> Told {
        self.now = format!("cannot be asked again: {what} is not known");
        self
    }
}

/// The agent of a record.
fn agent_of(bytes: &[u8]) -> Uuid {
    Uuid::from_slice(bytes).unwrap_or_default()
}

/// Whether a record belongs to the decision of the one before it: a first token to its admission, and a token to the record of its first
/// use. What an agent asks for itself comes later than its admission.
pub(super) fn continues(before: &Record, record: &Record) -> bool {
    let opens = match &before.body {
        Some(Body::Admitted(admitted)) => &admitted.agent,
        Some(Body::FirstUse(first)) => &first.agent,
        _ => return false,
    };
    let agent = match &record.body {
        Some(Body::FirstUse(first)) => &first.agent,
        Some(Body::Minted(minted)) => &minted.agent,
        Some(Body::Exchanged(exchanged)) => &exchanged.agent,
        _ => return false,
    };
    before.at == record.at && opens == agent
}

/// Decides the records of one decision again, on the state before the first of them.
pub(super) fn decided(state: &State, rules: &Rules, records: &[(u64, Record)]) -> Vec<Told> {
    let last = records.last();
    let (Some((revision, first)), Some((last, record))) = (records.first(), last) else { return Vec::new() };
    match (&first.body, &record.body) {
        (Some(Body::Admitted(admitted)), Some(Body::Minted(minted))) => {
            let token = Some((*last, minted));
            spawned(state, rules, (*revision, first.at), admitted, token)
        }
        (Some(Body::Admitted(admitted)), _) => spawned(state, rules, (*revision, first.at), admitted, None),
        (_, Some(Body::Minted(minted))) => vec![minting(state, rules, (*last, record.at), minted)],
        (_, Some(Body::Exchanged(exchanged))) => vec![exchanging(state, rules, (*last, record.at), exchanged)],
        (_, Some(Body::Renewed(renewed))) => vec![renewing(state, rules, (*last, record.at), renewed)],
        // The row of a token is dropped before that of its first use.
        _ => Vec::new(),
    }
}

fn authority(scopes: &[String], audiences: &[String], depth: u32, until: u64) -> String {
    format!("scopes [{}] audiences [{}] depth {depth} until {until}", scopes.join(" "), audiences.join(" "))
}

fn token(audiences: &[String], scopes: &[String], until: u64) -> String {
    format!("a token for [{}] with scopes [{}] until {until}", audiences.join(" "), scopes.join(" "))
}

fn refused(no: &No) -> String {
    match no {
        No::Denial(denial) => format!("denied: {denial}"),
        No::Fault(fault) => format!("failed: {}", fault.during),
    }
}

fn audiences_of(minted: &Minted) -> Vec<String> {
    std::iter::once(&minted.audience).chain(&minted.further_audiences).cloned().collect()
}

fn spawned(
    state: &State,
    rules: &Rules,
    (revision, at): (u64, u64),
    admitted: &Admitted,
    minted: Option<(u64, &Minted)>,
) -> Vec<Told> {
    let (agent, class) = (agent_of(&admitted.agent), admitted.class.clone());
    let then = authority(&admitted.scopes, &admitted.audiences, admitted.depth_left, admitted.lease_ends_at);
    let spawn = Told { action: Action::Spawn.as_str(), revision, at, agent, class: class.clone(), then, now: String::new() };
    let first = minted.map(|(revision, minted)| {
        let then = token(&audiences_of(minted), &admitted.scopes, minted.ends_at);
        (Told { action: Action::Mint.as_str(), revision, at, agent, class, then, now: String::new() }, minted)
    });
    let Some((mut act, caller)) = request(state, rules, admitted, at) else {
        let first = first.map(|(told, _)| told.unknown("its spawner"));
        return std::iter::once(spawn.unknown("its spawner")).chain(first).collect();
    };
    act.audience = first.as_ref().map(|(_, minted)| minted.audience.clone());
    let mut judgement = Judgement::new(state, rules, at);
    let judged = act.judge(&mut judgement, &caller, &Chance::new([0; Chance::LEN]));
    let (given, also) = match &judged {
        Ok((admission, mint)) => {
            let agent = admission.agent();
            let mandate = &agent.mandate;
            let given = authority(&mandate.scopes, &mandate.audiences, mandate.depth_left, agent.lease_ends_at);
            let also = mint.as_ref().zip(first.as_ref()).map(|(mint, (_, minted))| {
                let until = ends(mint.token().ends_at, minted.ends_at, !minted.certificate.is_empty());
                token(&mint.token().audiences, &mandate.scopes, until)
            });
            (given, also.unwrap_or_default())
        }
        Err(no) => (refused(no), refused(no)),
    };
    let first = first.map(|(told, _)| Told { now: also, ..told });
    std::iter::once(Told { now: given, ..spawn }).chain(first).collect()
}

/// When a token would end. One that is bound to something that ends by itself may have ended before that.
fn ends(now: u64, then: u64, bound: bool) -> u64 {
    if bound { now.min(then) } else { now }
}

fn of_agent<'s>(state: &'s State, action: Action, (revision, at): (u64, u64), agent: &[u8]) -> (Told, Option<&'s Agent>) {
    let uuid = agent_of(agent);
    let found = state.agent(&uuid);
    let class = found.map(|agent| agent.mandate.class.to_string()).unwrap_or_default();
    let (then, now) = (String::new(), String::new());
    (Told { action: action.as_str(), revision, at, agent: uuid, class, then, now }, found)
}

fn minting(state: &State, rules: &Rules, place: (u64, u64), minted: &Minted) -> Told {
    let audiences = audiences_of(minted);
    let (told, agent) = of_agent(state, Action::Mint, place, &minted.agent);
    let Some(agent) = agent else { return told.unknown("its agent") };
    let scopes = if minted.narrowed { &minted.scopes } else { &agent.mandate.scopes };
    let then = token(&audiences, scopes, minted.ends_at);
    let j = Judgement::new(state, rules, place.1);
    let now = mint::again(&j, agent, &audiences).map_or_else(
        |no| refused(&no),
        |(scopes, until)| token(&audiences, &scopes, ends(until, minted.ends_at, !minted.certificate.is_empty())),
    );
    Told { then, now, ..told }
}

fn exchanging(state: &State, rules: &Rules, place: (u64, u64), exchanged: &Exchanged) -> Told {
    let (told, agent) = of_agent(state, Action::Exchange, place, &exchanged.agent);
    let Some(agent) = agent else { return told.unknown("its agent") };
    let what = |scopes: &[String], until: u64, subject: &str, details: &str| {
        let allows = if details.is_empty() { String::new() } else { format!(" and actions {details}") };
        format!("{}, as {subject}{allows}", token(std::slice::from_ref(&exchanged.audience), scopes, until))
    };
    let then = what(&exchanged.scopes, exchanged.ends_at, &exchanged.subject, &exchanged.details);
    let digest = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).ok();
    let held = Possession { key: digest(&exchanged.confirmation), certificate: digest(&exchanged.certificate) };
    let approval = <[u8; 16]>::try_from(exchanged.approval.as_slice()).ok();
    let actions = match read_actions(&rules.actions, &exchanged.details) {
        Ok(actions) => actions,
        Err(denial) => return Told { then, now: refused(&denial.into()), ..told },
    };
    let act = Exchange {
        audience: exchanged.audience.clone(),
        scopes: exchanged.scopes.clone(),
        presented: Presented::Nothing,
        digest: None,
        proved: Proved { held, certificate_ends_at: u64::MAX },
        actions,
        approval,
        for_agent: None,
        wants_id_jag: Some(exchanged.id_jag),
        resource: None,
        held: None,
    };
    let caller = Caller::Bearer {
        id: agent.id(&rules.trust_domain),
        incarnation: state.incarnation,
        authority: Vec::new(),
        jti: [0; 16],
        ends_at: u64::MAX,
    };
    let mut judgement = Judgement::new(state, rules, place.1);
    let now = match act.judge(&mut judgement, &caller, &Chance::new([0; Chance::LEN])) {
        Ok(access) => {
            let given = access.token();
            what(&given.scopes, ends(given.ends_at, exchanged.ends_at, true), &given.subject, &given.details)
        }
        Err(no) => refused(&no),
    };
    Told { then, now, ..told }
}

fn renewing(state: &State, rules: &Rules, place: (u64, u64), renewed: &Renewed) -> Told {
    let (told, agent) = of_agent(state, Action::Renew, place, &renewed.agent);
    let Some(agent) = agent else { return told.unknown("its agent") };
    let what = |scopes: &[String], audiences: &[String]| {
        format!("a certificate with scopes [{}] audiences [{}]", scopes.join(" "), audiences.join(" "))
    };
    let then = match renewed.narrowed {
        true => what(&renewed.scopes, &renewed.audiences),
        false => what(&agent.mandate.scopes, &agent.mandate.audiences),
    };
    let j = Judgement::new(state, rules, place.1);
    let now = j.authority_left(agent).and_then(|kept| {
        let of = Use { action: Action::Renew, audience: None, scopes: &kept.scopes, audiences: &kept.audiences };
        j.policies_on_use(agent, of).map(|()| what(&kept.scopes, &kept.audiences))
    });
    Told { then, now: now.unwrap_or_else(|denial| refused(&denial.into())), ..told }
}

/// The request for exactly what was admitted, with its caller. `None` if the spawner is no longer in the state.
pub(crate) fn request(state: &State, rules: &Rules, admitted: &Admitted, at: u64) -> Option<(Spawn, Caller)> {
    let caller = match Uuid::from_slice(&admitted.parent) {
        Ok(parent) => {
            let parent = state.agent(&parent)?;
            let certificate = parent.last()?;
            Caller::Agent {
                id: parent.id(&rules.trust_domain),
                key: certificate.key,
                serial: certificate.serial.to_vec(),
                incarnation: state.incarnation,
                opened: state.revision,
                authority: Vec::new(),
            }
        }
        Err(_) => match admitted.workload.parse().ok()? {
            Workload::Own(name) => {
                Caller::Workload { name, key: [0; 32], serial: Vec::new(), opened: state.revision, authority: Vec::new() }
            }
            Workload::Foreign(id) => Caller::Foreign { id, ends_at: u64::MAX },
        },
    };
    let proof = <[u8; 32]>::try_from(admitted.delegation.as_slice()).ok().map(|id| Proof::Delegation(DelegationId(id)));
    let mode = (proof.is_none() && admitted.parent.is_empty()).then_some(mayfly_verify::Mode::Autonomous);
    let asked = Asked {
        scopes: admitted.scopes.clone(),
        audiences: admitted.audiences.clone(),
        lease: admitted.lease_ends_at.saturating_sub(at / SECOND),
        depth: Some(admitted.depth_left),
        clip: false,
        mode,
    };
    let act = Spawn {
        class: admitted.class.parse().ok()?,
        credential: Credential::Ticket { nonce: [0; 16], hash: [0; 32], life: TICKET_LIFE },
        // A child acts for the user of its parent, and presents no proof.
        proof: proof.filter(|_| admitted.parent.is_empty()),
        asked,
        audience: None,
        request: None,
    };
    Some((act, caller))
}
