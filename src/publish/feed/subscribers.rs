//! The subscribers of the feed, and their progress: the head that was sent to each, and the head that it has confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// A verifier or a relay that follows the feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscriber {
    /// SPIFFE ID, or the name of an operator on the local socket. Empty for callers without a name.
    pub id: String,
    /// Its address; empty if it is unknown.
    pub peer: String,
    /// Unix microseconds at which its stream was opened.
    pub since: u64,
    /// Everything up to this head was passed to its connection.
    pub sent: u64,
    /// The head that it has confirmed; 0 before the first confirmation.
    pub heard: u64,
    /// The name that it gave its stream; empty if it does not send confirmations.
    pub subscription: Vec<u8>,
    /// Whether it forwards the feed to others.
    pub relays: bool,
}

/// The present subscribers. Their number is bounded by that of connections and streams.
#[derive(Debug, Default)]
pub struct Subscribers {
    // Guards the subscribers by number, and the last number; held to look one up or to copy the list.
    open: Mutex<(u64, BTreeMap<u64, Subscriber>)>,
    // Set when a caller waits for confirmations.
    asked: AtomicBool,
}

/// A subscriber on the list. Dropping it removes the subscriber.
#[derive(Debug)]
pub struct Joined {
    all: Arc<Subscribers>,
    number: u64,
}

impl Subscribers {
    /// Adds a subscriber until the result is dropped.
    pub fn join(self: &Arc<Self>, subscriber: Subscriber) -> Joined {
        let mut open = self.open.lock();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, subscriber);
        Joined { all: Arc::clone(self), number }
    }

    /// Notes the confirmation of a subscriber. The stream is found by its name together with the caller's id, so that nobody can
    /// confirm for another. Returns whether there is such a stream.
    pub fn confirm(&self, id: &str, subscription: &[u8], head: u64) -> bool {
        let mut open = self.open.lock();
        let mine = |subscriber: &&mut Subscriber| {
            !subscription.is_empty() && subscriber.subscription == subscription && subscriber.id == id
        };
        let Some(subscriber) = open.1.values_mut().find(mine) else { return false };
        // It cannot have received more than was sent.
        subscriber.heard = subscriber.heard.max(head.min(subscriber.sent));
        true
    }

    /// All of them, in order of their streams.
    pub fn all(&self) -> Vec<Subscriber> {
        self.open.lock().1.values().cloned().collect()
    }

    /// Asks all of them to confirm with the next message.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Whether a confirmation was asked for since the last message.
    pub fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }
}

impl Joined {
    /// Notes the head up to which everything was sent.
    pub fn sent(&self, head: u64) {
        if let Some(subscriber) = self.all.open.lock().1.get_mut(&self.number) {
            subscriber.sent = subscriber.sent.max(head);
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.all.open.lock().1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &str, name: &[u8]) -> Subscriber {
        Subscriber { id: id.into(), subscription: name.to_vec(), ..Subscriber::default() }
    }

    #[test]
    fn t162_nobody_confirms_for_another_nor_what_was_not_sent() {
        let all = Arc::new(Subscribers::default());
        let (a, b) = (all.join(of("a", b"1")), all.join(of("b", b"")));
        a.sent(7);
        b.sent(9);
        assert!(!all.confirm("b", b"1", 7) && !all.confirm("a", b"2", 7) && !all.confirm("b", b"", 9));
        let heard = || all.all().into_iter().map(|subscriber| (subscriber.id, subscriber.heard)).collect::<Vec<_>>();
        assert_eq!(heard(), [("a".to_owned(), 0), ("b".to_owned(), 0)]);
        assert!(all.confirm("a", b"1", u64::MAX));
        assert_eq!(heard(), [("a".to_owned(), 7), ("b".to_owned(), 0)], "no more than was sent");
        assert!(all.confirm("a", b"1", 3));
        assert_eq!(heard(), [("a".to_owned(), 7), ("b".to_owned(), 0)], "nothing is unheard");
        drop(a);
        assert_eq!(heard(), [("b".to_owned(), 0)]);
        all.ask();
        assert!(all.take_asked() && !all.take_asked());
    }
}
