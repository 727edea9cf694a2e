//! The state machine: messages in order in, and out of each heartbeat that holds, what is known from then on.

use std::collections::BTreeSet;
use std::sync::Arc;

use spiffe::TrustDomain;
use uuid::Uuid;

use super::{CutDigest, FeedCut, FeedError, FeedKey, FeedMessage, Heartbeat};
use crate::Subject;
use crate::cuts::{Cuts, Entry};

/// What a verifier knows since a heartbeat.
#[derive(Clone, Debug)]
pub struct Known {
    /// The revocations in force.
    pub cuts: Cuts,
    /// Every cut up to this revision is among them.
    pub head: u64,
    /// Unix microseconds: until then that was true.
    pub as_of: u64,
}

/// From where a feed goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which life of the journal.
    pub incarnation: Uuid,
    /// The head of the last heartbeat that was taken.
    pub head: u64,
}

/// What a follower takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Cuts that are known.
    pub cuts: usize,
    /// Cuts that wait for their heartbeat.
    pub pending: usize,
}

impl Default for Limits {
    /// 4 million of each: some 130 MB.
    fn default() -> Limits {
        Limits { cuts: 4_000_000, pending: 4_000_000 }
    }
}

/// Takes one feed.
#[derive(Debug)]
pub struct Follower {
    key: FeedKey,
    trust_domain: TrustDomain,
    limits: Limits,
    known: Option<Arc<Known>>,
    digest: CutDigest,
    /// Which cut ends when.
    due: BTreeSet<(u64, Subject)>,
    pending: Pending,
    /// Something was refused: only a snapshot can be believed.
    lost: bool,
}

/// What has no heartbeat yet.
#[derive(Debug, Default)]
struct Pending {
    snapshot: bool,
    cuts: Vec<FeedCut>,
}

impl Follower {
    /// Knows nothing yet.
    pub fn new(key: FeedKey, trust_domain: TrustDomain, limits: Limits) -> Follower {
        let (digest, due, pending) = (CutDigest::default(), BTreeSet::new(), Pending::default());
        Follower { key, trust_domain, limits, known: None, digest, due, pending, lost: false }
    }

    /// A connection begins: what the one before left without a heartbeat is void. Gives the place from which to go on; none
    /// where everything is needed.
    pub fn connect(&mut self) -> Option<Position> {
        self.pending = Pending::default();
        let known = self.known.as_ref().filter(|_| !self.lost)?;
        Some(Position { incarnation: known.cuts.incarnation, head: known.head })
    }

    /// Takes one message. Gives what is known from now on, when it brought a heartbeat.
    ///
    /// After an error the connection is of no use any more; the next one starts with a snapshot.
    pub fn take(&mut self, message: FeedMessage) -> Result<Option<Arc<Known>>, FeedError> {
        let taken = self.step(message);
        if taken.is_err() {
            self.pending = Pending::default();
            self.lost = true;
        }
        taken
    }

    fn step(&mut self, message: FeedMessage) -> Result<Option<Arc<Known>>, FeedError> {
        if message.snapshot {
            self.pending = Pending { snapshot: true, cuts: Vec::new() };
        }
        if !self.pending.snapshot && (self.lost || self.known.is_none()) {
            return Err(FeedError::NoSnapshot);
        }
        if self.pending.cuts.len() + message.cuts.len() > self.limits.pending {
            return Err(FeedError::TooMany(self.limits.pending));
        }
        self.pending.cuts.extend(message.cuts);
        let Some(heartbeat) = message.heartbeat else { return Ok(None) };
        self.believe(&heartbeat)?;
        let pending = std::mem::take(&mut self.pending);
        let known =
            if pending.snapshot { self.replace(pending.cuts, &heartbeat)? } else { self.change(&pending.cuts, &heartbeat)? };
        self.lost = false;
        Ok(Some(known))
    }

