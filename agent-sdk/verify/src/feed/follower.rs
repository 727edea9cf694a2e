//! The state machine of a verifier: it takes messages in order, and each valid heartbeat yields a new state.

use std::collections::BTreeMap;
use std::sync::Arc;

use spiffe::TrustDomain;
use uuid::Uuid;

use super::forgotten::{Forgotten, SHARE};
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
    /// If there were more cuts than this verifier holds, the revision up to which those of agents, delegations, keys and
    /// authorities may be missing; 0 if all of them are held. Nothing is issued under what was revoked, so a credential of a
    /// later revision can be judged, and an earlier one cannot.
    pub forgotten: u64,
    /// The signed statement that this comes from; others can be told it as a proof. `None` if it comes from no feed.
    pub heartbeat: Option<Arc<Heartbeat>>,
}

/// The place from which to resume a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the journal.
    pub incarnation: Uuid,
    /// The revision of the last accepted heartbeat.
    pub head: u64,
    /// The digest of the issuer's journal there, if it keeps one. An issuer with another journal notices by it that the two differ.
    pub chain: Option<[u8; 32]>,
}

/// Epochs of the journal that a follower remembers to have left.
const LEFT: usize = 16;

/// Limits of a follower.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Greatest number of cuts that are held. Beyond it the oldest cuts of agents, delegations, keys and authorities are
    /// forgotten: see [`Known::forgotten`].
    pub cuts: usize,
    /// Greatest number of cuts that wait for their heartbeat.
    pub pending: usize,
}

impl Default for Limits {
    /// 4 million of each, about 260 MB.
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
    /// The known cuts by the second at which they end. A cut that was prolonged or forgotten may leave an entry here that has no
    /// effect.
    due: BTreeMap<u64, Vec<Subject>>,
    forgotten: Forgotten,
    pending: Pending,
    /// A message was refused, so that only a snapshot can be accepted next.
    lost: bool,
    /// The latest time that the issuer has signed, Unix microseconds.
    latest: u64,
    /// Epochs of the journal that were left for another one.
    left: Vec<Uuid>,
    /// The revision at which the issuer has signed two different journals.
    forked: Option<u64>,
}

/// Cuts that wait for their heartbeat.
#[derive(Debug, Default)]
struct Pending {
    snapshot: bool,
    cuts: Vec<FeedCut>,
    /// Those of a snapshot that is larger than what is held.
    forgotten: Forgotten,
}

impl Follower {
    /// Starts without any knowledge.
    pub fn new(key: FeedKey, trust_domain: TrustDomain, limits: Limits) -> Follower {
        let (digest, due, pending) = (CutDigest::default(), BTreeMap::new(), Pending::default());
        let (forgotten, lost, latest, left, forked) = (Forgotten::default(), false, 0, Vec::new(), None);
        Follower { key, trust_domain, limits, known: None, digest, due, forgotten, pending, lost, latest, left, forked }
    }

    /// Accepts nothing any more, because the issuer itself says that its journal is not the one that we know.
    pub fn refuse(&mut self) -> FeedError {
        FeedError::Fork(*self.forked.get_or_insert(self.known.as_ref().map_or(0, |known| known.head)))
    }

    /// The revision at which the issuer has signed two different journals, if it has. Nothing is accepted any more then.
    pub fn forked(&self) -> Option<u64> {
        self.forked
    }

    /// Begins a new connection, and drops cuts that still waited for a heartbeat. Returns the place from which to resume, or
    /// `None` if a snapshot is needed.
    pub fn connect(&mut self) -> Option<Position> {
        self.pending = Pending::default();
        let known = self.known.as_ref().filter(|_| !self.lost)?;
        let chain = known.heartbeat.as_ref().and_then(|heartbeat| heartbeat.chain);
        Some(Position { incarnation: known.cuts.incarnation, head: known.head, chain })
    }

    /// Takes one message. If it holds a heartbeat, returns the new state.
    ///
    /// After an error, close the connection. The next one starts with a snapshot. After [`FeedError::Fork`] nothing is accepted.
    pub fn take(&mut self, message: FeedMessage) -> Result<Option<Arc<Known>>, FeedError> {
        let taken = self.forked.map_or_else(|| self.step(message), |revision| Err(FeedError::Fork(revision)));
        if let Err(FeedError::Fork(revision)) = taken {
            self.forked = Some(revision);
        }
        if taken.is_err() {
            self.pending = Pending::default();
            self.lost = true;
        }
        taken
    }

