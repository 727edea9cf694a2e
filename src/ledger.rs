//! Room 4: the ledger. There is one writer and one order: the writer judges all waiting groups as one batch, makes the records
//! durable with one commit, applies them, and settles every act of the batch. It knows records, but no particular act.
//!
//! There is no writer thread. A thread with a group to commit takes the writer's lock and commits all groups that wait, its own
//! among them; the other threads find their groups settled when they get the lock. So a lone request is committed by its own
//! thread, and many requests share commits.

mod backup;
mod commit;
mod lane;
mod notes;
mod pending;
mod pulse;
pub mod repair;
mod replay;
pub mod restore;
mod room;
pub mod start;
mod watermark;

use std::any::Any;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use mayfly_verify::TrustDomain;
use parking_lot::{Mutex, RwLock};

use crate::caller::Origin;
use crate::clock::Clock;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::Record;
use crate::journal::{self, Journal};
use crate::judge::{Act, Judgement, Rules};
use crate::state::{CutMade, State};
use commit::{Slot, Writer};
use lane::Waiting;
pub use lane::{InLane, Lane};
pub use pending::{Either, Pending, Recorded};
pub use pulse::{Pulse, Unable};
pub use replay::{Listens, OpenError, opened, replay, replay_telling};
pub use watermark::{Head, Keeper, Watermark, keep as keep_watermark};

/// Bounds of the writer.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A commit with this many acts takes no further group. Groups are never split, so the last may go beyond the bound.
    pub batch: usize,
}

/// Notified of each commit after it is applied and before its acts are answered.
pub trait Observer: Send {
    /// The head after the commit, and the cuts that the commit made.
    fn committed(&mut self, head: Head, cuts: Vec<CutMade>);

    /// The records of the commit, in order, after [`Observer::committed`]. It must not block.
    fn recorded(&mut self, _: Vec<Noted>) {}

    /// Rows after this revision stay in the journal, because the observer has not copied them yet.
    fn copied(&self) -> u64 {
        u64::MAX
    }
}

/// A durable record, with facts that are not in the journal.
#[derive(Debug)]
pub struct Noted {
    /// Its revision.
    pub revision: u64,
    /// The record.
    pub record: Record,
    /// The act that it belongs to: the records of one act have the same number, and no other act has it. 0 if that is not known.
    pub act: u64,
    /// Where the act's request came from. `None` for an act of the issuer itself, or if it is unknown after a restart.
    pub origin: Option<Arc<Origin>>,
}

/// An observer that does nothing.
pub struct Unobserved;

impl Observer for Unobserved {
    fn committed(&mut self, _: Head, _: Vec<CutMade>) {}
}

/// Acts that are judged and recorded together.
pub trait Group: Any + Send {
    /// Number of acts.
    fn count(&self) -> usize;
    /// The lane in which the group waits for the writer.
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
    /// Judges every act, in order. It may be called again on a later state, if the journal has moved on.
    fn judge(&mut self, judgement: &mut Judgement<'_>);
    /// Gives every act the outcome of the batch.
    fn settle(&mut self, fate: &Fate);
}

/// The outcome of a batch.
pub enum Fate {
    /// Everything that was allowed is durable.
    Durable(Durable),
    /// There is no room: nothing is durable.
    Full,
    /// The ledger has stopped: nothing is durable.
    Stopped,
    /// The journal failed: it is unknown what is durable.
    Failed(String),
}

/// Proof that a batch is durable. Only the ledger makes it, and a permit needs it before it can be signed.
pub struct Durable(());

/// The ledger. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    // Guards the state: the writer holds it while it applies durable records, readers hold it for one look-up.
    state: RwLock<State>,
    // Serializes commits: the thread that holds it is the writer.
    writer: Mutex<Writer>,
    // Guards the groups that wait for the writer; held to add one or to take some.
    waiting: Mutex<Waiting>,
    // Swapped as a whole, by the writer and together with the record of the configuration, so that a batch is judged by one set of
    // rules.
    rules: ArcSwap<Rules>,
    trust_domain: TrustDomain,
    pulse: Pulse,
}

