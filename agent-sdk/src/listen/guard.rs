//! One task that checks the peers of all open connections, when revocations or bundles change and as time passes.

use std::time::{Duration, Instant};

use mayfly_verify::Reject;
use tokio::sync::{mpsc, oneshot};

use super::{Bounds, Counts};
use crate::peers::{Peer, Verifier};

/// Longest time between two checks, because clocks can be set and machines sleep.
const LOOK: Duration = Duration::from_secs(1);
/// New connections that wait for the guard.
const NEW: usize = 64;
/// Connections checked before the task yields: after a change of bundles, each check verifies a chain.
const AT_ONCE: usize = 32;

/// A connection, as the guard sees it.
pub(super) struct Watched {
    peer: Peer,
    // Dropping it closes the connection, so a guard that panics closes all of them.
    end: oneshot::Sender<()>,
    since: Instant,
    unknown_since: Option<Instant>,
}

/// Returns the guard's half and the connection's half.
pub(super) fn watch(peer: Peer) -> (Watched, oneshot::Receiver<()>) {
    let (end, over) = oneshot::channel();
    (Watched { peer, end, since: Instant::now(), unknown_since: None }, over)
}

/// Starts a guard. It ends when no sender is left and the last connection has closed.
pub(super) fn start(verifier: Verifier, bounds: Bounds, counts: Counts) -> mpsc::Sender<Watched> {
    let (send, new) = mpsc::channel(NEW);
    tokio::spawn(run(verifier, bounds, counts, new));
    send
}

async fn run(verifier: Verifier, bounds: Bounds, counts: Counts, mut new: mpsc::Receiver<Watched>) {
    let (mut revocations, mut bundles) = (verifier.news(), verifier.bundles().changes());
    let mut open: Vec<Watched> = Vec::new();
    let mut closed = false;
    while !closed || !open.is_empty() {
        tokio::select! {
            // This check sees a cut that was published between the handshake and now.
            next = new.recv(), if !closed => match next {
                Some(next) => open.extend(checked(next, &verifier, bounds, &counts)),
                None => closed = true,
            },
            // Never an error: `verifier` holds the sender.
            _ = revocations.changed() => check_all(&mut open, &verifier, bounds, &counts).await,
            _ = bundles.changed() => check_all(&mut open, &verifier, bounds, &counts).await,
            () = tokio::time::sleep(until_next(&open, &verifier)) => check_all(&mut open, &verifier, bounds, &counts).await,
        }
    }
}

async fn check_all(open: &mut Vec<Watched>, verifier: &Verifier, bounds: Bounds, counts: &Counts) {
    let mut left = std::mem::take(open).into_iter();
    while left.len() > 0 {
        open.extend(left.by_ref().take(AT_ONCE).filter_map(|one| checked(one, verifier, bounds, counts)));
        tokio::task::yield_now().await;
    }
}

/// Returns `None` if the connection has closed or must be closed now.
fn checked(mut one: Watched, verifier: &Verifier, bounds: Bounds, counts: &Counts) -> Option<Watched> {
    if one.end.is_closed() {
        return None;
    }
    let allowed = match one.peer.check(verifier) {
        Ok(None) => one.since.elapsed() < bounds.stranger,
        Ok(Some(_)) => {
            one.unknown_since = None;
            true
        }
        Err(Reject::Stale(_)) => one.unknown_since.get_or_insert_with(Instant::now).elapsed() < bounds.stale,
        Err(_) => false,
    };
    if allowed {
        return Some(one);
    }
    super::count(&counts.0.ended);
    tokio::spawn(async move {
        tokio::time::sleep(bounds.drain).await;
        drop(one.end);
    });
    None
}

/// Time until the first certificate expires.
fn until_next(open: &[Watched], verifier: &Verifier) -> Duration {
    let now = verifier.clock().now();
    let ends = open.iter().filter_map(|one| one.peer.svid()).map(|svid| Duration::from_secs(svid.not_after));
    ends.map(|end| end.saturating_sub(now)).min().unwrap_or(LOOK).min(LOOK)
}
