//! Inputs and limits of explanations: the places in the configuration, the providers of users, and a bound on how many run at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::judge::Places;

/// Explanations that run at once: those of operators, and those of all other callers together.
const AT_ONCE: (usize, usize) = (2, 2);
/// How long an explanation waits for others to end.
const TURN: Duration = Duration::from_secs(5);
/// Requests of AuthZEN gateways that are decided at once.
const DECIDED: usize = 4;

/// What explanations need.
pub struct Explaining {
    /// File and line of each part of the configuration, and its owner.
    pub places: Places,
    /// The providers whose users may act through workloads.
    pub providers: Vec<Provider>,
    // The explanations of operators, and of all others.
    turns: (Semaphore, Semaphore),
    // The requests of gateways.
    decided: Arc<Semaphore>,
}

impl Explaining {
    /// Needs the places of the configuration, and its providers of users.
    pub fn new(places: Places, providers: Vec<Provider>) -> Explaining {
        Explaining {
            places,
            providers,
            turns: (Semaphore::new(AT_ONCE.0), Semaphore::new(AT_ONCE.1)),
            decided: Arc::new(Semaphore::new(DECIDED)),
        }
    }

    /// Waits until an explanation may run. The permit is given back when it is dropped.
    pub(crate) async fn turn(&self, caller: &Caller) -> Result<SemaphorePermit<'_>, Denial> {
        let turns = if caller.reads_everything() { &self.turns.0 } else { &self.turns.1 };
        tokio::time::timeout(TURN, turns.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)
    }

    /// Waits until a gateway's request may be decided. The permit is given back when it is dropped, which is when the decision ends
    /// and not when the caller hangs up.
    pub(crate) async fn deciding(&self) -> Result<OwnedSemaphorePermit, Denial> {
        let turn = Arc::clone(&self.decided).acquire_owned();
        tokio::time::timeout(TURN, turn).await.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

fn busy() -> Denial {
    Denial::new(Kind::Exhausted, "BUSY", "too many others ask for explanations: ask again in a moment")
}

/// A provider of users, as far as it says who could bring a token.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The operator's name for it.
    pub name: String,
    /// Its `iss`.
    pub iss: String,
    /// The accepted audience of its tokens.
    pub audience: String,
    /// The workloads that may present them.
    pub workloads: Vec<mayfly_verify::Workload>,
    /// Ceiling of scopes. `None` means no ceiling.
    pub scopes: Option<Vec<String>>,
}
