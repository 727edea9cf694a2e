//! Replay: decides admissions, tokens and renewals of the journal again, each on the state and by the policies of its time, but with the
//! present classes, limits and build.
//!
//! ```text
//! rows of the journal, in order ── applied to a separate state
//!            └─ before those of a decision: a request for exactly what was given is judged ── equal, or the difference
//! ```
//!
//! The journal keeps the row of an admission, and everything that the decision relied on, until an hour after the agent's end, and that of
//! a token until an hour after the token's. So every decision of the last hour is decided again, and earlier ones if their rows are there.
//!
//! With a candidate set of policies, each is decided twice, by the policies of its time and by the candidate: what differs is what the
//! candidate would have changed.

mod again;
mod denials;
mod past;
mod sets;

use std::sync::Arc;

use uuid::Uuid;

use super::losses;
use crate::acts::Issuer;
use crate::caller::Caller;
use crate::denial::{Fault, No};
use crate::journal::{self, record::Admitted, record::record::Body};
use crate::state::State;
use crate::state::authority::Kind as AuthorityKind;
pub(super) use again::request;
use denials::Denials;
pub use past::Past;
use sets::Sets;

/// Rows that are read at once.
const ROWS: usize = 1000;
/// Most differences that are reported.
const TOLD: usize = 1000;

/// The result of a replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// Decisions that were decided again.
    pub decided: u64,
    /// Those with another answer.
    pub different: u64,
    /// The first of these.
    pub differences: Vec<Difference>,
    /// Denials of spawns among them.
    pub denied: u64,
    /// Tokens, access tokens and renewals among them.
    pub tokens: u64,
    /// Denials of the same time that are not decided again: of other requests, of what is proved before a spawn is judged, and from more
    /// than an hour ago.
    pub denials: u64,
    /// The revision up to which the journal was read.
    pub revision: u64,
    /// Whether the configuration at one of these decisions differed from the present one.
    pub configured_otherwise: bool,
    /// Decisions that were decided again by the present policies, because those of their time are not kept.
    pub policies_lost: u64,
}

/// A decision with another answer.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What was asked for: `spawn`, `mint`, `exchange` or `renew`.
    pub action: &'static str,
    /// Its revision; of a denial, that of the journal when it was asked for.
    pub revision: u64,
    /// Unix microseconds.
    pub at: u64,
    /// The agent.
    pub agent: Uuid,
    /// Its class.
    pub class: String,
    /// What was given.
    pub then: String,
    /// What would be given now, or the denial.
    pub now: String,
}

/// Decides again what was decided since a time (Unix microseconds), for an operator. With the texts of a candidate set, finds what it would have
/// decided otherwise.
pub async fn replay(
    issuer: &Arc<Issuer>,
    caller: &Caller,
    since: u64,
    candidate: Option<Vec<(String, String)>>,
) -> Result<Replayed, No> {
    let place = issuer.counting.place(caller)?;
    issuer.history.flush().await;
    let (asking, awaited) = (Arc::clone(issuer), Arc::new(()));
    let waits = Arc::downgrade(&awaited);
    let replayed = tokio::task::spawn_blocking(move || {
        let _place = place;
        let ledger = &asking.ledger;
        let head = ledger.read(|state| state.revision);
        let rules = ledger.rules();
        let mut past = Past::new(&rules, since, ledger.read(|state| Arc::clone(&state.authorities)));
        if let Some(candidate) = candidate {
            past.compare(losses::read(candidate)?);
        }
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
                record.at = ledger.read(|state| state.time_of(revision, record.at));
                past.until(&record)?;
                if denials.are_open(past.state.revision) {
                    sets.at(&asking, revision, &mut past.rules);
                    past.denied(&mut denials, record.at);
                }
                if past.begins(&record) {
                    past.replayed.policies_lost += u64::from(!sets.at(&asking, revision, &mut past.rules));
                }
                past.take(revision, record)?;
            }
        }
        past.settle()?;
        past.replayed.revision = head;
        // What was decided on the last state.
        sets.at(&asking, u64::MAX, &mut past.rules);
        past.denied(&mut denials, u64::MAX);
        past.replayed.denials = denials.left_out;
        Ok::<_, No>(past.replayed)
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
