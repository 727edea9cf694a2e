//! The feed of cuts, on the verifier's side. Messages go in; each valid heartbeat yields a complete new state.
//!
//! | file | idea |
//! |---|---|
//! | `message` | the messages |
//! | `key` | the signature over a heartbeat, which proves its author |
//! | `digest` | a sum over all cuts, which proves that none is missing |
//! | `follower` | the state machine that takes messages |
//! | `forgotten` | what is kept of more cuts than can be held |
//! | `error` | why a message is refused |
//!
//! A relay is not trusted. All it can do unnoticed is to delay messages, and heartbeats reveal a delay (what a verifier with a wrong
//! clock tolerates, and how much a relay can hide in that, is said in `live/heard.rs`); a message that it drops,
//! repeats, changes or invents is refused. The fields `keep_until` and `revision` of a cut are not signed. If a cut is kept for
//! a longer or shorter time than at the issuer, the digest of the next heartbeat does not match; the revision has no effect.

mod digest;
mod error;
mod follower;
mod forgotten;
mod key;
mod message;

pub use digest::CutDigest;
pub use error::FeedError;
pub use follower::{Follower, Known, Limits, Position};
pub use key::{FeedKey, heartbeat_message};
pub use message::{FeedCut, FeedMessage, Heartbeat};
