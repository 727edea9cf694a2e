//! The channel between the ledger's writer and the feed's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::time::Duration;

use super::ring::At;
use super::sync::{Mutex, Receiver, SyncSender, channel};
use crate::ledger::{Head, Observer};
use crate::state::CutMade;

/// Most commits whose cuts wait for the feed's thread.
const QUEUE: usize = 4096;

/// The cuts of one commit, and the head after it.
pub(super) type Commit = (At, Vec<CutMade>);

/// The writer's end. It observes the ledger, and passes on the cuts of each commit and the head after it.
pub struct Told {
    pub(super) commits: SyncSender<Commit>,
    // Guards the head, so that revision and digest are from the same moment.
    pub(super) head: Arc<Mutex<At>>,
    // Revision of the last commit with a cut.
    cut: Arc<AtomicU64>,
}

impl Observer for Told {
    fn committed(&mut self, head: Head, cuts: Vec<CutMade>) {
        let at = At { revision: head.revision, chain: head.chain };
        if !cuts.is_empty() {
            // ORDER: before anybody is answered. Whoever subscribes after that is held back until the feed has published it.
            self.cut.store(at.revision, Ordering::Release);
            // If the queue is full the writer waits for the feed: a cut is never lost.
            if let Err(TrySendError::Full(commit)) = self.commits.try_send((at, cuts)) {
                metrics::counter!("mayfly_feed_queue_full_total").increment(1);
                let _ = self.commits.send(commit);
            }
        }
        // ORDER: after the cuts. A reader that sees this head finds every cut up to it.
        *self.head.lock() = at;
    }
}

/// The feed's end.
pub struct Heard {
    commits: Receiver<Commit>,
    head: Arc<Mutex<At>>,
    cut: Arc<AtomicU64>,
}

impl Heard {
    /// Starts from a journal whose head is at least `head`.
    pub(super) fn begin(&self, at: At) {
        let mut head = self.head.lock();
        *head = head.later(at);
    }

    /// Head up to which every cut can be taken now.
    pub(super) fn head(&self) -> At {
        *self.head.lock()
    }

    /// Revision of the last commit with a cut, which may still wait here.
    pub(super) fn cut(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.cut)
    }

    /// Waits for the cuts of one commit. Fails when `timeout` has passed, or when the writer has stopped.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Commit, RecvTimeoutError> {
        self.commits.recv_timeout(timeout)
    }

    /// Takes the waiting commits with cuts, in order.
    pub(super) fn take(&self) -> impl Iterator<Item = Commit> {
        self.commits.try_iter()
    }
}

/// Makes the two ends.
pub fn line() -> (Told, Heard) {
    let (sender, receiver) = channel(QUEUE);
    let head = Arc::new(Mutex::new(At::default()));
    let cut = Arc::new(AtomicU64::new(0));
    (Told { commits: sender, head: Arc::clone(&head), cut: Arc::clone(&cut) }, Heard { commits: receiver, head, cut })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_verify::Target;

    /// T76, T84: in every schedule of the two threads, a reader that sees a head finds every cut up to it.
    #[test]
    fn t76_t84_who_sees_a_head_finds_every_cut_up_to_it() {
        const COMMITS: u64 = 300_000;
        let (mut told, heard) = line();
        let subject = Target::TrustDomain.unsalted();
        let writer = std::thread::spawn(move || {
            for revision in 1..=COMMITS {
                // Every third commit cuts.
                let cut = CutMade { subject, before: revision, keep_until: u64::MAX, revision };
                let head = Head { incarnation: uuid::Uuid::nil(), revision, chain: None };
                told.committed(head, if revision % 3 == 0 { vec![cut] } else { vec![] });
            }
        });
        let mut last = 0;
        let mut looks = 0u64;
        loop {
            let head = heard.head().revision;
            for cut in heard.take().flat_map(|(_, cuts)| cuts) {
                assert_eq!(cut.revision, last + 3, "each once, in order");
                last = cut.revision;
            }
            assert!(last >= head / 3 * 3, "at head {head} the last cut was {last}");
            looks += 1;
            if head == COMMITS {
                break;
            }
        }
        assert!(writer.join().is_ok() && looks > 1);
    }
}
