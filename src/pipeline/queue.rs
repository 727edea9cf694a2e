//! A bounded queue between tasks that ask and threads that work. One waiting thread wakes for one item, and takes what has
//! queued in one go.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// A bounded queue.
pub(super) struct Queue<T> {
    // Guards the items; held to add one or to take some.
    inner: Mutex<Inner<T>>,
    news: Condvar,
    bound: usize,
}

struct Inner<T> {
    items: VecDeque<T>,
    idle: usize,
    closed: bool,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PushError {
    /// The queue is at its bound.
    Full,
    /// The queue was closed.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Queue<T> {
        let inner = Inner { items: VecDeque::new(), idle: 0, closed: false };
        Queue { inner: Mutex::new(inner), news: Condvar::new(), bound: bound.max(1) }
    }

    /// Adds an item, and wakes a thread if one waits.
    pub(super) fn push(&self, item: T) -> Result<(), PushError> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(PushError::Closed);
        }
        if inner.items.len() >= self.bound {
            return Err(PushError::Full);
        }
        inner.items.push_back(item);
        let wake = inner.idle > 0;
        drop(inner);
        if wake {
            self.news.notify_one();
        }
        Ok(())
    }

    /// Waits for items, then takes the oldest ones: as many as `most` returns, at least one. Returns `None` once the queue is
    /// closed and empty.
    pub(super) fn take(&self, most: impl Fn(&VecDeque<T>) -> usize) -> Option<VecDeque<T>> {
        let mut inner = self.inner.lock();
        loop {
            if !inner.items.is_empty() {
                let count = most(&inner.items).clamp(1, inner.items.len());
                let rest = inner.items.split_off(count);
                return Some(std::mem::replace(&mut inner.items, rest));
            }
            if inner.closed {
                return None;
            }
            inner.idle += 1;
            self.news.wait(&mut inner);
            inner.idle -= 1;
        }
    }

    /// Lets the threads end when they have taken what is left.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.news.notify_all();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_before_the_end_is_taken_and_nothing_after_it() {
        let queue = Queue::new(2);
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        assert_eq!(queue.push(3), Err(PushError::Full));
        queue.close();
        assert_eq!(queue.push(3), Err(PushError::Closed));
        assert_eq!(queue.take(|_| 1), Some([1].into()));
        assert_eq!(queue.take(VecDeque::len), Some([2].into()));
        assert_eq!(queue.take(VecDeque::len), None);
    }

    #[test]
    fn every_item_is_taken_once_by_some_thread() {
        let queue = Queue::new(1_000_000);
        let sum = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sum = 0u64;
                        while let Some(items) = queue.take(|queued| queued.len().min(16)) {
                            sum += items.into_iter().sum::<u64>();
                        }
                        sum
                    })
                })
                .collect();
            (1..=10_000u64).for_each(|n| queue.push(n).unwrap());
            queue.close();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 10_000 * 10_001 / 2);
    }
}
