//! The desk: takes what has queued as a group, verifies it, has it committed once, signs it, looks at the cuts once more, and
//! releases the answers together.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::authority::{Authority, Signed};
use crate::denial::{Denial, Fault, Kind, No};
use crate::registry::{Admission, Ask, Certification, Credential, Mint, Outcome, Proposal, Registry, State};
use crate::svid;
use crate::svid::csr::PublicKey;

/// Requests in one group at most: beyond it a group only waits longer.
const GROUP: usize = 16;

/// Batches that wait or are at work at once: each holds up to a thousand requests in memory.
const BATCHES: usize = 16;

/// What a request became.
pub enum Done {
    /// An agent with its certificate, unless a ticket fetches that, and its first token if one was asked for.
    Spawned(Admission, Option<Signed>, Option<(Mint, String)>),
    /// An agent's next certificate, or the first that a ticket fetched.
    Renewed(Admission, Signed),
    /// A token.
    Minted(Mint, String),
    /// A workload's certificate.
    Certified(Certification, Signed),
    /// Something that needs no signature.
    Recorded(Outcome),
}

/// A request with its certification request, which is empty where no key is certified.
pub type Order = (Ask, Vec<u8>);

/// What one of many became, and which.
pub type Item = (usize, Result<Done, No>);

enum Job {
    One(Box<Order>, oneshot::Sender<Result<Done, No>>),
    /// A group of its own: admitted together, answered one by one.
    Many(Vec<Order>, mpsc::Sender<Item>, OwnedSemaphorePermit),
}

/// Where an answer goes.
enum Reply {
    One(oneshot::Sender<Result<Done, No>>),
    OneOf(usize, mpsc::Sender<Item>),
}

impl Reply {
    // A caller that has gone changes nothing.
    fn send(self, done: Result<Done, No>) {
        match self {
            Reply::One(answer) => drop(answer.send(done)),
            // There is room for every one of them.
            Reply::OneOf(index, answer) => drop(answer.try_send((index, done))),
        }
    }
}

/// Hands requests to the desk's threads.
pub struct Desk {
    queue: SyncSender<Job>,
    batches: Arc<Semaphore>,
}

impl Desk {
    /// Starts `threads` threads over a queue of `bound` requests; within a tokio runtime. `jwt_issuer` is the `iss` of tokens.
    pub fn start(
        registry: &Registry,
        authority: &Arc<Authority>,
        jwt_issuer: Option<&str>,
        bound: usize,
        threads: usize,
    ) -> Result<Desk, Fault> {
        let (queue, jobs) = sync_channel(bound.max(1));
        // Guards the queue's end: the thread that waits for work holds it, the others are at work or wait their turn.
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..threads.max(1) {
            let worker = Worker {
                jobs: Arc::clone(&jobs),
                registry: registry.clone(),
                authority: Arc::clone(authority),
                jwt_issuer: jwt_issuer.map(str::to_owned),
                runtime: Handle::current(),
                desks: threads.max(1),
            };
            let thread = std::thread::Builder::new().name(format!("mayfly-desk-{n}"));
            thread.spawn(move || worker.run()).map_err(|e| Fault::new("desk", e))?;
        }
        Ok(Desk { queue, batches: Arc::new(Semaphore::new(BATCHES)) })
    }

    /// Runs one request to its end, whether or not the caller still waits. `csr` is empty where no key is certified.
    pub async fn run(&self, ask: Ask, csr: Vec<u8>) -> Result<Done, No> {
        let (answer, done) = oneshot::channel();
        self.put(Job::One(Box::new((ask, csr)), answer))?;
        done.await.map_err(|_| Fault::new("desk", "the request was dropped"))?
    }

    /// Runs many requests to their ends, recorded in one commit; the answers come as they are signed.
    pub fn run_many(&self, orders: Vec<Order>) -> Result<mpsc::Receiver<Item>, Denial> {
        let place = Arc::clone(&self.batches).try_acquire_owned().map_err(|_| busy())?;
        let (answer, done) = mpsc::channel(orders.len().max(1));
        self.put(Job::Many(orders, answer, place))?;
        Ok(done)
    }