    fn step(&mut self, message: FeedMessage) -> Result<Option<Arc<Known>>, FeedError> {
        if message.snapshot {
            self.pending = Pending { snapshot: true, ..Pending::default() };
        }
        if !self.pending.snapshot && (self.lost || self.known.is_none()) {
            return Err(FeedError::NoSnapshot);
        }
        if self.pending.cuts.len() + message.cuts.len() > self.limits.pending && !self.pending.snapshot {
            return Err(FeedError::TooMany(self.limits.pending));
        }
        self.pending.cuts.extend(message.cuts);
        let most = self.limits.cuts.min(self.limits.pending);
        if self.pending.snapshot && self.pending.cuts.len() > most {
            self.pending.thin(most)?;
        }
        let Some(heartbeat) = message.heartbeat else { return Ok(None) };
        self.believe(&heartbeat)?;
        let pending = std::mem::take(&mut self.pending);
        let known = if pending.snapshot { self.replace(pending, &heartbeat)? } else { self.change(&pending.cuts, &heartbeat)? };
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
        if self.shows_another_past(known, heartbeat) {
            return Err(FeedError::Fork(known.head.min(heartbeat.head)));
        }
        // Revisions and time go on from one epoch of the journal to the next, so a heartbeat of an earlier epoch is a replay too.
        // After a repair of the issuer's time a later revision has an earlier time; a replay has neither later.
        if heartbeat.as_of < known.as_of && heartbeat.head <= known.head {
            return Err(FeedError::Time(known.as_of, heartbeat.as_of));
        }
        if same && heartbeat.head < known.head {
            return Err(FeedError::Head(known.head, heartbeat.head));
        }
        Ok(())
    }

    /// Whether an issuer with one journal cannot have signed both this heartbeat and the known state (T200).
    fn shows_another_past(&self, known: &Known, heartbeat: &Heartbeat) -> bool {
        if known.cuts.incarnation != heartbeat.incarnation {
            // An epoch that was left never comes back: its journal was restored into another one.
            return self.left.contains(&heartbeat.incarnation) && heartbeat.as_of > self.latest;
        }
        let chains = known.heartbeat.as_ref().and_then(|before| before.chain).zip(heartbeat.chain);
        match heartbeat.head.cmp(&known.head) {
            // A head that went back at a time that was never signed before is no replay.
            std::cmp::Ordering::Less => heartbeat.as_of > self.latest,
            std::cmp::Ordering::Equal => chains.is_some_and(|(before, now)| before != now),
            std::cmp::Ordering::Greater => false,
        }
    }

    /// Replaces the whole state by a snapshot.
    fn replace(&mut self, pending: Pending, heartbeat: &Heartbeat) -> Result<Arc<Known>, FeedError> {
        let entries = pending.cuts.into_iter().map(|cut| entry(cut, heartbeat));
        let cuts = Cuts::collect(heartbeat.incarnation, entries.filter(|e| e.keep_until > seconds(heartbeat)).collect());
        let mut forgotten = pending.forgotten;
        forgotten.expire(seconds(heartbeat));
        let mut digest = forgotten.digest;
        cuts.entries().for_each(|e| digest.add(e.subject, e.before));
        compare(&cuts, &forgotten, digest, heartbeat)?;
        if forgotten.count > 0 {
            forgotten.until = heartbeat.head;
        }
        self.due.clear();
        for e in cuts.entries() {
            self.due.entry(e.keep_until).or_default().push(e.subject);
        }
        Ok(self.know(cuts, digest, forgotten, heartbeat))
    }

