//! A queue between the tasks of requests and the threads of the pipeline. An item wakes one waiting thread, which takes everything
//! that has queued, from each caller in turn. [`super::places`] limits its length, because nothing is queued without a place.

use parking_lot::{Condvar, Mutex};

use super::turns::{Turn, Turns};

/// A queue.
pub(super) struct Queue<T> {
    // Guards the items; held to add some or to take some.
    inner: Mutex<Inner<T>>,
    news: Condvar,
}

struct Inner<T> {
    items: Turns<T>,
    idle: usize,
    closed: bool,
}

/// The queue was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl<T> Queue<T> {
    pub(super) fn new() -> Queue<T> {
        let inner = Inner { items: Turns::default(), idle: 0, closed: false };
        Queue { inner: Mutex::new(inner), news: Condvar::new() }
    }

    /// Adds items of one caller, each with the number of acts that it counts as, and wakes as many threads if they wait.
    pub(super) fn push(&self, turn: Turn, items: impl IntoIterator<Item = (usize, T)>) -> Result<(), Closed> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Closed);
        }
        let before = inner.items.len();
        items.into_iter().for_each(|(cost, item)| inner.items.push(turn, cost, item));
        let wake = inner.idle.min(inner.items.len() - before);
        drop(inner);
        for _ in 0..wake {
            self.news.notify_one();
        }
        Ok(())
    }

    /// Waits for items, then takes the next ones in turn: at least one, and no more than `most` acts together. Returns `None` once
    /// the queue is closed and empty.
    pub(super) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut inner = self.inner.lock();
        loop {
            if let Some((cost, item)) = inner.items.pop(usize::MAX) {
                let mut left = most.saturating_sub(cost);
                let mut taken = vec![item];
                while left > 0
                    && let Some((cost, item)) = inner.items.pop(left)
                {
                    left -= cost;
                    taken.push(item);
                }
                return Some(taken);
            }
            if inner.closed {
                return None;
            }
            inner.idle += 1;
            self.news.wait(&mut inner);
            inner.idle -= 1;
        }
    }

    /// Closes the queue: the threads end when it is empty.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.news.notify_all();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ANY: Turn = Turn { root: 10, part: 0 };

    #[test]
    fn what_was_queued_before_the_end_is_taken_and_nothing_after_it() {
        let queue = Queue::new();
        queue.push(ANY, [(1, 1), (1, 2), (1, 3)]).unwrap();
        queue.close();
        assert_eq!(queue.push(ANY, [(1, 4)]), Err(Closed));
        assert_eq!(queue.take(1), Some(vec![1]));
        assert_eq!(queue.take(16), Some(vec![2, 3]));
        assert_eq!(queue.take(16), None);
    }

    #[test]
    fn a_group_holds_no_more_acts_than_asked_for_unless_one_item_does() {
        let queue = Queue::new();
        queue.push(ANY, [(64, "slice"), (1, "a"), (1, "b"), (64, "slice")]).unwrap();
        assert_eq!(queue.take(16), Some(vec!["slice"]));
        assert_eq!(queue.take(16), Some(vec!["a", "b"]));
        assert_eq!(queue.take(16), Some(vec!["slice"]));
    }

    #[test]
    fn every_item_is_taken_once_by_some_thread() {
        let queue = Queue::new();
        let sum = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut sum = 0u64;
                        while let Some(items) = queue.take(16) {
                            sum += items.into_iter().sum::<u64>();
                        }
                        sum
                    })
                })
                .collect();
            (1..=10_000u64).for_each(|n| queue.push(Turn { root: n % 7, part: n % 3 }, [(1, n)]).unwrap());
            queue.close();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum::<u64>()
        });
        assert_eq!(sum, 10_000 * 10_001 / 2);
    }
}
