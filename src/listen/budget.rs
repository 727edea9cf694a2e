//! The memory of open requests: a budget of bytes for all of them, with limits for strangers, for one network and for one identity.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::body::Refused;

/// What a stranger's open request is charged besides its body, in bytes: its stream, its buffers and its response.
const REQUEST: usize = 8 * 1024;

/// Whose request it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    /// A peer without an identity, by its network.
    Stranger(IpAddr),
    /// A peer with an identity.
    Known(Arc<str>),
}

/// A budget of bytes. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: usize,
    // Guards the bytes in use; held for one charge.
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    strangers: usize,
    payers: HashMap<Payer, usize>,
}

impl Budget {
    /// A budget of `all` bytes. Strangers have a quarter of it together and an eighth for each network; an identity has a quarter.
    pub(super) fn new(all: usize) -> Budget {
        Budget(Arc::new(Shared { all, used: Mutex::default() }))
    }

    /// Begins the account of a request. Returns `None` if there are too many requests of strangers.
    pub(super) fn begin(&self, payer: &Payer) -> Option<Arc<Charge>> {
        let charge = Charge { budget: self.clone(), payer: payer.clone(), bytes: Mutex::new(0), refused: OnceLock::new() };
        // A request of a peer with an identity is charged for its body only, because the number of streams of its connection is
        // limited.
        (!payer.is_stranger() || charge.add(REQUEST)).then(|| Arc::new(charge))
    }

    fn take(&self, payer: &Payer, bytes: usize) -> bool {
        let stranger = payer.is_stranger();
        let mut used = self.0.used.lock();
        let of_payer = used.payers.get(payer).copied().unwrap_or(0) + bytes;
        let share = if stranger { self.0.all / 8 } else { self.0.all / 4 };
        let strangers_fit = !stranger || used.strangers + bytes <= self.0.all / 4;
        if of_payer > share || !strangers_fit || used.all + bytes > self.0.all {
            return false;
        }
        used.all += bytes;
        used.strangers += if stranger { bytes } else { 0 };
        used.payers.insert(payer.clone(), of_payer);
        true
    }

    fn give_back(&self, payer: &Payer, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut used = self.0.used.lock();
        used.all -= bytes;
        used.strangers -= if payer.is_stranger() { bytes } else { 0 };
        if let Some(of_payer) = used.payers.get_mut(payer) {
            *of_payer -= bytes;
            if *of_payer == 0 {
                used.payers.remove(payer);
            }
        }
    }
}

impl Payer {
    pub(super) fn is_stranger(&self) -> bool {
        matches!(self, Payer::Stranger(_))
    }
}

/// The bytes that are charged to one request. Dropping it gives them back.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Budget,
    payer: Payer,
    // Guards the bytes that this request holds.
    bytes: Mutex<usize>,
    refused: OnceLock<Refused>,
}

impl Charge {
    /// Charges `bytes` more. Returns `false`, and remembers that, if they exceed a limit.
    pub(super) fn add(&self, bytes: usize) -> bool {
        if self.budget.take(&self.payer, bytes) {
            *self.bytes.lock() += bytes;
            return true;
        }
        self.refuse(Refused::Busy);
        false
    }

    /// Remembers why the rest of the body is not read.
    pub(super) fn refuse(&self, why: Refused) {
        let _ = self.refused.set(why);
    }

    /// Why the request's body was not read to its end.
    pub(super) fn refused(&self) -> Option<Refused> {
        self.refused.get().copied()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(&self.payer, *self.bytes.get_mut());
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ALL: usize = 64 * REQUEST;

    fn stranger(n: u8) -> Payer {
        Payer::Stranger(IpAddr::from([127, 0, 0, n]))
    }

    fn known(id: &str) -> Payer {
        Payer::Known(id.into())
    }

    #[test]
    fn t94_strangers_have_a_share_and_each_network_has_half_of_it() {
        let budget = Budget::new(ALL);
        let begin = |n| std::iter::from_fn(|| budget.begin(&stranger(n))).take(100).collect::<Vec<_>>();
        let (first, second, third) = (begin(1), begin(2), begin(3));
        assert_eq!((first.len(), second.len(), third.len()), (8, 8, 0));
        // Strangers leave the rest of the budget to others.
        let charge = budget.begin(&known("a")).unwrap();
        assert!(charge.add(ALL / 4) && charge.refused().is_none());
        drop(first);
        assert_eq!(begin(3).len(), 8);
    }

    #[test]
    fn t94_an_identity_has_a_share_and_gives_back_all_of_it() {
        let budget = Budget::new(ALL);
        let charges: [_; 4] = std::array::from_fn(|_| budget.begin(&known("a")).unwrap());
        assert!(charges.iter().all(|charge| charge.add(ALL / 16)));
        let [first, second, ..] = &charges;
        assert!(!first.add(1) && first.refused().is_some() && second.refused().is_none());
        assert!(budget.begin(&known("b")).unwrap().add(ALL / 4), "another identity has its own");
        drop(charges);
        assert!(budget.begin(&known("a")).unwrap().add(ALL / 4));
        let used = budget.0.used.lock();
        assert_eq!((used.all, used.strangers, used.payers.len()), (0, 0, 0));
    }

    #[test]
    fn t94_all_together_stay_below_the_budget() {
        let budget = Budget::new(ALL);
        let held: Vec<_> = ["a", "b", "c", "d"].map(|id| budget.begin(&known(id)).unwrap()).into();
        assert!(held.iter().all(|charge| charge.add(ALL / 4)));
        assert!(!budget.begin(&known("e")).unwrap().add(1));
        assert!(budget.begin(&stranger(1)).is_none());
    }
}
