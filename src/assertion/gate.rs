//! Limits the verification of signatures of tokens: they are verified on threads outside of the async runtime, few at once, and
//! strangers have a queue of their own. So forged tokens of strangers do not delay certified callers.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Refusal;

/// Who presents a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presenter {
    /// Somebody without a certificate.
    Stranger,
    /// A caller with a certificate.
    Certified,
}

/// Tokens of strangers that are verified at once, and the most that wait or are being verified.
const STRANGERS: (usize, usize) = (1, 64);
/// The same for certified callers.
const CERTIFIED: (usize, usize) = (2, 1024);

/// The two queues of tokens whose signature is to be verified.
pub(super) struct Gate {
    strangers: Line,
    certified: Line,
}

struct Line {
    turns: Arc<Semaphore>,
    places: Semaphore,
}

impl Line {
    fn new((turns, places): (usize, usize)) -> Line {
        Line { turns: Arc::new(Semaphore::new(turns)), places: Semaphore::new(places) }
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { strangers: Line::new(STRANGERS), certified: Line::new(CERTIFIED) }
    }
}

impl Gate {
    /// Does `work` on a thread outside of the async runtime, when it is the presenter's turn. Nothing is done if the caller stops
    /// waiting before that.
    pub(super) async fn pass(
        &self,
        presenter: Presenter,
        work: impl FnOnce() -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Refusal> {
        let line = match presenter {
            Presenter::Stranger => &self.strangers,
            Presenter::Certified => &self.certified,
        };
        let _place = line.places.try_acquire().map_err(|_| Refusal::Busy)?;
        let turn = Arc::clone(&line.turns).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        // The permit is held until the work ends, even if the caller has hung up.
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.unwrap_or(Err(Refusal::Signature))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn t100_strangers_wait_for_strangers_and_for_nobody_else() {
        let gate = Arc::new(Gate::default());
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let slow = {
            let gate = Arc::clone(&gate);
            tokio::spawn(
                async move { gate.pass(Presenter::Stranger, move || waits.recv().map_err(|_| Refusal::Signature)).await },
            )
        };
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let gate = Arc::clone(&gate);
            others.spawn(async move { gate.pass(Presenter::Stranger, || Ok(())).await });
        }
        // Callers beyond the limit are refused at once. The runtime stays free, and so does the other queue.
        for _ in 0..100 - (STRANGERS.1 - 1) {
            assert_eq!(others.join_next().await.unwrap().unwrap(), Err(Refusal::Busy));
        }
        assert_eq!(gate.pass(Presenter::Certified, || Ok(())).await, Ok(()));
        go_on.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), Ok(()));
        assert!(others.join_all().await.into_iter().all(|done| done == Ok(())));
    }

    #[tokio::test]
    async fn t99_nothing_is_verified_for_who_has_gone() {
        let gate = Arc::new(Gate::default());
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        let slow = {
            let gate = Arc::clone(&gate);
            tokio::spawn(
                async move { gate.pass(Presenter::Stranger, move || waits.recv().map_err(|_| Refusal::Signature)).await },
            )
        };
        while gate.strangers.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let ran = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let runs = Arc::clone(&ran);
        let gone = gate.pass(Presenter::Stranger, move || {
            runs.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), gone).await.is_err());
        go_on.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), Ok(()));
        assert_eq!(gate.pass(Presenter::Stranger, || Ok(())).await, Ok(()));
        assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
    }
}
