//! The generator: calls in a closed loop, or at a fixed rate with their latency from the moment at which they were due.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::machine::Process;

/// Width of one step of the timeline.
pub(crate) const STEP: Duration = Duration::from_millis(100);
/// Most steps of the timeline. Later calls are counted in the last step.
const STEPS: usize = 36_000;
/// Most calls in flight when calls are made at a fixed rate.
const OPEN: usize = 4096;

// Set by the first Ctrl-C: the measurement ends, and its report is still written.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Ends the measurement at the first Ctrl-C or SIGTERM, and returns at the second.
pub(crate) async fn interrupted_twice() -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    loop {
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed.map_err(|e| e.to_string())?,
            _ = terminate.recv() => {}
        }
        if ENDING.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        eprintln!("ending: what was measured so far follows");
    }
}

/// Whether the measurement is to end.
pub(crate) fn ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}

/// A call in flight.
pub(crate) type Calling = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
/// Makes a call. The argument is the number of the call, from 0.
pub(crate) type Call = Box<dyn Fn(usize) -> Calling + Send + Sync>;

/// Boxes a call of any type.
pub(crate) fn boxed<F>(call: impl Fn(usize) -> F + Send + Sync + 'static) -> Call
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    Box::new(move |n| Box::pin(call(n)))
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// For the progress.
    pub(crate) name: &'a str,
    /// Calls in flight.
    pub(crate) concurrency: usize,
    /// Calls a second. `None` makes each next call as soon as one was answered.
    pub(crate) rate: Option<f64>,
    /// How long.
    pub(crate) duration: Duration,
    /// Most calls, because input was prepared for so many.
    pub(crate) supply: usize,
    /// Whose CPU is counted.
    pub(crate) server: Option<Process>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Calls that were answered as they should be.
    pub(crate) done: u64,
    /// The others.
    pub(crate) errors: u64,
    /// The error of the first call that failed.
    pub(crate) first_error: Option<String>,
    /// Seconds.
    pub(crate) wall: f64,
    /// Latencies of the successful calls, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Successful calls in each step.
    pub(crate) timeline: Vec<u64>,
    /// Seconds of the server's CPU.
    pub(crate) cpu: Option<f64>,
    /// The same by thread.
    pub(crate) threads: BTreeMap<String, f64>,
}

impl Run {
    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        if self.wall > 0.0 { float(self.done) / self.wall } else { 0.0 }
    }

    /// Microseconds of the server's CPU for one call.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        self.cpu.map(|cpu| cpu * 1e6 / float(self.done.max(1)))
    }
}

/// An empty histogram, from a microsecond to two minutes, with three significant digits.
pub(crate) fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1_000, 120_000_000_000, 3).map_err(|e| e.to_string())
}

/// Adds a time to a histogram.
pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn float(n: u64) -> f64 {
    n as f64
}

struct Tally {
    next: AtomicUsize,
    done: AtomicU64,
    errors: AtomicU64,
    steps: Vec<AtomicU64>,
    // Guards the text of the first error.
    first_error: Mutex<Option<String>>,
    started: Instant,
}

impl Tally {
    fn take(&self, result: Result<(), String>) -> bool {
        match result {
            Ok(()) => {
                self.done.fetch_add(1, Ordering::Relaxed);
                let step = usize::try_from(self.started.elapsed().as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
                if let Some(step) = self.steps.get(step.min(self.steps.len().saturating_sub(1))) {
                    step.fetch_add(1, Ordering::Relaxed);
                }
                true
            }
            Err(error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                self.first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                false
            }
        }
    }
}

/// Makes the calls of a plan. The argument of `call` is the number of the call, from 0.
pub(crate) async fn run<F, C>(plan: Plan<'_>, call: C) -> Result<Run, String>
where
    C: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let steps = usize::try_from(plan.duration.as_millis() / STEP.as_millis()).unwrap_or(STEPS).saturating_add(20).min(STEPS);
    let (cpu, threads) = (plan.server.and_then(Process::cpu), plan.server.map(Process::threads).unwrap_or_default());
    let tally = Arc::new(Tally {
        next: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        steps: (0..steps).map(|_| AtomicU64::new(0)).collect(),
        first_error: Mutex::new(None),
        started: Instant::now(),
    });
    let progress = tokio::spawn(tell(plan.name.to_owned(), Arc::clone(&tally)));
    let latency = match plan.rate {
        None => closed(plan, Arc::new(call), &tally).await,
        Some(rate) => open(plan, rate, Arc::new(call), &tally).await,
    };
    progress.abort();
    let wall = tally.started.elapsed().as_secs_f64();
    let used = plan.server.and_then(Process::cpu).zip(cpu).map(|(after, before)| after - before);
    let mut by_thread = plan.server.map(Process::threads).unwrap_or_default();
    for (name, before) in threads {
        by_thread.entry(name).and_modify(|after| *after = (*after - before).max(0.0));
    }
    let mut timeline: Vec<u64> = tally.steps.iter().map(|step| step.load(Ordering::Relaxed)).collect();
    let last = timeline.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
    timeline.truncate(last);
    let first_error = tally.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Run {
        done: tally.done.load(Ordering::Relaxed),
        errors: tally.errors.load(Ordering::Relaxed),
        first_error,
        wall,
        latency: latency?,
        timeline,
        cpu: used,
        threads: by_thread,
    })
}

