//! The pipeline: takes the queued acts as a group through the steps prove, commit, sign, check again, and release. It knows no
//! particular act.
//!
//! Each lane ([`Lane`]) has a queue and threads of its own, so that a revocation never waits behind signatures. In a queue callers
//! take turns (`turns`), and the number of acts of each caller is limited (`places`). An act whose caller has hung up is dropped,
//! unless it is already in a commit: from there on it is completed.

mod job;
mod patience;
mod places;
mod queue;
mod turns;
mod whose;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::authority::Seal;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Act, Chance, Judgement};
use crate::ledger::{Fate, Group, Lane, Ledger, Recorded};
use crate::process;
use crate::state::State;
use job::{Carried, Job, Recording, Reply};
use patience::Patience;
use places::{Place, Places};
use queue::{Closed, Queue};
use turns::Turn;
pub use whose::Behalf;
use whose::Whose;

/// Most acts in one group, unless commits are slow. A larger group would only delay its first answers.
const GROUP: usize = 16;

/// A commit that takes this long is slow. Groups are then larger, so that more acts share a commit.
const SLOW: Duration = Duration::from_millis(5);

/// Most acts in one group while commits are slow, and in one group that signs nothing.
const LARGE: usize = 128;

/// Acts of a batch that are handled as one group. Acts of others are handled between such slices.
const SLICE: usize = 64;

/// Most batches at once, because each holds up to a thousand acts in memory.
const BATCHES: usize = 32;

/// An act that signs nothing.
pub trait Record: Act {
    /// The lane in which it waits.
    fn lane(&self) -> Lane;
}

/// An act that ends in signatures.
pub trait Issue: Act {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// The user or agent that it is for, if that is known without a search, because the users of one workload take turns.
    fn behalf<'a>(&'a self, _: &'a State) -> Behalf<'a> {
        Behalf::Caller
    }

    /// 1. Verifies the signatures in the request.
    fn prove(&mut self) -> Result<(), Denial>;

    /// 4. Signs the recorded permit.
    fn sign(&self, permit: Recorded<Self::Permit>, seal: &Seal) -> Result<Self::Answer, Fault>;

    /// 5. Checks the signed answer against the present state, and withholds it if it was revoked after it was recorded (T85).
    fn look_again(answer: &Self::Answer, state: &State) -> Result<(), Denial>;
}

/// An answer of a batch, with its index in the batch.
pub type Item<T> = (usize, Result<T, No>);

/// Passes acts to the threads that handle them.
pub struct Pipeline {
    ledger: Ledger,
    issuance: Entrance<Work>,
    revocations: Entrance<Box<dyn Job>>,
    questions: Entrance<Box<dyn Job>>,
    batches: Arc<Places>,
    patience: Arc<Patience>,
    whose: Whose,
}

/// A queue, and the limits on acts that wait in it or are being handled.
struct Entrance<T> {
    queue: Arc<Queue<T>>,
    places: Arc<Places>,
}

enum Work {
    One(Box<dyn Job>),
    /// Acts of a batch: a group of their own, answered one by one.
    Slice(Vec<Box<dyn Job>>),
}

/// Acts that are committed together.
struct Jobs {
    jobs: Vec<Box<dyn Job>>,
    lane: Lane,
}

impl Group for Jobs {
    fn count(&self) -> usize {
        self.jobs.len()
    }

    fn lane(&self) -> Lane {
        self.lane
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        self.jobs.iter_mut().for_each(|job| job.judge(judgement));
    }

    fn settle(&mut self, fate: &Fate) {
        self.jobs.iter_mut().for_each(|job| job.settle(fate));
    }
}

impl<T> Entrance<T> {
    fn new(bound: usize) -> Entrance<T> {
        Entrance { queue: Arc::new(Queue::new()), places: Places::new(bound) }
    }

    fn place(&self, turn: Turn) -> Result<Place, Denial> {
        self.places.take(turn).ok_or_else(busy)
    }

    fn push(&self, turn: Turn, items: impl IntoIterator<Item = (usize, T)>) -> Result<(), Denial> {
        self.queue.push(turn, items).map_err(|Closed| crate::ledger::stopping())
    }
}

