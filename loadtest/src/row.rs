//! One measurement: a row of the report.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::floor::{Floor, Must, median};
use crate::load::{self, Run};
use crate::machine::Process;
use crate::server::Server;

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) scenario: String,
    /// Operations a second: the median of all runs.
    pub(crate) achieved: f64,
    /// Operations that were done.
    pub(crate) done: u64,
    /// Calls that were not.
    pub(crate) errors: u64,
    /// The error of the first operation that failed.
    pub(crate) first_error: Option<String>,
    /// Latencies of the calls of all runs, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Microseconds of the server's CPU for one operation: the median of all runs.
    pub(crate) cpu_us: Option<f64>,
    /// The cost of signatures and of an empty RPC at that time.
    pub(crate) floor: Floor,
    /// The floor of one operation, in microseconds. `None` if it has none.
    pub(crate) floor_us: Option<f64>,
    /// Bytes of the server's memory afterwards.
    pub(crate) rss: Option<u64>,
    /// Agents that the server knew afterwards.
    pub(crate) live: Option<u64>,
    /// The journal's head afterwards.
    pub(crate) revision: Option<u64>,
    /// Operations in each step, with the runs one after the other.
    pub(crate) timeline: Vec<u64>,
    /// Seconds of the server's CPU by thread.
    pub(crate) threads: BTreeMap<String, f64>,
    /// Further figures by name; the name ends in the unit.
    pub(crate) facts: Vec<(&'static str, f64)>,
}

impl Row {
    /// A row of one kind of call, from its runs; each call is `weight` operations.
    pub(crate) async fn of(server: &impl Server, scenario: &str, weight: u64, floor: Floor, runs: &[Run]) -> Result<Row, String> {
        let mut row = Row::empty(server, scenario, floor).await?;
        row.achieved = median(runs.iter().map(Run::rate).collect()) * load::float(weight);
        let cpus: Vec<f64> = runs.iter().filter_map(Run::cpu_us).collect();
        row.cpu_us = (!cpus.is_empty()).then(|| median(cpus) / load::float(weight));
        for run in runs {
            row.done += run.done * weight;
            row.errors += run.errors;
            row.first_error = row.first_error.or_else(|| run.first_error.clone());
            row.latency.add(&run.latency).map_err(|e| e.to_string())?;
            row.timeline.extend(run.timeline.iter().map(|n| n * weight));
            for (name, cpu) in &run.threads {
                *row.threads.entry(name.clone()).or_default() += cpu;
            }
        }
        Ok(row)
    }

    /// A row without figures, but with the memory and the live agents of the server now.
    pub(crate) async fn empty(server: &impl Server, scenario: &str, floor: Floor) -> Result<Row, String> {
        let standing = server.standing().await;
        Ok(Row {
            scenario: scenario.to_owned(),
            achieved: 0.0,
            done: 0,
            errors: 0,
            first_error: None,
            latency: load::histogram()?,
            cpu_us: None,
            floor,
            floor_us: None,
            rss: server.process().and_then(Process::resident),
            live: standing.live,
            revision: standing.revision,
            timeline: Vec::new(),
            threads: BTreeMap::new(),
            facts: Vec::new(),
        })
    }

    /// Adds the floor of an operation.
    pub(crate) fn beside(mut self, must: Must) -> Row {
        self.floor_us = self.floor.of(must);
        self
    }

    /// Adds a further figure.
    pub(crate) fn with(mut self, name: &'static str, value: f64) -> Row {
        self.facts.push((name, value));
        self
    }

    /// Server CPU in floors.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.cpu_us.zip(self.floor_us).map(|(cpu, floor)| cpu / floor)
    }

    /// A percentile of the latency, in milliseconds.
    pub(crate) fn ms(&self, of_hundred: f64) -> f64 {
        load::float(self.latency.value_at_quantile(of_hundred / 100.0)) / 1e6
    }
}

/// Calls that are timed one at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timed {
    times: Vec<Duration>,
    errors: u64,
    first_error: Option<String>,
}

impl Timed {
    /// Adds the time of a call, or its error.
    pub(crate) fn take(&mut self, result: Result<Duration, String>) {
        match result {
            Ok(time) => self.times.push(time),
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    /// All of them as a row.
    pub(crate) async fn row(self, server: &impl Server, scenario: &str) -> Result<Row, String> {
        let mut row = Row::empty(server, scenario, Floor::signatures()?).await?;
        self.times.iter().for_each(|time| load::record(&mut row.latency, *time));
        let total: f64 = self.times.iter().map(Duration::as_secs_f64).sum();
        row.done = u64::try_from(self.times.len()).unwrap_or(0);
        row.achieved = if total > 0.0 { load::float(row.done) / total } else { 0.0 };
        (row.errors, row.first_error) = (self.errors, self.first_error);
        Ok(row)
    }
}
