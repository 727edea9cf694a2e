//! The pipeline: takes what has queued as a group and carries it through prove, commit, sign, look again, and release. It knows
//! no act. Acts that sign nothing have a lane of their own, which does nothing but commit: a revocation never waits behind
//! signatures.

mod job;
mod queue;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::authority::Seal;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Act, Chance, Judgement};
use crate::ledger::{Fate, Group, Ledger, Recorded};
use crate::process;
use crate::state::State;
use job::{Carried, Job, Recording, Reply};
use queue::{PushError, Queue};

/// Most single acts in one group. A larger group would only delay its first answers.
const GROUP: usize = 16;

/// Batches that wait or are carried at once: each holds up to a thousand acts in memory.
const BATCHES: usize = 16;

/// An act that ends in signatures.
pub trait Issue: Act {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// 1. Proves what came from the wire, by its signatures.
    fn prove(&mut self) -> Result<(), Denial>;

    /// 4. Signs what was recorded, and nothing else.
    fn sign(&self, permit: Recorded<Self::Permit>, seal: &Seal) -> Result<Self::Answer, Fault>;

    /// 5. Checks the signed answer against the state now: what was revoked after it was recorded is withheld (T85).
    fn look_again(answer: &Self::Answer, state: &State) -> Result<(), Denial>;
}

/// An answer of a batch, with its index in the batch.
pub type Item<T> = (usize, Result<T, No>);

/// Hands acts to the threads that carry them.
pub struct Pipeline {
    issue: Arc<Queue<Work>>,
    record: Arc<Queue<Box<dyn Job>>>,
    batches: Arc<Semaphore>,
}

enum Work {
    One(Box<dyn Job>),
    /// A group of its own: committed together, answered one by one.
    Many(Vec<Box<dyn Job>>, OwnedSemaphorePermit),
}

/// Acts that are committed together.
struct Jobs {
    jobs: Vec<Box<dyn Job>>,
    urgent: bool,
}

impl Group for Jobs {
    fn count(&self) -> usize {
        self.jobs.len()
    }

    fn urgent(&self) -> bool {
        self.urgent
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        self.jobs.iter_mut().for_each(|job| job.judge(judgement));
    }

    fn settle(&mut self, fate: &Fate) {
        self.jobs.iter_mut().for_each(|job| job.settle(fate));
    }
}

impl Pipeline {
    /// Starts `threads` threads that issue and one that records, over queues of `bound` acts each; within a tokio runtime.
    pub fn start(ledger: &Ledger, seal: Seal, bound: usize, threads: usize) -> Result<Pipeline, Fault> {
        let pipeline = Pipeline {
            issue: Arc::new(Queue::new(bound)),
            record: Arc::new(Queue::new(bound)),
            batches: Arc::new(Semaphore::new(BATCHES)),
        };
        let seal = Arc::new(seal);
        for n in 0..threads.max(1) {
            let worker =
                Worker { ledger: ledger.clone(), seal: Arc::clone(&seal), runtime: Handle::current(), threads: threads.max(1) };
            let queue = Arc::clone(&pipeline.issue);
            process::thread(&format!("mayfly-issue-{n}"), move || worker.run(&queue)).map_err(|e| Fault::new("pipeline", e))?;
        }
        let (queue, ledger) = (Arc::clone(&pipeline.record), ledger.clone());
        process::thread("mayfly-record", move || record(&ledger, &queue)).map_err(|e| Fault::new("pipeline", e))?;
        Ok(pipeline)
    }

    /// Runs one act through every step, even if the caller has gone.
    pub async fn issue<A: Issue>(&self, caller: Caller, act: A) -> Result<A::Answer, No> {
        let (answer, done) = oneshot::channel();
        let job = Carried::new(caller, act, chance()?, Reply::One(answer));
        self.issue.push(Work::One(Box::new(job))).map_err(refused)?;
        done.await.map_err(|_| Fault::new("pipeline", "the act was dropped"))?
    }

    /// Runs many acts through every step, recorded in one commit. The answers arrive as they are released, each with its index.
    pub fn issue_many<A: Issue>(&self, caller: &Caller, acts: Vec<A>) -> Result<mpsc::Receiver<Item<A::Answer>>, No> {
        let place = Arc::clone(&self.batches).try_acquire_owned().map_err(|_| busy())?;
        let (answer, done) = mpsc::channel(acts.len().max(1));
        let jobs = acts.into_iter().enumerate().map(|(n, act)| {
            let reply = Reply::OneOf(n, answer.clone());
            Ok(Box::new(Carried::new(caller.clone(), act, chance()?, reply)) as Box<dyn Job>)
        });
        let jobs = jobs.collect::<Result<Vec<_>, Fault>>()?;
        self.issue.push(Work::Many(jobs, place)).map_err(refused)?;
        Ok(done)
    }

    /// Records one act that signs nothing, whether or not the caller still waits.
    pub async fn record<A: Act>(&self, caller: Caller, act: A) -> Result<A::Permit, No> {
        let (answer, done) = oneshot::channel();
        let job = Recording::new(caller, act, chance()?, answer);
        self.record.push(Box::new(job)).map_err(refused)?;
        done.await.map_err(|_| Fault::new("pipeline", "the act was dropped"))?
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.issue.close();
        self.record.close();
    }
}