impl Pipeline {
    /// Starts `threads` threads that issue, one that revokes and one for questions, over queues of `bound` acts each; within a tokio
    /// runtime. Callers wait `longest` for an answer.
    pub fn start(ledger: &Ledger, seal: Seal, bound: usize, threads: usize, longest: Duration) -> Result<Pipeline, Fault> {
        let pipeline = Pipeline {
            ledger: ledger.clone(),
            issuance: Entrance::new(bound),
            revocations: Entrance::new(bound),
            questions: Entrance::new(bound),
            batches: Places::new(BATCHES),
            patience: Arc::new(Patience::new(ledger.pulse().clone(), longest)),
            whose: Whose::default(),
        };
        let seal = Arc::new(seal);
        for n in 0..threads.max(1) {
            let (seal, patience) = (Arc::clone(&seal), Arc::clone(&pipeline.patience));
            let worker = Worker { ledger: ledger.clone(), seal, runtime: Handle::current(), patience, last: Duration::ZERO };
            let queue = Arc::clone(&pipeline.issuance.queue);
            process::thread(&format!("mayfly-issue-{n}"), move || worker.run(&queue)).map_err(|e| Fault::new("pipeline", e))?;
        }
        let lanes =
            [(&pipeline.revocations, Lane::Revocation, "mayfly-revoke"), (&pipeline.questions, Lane::Question, "mayfly-ask")];
        for (entrance, lane, name) in lanes {
            let (queue, ledger) = (Arc::clone(&entrance.queue), ledger.clone());
            process::thread(name, move || record(&ledger, lane, &queue)).map_err(|e| Fault::new("pipeline", e))?;
        }
        Ok(pipeline)
    }

    /// Runs one act through every step. Dropping the returned future drops the act, unless it is already in a commit.
    pub async fn issue<A: Issue>(&self, caller: Caller, act: A) -> Result<A::Answer, No> {
        let turn = self.ledger.read(|state| self.whose.turn(state, &caller, act.behalf(state)));
        self.expect_an_answer()?;
        let place = self.issuance.place(turn)?;
        let (answer, done) = oneshot::channel();
        let job = Carried::new(caller, act, chance()?, Reply::One(answer), Arc::new(place));
        self.issuance.push(turn, [(1, Work::One(Box::new(job)))])?;
        done.await.map_err(|_| Fault::new("pipeline", "the act was dropped"))?
    }

    /// Runs many acts through every step, in slices that are recorded together. The answers arrive as they are released, each with
    /// its index. When the receiver is dropped, slices that are not in a commit yet are dropped too.
    pub fn issue_many<A: Issue>(&self, caller: &Caller, acts: Vec<A>) -> Result<mpsc::Receiver<Item<A::Answer>>, No> {
        let behalf = |state: &State| self.whose.turn(state, caller, acts.first().map_or(Behalf::Caller, |act| act.behalf(state)));
        let turn = self.whose.of_batches(self.ledger.read(behalf));
        let place = Arc::new(self.batches.take(turn).ok_or_else(busy)?);
        let (answer, done) = mpsc::channel(acts.len().max(1));
        let jobs = acts.into_iter().enumerate().map(|(n, act)| {
            let reply = Reply::OneOf(n, answer.clone());
            Ok(Box::new(Carried::new(caller.clone(), act, chance()?, reply, Arc::clone(&place))) as Box<dyn Job>)
        });
        let mut jobs = jobs.collect::<Result<Vec<_>, Fault>>()?.into_iter();
        let slices = std::iter::from_fn(|| {
            let slice: Vec<_> = jobs.by_ref().take(SLICE).collect();
            (!slice.is_empty()).then(|| (slice.len(), Work::Slice(slice)))
        });
        self.issuance.push(turn, slices)?;
        Ok(done)
    }

    /// Records one act that signs nothing. Dropping the returned future drops the act, unless it is already in a commit.
    pub async fn record<A: Record>(&self, caller: Caller, act: A) -> Result<A::Permit, No> {
        let turn = self.ledger.read(|state| self.whose.turn(state, &caller, Behalf::Caller));
        let (lane, (answer, done)) = (act.lane(), oneshot::channel());
        let job = |place| Ok::<_, No>(Box::new(Recording::new(caller, act, chance()?, answer, place)));
        match lane {
            Lane::Issuance => {
                self.expect_an_answer()?;
                self.issuance.push(turn, [(1, Work::One(job(self.issuance.place(turn)?)?))])?;
            }
            Lane::Question => self.questions.push(turn, [(1, job(self.questions.place(turn)?)? as Box<dyn Job>)])?,
            Lane::Revocation | Lane::Authority => {
                self.revocations.push(turn, [(1, job(self.revocations.place(turn)?)? as Box<dyn Job>)])?;
            }
        }
        done.await.map_err(|_| Fault::new("pipeline", "the act was dropped"))?
    }
}

