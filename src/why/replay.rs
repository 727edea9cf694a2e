//! Replay: decides admissions of the journal again, each on the state and by the policies of its time, but with the present
//! classes, limits and build.
//!
//! ```text
//! rows of the journal, in order ── applied to a separate state
//!            └─ before each admission: a request for exactly the recorded authority is judged ── equal, or the difference
//! ```
//!
//! The journal keeps the row of an admission, and everything that the decision relied on, until an hour after the agent's end. So
//! every admission of the last hour is decided again, and earlier ones if their agents are still in the state.

mod denials;

use std::sync::Arc;

use mayfly_verify::{DelegationId, Workload};
use uuid::Uuid;

use crate::acts::Issuer;
use crate::acts::spawn::{Credential, Spawn, TICKET_LIFE};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Fault, No};
use crate::history::entry::Kind;
use crate::history::query::{self, Filter};
use crate::journal::{self, record::Admitted, record::record::Body};
use crate::judge::policy::Asked;
use crate::judge::{Act, Chance, Judgement, Proof, Rules};
use crate::state::State;
use crate::state::authority::Kind as AuthorityKind;
use denials::Denials;

/// Rows that are read at once.
const ROWS: usize = 1000;
/// Most queries of the history for configurations, each of which reads at most 100,000 entries.
const LOOKS: usize = 100;
/// Most differences that are reported.
const TOLD: usize = 1000;

/// The result of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Admissions that were decided again.
    pub decided: u64,
    /// Those with another answer.
    pub different: u64,
    /// The first of these.
    pub differences: Vec<Difference>,
    /// Denials of spawns among them.
    pub denied: u64,
    /// Denials of the same time that are not decided again: of other requests, of what is proved before a spawn is judged, and from more
    /// than an hour ago.
    pub denials: u64,
    /// The revision up to which the journal was read.
    pub revision: u64,
    /// Whether the configuration at one of these decisions differed from the present one.
    pub configured_otherwise: bool,
    /// Admissions that were decided again by the present policies, because those of their time are not kept.
    pub policies_lost: u64,
}

/// A decision with another answer.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Revision of the admission.
    pub revision: u64,
    /// Unix microseconds.
    pub at: u64,
    /// The agent.
    pub agent: Uuid,
    /// Its class.
    pub class: String,
    /// What was given.
    pub then: String,
    /// The authority that would be given now, or the denial.
    pub now: String,
}

/// Decides admissions since a time (Unix microseconds) again, for an operator.
pub async fn replay(issuer: &Arc<Issuer>, caller: &Caller, since: u64) -> Result<Replayed, No> {
    let place = issuer.counting.place(caller)?;
    issuer.history.flush().await;
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let replayed = tokio::task::spawn_blocking(move || {
        let _place = place;
        let ledger = &asking.ledger;
        let head = ledger.read(|state| state.revision);
        let rules = ledger.rules();
        let mut past = Past::new(&rules, since);
        let mut sets = Sets::of(&asking, &rules)?;
        let mut denials = Denials::of(&asking, since)?;
        let mut from = 1;
        while waits.strong_count() > 0 && from <= head {
            let rows = ledger.rows(from, ROWS)?;
            if rows.is_empty() {
                break;
            }
            for (revision, row) in rows {
                if revision > head {
                    from = revision;
                    break;
                }
                from = revision + 1;
                let mut record = journal::decode(&row).map_err(|e| Fault::new("replay", e))?;
                let authorities = ledger.read(|state| {
                    record.at = state.time_of(revision, record.at);
                    Arc::clone(&state.authorities)
                });
                if denials.are_open(past.state.revision) {
                    sets.at(&asking, revision, &mut past.rules);
                    past.denied(&mut denials, record.at);
                }
                if matches!(&record.body, Some(Body::Admitted(_)) if record.at >= since) {
                    past.replayed.policies_lost += u64::from(!sets.at(&asking, revision, &mut past.rules));
                }
                past.take(revision, &record, &authorities)?;
            }
        }
        past.replayed.revision = head;
        // What was decided on the last state.
        sets.at(&asking, u64::MAX, &mut past.rules);
        past.denied(&mut denials, u64::MAX);
        past.replayed.denials = denials.left_out;
        Ok::<_, Fault>(past.replayed)
    });
    let replayed = replayed.await.map_err(|e| Fault::new("replay", e))??;
    drop(awaited);
    Ok(replayed)
}