    /// Who says it, and that it is not said again (T75).
    fn believe(&self, heartbeat: &Heartbeat) -> Result<(), FeedError> {
        self.key.verify(heartbeat)?;
        if heartbeat.trust_domain != self.trust_domain {
            return Err(FeedError::TrustDomain(heartbeat.trust_domain.to_string()));
        }
        let Some(known) = &self.known else { return Ok(()) };
        let same = known.cuts.incarnation == heartbeat.incarnation;
        match () {
            () if !same && !self.pending.snapshot => Err(FeedError::Incarnation),
            // Time goes on from one life of the journal to the next: an earlier life is a replay too.
            () if heartbeat.as_of < known.as_of => Err(FeedError::Time(known.as_of, heartbeat.as_of)),
            () if same && heartbeat.head < known.head => Err(FeedError::Head(known.head, heartbeat.head)),
            () => Ok(()),
        }
    }

    /// A snapshot: nothing of before stays.
    fn replace(&mut self, pending: Vec<FeedCut>, heartbeat: &Heartbeat) -> Result<Arc<Known>, FeedError> {
        let kept = pending.into_iter().map(entry).filter(|e| e.keep_until > seconds(heartbeat)).collect();
        let cuts = Cuts::collect(heartbeat.incarnation, kept);
        let mut digest = CutDigest::default();
        cuts.entries().for_each(|e| digest.add(e.subject, e.before));
        self.compare(&cuts, digest, heartbeat)?;
        self.due = cuts.entries().map(|e| (e.keep_until, e.subject)).collect();
        Ok(self.know(cuts, digest, heartbeat))
    }

    /// A delta, on a copy: nothing has changed when it is refused.
    fn change(&mut self, pending: &[FeedCut], heartbeat: &Heartbeat) -> Result<Arc<Known>, FeedError> {
        let before = Arc::clone(self.known.as_ref().ok_or(FeedError::NoSnapshot)?);
        let mut cuts = before.cuts.clone();
        // Whatever may differ afterwards.
        let mut touched: Vec<Subject> = pending.iter().map(|c| c.subject).collect();
        pending.iter().copied().map(entry).for_each(|e| cuts.insert(e));
        let over = self.due.range(..=(seconds(heartbeat), Subject([0xff; 16])));
        touched.extend(over.map(|(_, subject)| *subject));
        touched.sort_unstable();
        touched.dedup();
        let mut digest = self.digest;
        for subject in &touched {
            if cuts.get(*subject).is_some_and(|e| e.keep_until <= seconds(heartbeat)) {
                cuts.forget(*subject);
            }
            if let Some(old) = before.cuts.get(*subject) {
                digest.remove(*subject, old.before);
            }
            if let Some(new) = cuts.get(*subject) {
                digest.add(*subject, new.before);
            }
        }
        self.compare(&cuts, digest, heartbeat)?;
        for subject in touched {
            if let Some(old) = before.cuts.get(subject) {
                self.due.remove(&(old.keep_until, subject));
            }
            if let Some(new) = cuts.get(subject) {
                self.due.insert((new.keep_until, subject));
            }
        }
        Ok(self.know(cuts, digest, heartbeat))
    }

    /// Whether these are the cuts that were signed: what a relay left out or made up is noticed here.
    fn compare(&self, cuts: &Cuts, digest: CutDigest, heartbeat: &Heartbeat) -> Result<(), FeedError> {
        match () {
            () if cuts.len() > self.limits.cuts => Err(FeedError::TooMany(self.limits.cuts)),
            () if u64::try_from(cuts.len()) != Ok(heartbeat.count) => Err(FeedError::Count(cuts.len(), heartbeat.count)),
            () if digest.to_bytes() != heartbeat.digest => Err(FeedError::Digest),
            () => Ok(()),
        }
    }

    fn know(&mut self, cuts: Cuts, digest: CutDigest, heartbeat: &Heartbeat) -> Arc<Known> {
        let known = Arc::new(Known { cuts, head: heartbeat.head, as_of: heartbeat.as_of });
        (self.digest, self.known) = (digest, Some(Arc::clone(&known)));
        known
    }
}

fn entry(cut: FeedCut) -> Entry {
    Entry { subject: cut.subject, before: cut.before, keep_until: cut.keep_until }
}

fn seconds(heartbeat: &Heartbeat) -> u64 {
    heartbeat.as_of / 1_000_000
}
