//! Limits on numbers, rates and totals of agents. They are counted in commit order, while a batch is judged, so none is ever
//! exceeded.

use mayfly_verify::{ClassName, Subject, Target, Workload, sha256};
use uuid::Uuid;

use super::{Check, Judgement};
use crate::denial::{Denial, Kind};
use crate::journal::record;
use crate::state::mandate::Mandate;
pub use crate::state::meter::WINDOW;
use crate::state::{Count, Delegation, Lineage, Reading, Seat};

/// One configured limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its name, as denials and operators use it.
    pub name: String,
    /// The kind of subject that has a count of its own under this limit.
    pub per: Per,
    /// What is counted.
    pub measure: Measure,
}

/// The kinds of subjects that have a count of their own under a limit, such as each user or each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Per {
    /// The delegating user.
    User,
    /// The workload at the root, for all of its tree.
    Root,
    /// The workload that spawns, for agents directly below it.
    Workload,
    /// Every ancestor that is an agent, for all of its tree.
    Parent,
    /// The class of the new agent.
    Class,
}

impl Per {
    /// Its name in the configuration and in denials.
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
    /// Live agents.
    Live(u64),
    /// Live agents directly below one spawner.
    FanOut(u64),
    /// A rate of spawns: at most `burst` at once, and one more every `period` microseconds (GCRA, ITU-T I.371).
    Rate {
        /// Microseconds between two spawns in the long run.
        period: u64,
        /// How many may come at once.
        burst: u64,
    },
    /// Spawns in each window of `window` microseconds; windows are aligned to the Unix epoch.
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

/// Why a count refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit's value.
    pub limit: u64,
    /// How much of it is used.
    pub used: u64,
    /// Microseconds after which asking again may help. `None` means: when an agent ends or expires.
    pub retry: Option<u64>,
}

/// The meter of a rate after one more spawn. `now` is in Unix microseconds.
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

/// The meter of a total after one more spawn. `now` is in Unix microseconds.
pub fn total(before: Option<Reading>, most: u64, window: u64, now: u64) -> Result<Reading, Full> {
    let until = (now / window.max(1)).saturating_add(1).saturating_mul(window.max(1));
    let used = before.filter(|r| r.until == until).map_or(0, |r| r.value);
    if used >= most {
        return Err(Full { limit: most, used, retry: Some(until - now) });
    }
    Ok(Reading { value: used + 1, until })
}

/// Checks that there may be one more live agent.
pub fn live(used: u64, most: u64) -> Result<(), Full> {
    if used >= most { Err(Full { limit: most, used, retry: None }) } else { Ok(()) }
}

/// The subjects whose counts a new agent is charged to.
#[derive(Clone, Copy, Debug)]
pub struct Spawner<'a> {
    /// The subject of its user. `None` if it acts for nobody.
    pub user: Option<Subject>,
    /// The subject of the workload at its root.
    pub workload: Subject,
    /// The subject of its class.
    pub class: Subject,
    /// Its ancestors that are agents, the parent first.
    pub agents: &'a [(ClassName, Uuid)],
}

impl Limit {
    /// The subjects under which a new agent is counted for this limit.
    pub(super) fn subjects(&self, spawner: &Spawner<'_>) -> Vec<Subject> {
        let agents = spawner.agents;
        let of = |uuid: &Uuid| Target::Agent(*uuid).unsalted();
        match self.per {
            Per::User => spawner.user.into_iter().collect(),
            Per::Root => vec![spawner.workload],
            Per::Workload if agents.is_empty() => vec![spawner.workload],
            Per::Workload => vec![],
            // A fan-out counts children, which only the spawner has; everything else counts for each ancestor.
            Per::Parent if matches!(self.measure, Measure::FanOut(_)) => {
                agents.first().map(|(_, uuid)| of(uuid)).into_iter().collect()
            }
            Per::Parent => agents.iter().map(|(_, uuid)| of(uuid)).collect(),
            Per::Class => vec![spawner.class],
        }
    }