    fn put(&self, job: Job) -> Result<(), Denial> {
        self.queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => Denial::new(Kind::Unavailable, "STOPPING", "the issuer is stopping"),
        })
    }
}

fn busy() -> Denial {
    metrics::counter!("mayfly_journal_queue_full_total").increment(1);
    Denial::new(Kind::Exhausted, "BUSY", "too many requests are waiting: ask again in a moment")
}

struct Worker {
    jobs: Arc<Mutex<Receiver<Job>>>,
    registry: Registry,
    authority: Arc<Authority>,
    jwt_issuer: Option<String>,
    runtime: Handle,
    desks: usize,
}

impl Worker {
    fn run(self) {
        loop {
            let mut group = Vec::with_capacity(GROUP);
            let mut many = None;
            {
                let jobs = self.jobs.lock();
                let Ok(mut next) = jobs.recv() else { return };
                loop {
                    match next {
                        Job::One(order, answer) => group.push((*order, Reply::One(answer))),
                        Job::Many(orders, answer, place) => {
                            many = Some((orders, answer, place));
                            break;
                        }
                    }
                    if group.len() == GROUP {
                        break;
                    }
                    match jobs.try_recv() {
                        Ok(job) => next = job,
                        Err(_) => break,
                    }
                }
            }
            self.group(group);
            if let Some((orders, answer, _place)) = many {
                let replies = (0..).zip(orders).map(|(n, order)| (order, Reply::OneOf(n, answer.clone()))).collect();
                drop(answer);
                self.group(replies);
            }
        }
    }

    fn group(&self, jobs: Vec<(Order, Reply)>) {
        // 1. Verify: every key is proved by its holder's signature.
        let proved = self.in_parts(jobs, |part| part.into_iter().map(prove).collect::<Vec<_>>());
        let mut waiting = Vec::new();
        let mut asks = Vec::new();
        for (proved, reply) in proved.into_iter().flatten() {
            match proved {
                Ok((ask, key)) => {
                    asks.push(ask);
                    waiting.push((key, reply));
                }
                Err(denial) => reply.send(Err(denial.into())),
            }
        }
        if asks.is_empty() {
            return;
        }
        // 2. Commit: durable from here.
        let outcomes = self.registry.commit(asks);
        self.in_parts(outcomes.into_iter().zip(waiting).collect(), |part: Vec<_>| {
            let mut rest = part.into_iter();
            loop {
                // 3. Sign what was recorded, and nothing else.
                let sign = |(outcome, (key, reply)): (Result<Outcome, No>, (Option<PublicKey>, Reply))| {
                    (reply, outcome.and_then(|outcome| self.sign(outcome, key.as_ref())))
                };
                let signed: Vec<_> = rest.by_ref().take(GROUP).map(sign).collect();
                if signed.is_empty() {
                    return;
                }
                // 4. Look again.
                let judge =
                    |state: &State| signed.into_iter().map(|(reply, done)| (reply, standing(state, done))).collect::<Vec<_>>();
                let judged = self.registry.read(judge);
                // 5. Release, from a task: one wake-up for all of them, and they are all ready before the first is written.
                self.runtime.spawn(async move { judged.into_iter().for_each(|(reply, done)| reply.send(done)) });
            }
        });
    }

    /// Many are worked on by as many threads as there are desks, a group by this one.
    fn in_parts<T: Send, R: Send>(&self, mut items: Vec<T>, work: impl Fn(Vec<T>) -> R + Sync) -> Vec<R> {
        if items.len() <= GROUP {
            return vec![work(items)];
        }
        let each = items.len().div_ceil(self.desks);
        let mut parts = Vec::with_capacity(self.desks);
        while items.len() > each {
            let rest = items.split_off(each);
            parts.push(Mutex::new(Some(std::mem::replace(&mut items, rest))));
        }
        // Whoever takes a part does it: a thread of its own, or this one where the system gives no thread.
        let take = |part: &Mutex<Option<Vec<T>>>| part.lock().take().map(&work);
        std::thread::scope(|scope| {
            let start = |part| std::thread::Builder::new().spawn_scoped(scope, move || take(part)).ok();
            let others: Vec<_> = parts.iter().map(|part| (part, start(part))).collect();
            let last = work(items);
            // A part that panicked is lost, as the whole would be: its callers hear that their requests were dropped.
            let done = |(part, thread): (_, Option<std::thread::ScopedJoinHandle<'_, _>>)| match thread {
                Some(thread) => thread.join().ok().flatten(),
                None => take(part),
            };
            others.into_iter().filter_map(done).chain([last]).collect()
        })
    }