impl Pipeline {
    /// Refuses an act whose answer would come after the caller's deadline, because commits are slow (T235).
    fn expect_an_answer(&self) -> Result<(), Denial> {
        if self.patience.lasts(self.issuance.places.taken()) {
            return Ok(());
        }
        metrics::counter!("mayfly_requests_refused_early_total").increment(1);
        let message = "the journal is slow, and this would be answered too late: ask again in a moment";
        Err(Denial::new(Kind::Exhausted, "BUSY", message))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.issuance.queue.close();
        self.revocations.queue.close();
        self.questions.queue.close();
    }
}

/// Draws the random bytes of one act.
pub fn chance() -> Result<Chance, Fault> {
    let mut random = [0u8; Chance::LEN];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Fault::new("random", "the system gave none"))?;
    Ok(Chance::new(random))
}

fn busy() -> Denial {
    metrics::counter!("mayfly_journal_queue_full_total").increment(1);
    Denial::new(Kind::Exhausted, "BUSY", "too many of your requests are waiting: ask again in a moment")
}

/// Whether the caller of an act still waits. If not, the act is counted, and has to be dropped.
fn is_awaited(job: &dyn Job) -> bool {
    let abandoned = job.is_abandoned();
    if abandoned {
        job::count_abandoned();
    }
    !abandoned
}

/// A lane of acts that sign nothing.
fn record(ledger: &Ledger, lane: Lane, queue: &Queue<Box<dyn Job>>) {
    while let Some(mut jobs) = queue.take(LARGE) {
        jobs.retain(|job| is_awaited(&**job));
        if jobs.is_empty() {
            continue;
        }
        survive(|| {
            let done = ledger.commit(Jobs { jobs, lane });
            done.jobs.into_iter().for_each(|job| job.release());
        });
    }
}

/// Keeps a thread of the pipeline alive when the work on one group panics. The callers of that group get an error; a panic under
/// the ledger's lock stops the process before this is reached.
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
    patience: Arc<Patience>,
    /// How long the last commit took.
    last: Duration,
}

impl Worker {
    fn run(mut self, queue: &Queue<Work>) {
        while let Some(work) = queue.take(if self.last < SLOW { GROUP } else { LARGE }) {
            let mut jobs = Vec::with_capacity(work.len());
            for work in work {
                match work {
                    Work::One(job) => jobs.push(job),
                    Work::Slice(slice) => jobs.extend(slice),
                }
            }
            survive(|| self.carry(jobs));
        }
    }

    fn carry(&mut self, mut jobs: Vec<Box<dyn Job>>) {
        jobs.retain(|job| is_awaited(&**job));
        // 1. Prove: each key by its holder's signature.
        jobs.iter_mut().for_each(|job| job.prove());
        let (denied, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.is_denied());
        denied.into_iter().for_each(|job| job.release());
        if jobs.is_empty() {
            return;
        }
        // 2. and 3. Judge and record. Durable from here.
        let started = Instant::now();
        let recorded = self.ledger.commit(Jobs { jobs, lane: Lane::Issuance });
        self.last = started.elapsed();
        self.patience.committed(self.last);
        let mut rest = recorded.jobs.into_iter();
        loop {
            let mut group: Vec<_> = rest.by_ref().take(GROUP).collect();
            if group.is_empty() {
                return;
            }
            // 4. Sign the recorded permits.
            group.iter_mut().for_each(|job| job.sign(&self.seal));
            // 5. Check the callers and the signed credentials again.
            let rules = self.ledger.rules();
            self.ledger.read(|state| group.iter_mut().for_each(|job| job.look_again(state, &rules)));
            // 6. Release. One task releases a group, so there is one wake-up for all answers, and all are ready before the first is
            //    written.
            match <[Box<dyn Job>; 1]>::try_from(group) {
                Ok([job]) => job.release(),
                Err(group) => {
                    let release = move || group.into_iter().for_each(|job| job.release());
                    drop(self.runtime.spawn(async move { survive(release) }));
                }
            }
        }
    }
}