    /// The counter of the live agents of a subject.
    pub(super) fn seat(&self, subject: Subject) -> Seat {
        let count = match (self.measure, self.per) {
            (Measure::FanOut(_), _) | (_, Per::Workload) => Count::DirectlyBelow,
            (_, Per::Class) => Count::OfClass,
            _ => Count::Below,
        };
        Seat(count, subject)
    }
}

impl Judgement<'_> {
    /// Charges a spawn to every limit that applies. Fails with the denial of the first limit that is full.
    pub fn charge(
        &self,
        mandate: &Mandate,
        delegation: Option<&Delegation>,
        lineage: Option<&Lineage>,
    ) -> Result<Vec<record::Charge>, Denial> {
        let mut charges = Vec::new();
        let spawner = Spawner {
            user: delegation.map(Delegation::user_subject),
            workload: mandate.workload_subject,
            class: mandate.class_subject,
            agents: lineage.map(|l| l.agents.as_slice()).unwrap_or_default(),
        };
        for (index, limit) in self.rules().limits.iter().enumerate() {
            self.checking(Check::Limit(index));
            for subject in limit.subjects(&spawner) {
                let refuse = |full: Full| refused(limit, full);
                match limit.measure {
                    Measure::Live(most) | Measure::FanOut(most) => {
                        live(self.view().seats(limit.seat(subject)), most).map_err(refuse)?;
                    }
                    Measure::Rate { period, burst } => {
                        let meter = meter(limit, &subject.0);
                        charges.push((meter, rate(self.view().meter(&meter), period, burst, self.at()).map_err(refuse)?));
                    }
                    Measure::Total { most, window } => {
                        let meter = meter(limit, &subject.0);
                        charges.push((meter, total(self.view().meter(&meter), most, window, self.at()).map_err(refuse)?));
                    }
                }
            }
        }
        let charge = |(meter, r): ([u8; 16], Reading)| record::Charge { meter: meter.to_vec(), value: r.value, until: r.until };
        Ok(charges.into_iter().map(charge).collect())
    }

    /// How many more agents of a class the tightest limit allows there. `None` if no limit applies.
    pub(super) fn left(
        &self,
        class: &ClassName,
        workload: &Workload,
        delegation: Option<&Delegation>,
        lineage: Option<&Lineage>,
    ) -> Option<u64> {
        let agents = lineage.map(|l| l.agents.as_slice()).unwrap_or_default();
        let subject = |target: Target| self.view().subject(&target);
        let (root, class) = (subject(Target::Workload(workload.clone())), subject(Target::Class(class.clone())));
        let spawner = Spawner { user: delegation.map(Delegation::user_subject), workload: root, class, agents };
        let left = |limit: &Limit, subject: Subject| match limit.measure {
            Measure::Live(most) | Measure::FanOut(most) => most.saturating_sub(self.view().seats(limit.seat(subject))),
            Measure::Rate { period, burst } => {
                let arrival = self.view().meter(&meter(limit, &subject.0)).map_or(0, |reading| reading.value);
                burst.saturating_sub(arrival.saturating_sub(self.at()).div_ceil(period.max(1)))
            }
            Measure::Total { most, window } => {
                let reading = self.view().meter(&meter(limit, &subject.0));
                total(reading, most, window, self.at()).map_or(0, |after| most.saturating_sub(after.value) + 1)
            }
        };
        self.rules().limits.iter().flat_map(|limit| limit.subjects(&spawner).into_iter().map(|of| left(limit, of))).min()
    }
}

/// The denial of a full limit: its name and value, how much is used, and when to ask again.
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

/// The id of a limit's meter for a subject.
pub(super) fn meter(limit: &Limit, subject: &[u8; 16]) -> [u8; 16] {
    let name = limit.name.as_bytes();
    let kind = limit.measure.as_str().as_bytes();
    let parts: [&[u8]; 5] = [name, b"\0", kind, b"\0", subject];
    let mut meter = [0u8; 16];
    for (to, from) in meter.iter_mut().zip(sha256(&parts.concat())) {
        *to = from;
    }
    meter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A total is never exceeded in a window, and a refusal names the time from which a retry succeeds.
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

        /// In any interval a rate admits at most its burst and one more for each period.
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
