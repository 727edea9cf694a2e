//! A snapshot: every cut in force as messages, made once for many subscribers.

use mayfly_agent::api::v1;
use prost::Message as _;
use prost::bytes::Bytes;

use super::CHUNK;

/// The heartbeat of a tick's last message.
pub(super) fn heartbeat_of(last: Option<Bytes>) -> Option<v1::Heartbeat> {
    v1::WatchCutsResponse::decode(last?).ok()?.heartbeat
}

/// Every cut in force when tick `at` was the last one.
pub(super) struct Snapshot {
    // Messages with the cuts, at least one; the first one says that a snapshot begins.
    chunks: Vec<Bytes>,
    // A message with the heartbeat of tick `at` and without cuts.
    heartbeat: Bytes,
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
        // Only the heartbeat is taken from the last message, because its cuts are among `cuts`.
        let heartbeat = v1::WatchCutsResponse { heartbeat: heartbeat_of(last), ..Default::default() }.encode_to_vec().into();
        Snapshot { chunks, heartbeat, at }
    }

    /// Number of the tick after which a subscriber continues.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The snapshot as a subscriber gets it, followed by the messages of later ticks, which end with a heartbeat of their own.
    pub(super) fn followed_by(&self, later: Vec<Bytes>) -> Vec<Bytes> {
        let heartbeat = later.is_empty().then(|| self.heartbeat.clone());
        self.chunks.iter().cloned().chain(later).chain(heartbeat).collect()
    }
}