/// The randomness of one act.
pub fn chance() -> Result<Chance, Fault> {
    let mut random = [0u8; Chance::LEN];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Fault::new("random", "the system gave none"))?;
    Ok(Chance::new(random))
}

fn refused(error: PushError) -> Denial {
    match error {
        PushError::Full => busy(),
        PushError::Closed => Denial::new(Kind::Unavailable, "STOPPING", "the issuer is stopping"),
    }
}

fn busy() -> Denial {
    metrics::counter!("mayfly_journal_queue_full_total").increment(1);
    Denial::new(Kind::Exhausted, "BUSY", "too many requests are waiting: ask again in a moment")
}

/// The lane of acts that sign nothing: everything that has queued is one group.
fn record(ledger: &Ledger, queue: &Queue<Box<dyn Job>>) {
    while let Some(jobs) = queue.take(|queued| queued.len()) {
        survive(|| {
            let done = ledger.commit(Jobs { jobs: jobs.into(), urgent: true });
            done.jobs.into_iter().for_each(|job| job.release());
        });
    }
}

/// Keeps a thread of the pipeline alive when the work on one group panics. The callers of that group hear that their acts were
/// dropped; a panic while the ledger is held stops the process before this is reached.
fn survive(work: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        panicked();
    }
}

fn panicked() {
    metrics::counter!("mayfly_pipeline_panics_total").increment(1);
    tracing::error!("a thread of the pipeline panicked; it goes on with the next group");
}

struct Worker {
    ledger: Ledger,
    seal: Arc<Seal>,
    runtime: Handle,
    threads: usize,
}

impl Worker {
    fn run(self, queue: &Queue<Work>) {
        // A group is at most `GROUP` single acts, or one batch.
        let group = |queued: &std::collections::VecDeque<Work>| {
            let single = queued.iter().take(GROUP).take_while(|work| matches!(work, Work::One(_))).count();
            single.max(1)
        };
        while let Some(work) = queue.take(group) {
            let mut jobs = Vec::with_capacity(work.len());
            let mut places = Vec::new();
            for work in work {
                match work {
                    Work::One(job) => jobs.push(job),
                    Work::Many(many, place) => {
                        jobs = many;
                        places.push(place);
                    }
                }
            }
            survive(|| self.carry(jobs));
        }
    }

    fn carry(&self, jobs: Vec<Box<dyn Job>>) {
        // 1. Prove: each key by its holder's signature.
        let proved = self.in_parts(jobs, |mut part| {
            part.iter_mut().for_each(|job| job.prove());
            part
        });
        let mut jobs = Vec::new();
        for job in proved.into_iter().flatten() {
            if job.is_denied() { job.release() } else { jobs.push(job) }
        }
        if jobs.is_empty() {
            return;
        }
        // 2. and 3. Judge and record. Durable from here.
        let recorded = self.ledger.commit(Jobs { jobs, urgent: false });
        self.in_parts(recorded.jobs, |part| {
            let mut rest = part.into_iter();
            loop {
                let mut group: Vec<_> = rest.by_ref().take(GROUP).collect();
                if group.is_empty() {
                    return;
                }
                // 4. Sign what was recorded, and nothing else.
                group.iter_mut().for_each(|job| job.sign(&self.seal));
                // 5. Look again, at the callers and at what was signed.
                let rules = self.ledger.rules();
                self.ledger.read(|state| group.iter_mut().for_each(|job| job.look_again(state, rules)));
                // 6. Release. A group is released by one task: one wake-up for all of its answers, and they are all ready before
                // the first of them is written.
                match <[Box<dyn Job>; 1]>::try_from(group) {
                    Ok([job]) => job.release(),
                    Err(group) => {
                        let release = move || group.into_iter().for_each(|job| job.release());
                        drop(self.runtime.spawn(async move { survive(release) }));
                    }
                }
            }
        });
    }

    /// Works on more than `GROUP` items with up to `threads` threads, and on fewer with this one.
    fn in_parts<T: Send, R: Send>(&self, mut items: Vec<T>, work: impl Fn(Vec<T>) -> R + Sync) -> Vec<R> {
        if items.len() <= GROUP {
            return vec![work(items)];
        }
        let each = items.len().div_ceil(self.threads);
        let mut parts = Vec::with_capacity(self.threads);
        while items.len() > each {
            let rest = items.split_off(each);
            parts.push(Mutex::new(Some(std::mem::replace(&mut items, rest))));
        }
        // Each part is taken once: by a new thread, or by this one if no thread could be started.
        let take = |part: &Mutex<Option<Vec<T>>>| part.lock().take().map(&work);
        std::thread::scope(|scope| {
            let start = |part| std::thread::Builder::new().spawn_scoped(scope, move || take(part)).ok();
            let others: Vec<_> = parts.iter().map(|part| (part, start(part))).collect();
            let last = work(items);
            // A part that panicked is lost, as the whole would be: its callers hear that their acts were dropped.
            let done = |(part, thread): (_, Option<std::thread::ScopedJoinHandle<'_, _>>)| match thread {
                Some(thread) => thread.join().inspect_err(|_| panicked()).ok().flatten(),
                None => take(part),
            };
            others.into_iter().filter_map(done).chain([last]).collect()
        })
    }
}