    fn sign(&self, outcome: Outcome, key: Option<&PublicKey>) -> Result<Done, No> {
        let needed = || key.ok_or_else(|| Fault::new("sign", "no key"));
        match outcome {
            Outcome::Spawned(admission, mint) => {
                let leaf = match key {
                    Some(key) => Some(self.leaf(&admission, key)?),
                    None => None,
                };
                let token = mint.map(|mint| Ok::<_, Fault>((self.token(&mint)?, mint))).transpose()?;
                Ok(Done::Spawned(admission, leaf, token.map(|(token, mint)| (mint, token))))
            }
            Outcome::Renewed(admission) => {
                let leaf = self.leaf(&admission, needed()?)?;
                Ok(Done::Renewed(admission, leaf))
            }
            Outcome::Minted(mint) => {
                let token = self.token(&mint)?;
                Ok(Done::Minted(mint, token))
            }
            Outcome::Certified(permit) => {
                let leaf = {
                    let unsigned = svid::x509::workload(&permit, needed()?, self.registry.trust_domain())?;
                    self.authority.sign_x509(permit.authority(), &unsigned)?
                };
                Ok(Done::Certified(permit, leaf))
            }
            other => Ok(Done::Recorded(other)),
        }
    }

    fn leaf(&self, admission: &Admission, key: &PublicKey) -> Result<Signed, Fault> {
        self.authority.sign_x509(admission.authority(), &svid::x509::agent(admission, key, self.authority.oid())?)
    }

    fn token(&self, mint: &Mint) -> Result<String, Fault> {
        self.authority.sign_jwt(mint.authority(), &svid::jwt::agent(mint, self.jwt_issuer.as_deref(), self.authority.oid())?)
    }
}

/// T85: what was cut after it was recorded does not leave, though it is signed. A cut that comes later than this look is
/// answered later than this too.
fn standing(state: &State, done: Result<Done, No>) -> Result<Done, No> {
    let done = done?;
    let refusal = match &done {
        Done::Spawned(admission, _, mint) => {
            let token = mint.as_ref().and_then(|(mint, _)| state.refusal(&mint.id().uuid, None, mint.authority()));
            of_admission(state, admission).or(token)
        }
        Done::Renewed(admission, _) => of_admission(state, admission),
        Done::Minted(mint, _) => state.refusal(&mint.id().uuid, None, mint.authority()),
        Done::Certified(permit, _) => state.refusal_of_workload(permit.workload(), &permit.certificate().key, permit.authority()),
        Done::Recorded(_) => None,
    };
    refusal.map_or(Ok(done), |(code, message)| Err(Denial::denied(code, message).into()))
}

fn of_admission(state: &State, admission: &Admission) -> Option<(&'static str, &'static str)> {
    state.refusal(&admission.id().uuid, admission.certificate().map(|c| &c.key), admission.authority())
}

type Proved = Result<(Ask, Option<PublicKey>), Denial>;

fn prove(((mut ask, csr), reply): (Order, Reply)) -> (Proved, Reply) {
    let key = prove_key(&mut ask, &csr);
    (key.map(|key| (ask, key)), reply)
}

/// Checks the request's key and writes its digest into the proposal.
fn prove_key(ask: &mut Ask, csr: &[u8]) -> Result<Option<PublicKey>, Denial> {
    let slot = match &mut ask.proposal {
        Proposal::Spawn(spawn) => match &mut spawn.credential {
            Credential::Key(key) => key,
            Credential::Ticket(..) => return Ok(None),
        },
        Proposal::Redeem { key, .. } | Proposal::Renew { key } => key,
        _ => return Ok(None),
    };
    let key = svid::csr::verify(csr)?;
    *slot = key.digest();
    Ok(Some(key))
}
