//! `[writes]`: rate limits of requests that are recorded, apart from spawns.

use super::limits::read_period;
use super::reader::Reader;
use crate::judge::pace::{Pace, Paces, Verb};

/// The burst of a rate: as many requests as in this number of seconds.
const BURST: u64 = 10;

/// The section.
pub(super) struct Writes {
    pub(super) paces: Vec<(Verb, Paces)>,
    pub(super) taken_back: usize,
}

pub(super) fn read_writes(w: &mut Reader) -> Writes {
    let taken_back = w.size("taken_back_below", 10_000, 1, 1_000_000);
    let mut paces = Vec::new();
    for verb in Verb::ALL {
        let (caller, root) = defaults(verb);
        let mut section = w.section(verb.as_str());
        let caller = read_pace(&mut section, "caller", caller);
        let root = read_pace(&mut section, "root", root);
        w.close(section);
        if let Some((caller, root)) = caller.zip(root) {
            paces.push((verb, Paces { caller, root }));
        }
    }
    Writes { paces, taken_back }
}

fn read_pace(w: &mut Reader, key: &str, default: &str) -> Option<Pace> {
    let period = w.parsed(key, Some(default), read_period)?;
    Some(Pace { period, burst: (BURST * 1_000_000 / period).max(BURST) })
}

/// The default rates of each caller, and of each root.
fn defaults(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Mint | Verb::Exchange => ("20/s", "5000/s"),
        // Each revoked token stays in the feed until it expires.
        Verb::RevokeToken => ("1/s", "20/s"),
        // A gateway spends for all agents that call through it.
        Verb::Spend => ("200/s", "1000/s"),
        Verb::Renew | Verb::Redeem => ("1/s", "5000/s"),
        Verb::End => ("1000/s", "5000/s"),
        Verb::Revoke => ("100/s", "500/s"),
        Verb::RevokeOwn => ("3/s", "3/s"),
        Verb::Operate => ("50/s", "50/s"),
        Verb::Ask => ("1/s", "100/s"),
        Verb::Answer => ("3/s", "3/s"),
    }
}