/// The state just before an admission of the journal, with the admission and its time in Unix microseconds. `None` if it is no
/// longer in the journal. Blocks.
pub(super) fn before(
    issuer: &Issuer,
    admission: u64,
    awaited: impl Fn() -> bool,
) -> Result<Option<(State, Admitted, u64)>, Fault> {
    let ledger = &issuer.ledger;
    let (mut state, mut from) = (State::default(), 1);
    while awaited() && from <= admission {
        let rows = ledger.rows(from, ROWS)?;
        if rows.first().is_none_or(|(first, _)| *first > admission) {
            break;
        }
        for (revision, row) in rows.into_iter().filter(|(revision, _)| *revision <= admission) {
            from = revision + 1;
            let mut record = journal::decode(&row).map_err(|e| Fault::new("replay", e))?;
            let authorities = ledger.read(|now| {
                record.at = now.time_of(revision, record.at);
                Arc::clone(&now.authorities)
            });
            if revision == admission {
                let Some(Body::Admitted(admitted)) = record.body else { return Ok(None) };
                if state.authorities.active(AuthorityKind::X509).is_none() {
                    state.authorities = authorities;
                }
                return Ok(Some((state, admitted, record.at)));
            }
            state.apply(revision, &record).map_err(|e| Fault::new("replay", e))?;
        }
    }
    Ok(None)
}

/// The policies that were in force at each time, from the history.
struct Sets {
    /// The revision of each record of a configuration, and the digest of its policies in hex; empty if there were none.
    from: Vec<(u64, String)>,
    /// The digest of the policies in use by the replay now.
    now: String,
    /// The present rules, and the digest of their policies.
    today: (Rules, String),
}

impl Sets {
    fn of(issuer: &Issuer, rules: &Rules) -> Result<Sets, Fault> {
        let filter = Filter { kinds: vec![Kind::Configuration], ..Filter::default() };
        let (mut from, mut place) = (Vec::new(), 0);
        for _ in 0..LOOKS {
            let page = query::page(issuer.history.reader(), &filter, place, usize::MAX, |_| true)
                .map_err(|e| Fault::new("replay", e))?;
            from.extend(page.entries.iter().map(|(entry, _)| {
                let digest = entry.opening.target.split(", ").find_map(|part| part.strip_prefix("policies "));
                (entry.leaf.revision, digest.unwrap_or_default().to_owned())
            }));
            match page.next {
                Some(next) => place = next,
                None => break,
            }
        }
        let now = rules.policies.as_ref().map(|set| hex::encode(set.digest())).unwrap_or_default();
        Ok(Sets { from, now: now.clone(), today: (rules.clone(), now) })
    }

    /// Gives the rules the policies that were in force at a revision. Returns `false` if they are not kept, or it is unknown which
    /// they were.
    fn at(&mut self, issuer: &Issuer, revision: u64, rules: &mut Rules) -> bool {
        let (today, digest) = &self.today;
        let wanted = self.from.iter().rev().find(|(from, _)| *from < revision).map(|(_, wanted)| wanted);
        if wanted == Some(&self.now) {
            return true;
        }
        let (policies, now, known) = match wanted {
            Some(wanted) if wanted == digest => (today.policies.clone(), digest, true),
            Some(none) if none.is_empty() => (None, none, true),
            Some(wanted) => match issuer.sets.open(wanted) {
                Some(set) => (Some(Arc::new(set)), wanted, true),
                None => (today.policies.clone(), digest, false),
            },
            None => (today.policies.clone(), digest, false),
        };
        self.now.clone_from(now);
        rules.policies = policies;
        known
    }
}

