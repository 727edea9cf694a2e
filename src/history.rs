//! The history, an append-only log beside the ledger. It has an entry for each record, for each denial, and for each look: a read
//! by an operator or an auditor of what others do.
//!
//! ```text
//! ledger ── inbox ── keeper ── store     segments of JSON lines, dropped whole when they are old
//! doors  ──┘           │
//!                     log ── tiles       the tree over the entries, its head signed about once a second (`note`)
//! audit  <── store                       sends entries to a collector
//! ```
//!
//! The history is *behind* the journal: a thread of its own copies durable records from there. So no request waits for it, and a
//! failing disk here stops no issuance. It never loses a record: the journal drops no row whose entry is not durable, and at a
//! start the history reads the records that it lacks from the journal. Denials and looks are not in the journal. They wait in
//! bounded memory, and if there are too many, the rest is counted in an entry of its own.

pub mod audit;
pub mod entry;
mod flood;
mod inbox;
mod keeper;
mod kinds;
pub mod line;
mod log;
pub mod note;
pub mod proof;
pub mod query;
pub mod read;
mod sealed;
mod store;
pub mod tiles;
mod translate;
pub mod tree;
pub mod verify;
pub mod witness;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mayfly_verify::TrustDomain;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::caller::{Caller, Origin};
use crate::clock::Clock;
use crate::denial::No;
use crate::keys::keystore::Keystore;
use crate::ledger::Ledger;
use crate::process;
use entry::{Draft, Kind, Outcome};
use flood::Whose;
pub use inbox::Inbox;
use keeper::Keeper;
use log::Log;
use note::{Signer, Verifier};
use read::Reader;
use store::Store;
pub use store::{Keep, head_of};
use tiles::Folder;

/// Name of the key that signs checkpoints, in the keystore.
const KEY: &str = "history.key";
/// Queries that run at once: those of operators, and those of all other callers together. A query may read a hundred thousand
/// entries.
const LOOKS: (usize, usize) = (4, 2);
/// How long a query waits for others to end.
const TURN: Duration = Duration::from_secs(5);
/// How long a query waits for records from before it.
const FLUSH: Duration = Duration::from_secs(2);

/// Where a history is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder of the history.
    pub dir: PathBuf,
    /// The last signed checkpoint, kept outside the folder.
    pub checkpoint: PathBuf,
    /// The edge of the tree when its tiles were last made durable.
    pub edge: PathBuf,
}

impl Place {
    /// The place in a home.
    pub fn of(home: &Path) -> Place {
        Place { dir: home.join("history"), checkpoint: home.join("history.checkpoint"), edge: home.join("history.edge") }
    }

    /// The folder of the segments.
    pub fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }
}

/// A history that is open but does not follow a ledger yet, whose journal may be behind it.
pub struct Opened {
    store: Store,
    log: Log,
    verifier: Verifier,
    place: Place,
}

impl Opened {
    /// Opens the history of a trust domain, or begins one. Fails if it is behind its last signed checkpoint.
    pub fn open(place: Place, keep: Keep, keystore: &Keystore, trust_domain: &TrustDomain) -> Result<Opened, String> {
        let store = Store::open(&place.segments(), keep)?;
        let signer = signer(keystore, trust_domain)?;
        let verifier = signer.verifier().clone();
        let vkey = place.dir.join("vkey");
        let text = format!("{}\n", verifier.encoded());
        if std::fs::read_to_string(&vkey).ok().as_deref() != Some(text.as_str()) {
            crate::keys::keystore::write_private(&vkey, text.as_bytes()).map_err(|e| e.to_string())?;
        }
        let log = Log::open(&place, signer, &store.reader())?;
        Ok(Opened { store, log, verifier, place })
    }

    /// The journal's revision up to which it holds every record. A journal that ends before it is an older copy.
    pub fn head(&self) -> u64 {
        self.store.head()
    }

    /// Starts to follow a ledger through the inbox that observes it.
    pub fn follow(self, inbox: Inbox, ledger: &Ledger, clock: &Clock) -> Result<History, String> {
        let Opened { store, log, verifier, place } = self;
        let (reader, folder) = (store.reader(), Folder::new(&place.dir));
        let opened = reader.places();
        inbox.set_copied(store.head());
        let keeper = Keeper::new(inbox.clone(), ledger.clone(), clock.clone(), store, log);
        let thread = process::thread("mayfly-history", move || keeper.run()).map_err(|e| e.to_string())?;
        Ok(History {
            inbox,
            reader,
            opened,
            folder,
            verifier,
            ledger: ledger.clone(),
            clock: clock.clone(),
            start: clock.now() / 1000,
            decisions: AtomicU64::new(0),
            looks: (Semaphore::new(LOOKS.0), Semaphore::new(LOOKS.1)),
            thread: Mutex::new(Some(thread)),
        })
    }
}

/// An inbox for [`Opened::follow`]. The ledger must be opened with it first.
pub fn inbox() -> Inbox {
    Inbox::new()
}