impl Ledger {
    /// Opens a ledger over a journal and the state that [`replay`] made of it; a new journal gets its first record. `fatal` is
    /// called once, when it is unknown what is durable.
    pub fn open(
        mut journal: Box<dyn Journal>,
        mut state: State,
        rules: Rules,
        bounds: Bounds,
        clock: Clock,
        observer: Box<dyn Observer>,
        fatal: Box<dyn Fn(&str) + Send>,
    ) -> Result<Ledger, OpenError> {
        if state.revision == 0 {
            let record = opened(&rules.trust_domain, clock.now())?;
            journal.append(1, &[prost::Message::encode_to_vec(&record)], &[])?;
            state.apply(1, &record).map_err(|e| OpenError::Replay(e.to_string()))?;
        }
        if state.trust_domain() != rules.trust_domain.as_str() {
            return Err(OpenError::TrustDomain(state.trust_domain().to_owned(), rules.trust_domain.to_string()));
        }
        let writer = Writer::new(journal, bounds, clock, observer, fatal);
        Ok(Ledger(Arc::new(Inner {
            state: RwLock::new(state),
            writer: Mutex::new(writer),
            waiting: Mutex::default(),
            trust_domain: rules.trust_domain.clone(),
            rules: ArcSwap::from_pointee(rules),
            pulse: Pulse::default(),
        })))
    }

    /// The configured rules as they are now. A decision by them outside of the ledger is made again when the act is recorded.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.0.rules.load()
    }

    /// Records an act that is judged by other rules, and uses those rules from then on. If it is denied, or there is no room, the
    /// rules stay. Blocks: not for async code.
    pub fn reconfigure<A: Act>(&self, pending: Pending<A>, rules: Rules) -> Result<A::Permit, No> {
        let mut alone = vec![pending];
        // ORDER: the writer's lock is held until the rules are swapped, so that no act is judged by the old rules and recorded
        // after the new ones.
        let mut writer = self.0.writer.lock();
        writer.carry_by(&self.0, &rules, &mut alone);
        let permit =
            alone.pop().map_or_else(|| Err(Fault::new("reconfigure", "the act is gone").into()), |mut act| act.take())?;
        self.0.rules.store(Arc::new(rules));
        Ok(permit.spend())
    }

    /// The trust domain of this issuer.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Looks something up. The look-up must be short and must never block.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.state.read())
    }

    /// Judges and records a group. Every act in it is settled when this returns. Blocks: not for async code.
    pub fn commit<G: Group>(&self, mut group: G) -> G {
        if let Some(mut writer) = self.0.writer.try_lock() {
            writer.carry(&self.0, Some(&mut group));
            return group;
        }
        let slot = Arc::new(Slot::new(Box::new(group)));
        self.0.waiting.lock().push(Arc::clone(&slot));
        let settled: Box<dyn Any> = loop {
            let mut writer = self.0.writer.lock();
            // Another thread may have carried this group while this one waited for the lock.
            if let Some(settled) = slot.take() {
                break settled;
            }
            writer.carry(&self.0, None);
            if let Some(settled) = slot.take() {
                break settled;
            }
        };
        // Unwrap safety: the slot gives back the group that was put into it.
        #[expect(clippy::unwrap_used, reason = "see above")]
        *settled.downcast::<G>().unwrap()
    }

    /// The revision that separates records from before a time (Unix microseconds, not in the future) from later ones. Records are
    /// in order of time, so this is a binary search. Blocks.
    pub fn revision_at(&self, time: u64) -> Result<u64, Fault> {
        let (mut from, mut to) = (0, self.read(|state| state.revision) + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            match self.rows(middle, 1)?.pop() {
                Some((revision, body)) => {
                    let at = journal::decode(&body).map_err(|e| Fault::new("revision", e))?.at;
                    if self.read(|state| state.time_of(revision, at)) < time { from = revision + 1 } else { to = middle }
                }
                None => to = middle,
            }
        }
        Ok(from)
    }

    /// Stops the ledger. Every later group is denied with `STOPPING`.
    pub fn stop(&self) {
        self.0.writer.lock().stop();
        self.0.pulse(|pulse| pulse.stopped = true);
    }

    /// At most `most` rows of the journal from a revision on, each with its revision. It waits for a commit under way.
    pub fn rows(&self, from: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, Fault> {
        self.0.writer.lock().rows(from, most).map_err(|e| Fault::new("read the journal", e))
    }
}

/// The denial of requests after the ledger has stopped.
pub(crate) fn stopping() -> Denial {
    Denial::new(Kind::Unavailable, "STOPPING", "the issuer is stopping: ask again")
}
