//! Opens the journal and the ledger over it, and compares both with the clock, the watermark and the history.

use std::sync::Arc;

use super::history;
use super::witnessed::Seen;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::config::Config;
use crate::home::{Beats, Home};
use crate::journal::sqlite::Sqlite;
use crate::ledger::{self, Bounds, Ledger, replay_telling, start};
use crate::publish::feed::Past;
use crate::state::State;

/// A journal, the state that its records make, and the cuts that were published with them.
pub(super) type Replayed = (Sqlite, State, Past);

/// The journal and its state, if there is one. Fails if its time does not fit the clock.
pub(super) fn journal(config: &Config, home: &Home, clock: &Clock) -> Result<Option<Replayed>, String> {
    if !home.journal().exists() {
        start::check(0, clock.now(), config.max_downtime).map_err(|e| e.to_string())?;
        return Ok(None);
    }
    let mut journal = Sqlite::open_reserved(&home.journal(), config.journal_max)?;
    let mut past = Past::default();
    let state = replay_telling(&mut journal, &mut past).map_err(|e| e.to_string())?;
    start::check(state.at, clock.now(), config.max_downtime).map_err(|e| e.to_string())?;
    Ok(Some((journal, state, past)))
}

/// The ledger over the journal, and the writer of its watermark. `held` is the position that the history has reached, and `seen`
/// what witnesses know. Fails if the journal or the watermark was replaced by an older copy, or if the clock is wrong.
pub(super) fn ledger(
    config: &Config,
    home: &Home,
    authority: &Arc<Authority>,
    clock: &Clock,
    (told, held): (history::Observers, u64),
    (journal, seen): (Option<Replayed>, Seen),
    client_audience: Option<String>,
) -> Result<(Ledger, ledger::Keeper, Past), String> {
    let beats = Beats {
        path: home.dir.join("heartbeat.json"),
        authority: Arc::clone(authority),
        trust_domain: config.trust_domain.clone(),
        last: None,
    };
    let last = beats.read()?;
    let (mut journal, mut state, past) = match journal {
        Some(known) => known,
        None if last.is_some() => {
            return Err("this home has signed before and its journal is gone: restore one with `mayfly backup restore`".into());
        }
        None => (Sqlite::open_reserved(&home.journal(), config.journal_max)?, State::default(), Past::default()),
    };
    let rules = config.rules(client_audience, 0);
    let bounds = Bounds { batch: config.batch };
    let fatal = Box::new(|cause: &str| {
        tracing::error!(%cause, "the journal failed: stopping, so that the next start replays what is durable");
        std::process::exit(74);
    });
    // A first start writes the watermark right after the first record.
    if last.is_none() && state.revision > 1 {
        return Err(format!(
            "the journal is at revision {}, and `heartbeat.json`, which says how far it must reach, is missing: put it back, or use \
             `mayfly backup restore` with a copy of the journal, which revokes what was issued before",
            state.revision
        ));
    }
    if state.revision < held {
        return Err(format!(
            "the journal is at revision {} and the history holds {held}: somebody put an older copy in its place. Use \
             `mayfly backup restore`, which revokes what came after it",
            state.revision
        ));
    }
    // ORDER: the watermark is checked before it is overwritten.
    if let Some(mark) = &last {
        mark.check(&journal, &state)?;
    }
    seen.check(authority, &journal, &state)?;
    // The watermark also says until when this issuer ran, because time passes without records too.
    let ran_until = state.at.max(last.map_or(0, |mark| mark.as_of));
    start::check(ran_until, clock.now(), config.max_downtime).map_err(|e| e.to_string())?;
    start::resume(&mut journal, &mut state, ran_until, clock.now()).map_err(|e| e.to_string())?;
    let ledger = Ledger::open(Box::new(journal), state, rules, bounds, clock.clone(), Box::new(told), fatal);
    let ledger = ledger.map_err(|e| e.to_string())?;
    let watermark = ledger::keep_watermark(ledger.clone(), Box::new(beats), clock.clone())?;
    Ok((ledger, watermark, past))
}
