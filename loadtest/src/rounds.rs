//! Rounds: an empty RPC and the work in turns, so that both see the same machine; the median counts.

use std::time::Duration;

use crate::Options;
use crate::floor::{Floor, Must, median};
use crate::load::{self, Plan, Run};
use crate::row::Row;
use crate::server::Server;

/// How often.
pub(crate) const ROUNDS: u32 = 3;
/// How long the empty RPC is measured in each round.
const EMPTY: Duration = Duration::from_millis(1000);
/// By how much more input is prepared than the last round used, because the next may be faster.
const SPARE: f64 = 1.3;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// What it is called.
    pub(crate) name: &'a str,
    /// The signature operations that one operation cannot do without.
    pub(crate) must: Must,
    /// Operations in one call.
    pub(crate) weight: u64,
    /// Calls in flight.
    pub(crate) concurrency: usize,
    /// Calls a second. `None` makes each next call as soon as one was answered.
    pub(crate) rate: Option<f64>,
    /// Most calls of the warm-up.
    pub(crate) warm: usize,
    /// Most calls of one round.
    pub(crate) most: usize,
    /// Seconds of all rounds together.
    pub(crate) seconds: f64,
}

impl<'a> Work<'a> {
    /// The work with the rate and duration of the options, or with `seconds`.
    pub(crate) fn new(name: &'a str, options: &Options, seconds: f64) -> Work<'a> {
        Work {
            name,
            must: Must::default(),
            weight: 1,
            concurrency: options.concurrency,
            rate: options.rate,
            warm: 2000,
            most: usize::MAX,
            seconds: options.duration.unwrap_or(seconds),
        }
    }

    /// A closed loop of this duration.
    fn plan(&self, server: &impl Server, duration: Duration) -> Plan<'a> {
        let Work { name, concurrency, .. } = *self;
        Plan { name, concurrency, rate: None, duration, supply: usize::MAX, server: server.process() }
    }
}

/// Measures all rounds. `prepare` returns the call for one round; its argument is how often that call is made at most.
pub(crate) async fn rounds<F, C>(
    server: &impl Server,
    work: Work<'_>,
    prepare: impl AsyncFnMut(usize) -> Result<C, String>,
) -> Result<Row, String>
where
    C: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut series = Series::begin(server, work, prepare).await?;
    for _ in 0..ROUNDS {
        series.round().await?;
    }
    series.row().await
}

/// The rounds of one work, as they are made.
pub(crate) struct Series<'a, S, P> {
    server: &'a S,
    work: Work<'a>,
    prepare: P,
    floor: Floor,
    warm: Run,
    empty: Vec<f64>,
    runs: Vec<Run>,
}

impl<'a, S: Server, P> Series<'a, S, P> {
    /// Warms the server.
    pub(crate) async fn begin<F, C>(server: &'a S, work: Work<'a>, mut prepare: P) -> Result<Self, String>
    where
        P: AsyncFnMut(usize) -> Result<C, String>,
        C: Fn(usize) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let call = prepare(work.warm).await?;
        let warm = load::run(Plan { supply: work.warm, ..work.plan(server, Duration::from_secs(2)) }, call).await?;
        if let (0, Some(error)) = (warm.done, warm.first_error.clone()) {
            return Err(error);
        }
        Ok(Series { server, work, prepare, floor: Floor::signatures()?, warm, empty: Vec::new(), runs: Vec::new() })
    }

    /// Measures one more round, unless the measurement is to end.
    pub(crate) async fn round<F, C>(&mut self) -> Result<(), String>
    where
        P: AsyncFnMut(usize) -> Result<C, String>,
        C: Fn(usize) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        if load::ending() {
            return Ok(());
        }
        self.empty.extend(empty(self.server, self.work.concurrency, EMPTY).await?.cpu_us());
        let duration = Duration::from_secs_f64(self.work.seconds / f64::from(ROUNDS));
        let best = self.runs.iter().map(Run::rate).fold(self.warm.rate(), f64::max);
        let calls = self.work.rate.unwrap_or(best * SPARE) * duration.as_secs_f64();
        let supply = whole(calls).saturating_add(self.work.concurrency).min(self.work.most);
        eprintln!("{}: preparing {supply} calls", self.work.name);
        let call = (self.prepare)(supply).await?;
        let plan = Plan { rate: self.work.rate, supply, ..self.work.plan(self.server, duration) };
        self.runs.push(load::run(plan, call).await?);
        Ok(())
    }

    /// Those that were made.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The row of all rounds. If the measurement ended before its first round, it is that of the warm-up.
    pub(crate) async fn row(mut self) -> Result<Row, String> {
        if self.runs.is_empty() {
            self.runs.push(self.warm);
        }
        self.floor.rpc = (!self.empty.is_empty()).then(|| median(self.empty));
        let row = Row::of(self.server, self.work.name, self.work.weight, self.floor, &self.runs).await?;
        Ok(row.beside(self.work.must))
    }
}

/// The empty RPC alone.
pub(crate) async fn empty(server: &impl Server, concurrency: usize, duration: Duration) -> Result<Run, String> {
    let call = server.empty().await?;
    let process = server.process();
    let plan = Plan { name: "empty rpc", concurrency, rate: None, duration, supply: usize::MAX, server: process };
    load::run(plan, call).await
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of calls")]
fn whole(n: f64) -> usize {
    n.ceil().max(1.0) as usize
}
