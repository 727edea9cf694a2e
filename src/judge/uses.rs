//! How much of each limit is used, for explanations: nothing is charged.

use mayfly_verify::Subject;

use super::Judgement;
use super::limits::{Limit, Measure, Spawner, meter, rate, total};
use crate::state::State;

/// How much of one limit is used, by the subject that has used the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The index of the limit in the configuration.
    pub limit: usize,
    /// How much is used.
    pub used: u64,
    /// How much there is.
    pub most: u64,
    /// Microseconds after which there is room again. `None` if there is room, or if it comes only when agents end or expire.
    pub retry: Option<u64>,
}

impl Judgement<'_> {
    /// How much is used of every limit that a new agent of this spawner would be charged to.
    pub fn uses(&self, spawner: &Spawner<'_>) -> Vec<Usage> {
        let of = |(index, limit): (usize, &Limit)| {
            let (used, retry) = limit.subjects(spawner).into_iter().map(|subject| self.used(limit, subject)).max()?;
            Some(Usage { limit: index, used, most: limit.most(), retry })
        };
        self.rules().limits.iter().enumerate().filter_map(of).collect()
    }

    /// The subjects under which a new agent of this spawner would be counted for a limit, and how much each has used. Records of a
    /// batch are not included. `now` is in Unix microseconds.
    pub fn used_by(state: &State, limit: &Limit, spawner: &Spawner<'_>, now: u64) -> Vec<(Subject, u64)> {
        let used = |subject: Subject| match limit.measure {
            Measure::Live(_) | Measure::FanOut(_) => u64::try_from(state.seats(limit.seat(subject))).unwrap_or(0),
            Measure::Rate { period, burst } => {
                let early = state.meter(&meter(limit, &subject.0)).map_or(0, |reading| reading.value.saturating_sub(now));
                early.div_ceil(period.max(1)).min(burst)
            }
            Measure::Total { .. } => {
                let reading = state.meter(&meter(limit, &subject.0)).filter(|reading| reading.until > now);
                reading.map_or(0, |reading| reading.value)
            }
        };
        limit.subjects(spawner).into_iter().map(|subject| (subject, used(subject))).collect()
    }

    /// How much is used, and when there is room again.
    fn used(&self, limit: &Limit, subject: Subject) -> (u64, Option<u64>) {
        let reading = || self.view().meter(&meter(limit, &subject.0));
        match limit.measure {
            Measure::Live(_) | Measure::FanOut(_) => (self.view().seats(limit.seat(subject)), None),
            Measure::Rate { period, burst } => {
                let used = reading().map_or(0, |reading| reading.value.saturating_sub(self.at())).div_ceil(period.max(1));
                (used.min(burst), rate(reading(), period, burst, self.at()).err().and_then(|full| full.retry))
            }
            Measure::Total { most, window } => match total(reading(), most, window, self.at()) {
                Ok(after) => (after.value.saturating_sub(1), None),
                Err(full) => (full.used, full.retry),
            },
        }
    }
}

impl Limit {
    /// The value of the limit: agents, or spawns at once or in a window.
    pub fn most(&self) -> u64 {
        match self.measure {
            Measure::Live(most) | Measure::FanOut(most) | Measure::Total { most, .. } => most,
            Measure::Rate { burst, .. } => burst,
        }
    }

    /// The same limit with another value.
    #[must_use]
    pub fn of(&self, most: u64) -> Limit {
        let measure = match self.measure {
            Measure::Live(_) => Measure::Live(most),
            Measure::FanOut(_) => Measure::FanOut(most),
            Measure::Total { window, .. } => Measure::Total { most, window },
            Measure::Rate { period, .. } => Measure::Rate { period, burst: most },
        };
        Limit { measure, ..self.clone() }
    }

    /// The same limit with room for one more than `used`.
    #[must_use]
    pub fn raised(&self, used: u64) -> Limit {
        self.of(self.most().max(used.saturating_add(1)))
    }
}
