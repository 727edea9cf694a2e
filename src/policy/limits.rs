//! Limits: how many, how fast, how many in a window; counted by the writer at commit and never exceeded by one. Pure.

/// Longest window of a total, and longest time in which a burst is earned back, in microseconds: the journal remembers
/// admissions for at least that long.
pub const WINDOW: u64 = 3_600_000_000;

/// One configured limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What refusals and operators call it.
    pub name: String,
    /// Of whom each has the limit for itself.
    pub per: Per,
    /// What is counted.
    pub measure: Measure,
}

/// Whose count it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// The delegating user.
    User,
    /// The workload at the root, for all of its tree.
    Root,
    /// The workload that spawns, for agents directly below it.
    Workload,
    /// Every agent above, for all that stands below it.
    Parent,
    /// The class of the new agent.
    Class,
}

impl Per {
    /// As configuration and refusals write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Per::User => "user",
            Per::Root => "root",
            Per::Workload => "workload",
            Per::Parent => "parent",
            Per::Class => "class",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Agents that live at once.
    Live(u64),
    /// Agents that live at once directly below one spawner.
    FanOut(u64),
    /// Spawns, evenly: at most `burst` at once, one more every `period` microseconds (GCRA, ITU-T I.371).
    Rate {
        /// Microseconds between two spawns in the long run.
        period: u64,
        /// How many may come at once.
        burst: u64,
    },
    /// Spawns in each window of `window` microseconds, counted from the epoch.
    Total {
        /// How many.
        most: u64,
        /// Microseconds.
        window: u64,
    },
}

impl Measure {
    /// As refusals write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Live(_) => "live",
            Measure::FanOut(_) => "fan_out",
            Measure::Rate { .. } => "rate",
            Measure::Total { .. } => "total",
        }
    }
}

/// How a meter stands: what a rate or a total remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of a rate: the theoretical arrival time. Of a total: how many in the window that ends at `until`.
    pub value: u64,
    /// Unix microseconds from which on it says nothing.
    pub until: u64,
}

/// Why a count refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit's value.
    pub limit: u64,
    /// How much of it is used.
    pub used: u64,
    /// Microseconds after which asking again may help; none: when an agent ends or expires.
    pub retry: Option<u64>,
}

/// One more spawn by a rate. `now` is in unix microseconds.
pub fn rate(before: Option<Reading>, period: u64, burst: u64, now: u64) -> Result<Reading, Full> {
    let tat = before.map_or(now, |r| r.value.max(now));
    let tolerance = period.saturating_mul(burst.saturating_sub(1));
    let early = tat.saturating_sub(now);
    if early > tolerance {
        return Err(Full { limit: burst, used: burst, retry: Some(early - tolerance) });
    }
    let value = tat.saturating_add(period);
    Ok(Reading { value, until: value })
}

/// One more spawn in its window. `now` is in unix microseconds.
pub fn total(before: Option<Reading>, most: u64, window: u64, now: u64) -> Result<Reading, Full> {
    let until = (now / window.max(1)).saturating_add(1).saturating_mul(window.max(1));
    let used = before.filter(|r| r.until == until).map_or(0, |r| r.value);
    if used >= most {
        return Err(Full { limit: most, used, retry: Some(until - now) });
    }
    Ok(Reading { value: used + 1, until })
}

/// One more of those that live.
pub fn live(used: u64, most: u64) -> Result<(), Full> {
    if used >= most { Err(Full { limit: most, used, retry: None }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// No window is exceeded by one, and a refusal names the moment from which on it helps.
        #[test]
        fn a_total_holds_in_every_window(most in 1u64..5, window in 1u64..50, steps in proptest::collection::vec(0u64..20, 1..200)) {
            let (mut reading, mut now, mut counts) = (None, 0u64, std::collections::BTreeMap::<u64, u64>::new());
            for step in steps {
                now += step;
                match total(reading, most, window, now) {
                    Ok(next) => {
                        reading = Some(next);
                        *counts.entry(now / window).or_default() += 1;
                    }
                    Err(full) => {
                        prop_assert_eq!(counts.get(&(now / window)), Some(&most));
                        prop_assert!(total(reading, most, window, now + full.retry.unwrap_or(0)).is_ok());
                    }
                }
            }
            prop_assert!(counts.values().all(|c| *c <= most));
        }

        /// In any stretch of time a rate lets through at most its burst and what the stretch earned.
        #[test]
        fn a_rate_holds_over_every_stretch(period in 1u64..50, burst in 1u64..6, steps in proptest::collection::vec(0u64..60, 1..200)) {
            let (mut reading, mut now, mut passed) = (None, 0u64, Vec::new());
            for step in steps {
                now += step;
                match rate(reading, period, burst, now) {
                    Ok(next) => {
                        reading = Some(next);
                        passed.push(now);
                    }
                    Err(full) => {
                        let wait = full.retry.unwrap_or(0);
                        prop_assert!(wait > 0 && rate(reading, period, burst, now + wait).is_ok());
                        prop_assert!(rate(reading, period, burst, now + wait - 1).is_err());
                    }
                }
            }
            for (i, from) in passed.iter().enumerate() {
                for (j, to) in passed.iter().enumerate().skip(i) {
                    prop_assert!(u64::try_from(j - i).unwrap_or(u64::MAX) < burst + (to - from) / period + 1);
                }
            }
        }
    }
}
