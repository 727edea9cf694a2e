//! Room 4: the only owner of state. One writer admits, commits, applies and answers; everybody else reads.

mod admit;
mod proposal;
pub mod state;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mayfly_verify::TrustDomain;
use parking_lot::RwLock;
use uuid::Uuid;

pub use admit::authority::{PUBLISHED, over};
pub use admit::{Rules, would_record};
pub use proposal::{Admission, Ask, Certification, Change, Credential, Mint, Outcome, Proof, Proposal, RequestId, Since, Spawn};
pub use state::State;
pub use writer::Limits;

use crate::clock::Clock;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, Record, record::Body};

/// What keeps the records. One journal has one user.
pub trait Journal: Send {
    /// Gives every record in order of revision.
    fn replay(&mut self, each: Each<'_>) -> Result<(), String>;
    /// Makes records durable under consecutive revisions, and drops those that no longer matter: all or nothing.
    fn append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> Result<(), AppendError>;
    /// The first record at a revision or after it, with its revision.
    fn first_from(&mut self, revision: u64) -> Result<Option<(u64, Vec<u8>)>, String>;
    /// Writes a consistent copy to a new file; its size in bytes.
    fn backup(&mut self, to: &Path) -> Result<u64, String>;
}

/// Takes a revision and its record.
pub type Each<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), String>;

/// Why records are not durable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no room; nothing was written, and the journal is whole.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Nothing can be believed any more: stop, and replay at start.
    #[error("the journal failed: {0}")]
    Fatal(String),
}

/// Told of what is durable.
pub trait Heartbeat: Send {
    /// The head, about once a second. `now` is in unix microseconds.
    fn beat(&mut self, incarnation: Uuid, head: u64, now: u64);

    /// Each commit, once it is applied and before it is answered: the head after it, and the cuts that it made.
    fn committed(&mut self, _head: u64, _cuts: Vec<state::CutMade>) {}
}

/// Why a journal does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read, or holds what this version does not know.
    #[error("the journal cannot be replayed: {0}")]
    Replay(String),
    /// It belongs to somebody else.
    #[error("the journal is of trust domain `{0}`, and the configuration of `{1}`")]
    TrustDomain(String, String),
    /// Its first record cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The handle: reads state, and hands requests to the writer.
#[derive(Clone)]
pub struct Registry {
    // Guards the state: the writer holds it while it applies what is durable already, readers for one look-up.
    state: Arc<RwLock<State>>,
    to_writer: std::sync::mpsc::SyncSender<writer::Message>,
    trust_domain: TrustDomain,
}

impl Registry {
    /// Starts the writer over a journal and the state that [`replay`] made of it; a new journal begins its first life. `fatal` is
    /// called once when the journal can no longer be believed.
    pub fn open(
        mut journal: Box<dyn Journal>,
        mut state: State,
        rules: Rules,
        limits: Limits,
        clock: Clock,
        heartbeat: Box<dyn Heartbeat>,
        fatal: Box<dyn Fn(&str) + Send>,
    ) -> Result<(Registry, std::thread::JoinHandle<()>), OpenError> {
        if state.revision == 0 {
            let record = opened(&rules.trust_domain, clock.now())?;
            journal.append(1, &[prost::Message::encode_to_vec(&record)], &[])?;
            state.apply(1, &record).map_err(|e| OpenError::Replay(e.to_string()))?;
        }
        if state.trust_domain != rules.trust_domain.as_str() {
            return Err(OpenError::TrustDomain(state.trust_domain, rules.trust_domain.to_string()));
        }
        let trust_domain = rules.trust_domain.clone();
        let state = Arc::new(RwLock::new(state));
        let (to_writer, messages) = std::sync::mpsc::sync_channel(limits.queue.max(1));
        let writer = writer::Writer { state: Arc::clone(&state), journal, rules, limits, clock, heartbeat, fatal };
        let thread = std::thread::Builder::new()
            .name("mayfly-writer".into())
            .spawn(move || writer.run(&messages))
            .map_err(|e| OpenError::Replay(e.to_string()))?;
        Ok((Registry { state, to_writer, trust_domain }, thread))
    }

