//! A stream that is opened again whenever it ends, by what its end says (CL-2, CL-4).

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use crate::revocation::{LONGEST, PAUSE, jittered};

/// A stream that stood for so long was no failure.
const STOOD: Duration = Duration::from_secs(1);

/// What happens on a stream.
pub(super) trait Told: Sync {
    /// The message.
    type Message: Send;
    /// Opens it.
    fn open(&self) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;
    /// Takes a message; whether it could be used.
    fn take(&self, message: Self::Message) -> bool;
    /// The API says that nothing is ours any more.
    fn redacted(&self, why: &str);
    /// The stream ended; it is opened again unless it is over for `good`.
    fn broken(&self, why: String, good: bool);
}

/// Follows it until the API says that this will never be answered.
pub(super) async fn follow<T: Told>(to: &T) {
    let mut failures = 0u32;
    loop {
        let opened = Instant::now();
        let (heard, status) = match to.open().await {
            Ok(stream) => listen(stream, to).await,
            Err(status) => (false, status),
        };
        let why = format!("{:?}: {}", status.code(), status.message());
        let good = matches!(status.code(), Code::InvalidArgument | Code::Unimplemented);
        if status.code() == Code::PermissionDenied {
            to.redacted(status.message());
        }
        to.broken(why, good);
        if good {
            return;
        }
        if heard && opened.elapsed() >= STOOD {
            failures = 0;
        }
        // CL-2: what went well is opened again at once; what goes wrong again and again, at growing intervals.
        if !heard || failures > 0 {
            let doubled = PAUSE.saturating_mul(1 << failures.min(16));
            tokio::time::sleep(jittered(doubled.min(LONGEST))).await;
        }
        failures = failures.saturating_add(1);
    }
}

/// One stream to its end: whether something of use came, and how it ended.
async fn listen<T: Told>(mut stream: Streaming<T::Message>, to: &T) -> (bool, Status) {
    let mut heard = false;
    loop {
        match stream.message().await {
            Ok(Some(message)) => heard |= to.take(message),
            Ok(None) => return (heard, Status::unavailable("the stream ended")),
            Err(status) => return (heard, status),
        }
    }
}