/// A history that follows a ledger.
pub struct History {
    inbox: Inbox,
    reader: Reader,
    // The indexes of the entries at the start, before anything was added.
    opened: (u64, u64),
    folder: Folder,
    verifier: Verifier,
    ledger: Ledger,
    clock: Clock,
    // Names the start of this process by its Unix milliseconds. Decisions that are not records are numbered within it.
    start: u64,
    decisions: AtomicU64,
    // Permits for queries: of operators, and of all other callers.
    looks: (Semaphore, Semaphore),
    // Guards the handle of the thread, which is joined once.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl History {
    /// Adds a denial or a fault.
    pub fn denied(&self, origin: &Origin, no: &No) {
        let (kind, outcome) = match no {
            No::Denial(_) => (Kind::Denial, Outcome::Denied),
            No::Fault(_) => (Kind::Denial, Outcome::Failed),
        };
        let mut draft = self.draft(kind, outcome, origin);
        match no {
            No::Denial(denial) => {
                denial.code.clone_into(&mut draft.leaf.reason_code);
                draft.opening.reason.clone_from(&denial.message);
                draft.opening.question = origin.question.get().map(|question| question.text()).unwrap_or_default();
            }
            No::Fault(fault) => fault.during.clone_into(&mut draft.opening.reason),
        }
        self.inbox.add(whose(origin), draft);
    }

    /// Adds a look of an operator.
    pub fn looked(&self, origin: &Origin) {
        let draft = self.draft(Kind::Look, Outcome::Answered, origin);
        self.inbox.add(whose(origin), draft);
    }

    fn draft(&self, kind: Kind, outcome: Outcome, origin: &Origin) -> Draft {
        let mut draft = Draft::new(kind, self.clock.now(), outcome);
        let trust_domain = self.ledger.trust_domain();
        match origin.caller.get() {
            Some(Caller::Agent { id, .. }) => self.ledger.read(|state| match state.agent(&id.uuid) {
                Some(agent) => translate::about(&mut draft, agent, trust_domain),
                None => draft.leaf.agent_id = id.to_string(),
            }),
            Some(caller) => draft.leaf.root_id = translate::root_of(caller, trust_domain).unwrap_or_default(),
            None => {}
        }
        if let Some(asked) = origin.asked.get() {
            // The class that was asked for, not the caller's.
            if !asked.class.is_empty() {
                draft.leaf.class.clone_from(&asked.class);
            }
            draft.opening.audiences.clone_from(&asked.audiences);
        }
        if let Some(user) = origin.user.get() {
            draft.opening.user = Some(entry::Person { iss: user.iss.clone(), sub: user.sub.clone() });
        } else if let Some(Caller::User { user, .. }) = origin.caller.get() {
            draft.opening.user = Some(entry::Person { iss: user.iss.clone(), sub: user.sub.clone() });
        }
        translate::from(&mut draft.opening, origin);
        let number = self.decisions.fetch_add(1, Ordering::Relaxed);
        draft.leaf.decision_id = format!("d{:x}-{number}", self.start);
        draft
    }

    /// A permit for one query, which is given back when it is dropped. `None` if there was none in time.
    pub async fn place(&self, operator: bool) -> Option<SemaphorePermit<'_>> {
        let looks = if operator { &self.looks.0 } else { &self.looks.1 };
        tokio::time::timeout(TURN, looks.acquire()).await.ok()?.ok()
    }

    /// Waits until everything that was recorded or denied so far is in the history, at most for two seconds.
    pub async fn flush(&self) {
        let _ = tokio::time::timeout(FLUSH, self.inbox.flush()).await;
    }

    /// What reads the entries.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Revision of the last record whose entry is durable.
    pub fn copied(&self) -> u64 {
        self.inbox.copied()
    }

    /// How many entries the last signed checkpoint covers; 0 if there is none. Reads a file.
    pub fn signed(&self) -> u64 {
        let note = self.folder.checkpoint().ok().flatten();
        note.and_then(|note| self.verifier.open(&note).ok()).map_or(0, |checkpoint| checkpoint.size)
    }

    /// The tree as files.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The witnesses of its checkpoints.
    pub fn witnesses(&self, settings: Vec<witness::Settings>) -> Result<witness::Witnesses, String> {
        witness::Witnesses::new(settings, self.folder.clone(), self.verifier.clone())
    }

    /// What verifies its checkpoints.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Writes what the journal has by now, signs the last checkpoint, and ends. Blocks. The ledger must have stopped.
    pub fn stop(&self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.stop();
    }
}

fn whose(origin: &Origin) -> Whose {
    match origin.caller.get() {
        None | Some(Caller::Stranger) => Whose::Strangers,
        Some(Caller::Operator { .. } | Caller::Auditor { .. }) => Whose::Operators,
        Some(_) => Whose::Callers,
    }
}

/// The signing key of a history, which is made with it. Its name is the origin of the history, and unique to it.
fn signer(keystore: &Keystore, trust_domain: &TrustDomain) -> Result<Signer, String> {
    if let Some(text) = keystore.read(KEY).map_err(|e| e.to_string())? {
        return Signer::read(&text).map_err(|e| format!("`{KEY}`: {e}"));
    }
    let mut random = [0u8; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gave no randomness".to_owned())?;
    let signer = Signer::generate(&format!("{trust_domain}/mayfly-history/{}", hex::encode(random)))?;
    keystore.write(KEY, signer.encoded().as_bytes()).map_err(|e| e.to_string())?;
    Ok(signer)
}
