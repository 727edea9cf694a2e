//! The state machine of a verifier: it takes messages in order, and each valid heartbeat yields a new state.

use std::collections::BTreeSet;
use std::sync::Arc;

use spiffe::TrustDomain;
use uuid::Uuid;

use super::{CutDigest, FeedCut, FeedError, FeedKey, FeedMessage, Heartbeat};
use crate::Subject;
use crate::cuts::{Cuts, Entry};

/// The knowledge of a verifier as of one heartbeat.
#[derive(Clone, Debug)]
pub struct Known {
    /// The revocations in force.
    pub cuts: Cuts,
    /// The revision up to which every cut is included.
    pub head: u64,
    /// The time up to which this is complete, Unix microseconds.
    pub as_of: u64,
}

/// The place from which to resume a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the journal.
    pub incarnation: Uuid,
    /// The revision of the last accepted heartbeat.
    pub head: u64,
}

/// Limits of a follower.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Greatest number of known cuts.
    pub cuts: usize,
    /// Greatest number of cuts that wait for their heartbeat.
    pub pending: usize,
}

impl Default for Limits {
    /// 4 million of each, about 130 MB.
    fn default() -> Limits {
        Limits { cuts: 4_000_000, pending: 4_000_000 }
    }
}

/// Takes the messages of one feed.
#[derive(Debug)]
pub struct Follower {
    key: FeedKey,
    trust_domain: TrustDomain,
    limits: Limits,
    known: Option<Arc<Known>>,
    digest: CutDigest,
    /// The known cuts by the time at which they can be forgotten (Unix seconds).
    due: BTreeSet<(u64, Subject)>,
    pending: Pending,
    /// A message was refused, so that only a snapshot can be accepted next.
    lost: bool,
}

/// Cuts that wait for their heartbeat.
#[derive(Debug, Default)]
struct Pending {
    snapshot: bool,
    cuts: Vec<FeedCut>,
}

impl Follower {
    /// Starts without any knowledge.
    pub fn new(key: FeedKey, trust_domain: TrustDomain, limits: Limits) -> Follower {
        let (digest, due, pending) = (CutDigest::default(), BTreeSet::new(), Pending::default());
        Follower { key, trust_domain, limits, known: None, digest, due, pending, lost: false }
    }

    /// Begins a new connection, and drops cuts that still waited for a heartbeat. Returns the place from which to resume, or
    /// `None` if a snapshot is needed.
    pub fn connect(&mut self) -> Option<Position> {
        self.pending = Pending::default();
        let known = self.known.as_ref().filter(|_| !self.lost)?;
        Some(Position { incarnation: known.cuts.incarnation, head: known.head })
    }

    /// Takes one message. If it holds a heartbeat, returns the new state.
    ///
    /// After an error, close the connection. The next one starts with a snapshot.
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

    /// Checks who signed the heartbeat, and that it is not a replay (T75).
    fn believe(&self, heartbeat: &Heartbeat) -> Result<(), FeedError> {
        self.key.verify(heartbeat)?;
        if heartbeat.trust_domain != self.trust_domain {
            return Err(FeedError::TrustDomain(heartbeat.trust_domain.to_string()));
        }
        let Some(known) = &self.known else { return Ok(()) };
        let same = known.cuts.incarnation == heartbeat.incarnation;
        if !same && !self.pending.snapshot {
            return Err(FeedError::Incarnation);
        }
        // Time goes on from one epoch of the journal to the next, so a heartbeat of an earlier epoch is a replay too.
        if heartbeat.as_of < known.as_of {
            return Err(FeedError::Time(known.as_of, heartbeat.as_of));
        }
        if same && heartbeat.head < known.head {
            return Err(FeedError::Head(known.head, heartbeat.head));
        }
        Ok(())
    }

    /// Replaces the whole state by a snapshot.
    fn replace(&mut self, pending: Vec<FeedCut>, heartbeat: &Heartbeat) -> Result<Arc<Known>, FeedError> {
        let kept = pending.into_iter().map(entry).filter(|e| e.keep_until > seconds(heartbeat)).collect();
        let cuts = Cuts::collect(heartbeat.incarnation, kept);
        let mut digest = CutDigest::default();
        cuts.entries().for_each(|e| digest.add(e.subject, e.before));
        self.compare(&cuts, digest, heartbeat)?;
        self.due = cuts.entries().map(|e| (e.keep_until, e.subject)).collect();
        Ok(self.know(cuts, digest, heartbeat))
    }

    /// Applies changes to a copy of the state, so that nothing changes if they are refused.
    fn change(&mut self, pending: &[FeedCut], heartbeat: &Heartbeat) -> Result<Arc<Known>, FeedError> {
        let before = Arc::clone(self.known.as_ref().ok_or(FeedError::NoSnapshot)?);
        let mut cuts = before.cuts.clone();
        // Every subject whose cut may differ afterwards.
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

    /// Compares the cuts with the signed count and digest: this detects what a relay dropped or invented.
    fn compare(&self, cuts: &Cuts, digest: CutDigest, heartbeat: &Heartbeat) -> Result<(), FeedError> {
        if cuts.len() > self.limits.cuts {
            return Err(FeedError::TooMany(self.limits.cuts));
        }
        if u64::try_from(cuts.len()) != Ok(heartbeat.count) {
            return Err(FeedError::Count(cuts.len(), heartbeat.count));
        }
        if digest.to_bytes() != heartbeat.digest {
            return Err(FeedError::Digest);
        }
        Ok(())
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
