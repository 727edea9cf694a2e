//! Rounds: an empty RPC and the work in turns, so that both see the same machine; the median counts.

use std::time::Duration;

use crate::Options;
use crate::floor::{Floor, Must, median};
use crate::issuer::Issuer;
use crate::load::{self, Plan, Run};
use crate::row::Row;

/// How often.
const ROUNDS: u32 = 3;
/// How long the empty RPC is measured in each.
const EMPTY: Duration = Duration::from_millis(1000);
/// For what was prepared to last, though a round is faster than the one before.
const SPARE: f64 = 1.3;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work<'a> {
    /// What it is called.
    pub(crate) name: &'a str,
    /// What one operation must do at least.
    pub(crate) must: Must,
    /// Operations in one call.
    pub(crate) weight: u64,
    /// Calls in flight.
    pub(crate) concurrency: usize,
    /// Calls a second; none: as many as are answered.
    pub(crate) rate: Option<f64>,
    /// Calls of the warm-up at most.
    pub(crate) warm: usize,
    /// Calls of one round at most.
    pub(crate) most: usize,
    /// Seconds of all rounds together.
    pub(crate) seconds: f64,
}

impl<'a> Work<'a> {
    /// As the options say, or by default.
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
}

/// Measures. `prepare` makes the call of one round, which is made so many times at most.
pub(crate) async fn rounds<F, C>(
    issuer: &Issuer,
    work: Work<'_>,
    mut prepare: impl AsyncFnMut(usize) -> Result<C, String>,
) -> Result<Row, String>
where
    C: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let plan = Plan {
        name: work.name,
        concurrency: work.concurrency,
        rate: None,
        duration: Duration::from_secs(2),
        supply: work.warm,
        server: issuer.process,
    };
    let warm = load::run(plan, prepare(work.warm).await?).await?;
    if let (0, Some(error)) = (warm.done, warm.first_error.clone()) {
        return Err(error);
    }
    let mut best = warm.rate();
    let mut floor = Floor::signatures()?;
    let (mut empty, mut runs): (Vec<f64>, Vec<Run>) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        if load::ending() {
            break;
        }
        empty.extend(self::empty(issuer, work.concurrency, EMPTY).await?.cpu_us());
        let duration = Duration::from_secs_f64(work.seconds / f64::from(ROUNDS));
        let calls = work.rate.map_or(best * SPARE, |rate| rate) * duration.as_secs_f64();
        let supply = whole(calls).saturating_add(work.concurrency).min(work.most);
        eprintln!("{}: preparing {supply} calls", work.name);
        let call = prepare(supply).await?;
        let run = load::run(Plan { rate: work.rate, duration, supply, ..plan }, call).await?;
        best = best.max(run.rate());
        runs.push(run);
    }
    if runs.is_empty() {
        runs.push(warm);
    }
    floor.rpc = (!empty.is_empty()).then(|| median(empty));
    Ok(Row::of(issuer, work.name, work.weight, floor, &runs).await?.beside(work.must))
}

/// The empty RPC alone.
pub(crate) async fn empty(issuer: &Issuer, concurrency: usize, duration: Duration) -> Result<Run, String> {
    let client = issuer.as_workload().await?;
    let plan = Plan { name: "empty rpc", concurrency, rate: None, duration, supply: usize::MAX, server: issuer.process };
    let call = move |_| {
        let client = client.clone();
        async move { client.empty().await }
    };
    load::run(plan, call).await
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of calls")]
fn whole(n: f64) -> usize {
    n.ceil().max(1.0) as usize
}
