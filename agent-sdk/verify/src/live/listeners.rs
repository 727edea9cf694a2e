//! The callbacks that are notified of new knowledge.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::sync::ArcSwap;

type Callback = dyn Fn() + Send + Sync;

/// Keeps a callback registered for as long as it lives.
#[must_use = "dropping it removes the callback"]
pub struct Subscription(#[expect(dead_code, reason = "it is held for its life alone")] Arc<Callback>);

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// The list is swapped as a whole, so notifying takes no lock, and a callback may subscribe.
#[derive(Default)]
pub(super) struct Listeners(ArcSwap<Vec<Weak<Callback>>>);

impl Listeners {
    pub(super) fn add(&self, callback: Arc<Callback>) -> Subscription {
        // Adding removes dropped ones, so the list is never longer than the greatest number of callbacks at one time.
        self.0.rcu(|list| {
            let alive = list.iter().filter(|one| one.strong_count() > 0).cloned();
            alive.chain([Arc::downgrade(&callback)]).collect::<Vec<_>>()
        });
        Subscription(callback)
    }

    /// A wrong version of [`add`](Self::add): of two concurrent calls, one is lost.
    #[cfg(test)]
    pub(super) fn add_carelessly(&self, callback: Arc<Callback>) -> Subscription {
        let list = self.0.load_full();
        self.0.store(Arc::new(list.iter().cloned().chain([Arc::downgrade(&callback)]).collect()));
        Subscription(callback)
    }

    pub(super) fn notify(&self) {
        self.0.load_full().iter().filter_map(Weak::upgrade).for_each(|callback| callback());
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({})", self.0.load().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn who_has_a_subscription_is_notified_and_nobody_else() {
        let (listeners, called) = (Listeners::default(), Arc::new(AtomicUsize::new(0)));
        let subscribe = || {
            let called = Arc::clone(&called);
            listeners.add(Arc::new(move || {
                called.fetch_add(1, Ordering::SeqCst);
            }))
        };
        listeners.notify();
        assert_eq!(called.load(Ordering::SeqCst), 0);
        let (first, second) = (subscribe(), subscribe());
        listeners.notify();
        assert_eq!(called.load(Ordering::SeqCst), 2);
        drop(first);
        listeners.notify();
        assert_eq!(called.load(Ordering::SeqCst), 3);
        // A thousand subscriptions that were dropped leave nothing behind.
        (0..1000).for_each(|_| drop(subscribe()));
        let third = subscribe();
        assert_eq!(listeners.0.load().len(), 2);
        drop((second, third));
    }
}
