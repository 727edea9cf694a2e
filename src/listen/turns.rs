//! Limits how many handshakes compute at once, and lets networks take turns.
//!
//! A handshake takes some hundred microseconds for signatures. Without a limit, handshakes of strangers would delay every request
//! in the queues of the runtime.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::ready;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The permits to compute (*turns*). Clones share them.
#[derive(Clone)]
pub(super) struct Turns(Arc<Mutex<Waiting>>);

// Guards the free turns and the queue of waiting handshakes; held to take a turn or to pass one on.
struct Waiting {
    free: usize,
    /// Each network once, with its waiting handshakes in order of arrival.
    networks: VecDeque<(IpAddr, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A turn. Dropping it passes it to the next waiting handshake.
struct Turn(Turns);

impl Turns {
    /// One turn fewer than there are processors, and at least one.
    pub(super) fn new() -> Turns {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Turns::of(processors.saturating_sub(1).max(1))
    }

    fn of(free: usize) -> Turns {
        Turns(Arc::new(Mutex::new(Waiting { free, networks: VecDeque::new() })))
    }

    /// Polls `work` in turns of its network. It holds none while it waits for something else.
    pub(super) async fn paced<F: Future>(&self, network: IpAddr, work: F) -> F::Output {
        let mut work = pin!(work);
        let mut waiting: Option<oneshot::Receiver<Turn>> = None;
        poll_fn(|cx| {
            let turn = loop {
                match &mut waiting {
                    None => match self.take(network) {
                        Ok(turn) => break turn,
                        Err(receiver) => waiting = Some(receiver),
                    },
                    Some(receiver) => {
                        let passed = ready!(Pin::new(receiver).poll(cx));
                        waiting = None;
                        if let Ok(turn) = passed {
                            break turn;
                        }
                    }
                }
            };
            let result = work.as_mut().poll(cx);
            drop(turn);
            result
        })
        .await
    }

    fn take(&self, network: IpAddr) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut waiting = self.0.lock();
        if waiting.free > 0 {
            waiting.free -= 1;
            return Ok(Turn(self.clone()));
        }
        let (pass, passed) = oneshot::channel();
        match waiting.networks.iter_mut().find(|(of, _)| *of == network) {
            Some((_, queue)) => queue.push_back(pass),
            None => waiting.networks.push_back((network, VecDeque::from([pass]))),
        }
        Err(passed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock();
        while let Some((network, mut queue)) = waiting.networks.pop_front() {
            let next = queue.pop_front();
            if !queue.is_empty() {
                waiting.networks.push_back((network, queue));
            }
            let Some(next) = next.filter(|next| !next.is_closed()) else { continue };
            drop(waiting);
            // If the receiver is gone the turn is dropped, which passes it on.
            let _ = next.send(Turn(self.0.clone()));
            return;
        }
        waiting.free += 1;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn network(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[tokio::test]
    async fn networks_take_turns_whatever_the_number_of_their_handshakes() {
        let turns = Turns::of(1);
        let first = turns.take(network(1)).ok().unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (of, number) in [(1, 0), (1, 1), (1, 2), (2, 3), (3, 4), (2, 5)] {
            let (turns, order) = (turns.clone(), Arc::clone(&order));
            tasks.push(tokio::spawn(async move { turns.paced(network(of), async { order.lock().push(number) }).await }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 3, 4, 1, 5, 2]);
        assert_eq!(turns.0.lock().free, 1);
    }

    #[tokio::test]
    async fn a_handshake_that_goes_away_passes_its_turn_on() {
        let turns = Turns::of(1);
        let first = turns.take(network(1)).ok().unwrap();
        let gone = turns.take(network(1)).err().unwrap();
        let passed_and_gone = turns.take(network(2)).err().unwrap();
        let stays = turns.take(network(3)).err().unwrap();
        drop(gone);
        drop(first);
        // The turn was passed to the second handshake, which ends without using it.
        drop(passed_and_gone);
        drop(stays.await.unwrap());
        assert_eq!(turns.0.lock().free, 1);
    }
}
