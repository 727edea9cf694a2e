//! Remembers DPoP proofs, so that each is used once, and makes the nonces that they must have (RFC 9449 8, 9, 11.1).
//!
//! Nonces are of this process alone: after a restart, and at another replica, an old proof has none that is accepted. So the memory
//! of a process is enough to tell that a proof is new.
//!
//! ```
//! use mayfly_agent::proofs::Proofs;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let proofs = Proofs::new()?;
//! // 401 with `DPoP-Nonce` and `error="use_dpop_nonce"` until a proof has it.
//! let nonce = proofs.nonce(1_764_200_000);
//! assert_eq!(nonce, proofs.nonce(1_764_200_001));
//! # Ok(())
//! # }
//! # example().unwrap();
//! ```

use std::collections::{HashMap, HashSet};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{DPOP_WINDOW, DpopProof, Reject, sha256};
use parking_lot::Mutex;

use crate::random;

/// Seconds after which there is a new nonce. The one before it is accepted for as long again.
const NONCE: u64 = 300;
/// Seconds for which a proof is remembered at least: it is accepted from so long before its `iat` until so long after it.
const KEPT: u64 = 2 * DPOP_WINDOW;
/// Proofs that are remembered in one period of [`KEPT`] seconds, of all owners and of one.
const MOST: usize = 131_072;
const MOST_OF_ONE: usize = MOST / 8;

/// The proofs that were used, and the key of the nonces. It has a bound: what cannot be remembered is refused.
pub struct Proofs {
    key: hmac::Key,
    // Guards the proofs; held for one look-up.
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// When the current period began, Unix seconds.
    since: u64,
    current: Period,
    before: HashSet<[u8; 32]>,
}

#[derive(Default)]
struct Period {
    proofs: HashSet<[u8; 32]>,
    owners: HashMap<[u8; 32], usize>,
}

impl Proofs {
    /// An empty memory, with a new key. Fails if no random numbers can be had.
    pub fn new() -> Result<Proofs, Unspecified> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()?);
        Ok(Proofs { key, used: Mutex::default() })
    }

    /// The nonce for proofs that are made at `now` (Unix seconds): for the header `DPoP-Nonce`.
    pub fn nonce(&self, now: u64) -> String {
        self.nonce_of(now / NONCE)
    }

    /// Uses up a verified proof: it must have a nonce of this process, and be new. `owner` is whoever is to be held back if they send
    /// too many, such as the workload at the root of an agent.
    pub fn accept(&self, proof: &DpopProof, owner: &str, now: u64) -> Result<(), Reject> {
        let period = now / NONCE;
        let fresh = |nonce: &String| [period, period.saturating_sub(1)].iter().any(|period| self.nonce_of(*period) == *nonce);
        if !proof.nonce.as_ref().is_some_and(fresh) {
            return Err(Reject::Nonce);
        }
        // An id is unique for its key alone.
        let id = sha256(&[proof.thumbprint.as_slice(), proof.jti.as_bytes()].concat());
        self.used.lock().add(id, sha256(owner.as_bytes()), now)
    }

    fn nonce_of(&self, period: u64) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &period.to_be_bytes()))
    }
}

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proofs").finish_non_exhaustive()
    }
}

impl Used {
    fn add(&mut self, id: [u8; 32], owner: [u8; 32], now: u64) -> Result<(), Reject> {
        if now >= self.since.saturating_add(KEPT) {
            let last = std::mem::take(&mut self.current).proofs;
            // After a long pause the proofs of the previous period are too old to be accepted, so they are dropped too.
            self.before = if now < self.since.saturating_add(2 * KEPT) { last } else { HashSet::new() };
            self.since = now;
        }
        if self.before.contains(&id) || self.current.proofs.contains(&id) {
            return Err(Reject::ProofUsed);
        }
        let of_owner = self.current.owners.get(&owner).copied().unwrap_or_default();
        // T189: a proof that cannot be remembered could be repeated.
        if self.current.proofs.len() >= MOST || of_owner >= MOST_OF_ONE {
            return Err(Reject::ProofUsed);
        }
        self.current.owners.insert(owner, of_owner + 1);
        self.current.proofs.insert(id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn proof(jti: &str, nonce: Option<String>) -> DpopProof {
        DpopProof { thumbprint: [1; 32], jti: jti.into(), issued_at: NOW, nonce }
    }

    #[test]
    fn t189_a_proof_has_a_nonce_of_this_process_that_is_not_old() {
        let (proofs, other) = (Proofs::new().unwrap(), Proofs::new().unwrap());
        let accept =
            |nonce: Option<String>, now: u64| proofs.accept(&proof(&now.to_string(), nonce), "a", now).map_err(|e| e.code());
        for nonce in [None, Some(String::new()), Some("x".into()), Some(other.nonce(NOW)), Some(proofs.nonce(NOW + NONCE))] {
            assert_eq!(accept(nonce, NOW), Err("DPOP_NONCE_NEEDED"));
        }
        let nonce = Some(proofs.nonce(NOW));
        assert_eq!(accept(nonce.clone(), NOW), Ok(()));
        assert_eq!(accept(nonce.clone(), NOW + NONCE), Ok(()), "a request that was on its way is not refused for it");
        assert_eq!(accept(nonce, NOW + 2 * NONCE), Err("DPOP_NONCE_NEEDED"));
    }

    #[test]
    fn t189_a_proof_is_used_once_for_as_long_as_it_is_accepted_and_one_owner_cannot_use_up_the_memory_of_others() {
        let mut used = Used::default();
        let id = |n: usize| sha256(&n.to_be_bytes());
        let mut add = |n, owner: u8, now| used.add(id(n), [owner; 32], now).map_err(|e| e.code());
        assert_eq!(add(0, 1, NOW), Ok(()));
        assert_eq!(add(0, 1, NOW), Err("DPOP_PROOF_USED"));
        assert_eq!(add(0, 2, NOW + KEPT), Err("DPOP_PROOF_USED"), "also by another, and in the next period");
        for n in 1..=MOST_OF_ONE {
            assert_eq!(add(n, 1, NOW + KEPT), Ok(()));
        }
        assert_eq!(add(MOST, 1, NOW + KEPT), Err("DPOP_PROOF_USED"), "what cannot be remembered is not accepted");
        assert_eq!(add(MOST, 2, NOW + KEPT), Ok(()));
        assert_eq!(add(MOST + 1, 1, NOW + 2 * KEPT), Ok(()), "what cannot be accepted any more is forgotten");
        assert_eq!(add(MOST, 2, NOW + 2 * KEPT), Err("DPOP_PROOF_USED"));
        assert_eq!(add(1, 1, NOW + 9 * KEPT), Ok(()));
        assert!(used.before.is_empty() && used.current.proofs.len() == 1);
    }
}
