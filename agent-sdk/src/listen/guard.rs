//! Who is still somebody: one task looks at the peers of all open connections, when a cut is known and as time passes.

use std::time::{Duration, Instant};

use mayfly_verify::Reject;
use tokio::sync::{mpsc, oneshot};

use super::{Bounds, Counts};
use crate::peers::{Peer, Verifier};

/// At the latest it is looked again after this: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(1);
/// New connections that wait to be guarded.
const NEW: usize = 64;
/// So many are looked at in one go: where bundles have changed, each is a chain to verify.
const AT_ONCE: usize = 32;

/// A connection as its guard knows it.
pub(super) struct Watched {
    peer: Peer,
    // Dropped, it ends the connection: so does a guard that is gone.
    end: oneshot::Sender<()>,
    since: Instant,
    unknown_since: Option<Instant>,
}

/// The other half goes with the connection.
pub(super) fn watch(peer: Peer) -> (Watched, oneshot::Receiver<()>) {
    let (end, over) = oneshot::channel();
    (Watched { peer, end, since: Instant::now(), unknown_since: None }, over)
}

/// Starts a guard. It ends when nobody sends it connections any more and the last one has ended.
pub(super) fn start(verifier: Verifier, bounds: Bounds, counts: Counts) -> mpsc::Sender<Watched> {
    let (send, new) = mpsc::channel(NEW);
    tokio::spawn(run(verifier, bounds, counts, new));
    send
}

async fn run(verifier: Verifier, bounds: Bounds, counts: Counts, mut new: mpsc::Receiver<Watched>) {
    let (mut news, mut bundles) = (verifier.news(), verifier.bundles().changes());
    let mut open: Vec<Watched> = Vec::new();
    let mut closed = false;
    while !closed || !open.is_empty() {
        tokio::select! {
            // A cut that came between its handshake and now is seen here.
            next = new.recv(), if !closed => match next {
                Some(next) => open.extend(stands(next, &verifier, bounds, &counts)),
                None => closed = true,
            },
            // Who tells lives in `verifier`.
            _ = news.changed() => look(&mut open, &verifier, bounds, &counts).await,
            _ = bundles.changed() => look(&mut open, &verifier, bounds, &counts).await,
            () = tokio::time::sleep(until_next(&open, &verifier)) => look(&mut open, &verifier, bounds, &counts).await,
        }
    }
}

async fn look(open: &mut Vec<Watched>, verifier: &Verifier, bounds: Bounds, counts: &Counts) {
    let mut left = std::mem::take(open).into_iter();
    while left.len() > 0 {
        open.extend(left.by_ref().take(AT_ONCE).filter_map(|one| stands(one, verifier, bounds, counts)));
        tokio::task::yield_now().await;
    }
}

/// None: the connection is over, by itself or from now on.
fn stands(mut one: Watched, verifier: &Verifier, bounds: Bounds, counts: &Counts) -> Option<Watched> {
    if one.end.is_closed() {
        return None;
    }
    let stands = match one.peer.check(verifier) {
        Ok(None) => one.since.elapsed() < bounds.stranger,
        Ok(Some(_)) => {
            one.unknown_since = None;
            true
        }
        Err(Reject::Stale(_)) => one.unknown_since.get_or_insert_with(Instant::now).elapsed() < bounds.stale,
        Err(_) => false,
    };
    if stands {
        return Some(one);
    }
    super::count(&counts.0.ended);
    tokio::spawn(async move {
        tokio::time::sleep(bounds.drain).await;
        drop(one.end);
    });
    None
}

/// Until the first certificate ends.
fn until_next(open: &[Watched], verifier: &Verifier) -> Duration {
    let now = verifier.clock().now();
    let ends = open.iter().filter_map(|one| one.peer.svid()).map(|svid| Duration::from_secs(svid.not_after));
    ends.map(|end| end.saturating_sub(now)).min().unwrap_or(LOOK).min(LOOK)
}
