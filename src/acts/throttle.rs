//! Limits how fast callers may make requests that are recorded. The meters are in memory only: a restart forgets them, and a
//! request that is refused here never reaches the ledger.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use mayfly_verify::{User, WorkloadName};
use parking_lot::Mutex;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::judge::access::Action;
use crate::judge::pace::{Pace, Paces, Verb, Whose, paced};
use crate::state::Holder;

/// Number of locks over which the meters are spread.
const SHARDS: usize = 16;
/// Most meters of callers under one lock. A meter that has run out is dropped, so only recent callers have one.
const READINGS: usize = 16_384;
/// Microseconds between two sweeps for meters that have run out. A sweep visits all meters under a lock.
const TIDY: u64 = 1_000_000;

/// The rate limits, and a meter for each caller and root.
pub struct Throttle {
    paces: ArcSwap<Vec<(Verb, Paces)>>,
    // Each lock guards its meters, and is held for one look-up.
    shards: Vec<Mutex<Readings>>,
    hasher: RandomState,
    started: Instant,
}

/// The meters, by a hash of the kind of request and its caller or root. A meter is the time from which on the whole burst is free
/// again.
#[derive(Default)]
struct Readings {
    callers: HashMap<u64, u64>,
    // Bounded by the configuration, which names the roots.
    roots: HashMap<u64, u64>,
    // When the last sweep was.
    tidied: u64,
}

impl Throttle {
    /// Uses these rate limits. A kind of request without one is not limited.
    pub fn new(paces: Vec<(Verb, Paces)>) -> Throttle {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Throttle { paces: ArcSwap::from_pointee(paces), shards, hasher: RandomState::new(), started: Instant::now() }
    }

    /// Uses other rate limits from now on. Requests that were counted stay counted.
    pub fn replace(&self, paces: Vec<(Verb, Paces)>) {
        self.paces.store(Arc::new(paces));
    }

    /// Counts one request for its caller and for its root. It is refused if either has asked too often. A request without a caller's
    /// name, or without a root, is not counted there.
    fn count(&self, verb: Verb, caller: Option<&str>, root: Option<&str>) -> Result<(), Denial> {
        let all = self.paces.load();
        let Some((_, paces)) = all.iter().find(|(of, _)| *of == verb) else { return Ok(()) };
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        // ORDER: the caller first, so that a caller over its limit uses up nothing of its root's.
        for (whose, name, pace) in [(Whose::Caller, caller, paces.caller), (Whose::Root, root, paces.root)] {
            if let Some(name) = name {
                self.take(verb, (whose, root.is_some()), name, pace, now)?;
            }
        }
        Ok(())
    }

    fn take(&self, verb: Verb, (whose, has_root): (Whose, bool), name: &str, pace: Pace, now: u64) -> Result<(), Denial> {
        let key = self.hasher.hash_one((verb, whose, name));
        let shard = usize::try_from(key % u64::try_from(SHARDS).unwrap_or(1)).unwrap_or(0);
        let Some(shard) = self.shards.get(shard) else { return Ok(()) };
        let mut readings = shard.lock();
        let Readings { callers, roots, tidied } = &mut *readings;
        let of = if whose == Whose::Caller { &mut *callers } else { roots };
        let after = paced(verb, whose, pace, of.get(&key).copied(), now).inspect_err(|_| {
            let per = if whose == Whose::Caller { "caller" } else { "root" };
            metrics::counter!("mayfly_throttled_total", "verb" => verb.as_str(), "per" => per).increment(1);
        })?;
        if whose == Whose::Caller && of.len() >= READINGS && !of.contains_key(&key) {
            if now >= tidied.saturating_add(TIDY) {
                *tidied = now;
                of.retain(|_, reading| *reading > now);
            }
            // All meters belong to recent callers, so this caller is counted with its root alone. A caller without a root, such as
            // a user, would not be counted at all, so it is refused.
            if of.len() >= READINGS {
                return if has_root { Ok(()) } else { Err(busy()) };
            }
        }
        of.insert(key, after);
        Ok(())
    }
}

fn busy() -> Denial {
    let message = "too many callers have asked in a short time: ask again in a moment";
    Denial::new(Kind::Exhausted, "BUSY", message).retry_after(Some(TIDY))
}

