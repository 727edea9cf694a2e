//! The feed of cuts, as a verifier takes it: messages in, and out of each heartbeat that holds, a whole new state.
//!
//! | file | idea |
//! |---|---|
//! | `message` | what the feed says |
//! | `key` | who says it: the signature over a heartbeat |
//! | `digest` | that nothing was left out: a sum over all cuts |
//! | `follower` | what follows from it: the state machine |
//! | `error` | why a message is refused |
//!
//! A relay is not trusted. What it can do is to be late, which heartbeats tell; whatever else it leaves out, repeats, changes
//! or makes up is refused. `keep_until` and `revision` of a cut are not signed: a cut that is kept for longer or shorter than
//! the issuer keeps it is noticed by the digest of the next heartbeat, and nothing follows from the revision.

mod digest;
mod error;
mod follower;
mod key;
mod message;

pub use digest::CutDigest;
pub use error::FeedError;
pub use follower::{Follower, Known, Limits, Position};
pub use key::{FeedKey, heartbeat_message};
pub use message::{FeedCut, FeedMessage, Heartbeat};
