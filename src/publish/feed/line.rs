//! The two ends between the ledger's writer and the feed's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, TrySendError};
use std::time::Duration;

use super::sync::{AtomicU64, Receiver, SyncSender, channel};
use crate::ledger::Observer;
use crate::state::CutMade;

/// Most commits whose cuts wait for the feed's thread.
const QUEUE: usize = 4096;

/// The writer's end. It observes the ledger, and passes on the cuts of each commit and the head after it.
pub struct Told {
    pub(super) cuts: SyncSender<Vec<CutMade>>,
    pub(super) head: Arc<AtomicU64>,
}

impl Observer for Told {
    fn committed(&mut self, head: u64, cuts: Vec<CutMade>) {
        if !cuts.is_empty() {
            // If the queue is full the writer waits for the feed: a cut is never lost.
            if let Err(TrySendError::Full(cuts)) = self.cuts.try_send(cuts) {
                metrics::counter!("mayfly_feed_queue_full_total").increment(1);
                let _ = self.cuts.send(cuts);
            }
        }
        // ORDER: after the cuts. A reader that sees this head finds every cut up to it.
        self.head.store(head, Ordering::Release);
    }
}

/// The feed's end.
pub struct Heard {
    cuts: Receiver<Vec<CutMade>>,
    head: Arc<AtomicU64>,
}

impl Heard {
    /// Starts from a journal whose head is at least `head`.
    pub(super) fn begin(&self, head: u64) {
        self.head.fetch_max(head, Ordering::AcqRel);
    }

    /// Revision up to which every cut can be taken by now.
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Waits for the cuts of one commit. Fails when `timeout` has passed, or when the writer has stopped.
    pub(super) fn wait(&self, timeout: Duration) -> Result<Vec<CutMade>, RecvTimeoutError> {
        self.cuts.recv_timeout(timeout)
    }

    /// Takes the cuts that wait, in the order of their revisions.
    pub(super) fn take(&self) -> impl Iterator<Item = CutMade> {
        self.cuts.try_iter().flatten()
    }
}

/// Makes the two ends.
pub fn line() -> (Told, Heard) {
    let (sender, receiver) = channel(QUEUE);
    let head = Arc::new(AtomicU64::new(0));
    (Told { cuts: sender, head: Arc::clone(&head) }, Heard { cuts: receiver, head })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_verify::Target;

    /// T76, T84: however the two threads run, whoever sees a head finds every cut up to it.
    #[test]
    fn t76_t84_who_sees_a_head_finds_every_cut_up_to_it() {
        const COMMITS: u64 = 300_000;
        let (mut told, heard) = line();
        let subject = Target::TrustDomain.subject();
        let writer = std::thread::spawn(move || {
            for revision in 1..=COMMITS {
                // Every third commit cuts.
                let cut = CutMade { subject, before: revision, keep_until: u64::MAX, revision };
                told.committed(revision, if revision % 3 == 0 { vec![cut] } else { vec![] });
            }
        });
        let mut last = 0;
        let mut looks = 0u64;
        loop {
            let head = heard.head();
            for cut in heard.take() {
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