impl Issuer {
    /// Counts a request against the rate limits of its caller. Operators on the local socket are not limited: they administer the
    /// machine, and their revocations are never refused.
    pub fn throttle(&self, caller: &Caller, action: Action) -> Result<(), Denial> {
        let Some(verb) = Verb::of(action) else { return Ok(()) };
        match caller {
            Caller::Stranger | Caller::Operator { by: None, .. } | Caller::Auditor { by: None, .. } => Ok(()),
            Caller::Person { .. } => self.throttle.count(verb, Some(&caller.scope()), None),
            Caller::Operator { by: Some(by), .. } | Caller::Auditor { by: Some(by), .. } => {
                self.throttle.count(verb, Some(&by.scope()), None)
            }
            Caller::User { user, .. } => {
                let verb = if verb == Verb::Revoke { Verb::RevokeOwn } else { verb };
                self.throttle.count(verb, Some(&name(user)), None)
            }
            Caller::Workload { .. } | Caller::Foreign { .. } => {
                let root = caller.workload().map(|workload| workload.to_string());
                self.throttle.count(verb, Some(&caller.scope()), root.as_deref())
            }
            Caller::Agent { id, .. } | Caller::Bearer { id, .. } => {
                let root = self.ledger.read(|state| state.agent(&id.uuid).map(|agent| agent.mandate.workload.clone()));
                self.throttle.count(verb, Some(&caller.scope()), root.map(|workload| workload.to_string()).as_deref())
            }
        }
    }

    /// Counts the redemption of a ticket against the rate limit of its root. A ticket is redeemed once, so it needs no limit of its
    /// own. Nothing is counted for a ticket that is unknown or was redeemed before, because its redemption records nothing.
    pub fn throttle_redemption(&self, hash: &[u8; 32]) -> Result<(), Denial> {
        let root = self.ledger.read(|state| {
            let ticket = state.ticket(hash).filter(|ticket| ticket.redeemed.is_none())?;
            match &ticket.holder {
                Holder::Agent(uuid) => state.agent(uuid).filter(|a| a.current.is_none()).map(|a| a.mandate.workload.to_string()),
                Holder::Workload(name) => Some(name.to_string()),
            }
        });
        root.map_or(Ok(()), |root| self.throttle.count(Verb::Redeem, None, Some(&root)))
    }

    /// Counts an attestation for its workload.
    pub fn throttle_attestation(&self, workload: &WorkloadName) -> Result<(), Denial> {
        self.throttle.count(Verb::Redeem, None, Some(workload.as_str()))
    }
}

fn name(user: &User) -> String {
    format!("{}\0{}", user.iss, user.sub)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn throttle(per_caller: u64, per_root: u64) -> Throttle {
        let pace = |burst| Pace { period: 3_600_000_000, burst };
        Throttle::new(vec![(Verb::Mint, Paces { caller: pace(per_caller), root: pace(per_root) })])
    }

    #[test]
    fn t105_a_caller_and_a_root_write_at_their_pace_and_others_at_theirs() {
        let throttle = throttle(3, 5);
        let mint = |caller, root| throttle.count(Verb::Mint, Some(caller), Some(root)).map_err(|denial| denial.code);
        assert_eq!([mint("a", "x"), mint("a", "x"), mint("a", "x")], [Ok(()); 3]);
        assert_eq!(mint("a", "x"), Err("LIMIT_REACHED"), "the caller's own");
        assert_eq!([mint("b", "x"), mint("b", "x"), mint("b", "x")], [Ok(()), Ok(()), Err("LIMIT_REACHED")], "the root's");
        assert_eq!(mint("a", "y"), Err("LIMIT_REACHED"));
        assert_eq!(mint("c", "y"), Ok(()), "another root has its own");
        assert_eq!(throttle.count(Verb::Renew, Some("a"), Some("x")).map_err(|d| d.code), Ok(()), "another kind too");
        let denial = throttle.count(Verb::Mint, Some("a"), None).unwrap_err();
        assert!(denial.retry.is_some_and(|retry| retry > 0), "it says when to ask again");
    }

    #[test]
    fn t105_readings_are_bounded_and_those_that_say_nothing_are_dropped() {
        let throttle = throttle(2, u64::from(u32::MAX));
        for n in 0..2 * SHARDS * READINGS {
            throttle.count(Verb::Mint, Some(&n.to_string()), Some("x")).unwrap();
        }
        assert!(throttle.shards.iter().all(|shard| shard.lock().callers.len() <= READINGS));
        // Even if the meters are full, a root is counted, and a caller without a root does not pass uncounted.
        let throttle = Throttle { shards: throttle.shards, ..self::throttle(u64::from(u32::MAX), 2) };
        let mint = |root| throttle.count(Verb::Mint, Some("late"), Some(root)).map_err(|denial| denial.code);
        assert_eq!([mint("y"), mint("y"), mint("y")], [Ok(()), Ok(()), Err("LIMIT_REACHED")]);
        assert_eq!(throttle.count(Verb::Mint, Some("nobody's"), None).map_err(|denial| denial.code), Err("BUSY"));
    }
}