/// A closed loop: each caller makes its next call when the last one was answered.
async fn closed<F, C>(plan: Plan<'_>, call: Arc<C>, tally: &Arc<Tally>) -> Result<Histogram<u64>, String>
where
    C: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..plan.concurrency.max(1) {
        let (call, tally) = (Arc::clone(&call), Arc::clone(tally));
        let mut times = histogram()?;
        callers.spawn(async move {
            loop {
                let n = tally.next.fetch_add(1, Ordering::Relaxed);
                if n >= plan.supply || ending() || tally.started.elapsed() >= plan.duration {
                    return times;
                }
                let at = Instant::now();
                if tally.take(call(n).await) {
                    record(&mut times, at.elapsed());
                }
            }
        });
    }
    let mut all = histogram()?;
    while let Some(times) = callers.join_next().await {
        all.add(times.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    Ok(all)
}

/// An open loop: calls are made when they are due, whether or not earlier ones were answered. A latency counts from the moment at
/// which the call was due.
async fn open<F, C>(plan: Plan<'_>, rate: f64, call: Arc<C>, tally: &Arc<Tally>) -> Result<Histogram<u64>, String>
where
    C: Fn(usize) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let times = Arc::new(Mutex::new(histogram()?));
    let (room, runtime) = (Arc::new(Semaphore::new(OPEN)), tokio::runtime::Handle::current());
    let (tally, ours) = (Arc::clone(tally), Arc::clone(&times));
    let (supply, duration, waits) = (plan.supply, plan.duration, Arc::clone(&room));
    let start = tally.started;
    // The pacer has a thread of its own, because the runtime's timer has a resolution of a millisecond.
    let pacer = std::thread::Builder::new().name("loadtest-pacer".into()).spawn(move || {
        for (n, due) in (0..supply).map(|n| (n, Duration::from_secs_f64(float(u64::try_from(n).unwrap_or(0)) / rate))) {
            if due >= duration || ending() {
                return;
            }
            if let Some(early) = due.checked_sub(start.elapsed()) {
                std::thread::sleep(early);
            }
            let (call, tally, times, room) = (Arc::clone(&call), Arc::clone(&tally), Arc::clone(&ours), Arc::clone(&waits));
            runtime.spawn(async move {
                let Ok(_place) = room.acquire().await else { return };
                if tally.take(call(n).await) {
                    let took = start.elapsed().saturating_sub(due);
                    record(&mut times.lock().unwrap_or_else(PoisonError::into_inner), took);
                }
                drop(times);
            });
        }
    });
    let pacer = pacer.map_err(|e| e.to_string())?;
    tokio::task::spawn_blocking(move || pacer.join()).await.map_err(|e| e.to_string())?.map_err(|_| "the pacer failed")?;
    // A call in flight holds a reference to `times`, or a permit.
    while Arc::strong_count(&times) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(times)
}

/// Writes a line of progress to stderr each second.
async fn tell(name: String, tally: Arc<Tally>) {
    let (mut before, mut at) = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (done, errors) = (tally.done.load(Ordering::Relaxed), tally.errors.load(Ordering::Relaxed));
        let rate = float(done - before) / at.elapsed().as_secs_f64();
        let wall = tally.started.elapsed().as_secs_f64();
        eprintln!("{name}: {wall:>3.0} s {rate:>8.0}/s {done:>9} done {errors} errors");
        (before, at) = (done, Instant::now());
    }
}