    /// Ours.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Looks something up; the look must be short and never blocks.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read())
    }

    /// Has a group judged and recorded; one answer for each, all durable. Blocks: not for async code.
    pub fn commit(&self, group: Vec<Ask>) -> Vec<Result<Outcome, No>> {
        let count = group.len();
        let (answer, answers) = std::sync::mpsc::sync_channel(1);
        let sent = self.to_writer.send(writer::Message::Group(group, answer));
        let stopped = || Err(Denial::new(Kind::Unavailable, "STOPPING", "the issuer is stopping: ask again").into());
        match sent.map_err(drop).and_then(|()| answers.recv().map_err(drop)) {
            Ok(answers) => answers,
            Err(()) => (0..count).map(|_| stopped()).collect(),
        }
    }

    /// Writes a copy of the journal; its head and its size in bytes. Blocks.
    pub fn backup(&self, to: PathBuf) -> Result<(u64, u64), Fault> {
        let (answer, answers) = std::sync::mpsc::sync_channel(1);
        let gone = |()| Fault::new("backup", "the issuer is stopping");
        self.to_writer.send(writer::Message::Backup(to, answer)).map_err(drop).map_err(gone)?;
        answers.recv().map_err(drop).map_err(gone)?.map_err(|e| Fault::new("backup", e))
    }

    /// The revision that parts what was recorded before a time (unix microseconds, not in the future) from what was not. Blocks.
    pub fn revision_at(&self, time: u64) -> Result<u64, Fault> {
        let (answer, answers) = std::sync::mpsc::sync_channel(1);
        let gone = |()| Fault::new("revision", "the issuer is stopping");
        self.to_writer.send(writer::Message::RevisionAt(time, answer)).map_err(drop).map_err(gone)?;
        answers.recv().map_err(drop).map_err(gone)?.map_err(|e| Fault::new("revision", e))
    }

    /// Lets the writer finish what was sent before, and end.
    pub fn stop(&self) {
        // An error means that it has ended already.
        let _ = self.to_writer.send(writer::Message::Stop);
    }
}

/// Records that go from the reader to the one who applies them in one piece.
const CHUNK: usize = 1024;
/// Pieces that wait at most.
const WAITING: usize = 8;

/// What a journal's records say, all together. They are read and decoded beside the thread that applies them.
pub fn replay(journal: &mut dyn Journal) -> Result<State, OpenError> {
    let (chunks, records) = std::sync::mpsc::sync_channel::<Vec<(u64, Record)>>(WAITING);
    let done = std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(journal, &chunks));
        let mut state = State::default();
        let applied = records.iter().flatten().try_for_each(|(revision, record)| state.apply(revision, &record));
        // ORDER: before the reader is waited for. It ends when nobody takes its pieces any more.
        drop(records);
        let read = reader.join().map_err(|_| "the reader has died".to_owned())?;
        applied.map_err(|e| e.to_string())?;
        read.map(|()| state)
    });
    done.map_err(OpenError::Replay)
}

fn read(journal: &mut dyn Journal, chunks: &std::sync::mpsc::SyncSender<Vec<(u64, Record)>>) -> Result<(), String> {
    let gone = |_| "a record did not fit".to_owned();
    let mut chunk = Vec::with_capacity(CHUNK);
    journal.replay(&mut |revision, bytes| {
        let record = crate::journal::decode(bytes).map_err(|e| format!("revision {revision}: {e}"))?;
        chunk.push((revision, record));
        if chunk.len() < CHUNK {
            return Ok(());
        }
        chunks.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))).map_err(gone)
    })?;
    chunks.send(chunk).map_err(gone)
}

/// The first record of a new life of a journal.
pub fn opened(trust_domain: &TrustDomain, now: u64) -> Result<Record, OpenError> {
    let mut random = [0u8; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| OpenError::Replay("the system gave no randomness".into()))?;
    let incarnation = uuid::Builder::from_random_bytes(random).into_uuid();
    let body = record::Opened { incarnation: incarnation.as_bytes().to_vec(), trust_domain: trust_domain.to_string() };
    Ok(Record { at: now, operator: String::new(), body: Some(Body::Opened(body)) })
}