/// The replayed state, and the findings so far.
pub struct Past {
    state: State,
    rules: Rules,
    since: u64,
    /// What came of it.
    pub replayed: Replayed,
}

impl Past {
    /// Decides the denials again that may have been decided on this state, before a record of this time.
    fn denied(&mut self, denials: &mut Denials, next_at: u64) {
        for difference in denials.on(&self.state, &self.rules, next_at) {
            self.replayed.decided += 1;
            self.replayed.denied += 1;
            if let Some(difference) = difference {
                self.replayed.different += 1;
                if self.replayed.differences.len() < TOLD {
                    self.replayed.differences.push(difference);
                }
            }
        }
    }

    /// Before the first record.
    pub fn new(rules: &Rules, since: u64) -> Past {
        Past { state: State::default(), rules: rules.clone(), since, replayed: Replayed::default() }
    }

    /// Takes the next record of the journal: decides again if it is an admission, and applies it. `authorities` are the present
    /// ones, because rows of earlier ones are dropped, and nothing is signed here.
    pub fn take(
        &mut self,
        revision: u64,
        record: &journal::record::Record,
        authorities: &Arc<crate::state::Authorities>,
    ) -> Result<(), Fault> {
        if let Some(Body::Admitted(admitted)) = record.body.as_ref().filter(|_| record.at >= self.since) {
            if self.state.authorities.active(AuthorityKind::X509).is_none() {
                self.state.authorities = Arc::clone(authorities);
            }
            self.replayed.decided += 1;
            let then = given(admitted);
            let now = again(&self.state, &self.rules, admitted, record.at);
            if now != then {
                self.replayed.different += 1;
                if self.replayed.differences.len() < TOLD {
                    let agent = Uuid::from_slice(&admitted.agent).unwrap_or_default();
                    let class = admitted.class.clone();
                    self.replayed.differences.push(Difference { revision, at: record.at, agent, class, then, now });
                }
            }
        }
        // A configuration is recorded when it differs from the previous one, whose record may have been dropped.
        if let Some(Body::Configured(_)) = &record.body {
            self.replayed.configured_otherwise |= self.replayed.decided > 0;
        }
        self.state.apply(revision, record).map_err(|e| Fault::new("replay", e))
    }
}

/// The authority in an admission, in one line.
fn given(admitted: &Admitted) -> String {
    let (scopes, audiences) = (admitted.scopes.join(" "), admitted.audiences.join(" "));
    format!("scopes [{scopes}] audiences [{audiences}] depth {} until {}", admitted.depth_left, admitted.lease_ends_at)
}

/// The same for the new decision on a request for exactly that authority, on the state before it.
fn again(state: &State, rules: &Rules, admitted: &Admitted, at: u64) -> String {
    let Some((act, caller)) = request(state, rules, admitted, at) else {
        return "cannot be asked again: its spawner is not known".to_owned();
    };
    let mut judgement = Judgement::new(state, rules, at);
    // The record proves the caller, so its certificate is not checked; it may no longer be in the state.
    match act.judge(&mut judgement, &caller, &Chance::new([0; Chance::LEN])) {
        Ok((admission, _)) => {
            let agent = admission.agent();
            let (scopes, audiences) = (agent.mandate.scopes.join(" "), agent.mandate.audiences.join(" "));
            format!("scopes [{scopes}] audiences [{audiences}] depth {} until {}", agent.mandate.depth_left, agent.lease_ends_at)
        }
        Err(No::Denial(denial)) => format!("denied: {denial}"),
        Err(No::Fault(fault)) => format!("failed: {}", fault.during),
    }
}

/// The request for exactly what was admitted, with its caller. `None` if the spawner is no longer in the state.
pub(super) fn request(state: &State, rules: &Rules, admitted: &Admitted, at: u64) -> Option<(Spawn, Caller)> {
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
