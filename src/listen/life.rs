//! The lifetime of a connection: it ends by itself, when the process stops, or when its peer's certificate expires or is revoked.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::{Clock, SECOND};

/// Longest time between two readings of the clock, which may be set, or stop while the machine sleeps.
const LOOK: Duration = Duration::from_secs(60);

/// Why a connection closes, and the time that its open requests then have to end.
pub(super) enum Closing {
    /// The peer's certificate has expired.
    Expired(Duration),
    /// The peer was revoked, or the connection reached a time limit or had to make room; this is counted with the reason.
    Ended(Duration, &'static str),
}

/// Serves a connection until it ends. It is closed when `closes` resolves or at a stop. Then no new request begins, and open
/// requests have the time that `closes` returns, or `drain` at a stop.
pub(super) async fn serve(
    connection: impl GracefulConnection,
    closes: impl Future<Output = Closing>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let mut connection = pin!(connection);
    let closing = tokio::select! {
        () = gathered(connection.as_mut()) => return,
        closing = closes => closing,
        _ = stop.wait_for(|stop| *stop) => Closing::Expired(drain),
    };
    connection.as_mut().graceful_shutdown();
    match closing {
        Closing::Ended(drain, reason) => {
            metrics::counter!("mayfly_connections_ended_total", "reason" => reason).increment(1);
            let _ = tokio::time::timeout(drain, gathered(connection)).await;
        }
        Closing::Expired(drain) => {
            if tokio::time::timeout(drain, gathered(connection)).await.is_err() {
                tracing::warn!("a connection's requests did not end in time");
            }
        }
    }
}

/// Polls a connection only every second time, after all other tasks that are ready. So its requests are read together, and the
/// responses of a group are sent in one write. If no other task is ready there is no delay.
async fn gathered(mut connection: Pin<&mut impl GracefulConnection>) {
    let mut waited = false;
    poll_fn(|cx| {
        waited = !waited;
        if waited {
            // A task that wakes itself is put at the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Waits until the peer's certificate, the first in `chain`, expires by our clock. Without a certificate it waits forever.
pub(super) async fn expiry(chain: &[CertificateDer<'_>], clock: &Clock) {
    let Some(leaf) = chain.first() else { return std::future::pending().await };
    // A malformed certificate counts as expired: its holder could not call anything anyway.
    let ends_at = X509Certificate::from_der(leaf).map_or(0, |(_, leaf)| leaf.validity().not_after.timestamp());
    let ends_at = u64::try_from(ends_at).unwrap_or(0).saturating_mul(SECOND);
    loop {
        let left = ends_at.saturating_sub(clock.now());
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_micros(left).min(LOOK)).await;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_certificate_ends_by_our_clock_and_no_certificate_never_does() {
        let mut params = rcgen::CertificateParams::default();
        let ends_at = 2_000_000_000;
        params.not_after = time::OffsetDateTime::from_unix_timestamp(ends_at).unwrap();
        let leaf = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone();
        let at = Arc::new(AtomicU64::new(0));
        let clock = Clock::set(Arc::clone(&at));
        let ended = async |chain: &[CertificateDer<'_>]| {
            tokio::time::timeout(Duration::from_millis(100), expiry(chain, &clock)).await.is_ok()
        };
        let end = u64::try_from(ends_at).unwrap() * SECOND;
        for (now, expected) in [(0, false), (end - SECOND, false), (end, true), (end + SECOND, true)] {
            at.store(now, Ordering::SeqCst);
            assert_eq!(ended(std::slice::from_ref(&leaf)).await, expected, "{now}");
            assert!(!ended(&[]).await);
            assert!(ended(&[CertificateDer::from(vec![1])]).await, "unreadable");
        }
    }
}
