//! The one loop that opens a stream again whenever it ends, and the one backoff.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Status, Streaming};

use crate::channel::ConnectError;
use crate::random::chance;

/// A stream that was useful and stayed open for this long did not fail: its end resets the backoff.
const STOOD: Duration = Duration::from_secs(1);

/// State of a followed stream. While it is broken, what is known stays known and grows stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// The first connection is being made.
    Connecting,
    /// Messages arrive.
    Open,
    /// The stream broke, for this reason, and is opened again after a short pause.
    Broken(String),
}

/// Pauses between attempts: each is twice the previous one, up to a longest one.
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Backoff {
    /// For streams: 50 milliseconds to 5 seconds.
    pub(crate) const STREAM: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(5) };

    /// The backoff while nobody listens at the address. Such an attempt costs next to nothing, and with it all clients are back
    /// within a second of a restart.
    pub(crate) const ABSENT: Backoff = Backoff { longest: Duration::from_secs(1), ..Backoff::STREAM };

    /// The pause after one more failure, when `failures` in a row came before it. Depending on `chance` (0..=1) it is between
    /// half of its length and all of it, so that a thousand clients of one server do not return at the same moment.
    pub(crate) fn pause(&self, failures: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.min(16));
        doubled.min(self.longest).mul_f64(0.5 + 0.5 * chance)
    }
}

/// How a stream ended.
pub(crate) struct End<W> {
    /// Why it ended.
    pub(crate) why: W,
    /// Whether any message was useful.
    pub(crate) heard: bool,
    /// Number of failures in a row before this end.
    pub(crate) failures: u32,
    /// Whether nobody listens at the address.
    pub(crate) absent: bool,
}

impl<W> End<W> {
    /// The default pause before the stream is opened again.
    pub(crate) fn backoff(&self) -> Duration {
        let backoff = if self.absent { Backoff::ABSENT } else { Backoff::STREAM };
        backoff.pause(self.failures, chance())
    }
}

/// A stream to follow, and what its messages do.
pub(crate) trait Subscription {
    /// The message type.
    type Message;
    /// The type of reasons.
    type Why;

    /// How long the server may be silent before the stream counts as broken. `None` means without limit.
    const SILENCE: Option<Duration> = None;

    /// Opens the stream.
    fn open(&mut self) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;

    /// Takes one message and returns whether it was useful. An error ends the stream.
    fn take(&mut self, message: Self::Message) -> impl Future<Output = Result<bool, Self::Why>> + Send;

    /// Turns a status into a reason.
    fn why(&self, status: Status) -> Self::Why;

    /// Called when the stream has ended. Returns the pause before it is opened again, or `None` to give up.
    fn ended(&mut self, end: End<Self::Why>) -> Option<Duration>;
}

/// Follows a stream until [`Subscription::ended`] gives up.
pub(crate) async fn follow<S: Subscription>(to: &mut S) {
    let mut failures = 0u32;
    loop {
        let mut session = Session { opened: None, heard: false, absent: false };
        let why = session.run(to).await;
        if session.heard && session.opened.is_some_and(|at| at.elapsed() >= STOOD) {
            failures = 0;
        }
        match to.ended(End { why, heard: session.heard, failures, absent: session.absent }) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return,
        }
        failures = failures.saturating_add(1);
    }
}

/// One stream from its opening to its end.
struct Session {
    opened: Option<Instant>,
    heard: bool,
    absent: bool,
}

impl Session {
    async fn run<S: Subscription>(&mut self, to: &mut S) -> S::Why {
        let opened = in_time(S::SILENCE, to.open()).await;
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(status) => {
                self.absent = is_absent(&status);
                return to.why(status);
            }
        };
        self.opened = Some(Instant::now());
        loop {
            let message = match in_time(S::SILENCE, stream.message()).await {
                Ok(Some(message)) => message,
                Ok(None) => return to.why(Status::unavailable("the stream ended")),
                Err(status) => return to.why(status),
            };
            match to.take(message).await {
                Ok(useful) => self.heard |= useful,
                Err(why) => return why,
            }
        }
    }
}

/// Whether a call failed because nobody listens at the address.
fn is_absent(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |e| e.source())
        .any(|e| matches!(e.downcast_ref::<ConnectError>(), Some(ConnectError::Unreachable { .. })))
}

async fn in_time<T>(silence: Option<Duration>, next: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let Some(silence) = silence else { return next.await };
    let silent = |_| Status::unavailable(format!("nothing was heard for {} seconds", silence.as_secs()));
    tokio::time::timeout(silence, next).await.map_err(silent)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_takes_at_most_half() {
        let Backoff { first, longest } = Backoff::STREAM;
        let pauses = [0, 1, 2, 6, 7, u32::MAX].map(|failures| Backoff::STREAM.pause(failures, 1.0));
        assert_eq!(pauses, [first, first * 2, first * 4, first * 64, longest, longest]);
        assert_eq!(Backoff::STREAM.pause(0, 0.0), first / 2);
    }
}
