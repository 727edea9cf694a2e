//! Limits the rate of entries for denials and looks, for each kind of caller. Entries above the limit are counted. An entry of kind
//! `gap` says how many were not written, by reason.

use std::collections::BTreeMap;

use super::entry::{Draft, Kind, Outcome};
use crate::clock::{SECOND, rfc3339};

/// The kinds of callers, each with a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Callers without a valid credential.
    Strangers,
    /// All other callers except operators.
    Callers,
    /// Operators, who are limited only by the room in the inbox.
    Operators,
}

/// The burst, and the microseconds after which one more entry may be written. Strangers cause at most some hundred megabytes in
/// three months.
const STRANGERS: Pace = Pace { burst: 1000, period: 20 * SECOND };
const CALLERS: Pace = Pace { burst: 10_000, period: SECOND / 20 };

#[derive(Clone, Copy)]
struct Pace {
    burst: u64,
    period: u64,
}

/// What was not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gap {
    counts: BTreeMap<String, u64>,
    since: u64,
}

/// The meters of the rate limits, and the gap so far. Times are Unix microseconds.
#[derive(Default)]
pub(super) struct Flood {
    strangers: u64,
    callers: u64,
    gap: Gap,
    told: u64,
}

impl Flood {
    /// Whether an entry may be written. `room` says whether the inbox has room. An entry that may not be written is counted.
    pub(super) fn admits(&mut self, whose: Whose, draft: &Draft, room: bool) -> bool {
        let now = draft.leaf.at;
        let admitted = room
            && match whose {
                Whose::Strangers => take(&mut self.strangers, STRANGERS, now),
                Whose::Callers => take(&mut self.callers, CALLERS, now),
                Whose::Operators => true,
            };
        if !admitted {
            self.missed(draft);
        }
        admitted
    }

    /// Counts an entry that is not written.
    pub(super) fn missed(&mut self, draft: &Draft) {
        metrics::counter!("mayfly_history_unwritten_total").increment(1);
        if self.gap.counts.is_empty() {
            self.gap.since = draft.leaf.at;
        }
        // Reason codes and kinds come from fixed sets, so there are few of them.
        let name = if draft.leaf.reason_code.is_empty() { draft.leaf.kind.as_str() } else { &draft.leaf.reason_code };
        match self.gap.counts.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.gap.counts.insert(name.to_owned(), 1)),
        }
    }

    /// The gap so far, a second after the last one or at the end.
    pub(super) fn gap(&mut self, now: u64, end: bool) -> Option<Gap> {
        let due = end || now >= self.told.saturating_add(SECOND) || now < self.told;
        if self.gap.counts.is_empty() || !due {
            return None;
        }
        self.told = now;
        Some(std::mem::take(&mut self.gap))
    }

    /// Takes back a gap that could not be written.
    pub(super) fn put_back(&mut self, gap: Gap) {
        self.gap.since = gap.since;
        for (name, count) in gap.counts {
            *self.gap.counts.entry(name).or_default() += count;
        }
    }
}

impl Gap {
    /// The entry for this gap.
    pub(super) fn draft(&self, now: u64) -> Draft {
        let mut draft = Draft::new(Kind::Gap, now, Outcome::NotWritten);
        draft.leaf.count = self.counts.values().sum();
        let counts: Vec<String> = self.counts.iter().map(|(name, count)| format!("{count} x {name}")).collect();
        let since = rfc3339(self.since / SECOND);
        draft.opening.reason = format!("not written since {since}: {}", counts.join(", "));
        draft.opening.caller = "issuer".into();
        draft
    }
}

/// Counts one entry against the rate limit. `reading` is the time at which the whole burst will be available again. Returns `false`
/// if the limit is reached.
fn take(reading: &mut u64, pace: Pace, now: u64) -> bool {
    let next = (*reading).max(now) + pace.period;
    let free = next <= now.saturating_add(pace.period.saturating_mul(pace.burst));
    if free {
        *reading = next;
    }
    free
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const START: u64 = 1_800_000_000 * SECOND;

    fn denial(at: u64, code: &str) -> Draft {
        let mut draft = Draft::new(Kind::Denial, at, Outcome::Denied);
        draft.leaf.reason_code = code.into();
        draft
    }

    #[test]
    fn t125_a_flood_of_denials_is_counted_and_never_silently_lost() {
        let mut flood = Flood::default();
        let (mut written, mut told) = (0, 0);
        for n in 0..100_000 {
            let at = START + n * 100;
            written += u64::from(flood.admits(Whose::Strangers, &denial(at, "CERTIFICATE_NEEDED"), true));
            if let Some(gap) = flood.gap(at, false) {
                told += gap.draft(at).leaf.count;
            }
        }
        // In ten seconds: the burst, and the entries that the rate allows since.
        assert!((1000..=1001).contains(&written), "{written}");
        let last = flood.gap(START + 10 * SECOND, true).unwrap();
        told += last.draft(START).leaf.count;
        assert_eq!(written + told, 100_000);
        assert!(last.draft(START).opening.reason.contains("x CERTIFICATE_NEEDED"));
        // Other callers have a limit of their own, and an operator's looks are written.
        assert!(flood.admits(Whose::Callers, &denial(START, "LIMIT_REACHED"), true));
        assert!(flood.admits(Whose::Operators, &denial(START, "AGENT_UNKNOWN"), true));
        assert!(!flood.admits(Whose::Operators, &denial(START, "AGENT_UNKNOWN"), false), "without room it is counted");
        assert_eq!(flood.gap(START, true).unwrap().draft(START).leaf.count, 1);
        assert_eq!(flood.gap(START, true), None);
    }

    #[test]
    fn t125_a_gap_that_could_not_be_written_is_told_later() {
        let mut flood = Flood::default();
        flood.missed(&denial(START, "A"));
        let gap = flood.gap(START, true).unwrap();
        flood.missed(&denial(START + 1, "B"));
        flood.put_back(gap);
        let both = flood.gap(START + 2 * SECOND, false).unwrap();
        assert_eq!((both.draft(START).leaf.count, both.since), (2, START));
    }
}
