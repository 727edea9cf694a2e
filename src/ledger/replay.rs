//! Replays a journal into the state, as the first step of a start.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use mayfly_verify::TrustDomain;

use crate::journal::record::{self, Record, record::Body};
use crate::journal::{self, AppendError, Journal};
use crate::state::{CutMade, Misfit, Repair, State};

/// Records in one chunk that the reader passes to the thread that applies them.
const CHUNK: usize = 1024;
/// Most chunks that wait.
const WAITING: usize = 8;

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read, or holds records of a later version.
    #[error("the journal cannot be replayed: {0}")]
    Replay(String),
    /// It belongs to another trust domain.
    #[error("the journal is of trust domain `{0}`, and the configuration of `{1}`")]
    TrustDomain(String, String),
    /// Its first record cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Receives the cuts of each record while a journal is replayed, as they were published when it was recorded.
pub trait Listens {
    /// An epoch of the journal begins, or the records are read again: earlier cuts must be discarded.
    fn begin(&mut self);

    /// The cuts of records up to `at` (Unix microseconds), in their order.
    fn told(&mut self, at: u64, cuts: Vec<CutMade>);
}

/// Nobody.
impl Listens for () {
    fn begin(&mut self) {}

    fn told(&mut self, _: u64, _: Vec<CutMade>) {}
}

/// The state that a journal's records make.
pub fn replay(journal: &mut dyn Journal) -> Result<State, OpenError> {
    replay_repaired(journal, Vec::new(), &mut ())
}

/// The same, and passes the cuts of each record to `listener`.
pub fn replay_telling(journal: &mut dyn Journal, listener: &mut dyn Listens) -> Result<State, OpenError> {
    replay_repaired(journal, Vec::new(), listener)
}

/// Replays a journal with `repairs` of record times, in addition to those that the journal contains.
pub(super) fn replay_repaired(
    journal: &mut dyn Journal,
    mut repairs: Vec<Repair>,
    listener: &mut dyn Listens,
) -> Result<State, OpenError> {
    loop {
        match pass(journal, &repairs, listener)? {
            Pass::Whole(state) => return Ok(*state),
            Pass::Repaired(repair) => repairs.push(repair),
        }
    }
}

/// The result of one pass over the records.
enum Pass {
    Whole(Box<State>),
    // A record repairs the times of earlier records, so another pass with this repair is needed.
    Repaired(Repair),
}

/// Records in order of revision, each with its own.
type Chunk = Vec<(u64, Record)>;

/// Applies every record. Another thread reads and decodes them, because applying takes the most time. Applied records go back to
/// the reader, so that memory is freed by the thread that allocated it.
fn pass(journal: &mut dyn Journal, repairs: &[Repair], listener: &mut dyn Listens) -> Result<Pass, OpenError> {
    listener.begin();
    let (chunks, records) = sync_channel::<Chunk>(WAITING);
    let (applied, used) = channel::<Chunk>();
    let done = std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(journal, &chunks, &used));
        let mut state = State::default();
        let mut repaired = None;
        let mut apply = |revision: u64, record: &mut Record| {
            if repaired.is_some() {
                return Ok(());
            }
            if let Some(Body::TimeRepaired(body)) = &record.body
                && repairs.iter().all(|repair| repair.by != revision)
            {
                repaired = Some(Repair { first: body.first, by: revision, at: record.at });
                return Ok(());
            }
            record.at = repairs.iter().fold(record.at, |at, repair| repair.time_of(revision, at));
            state.apply(revision, record)?;
            if matches!(record.body, Some(Body::Opened(_))) {
                listener.begin();
            }
            let mut cuts = state.cuts_of(revision, record);
            cuts.extend(state.take_subsumed());
            if !cuts.is_empty() {
                listener.told(record.at, cuts);
            }
            Ok(())
        };
        let outcome = records.iter().try_for_each(|mut chunk| {
            chunk.iter_mut().try_for_each(|(revision, record)| apply(*revision, record))?;
            // The reader may have ended.
            let _ = applied.send(chunk);
            Ok::<_, Misfit>(())
        });
        // ORDER: before the reader is joined, because it ends when its channel is closed.
        drop(records);
        let read = reader.join().map_err(|_| "the reader has died".to_owned())?;
        outcome.map_err(|e| e.to_string())?;
        read.map(|()| repaired.map_or_else(|| Pass::Whole(Box::new(state)), Pass::Repaired))
    });
    done.map_err(OpenError::Replay)
}

fn read(journal: &mut dyn Journal, chunks: &SyncSender<Chunk>, used: &Receiver<Chunk>) -> Result<(), String> {
    let gone = |_| "a record did not fit".to_owned();
    let mut chunk = Vec::with_capacity(CHUNK);
    journal.replay(&mut |revision, bytes| {
        let record = journal::decode(bytes).map_err(|e| format!("revision {revision}: {e}"))?;
        chunk.push((revision, record));
        if chunk.len() < CHUNK {
            return Ok(());
        }
        let mut next = used.try_iter().last().unwrap_or_default();
        next.clear();
        chunks.send(std::mem::replace(&mut chunk, next)).map_err(gone)
    })?;
    chunks.send(chunk).map_err(gone)
}

/// The first record of a new incarnation of a journal, at `now` (Unix microseconds).
pub fn opened(trust_domain: &TrustDomain, now: u64) -> Result<Record, OpenError> {
    let mut random = [0u8; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| OpenError::Replay("the system gave no randomness".into()))?;
    let mut salt = [0u8; 32];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| OpenError::Replay("the system gave no randomness".into()))?;
    let incarnation = uuid::Builder::from_random_bytes(random).into_uuid();
    let (incarnation, trust_domain) = (incarnation.as_bytes().to_vec(), trust_domain.to_string());
    let body = record::Opened { incarnation, trust_domain, salt: salt.to_vec() };
    Ok(Record { at: now, operator: String::new(), body: Some(Body::Opened(body)) })
}