    /// Applies changes to a copy of the state, so that nothing changes if they are refused.
    fn change(&mut self, pending: &[FeedCut], heartbeat: &Heartbeat) -> Result<Arc<Known>, FeedError> {
        let before = Arc::clone(self.known.as_ref().ok_or(FeedError::NoSnapshot)?);
        let mut cuts = before.cuts.clone();
        let (mut digest, mut forgotten) = (self.digest, self.forgotten.clone());
        for cut in pending {
            let old = cuts.get(cut.subject);
            if let Some(old) = old {
                digest.remove(cut.subject, old.before);
            }
            // The cut is removed, because another cut revokes everything that it revoked.
            if cut.before == 0 {
                match old {
                    Some(_) => cuts.forget(cut.subject),
                    None => forgotten.take(cut, &mut digest),
                }
                continue;
            }
            let new = entry(*cut, heartbeat);
            let new = old.map_or(new, |old| old.merged(new));
            digest.add(new.subject, new.before);
            cuts.insert(new);
        }
        let over: Vec<u64> = self.due.range(..=seconds(heartbeat)).map(|(end, _)| *end).collect();
        for subject in over.iter().filter_map(|end| self.due.get(end)).flatten().copied().chain(pending.iter().map(|c| c.subject))
        {
            if let Some(ended) = cuts.get(subject).filter(|e| e.keep_until <= seconds(heartbeat)) {
                digest.remove(subject, ended.before);
                cuts.forget(subject);
            }
        }
        digest.remove_all(forgotten.expire(seconds(heartbeat)));
        compare(&cuts, &forgotten, digest, heartbeat)?;
        for end in over {
            self.due.remove(&end);
        }
        for e in pending.iter().filter_map(|cut| cuts.get(cut.subject)) {
            self.due.entry(e.keep_until).or_default().push(e.subject);
        }
        Ok(self.know(cuts, digest, forgotten, heartbeat))
    }

    /// Takes over a state that was compared with its heartbeat. If it holds too many cuts, the oldest ones are forgotten.
    fn know(&mut self, mut cuts: Cuts, digest: CutDigest, mut forgotten: Forgotten, heartbeat: &Heartbeat) -> Arc<Known> {
        if cuts.len() > self.limits.cuts {
            cuts = forgotten.thin(&cuts, self.limits.cuts);
            self.due.clear();
            for e in cuts.entries() {
                self.due.entry(e.keep_until).or_default().push(e.subject);
            }
        }
        if let Some(before) = self.known.as_ref().map(|known| known.cuts.incarnation).filter(|i| *i != heartbeat.incarnation) {
            self.left.truncate(LEFT - 1);
            self.left.insert(0, before);
        }
        self.latest = self.latest.max(heartbeat.as_of);
        let (head, as_of, forgotten_until) = (heartbeat.head, heartbeat.as_of, forgotten.until);
        let known = Known { cuts, head, as_of, forgotten: forgotten_until, heartbeat: Some(Arc::new(heartbeat.clone())) };
        let known = Arc::new(known);
        (self.digest, self.forgotten, self.known) = (digest, forgotten, Some(Arc::clone(&known)));
        known
    }
}

/// Compares the cuts with the signed count and digest: this detects what a relay dropped or invented.
fn compare(cuts: &Cuts, forgotten: &Forgotten, digest: CutDigest, heartbeat: &Heartbeat) -> Result<(), FeedError> {
    let count = cuts.len().saturating_add(forgotten.count);
    if u64::try_from(count) != Ok(heartbeat.count) {
        return Err(FeedError::Count(count, heartbeat.count));
    }
    if digest.to_bytes() != heartbeat.digest {
        return Err(FeedError::Digest);
    }
    Ok(())
}

impl Pending {
    /// Forgets cuts of a snapshot that are more than `most`.
    fn thin(&mut self, most: usize) -> Result<(), FeedError> {
        let keep = most - most / SHARE;
        let mut excess = self.cuts.len().saturating_sub(keep);
        let forgotten = &mut self.forgotten;
        self.cuts.retain(|cut| {
            let goes = excess > 0 && cut.before == u64::MAX;
            if goes {
                excess -= 1;
                forgotten.add(cut.subject, cut.keep_until);
            }
            !goes
        });
        // Cuts of users, workloads and classes are never forgotten, because these can be reopened.
        if self.cuts.len() > most { Err(FeedError::TooMany(most)) } else { Ok(()) }
    }
}

fn entry(cut: FeedCut, heartbeat: &Heartbeat) -> Entry {
    Entry { subject: cut.subject, before: cut.before, keep_until: cut.keep_until, arrived: heartbeat.head }
}

fn seconds(heartbeat: &Heartbeat) -> u64 {
    heartbeat.as_of / 1_000_000
}
