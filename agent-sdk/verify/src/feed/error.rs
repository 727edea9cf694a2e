//! Why a message of the feed is refused.

/// Why a message of the feed is refused. What was known before stays known, and grows stale.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The feed's key is no uncompressed P-256 point.
    #[error("the feed's key is no uncompressed P-256 point")]
    Key,
    /// A field has the wrong length or form; names it.
    #[error("the feed's message is malformed: `{0}`")]
    Malformed(&'static str),
    /// Not signed by the feed's key.
    #[error("the heartbeat is not signed by the feed's key")]
    Signature,
    /// The feed of another trust domain.
    #[error("the heartbeat is of trust domain `{0}`")]
    TrustDomain(String),
    /// Another life of the journal, without a snapshot.
    #[error("the heartbeat is of another incarnation of the journal, and no snapshot came before it")]
    Incarnation,
    /// The head went back: a replay.
    #[error("the head went back from {0} to {1}")]
    Head(u64, u64),
    /// The time went back: a replay.
    #[error("the heartbeat went back from {0} to {1} (unix microseconds)")]
    Time(u64, u64),
    /// Something was left out or made up.
    #[error("{0} cuts are known, and the heartbeat counts {1}")]
    Count(usize, u64),
    /// As many cuts as there should be, and not those.
    #[error("the cuts are not those that the heartbeat signs")]
    Digest,
    /// More than the bound.
    #[error("the feed holds more than {0} cuts")]
    TooMany(usize),
    /// Deltas to something that is not known.
    #[error("a snapshot is needed")]
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
            FeedError::Count(..) | FeedError::Digest => "FEED_DIGEST",
            FeedError::TooMany(_) => "FEED_TOO_MANY",
            FeedError::NoSnapshot => "FEED_SNAPSHOT_NEEDED",
        }
    }
}
