//! A snapshot: every cut in force as messages, made once for many subscribers.

use mayfly_agent::api::v1;
use prost::Message as _;
use prost::bytes::Bytes;

use super::CHUNK;

/// The heartbeat of a tick's last message.
pub(super) fn heartbeat_of(last: Option<Bytes>) -> Option<v1::Heartbeat> {
    v1::WatchCutsResponse::decode(last?).ok()?.heartbeat
}

/// Every cut in force after tick `at`.
pub(super) struct Snapshot {
    // Messages with cuts, at least one and without a heartbeat; the first one says that a snapshot begins.
    chunks: Vec<Bytes>,
    // A message with the heartbeat of tick `at` and without cuts.
    heartbeat: Bytes,
    made_at: u64,
    at: u64,
}

impl Snapshot {
    /// Encodes `cuts`. `last` is the last message of tick `at`, or `None` if that tick has no message.
    pub(super) fn of(cuts: &[v1::Cut], last: Option<Bytes>, at: u64) -> Snapshot {
        let mut chunks: Vec<Bytes> = Vec::new();
        for (n, chunk) in cuts.chunks(CHUNK).enumerate() {
            let message = v1::WatchCutsResponse { snapshot: n == 0, cuts: chunk.to_vec(), ..Default::default() };
            chunks.push(message.encode_to_vec().into());
        }
        if chunks.is_empty() {
            chunks.push(v1::WatchCutsResponse { snapshot: true, ..Default::default() }.encode_to_vec().into());
        }
        // The heartbeat leaves the cuts of its message behind: they are among `cuts`.
        Snapshot { chunks, heartbeat: alone(heartbeat_of(last)), made_at: at, at }
    }

    /// Number of the tick at which it was made.
    pub(super) fn made_at(&self) -> u64 {
        self.made_at
    }

    /// Number of the tick from which a subscriber goes on after this snapshot.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Adds the messages of the ticks up to `at`. T281: of their heartbeats only the last one stays. A subscriber that got an earlier one would
    /// take what is revoked for valid until it has read on.
    pub(super) fn extend(&mut self, later: &[Bytes], at: u64) {
        self.at = at;
        for message in later {
            let Ok(mut message) = v1::WatchCutsResponse::decode(message.clone()) else { continue };
            if let Some(heartbeat) = message.heartbeat.take() {
                self.heartbeat = alone(Some(heartbeat));
            }
            message.confirm = false;
            if !message.cuts.is_empty() {
                self.chunks.push(message.encode_to_vec().into());
            }
        }
    }

    /// The snapshot as a subscriber gets it.
    pub(super) fn messages(&self) -> Vec<Bytes> {
        self.chunks.iter().chain([&self.heartbeat]).cloned().collect()
    }
}

fn alone(heartbeat: Option<v1::Heartbeat>) -> Bytes {
    v1::WatchCutsResponse { heartbeat, ..Default::default() }.encode_to_vec().into()
}
