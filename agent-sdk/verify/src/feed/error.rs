//! Why a message of the feed is refused.

/// Why a message of the feed is refused. The knowledge from before is kept, and grows stale.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The feed's key is not an uncompressed P-256 point.
    #[error("the feed's key is not an uncompressed P-256 point")]
    Key,
    /// The named field has a wrong length or form.
    #[error("the feed's message is malformed: `{0}`")]
    Malformed(&'static str),
    /// The heartbeat is not signed by the feed's key.
    #[error("the heartbeat is not signed by the feed's key")]
    Signature,
    /// The heartbeat belongs to the feed of another trust domain.
    #[error("the heartbeat is of trust domain `{0}`")]
    TrustDomain(String),
    /// The heartbeat belongs to another epoch of the journal, and no snapshot preceded it.
    #[error("the heartbeat belongs to another epoch (incarnation) of the journal, and no snapshot came before it")]
    Incarnation,
    /// The revision went back, as in a replay.
    #[error("the feed's revision went back from {0} to {1}")]
    Head(u64, u64),
    /// The time went back, as in a replay.
    #[error("the time of the heartbeat went back from {0} to {1} (Unix microseconds)")]
    Time(u64, u64),
    /// The issuer signed two different journals: it was put back to an older copy of its home, or two of it run. No later message
    /// is accepted.
    #[error(
        "fork: the issuer has signed another journal up to revision {0} than the one that we know. Either its home was put back to an \
         older copy, or two issuers run with its key. Its messages are not accepted until an operator has found the cause and has \
         started this program again"
    )]
    Fork(u64),
    /// A cut is missing, or one was added.
    #[error("{0} cuts are known, and the heartbeat counts {1}")]
    Count(usize, u64),
    /// The number of cuts is right, but they are not the ones that were signed.
    #[error("the cuts are not those that the heartbeat signs")]
    Digest,
    /// The feed holds more cuts than the limit.
    #[error("the feed holds more than {0} cuts")]
    TooMany(usize),
    /// The feed sent changes to a state that we do not have.
    #[error("the feed must begin with a snapshot")]
    NoSnapshot,
}

impl FeedError {
    /// A stable label, in upper case.
    pub fn code(&self) -> &'static str {
        match self {
            FeedError::Key => "FEED_KEY",
            FeedError::Malformed(_) => "FEED_MALFORMED",
            FeedError::Signature => "FEED_SIGNATURE",
            FeedError::TrustDomain(_) => "FEED_TRUST_DOMAIN",
            FeedError::Incarnation => "FEED_INCARNATION",
            FeedError::Head(..) | FeedError::Time(..) => "FEED_REPLAY",
            FeedError::Fork(_) => "FEED_FORK",
            FeedError::Count(..) | FeedError::Digest => "FEED_DIGEST",
            FeedError::TooMany(_) => "FEED_TOO_MANY",
            FeedError::NoSnapshot => "FEED_SNAPSHOT_NEEDED",
        }
    }
}
