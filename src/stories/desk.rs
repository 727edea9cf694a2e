//! The desk: takes what has queued as a group, verifies it, has it committed once, signs it, releases the answers together.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::sync::oneshot;

use crate::authority::Authority;
use crate::denial::{Denial, Fault, Kind, No};
use crate::registry::{Admission, Ask, Certification, Mint, Outcome, Proposal, Registry};
use crate::svid;
use crate::svid::csr::PublicKey;

/// Requests in one group at most: beyond it a group only waits longer.
const GROUP: usize = 16;

/// What a request became.
pub enum Done {
    /// An agent with its certificate, and its first token if one was asked for.
    Spawned(Admission, CertificateDer<'static>, Option<(Mint, String)>),
    /// A token.
    Minted(Mint, String),
    /// A workload's certificate.
    Certified(Certification, CertificateDer<'static>),
    /// Something that needs no signature.
    Recorded(Outcome),
}

struct Job {
    ask: Ask,
    csr: Vec<u8>,
    answer: oneshot::Sender<Result<Done, No>>,
}

/// Hands requests to the desk's threads.
pub struct Desk {
    queue: SyncSender<Job>,
}

impl Desk {
    /// Starts `threads` threads over a queue of `bound` requests. `jwt_issuer` is the `iss` of tokens.
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
            };
            let thread = std::thread::Builder::new().name(format!("mayfly-desk-{n}"));
            thread.spawn(move || worker.run()).map_err(|e| Fault::new("desk", e))?;
        }
        Ok(Desk { queue })
    }

    /// Runs one request to its end, whether or not the caller still waits. `csr` is empty where no key is certified.
    pub async fn run(&self, ask: Ask, csr: Vec<u8>) -> Result<Done, No> {
        let (answer, done) = oneshot::channel();
        self.queue.try_send(Job { ask, csr, answer }).map_err(|e| match e {
            TrySendError::Full(_) => {
                metrics::counter!("mayfly_journal_queue_full_total").increment(1);
                Denial::new(Kind::Exhausted, "BUSY", "too many requests are waiting: ask again in a moment")
            }
            TrySendError::Disconnected(_) => Denial::new(Kind::Unavailable, "STOPPING", "the issuer is stopping"),
        })?;
        done.await.map_err(|_| Fault::new("desk", "the request was dropped"))?
    }
}

struct Worker {
    jobs: Arc<Mutex<Receiver<Job>>>,
    registry: Registry,
    authority: Arc<Authority>,
    jwt_issuer: Option<String>,
}

impl Worker {
    fn run(self) {
        loop {
            let mut group = Vec::with_capacity(GROUP);
            {
                let jobs = self.jobs.lock();
                let Ok(first) = jobs.recv() else { return };
                group.push(first);
                while group.len() < GROUP {
                    let Ok(next) = jobs.try_recv() else { break };
                    group.push(next);
                }
            }
            self.group(group);
        }
    }

    fn group(&self, jobs: Vec<Job>) {
        // 1. Verify: every key is proved by its holder's signature.
        let mut waiting = Vec::with_capacity(jobs.len());
        let mut asks = Vec::with_capacity(jobs.len());
        for mut job in jobs {
            match prove_key(&mut job) {
                Ok(key) => {
                    asks.push(job.ask);
                    waiting.push((key, job.answer));
                }
                Err(denial) => {
                    let _ = job.answer.send(Err(denial.into()));
                }
            }
        }
        if asks.is_empty() {
            return;
        }
        // 2. Commit: durable from here.
        let outcomes = self.registry.commit(asks);
        // 3. Sign what was recorded, and nothing else.
        let signed: Vec<_> =
            outcomes.into_iter().zip(&waiting).map(|(outcome, (key, _))| self.sign(outcome?, key.as_ref())).collect();
        // 4. Release the answers together. A caller that has gone changes nothing.
        for ((_, answer), done) in waiting.into_iter().zip(signed) {
            let _ = answer.send(done);
        }
    }

    fn sign(&self, outcome: Outcome, key: Option<&PublicKey>) -> Result<Done, No> {
        let key = || key.ok_or_else(|| Fault::new("sign", "no key"));
        match outcome {
            Outcome::Spawned(admission, mint) => {
                let leaf = self.authority.sign_x509(&svid::x509::agent(&admission, key()?, self.authority.oid())?)?;
                let token = mint.map(|mint| Ok::<_, Fault>((self.token(&mint)?, mint))).transpose()?;
                Ok(Done::Spawned(admission, leaf, token.map(|(token, mint)| (mint, token))))
            }
            Outcome::Minted(mint) => {
                let token = self.token(&mint)?;
                Ok(Done::Minted(mint, token))
            }
            Outcome::Certified(permit) => {
                let leaf = self.authority.sign_x509(&svid::x509::workload(&permit, key()?, self.registry.trust_domain())?)?;
                Ok(Done::Certified(permit, leaf))
            }
            other => Ok(Done::Recorded(other)),
        }
    }

    fn token(&self, mint: &Mint) -> Result<String, Fault> {
        self.authority.sign_jwt(&svid::jwt::agent(mint, self.jwt_issuer.as_deref(), self.authority.oid())?)
    }
}

/// Checks the request's key and writes its digest into the proposal.
fn prove_key(job: &mut Job) -> Result<Option<PublicKey>, Denial> {
    let slot = match &mut job.ask.proposal {
        Proposal::Spawn(spawn) => &mut spawn.key,
        Proposal::Redeem { key, .. } | Proposal::Renew { key } => key,
        _ => return Ok(None),
    };
    let key = svid::csr::verify(&job.csr)?;
    *slot = key.digest();
    Ok(Some(key))
}
