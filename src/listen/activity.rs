//! The activity on one connection, which decides how long the connection may stay open.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Streams that a stranger's connection may keep open for longer than one request.
const STREAMS: usize = 2;

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Longest time from the accept to the first byte after the handshake, and for a stranger to the headers of its first request.
    pub(super) first: Duration,
    /// How long a stranger's connection may stay open without a request that begins or ends, unless one of its requests is a
    /// stream.
    pub(super) idle: Duration,
    /// How long a part of a response to a stranger may wait to be taken.
    pub(super) unread: Duration,
    /// How long a stranger's connection may stay at all.
    pub(super) life: Duration,
}

/// The activity on one connection.
#[derive(Debug)]
pub(super) struct Activity {
    accepted: Instant,
    heard: AtomicBool,
    asked: AtomicBool,
    open: AtomicUsize,
    streams: AtomicUsize,
    /// Milliseconds from `accepted` to the last request that began or ended.
    last: AtomicU64,
    // Guards the responses that wait for the peer to read, each with the time since when; held for one look-up.
    unread: Mutex<Vec<(u64, Instant)>>,
    next: AtomicU64,
    ended: Notify,
    why: OnceLock<&'static str>,
}

impl Activity {
    /// A connection that has just been accepted.
    pub(super) fn new() -> Activity {
        Activity {
            accepted: Instant::now(),
            heard: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            unread: Mutex::default(),
            next: AtomicU64::new(0),
            ended: Notify::new(),
            why: OnceLock::new(),
        }
    }

    /// The peer has sent something after its handshake.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// A request has begun; it is open until the result is dropped. Returns `None` if it is a stream and the connection has as many
    /// as it may.
    pub(super) fn begin(self: &Arc<Self>, stream: bool) -> Option<Open> {
        if stream && self.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.asked.store(true, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Some(Open { activity: Arc::clone(self), number: self.next.fetch_add(1, Ordering::Relaxed), stream, waits: false })
    }

    /// Asks for the end of the connection.
    pub(super) fn end(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.ended.notify_one();
    }

    /// Resolves with the reason when the end of the connection was asked for.
    pub(super) async fn ended(&self) -> &'static str {
        loop {
            if let Some(why) = self.why.get() {
                return why;
            }
            self.ended.notified().await;
        }
    }

    /// Whether the connection is in use, and when it was last active. The connection with the lowest value is ended first if room
    /// is needed.
    pub(super) fn rank(&self) -> (bool, Instant) {
        (self.open.load(Ordering::Relaxed) > 0, self.last())
    }

    /// Resolves with the reason when the connection reaches a time limit.
    pub(super) async fn over(&self, stranger: bool, times: Times) -> &'static str {
        loop {
            let first = (self.accepted + times.first, "silent");
            let next = if stranger {
                let unread = self.unread.lock().iter().map(|(_, since)| *since).min();
                let life = (self.accepted + times.life, "old");
                let life = unread.map_or(life, |since| life.min((since + times.unread, "unread")));
                if !self.asked.load(Ordering::Relaxed) {
                    first.min(life)
                } else if self.streams.load(Ordering::Relaxed) == 0 {
                    life.min((self.last() + times.idle, "idle"))
                } else {
                    life
                }
            } else if self.heard.load(Ordering::Relaxed) {
                // A peer with an identity may be idle for as long as its certificate lasts.
                return std::future::pending().await;
            } else {
                first
            };
            let now = Instant::now();
            if next.0 <= now {
                return next.1;
            }
            // The next limit may change before then, because a stream may end or a response may begin to wait.
            tokio::time::sleep((next.0 - now).min(times.idle.min(times.unread) / 2)).await;
        }
    }

    fn last(&self) -> Instant {
        self.accepted + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    fn touch(&self) {
        let since = u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(since, Ordering::Relaxed);
    }
}

/// A request that is open.
pub(super) struct Open {
    activity: Arc<Activity>,
    number: u64,
    stream: bool,
    waits: bool,
}

impl Open {
    /// A part of the response waits for the peer to read it.
    pub(super) fn told(&mut self) {
        self.waits = true;
        self.activity.unread.lock().push((self.number, Instant::now()));
    }

    /// The peer has read the part that waited.
    pub(super) fn taken(&mut self) {
        if self.waits {
            self.waits = false;
            self.activity.unread.lock().retain(|(number, _)| *number != self.number);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.taken();
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
        if self.stream {
            self.activity.streams.fetch_sub(1, Ordering::Relaxed);
        }
        self.activity.touch();
    }
}
