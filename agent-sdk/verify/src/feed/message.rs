//! What the feed says. The same as `mayfly.v1.WatchCutsResponse`, without its encoding.

use spiffe::TrustDomain;
use uuid::Uuid;

use crate::Subject;

/// One message. Cuts count only with the heartbeat that follows them, here or in a later message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedMessage {
    /// Everything follows; what was known before is void.
    pub snapshot: bool,
    /// In order of revision.
    pub cuts: Vec<FeedCut>,
    /// What the cuts so far amount to.
    pub heartbeat: Option<Heartbeat>,
}

/// A revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCut {
    /// Of whom.
    pub subject: Subject,
    /// Everything that relies on the subject since before this revision is dead.
    pub before: u64,
    /// Unix seconds after which it can hit nothing.
    pub keep_until: u64,
    /// Of the record that made it.
    pub revision: u64,
}

/// What a verifier that has taken everything so far knows, and until when that was true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Whose feed it is.
    pub trust_domain: TrustDomain,
    /// Which life of the journal.
    pub incarnation: Uuid,
    /// Every cut up to this revision was sent.
    pub head: u64,
    /// Unix microseconds.
    pub as_of: u64,
    /// Number of cuts that are kept at `as_of`.
    pub count: u64,
    /// See [`CutDigest`](super::CutDigest).
    pub digest: [u8; 32],
    /// P-256, r and s, over [`heartbeat_message`](super::heartbeat_message).
    pub signature: [u8; 64],
}
