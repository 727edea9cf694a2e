//! The messages of the feed: those of `mayfly.v1.WatchCutsResponse`, decoded.

use spiffe::TrustDomain;
use uuid::Uuid;

use crate::Subject;

/// One message. Its cuts take effect with the next heartbeat, in this message or a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedMessage {
    /// The cuts that follow are the whole set and replace what was known.
    pub snapshot: bool,
    /// Cuts in the order of their revisions.
    pub cuts: Vec<FeedCut>,
    /// The signed summary of all cuts so far. `None` if more messages follow first.
    pub heartbeat: Option<Heartbeat>,
}

/// A revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCut {
    /// The subject that is revoked.
    pub subject: Subject,
    /// Every credential that relies on the subject since a revision below this one is revoked. 0 takes the subject's cut off,
    /// because another cut revokes all that it did; `keep_until` is then that of the cut that goes.
    pub before: u64,
    /// Unix seconds after which the cut cannot affect any credential.
    pub keep_until: u64,
    /// Revision of the record that made the cut.
    pub revision: u64,
}

/// The signed summary of all cuts so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Trust domain of the feed.
    pub trust_domain: TrustDomain,
    /// Epoch of the journal.
    pub incarnation: Uuid,
    /// Every cut up to this revision has been sent.
    pub head: u64,
    /// The time of this summary, Unix microseconds.
    pub as_of: u64,
    /// Number of cuts that are in force at `as_of`.
    pub count: u64,
    /// Digest of these cuts: see [`CutDigest`](super::CutDigest).
    pub digest: [u8; 32],
    /// Digest of the issuer's journal up to `head`: two heartbeats with the same head and different digests are signed over
    /// different journals. `None` if the issuer keeps none.
    pub chain: Option<[u8; 32]>,
    /// P-256 signature, r and s, over [`heartbeat_message`](super::heartbeat_message).
    pub signature: [u8; 64],
}
