//! Remembers tokens for a single use, so that each is accepted once.
//!
//! The memory is of this process alone: with several replicas a token is accepted once by each of them, unless they ask one guard. After
//! a start nothing is known of what was accepted before, so tokens from before it are refused; their holders get new ones.

use std::collections::{BTreeMap, HashMap};

use mayfly_verify::{Once, Reject, Reliance, sha256};
use parking_lot::Mutex;

/// How far the clock of an issuer may be ahead of ours, in seconds: a verifier accepts no token that is from further ahead.
const LEEWAY: u64 = 5;
/// Tokens that are remembered, of all agents and of those below one workload.
const MOST: usize = 131_072;
const MOST_OF_ONE: usize = MOST / 4;

/// The tokens that were used. It has a bound: what cannot be remembered is refused.
#[derive(Debug)]
pub(crate) struct Uses {
    /// Since when uses are remembered, Unix seconds.
    since: u64,
    // Guards the tokens; held for one look-up and for the removal of those that have expired.
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// The workload above each token, by the token's end in Unix seconds and its id.
    tokens: BTreeMap<(u64, [u8; 16]), [u8; 16]>,
    owners: HashMap<[u8; 16], usize>,
    /// The latest end of a token that was removed, Unix seconds.
    removed: u64,
}

impl Uses {
    /// An empty memory, at `now` (Unix seconds).
    pub(crate) fn since(now: u64) -> Uses {
        Uses { since: now, used: Mutex::default() }
    }

    /// Uses up a verified token at `now` (Unix seconds).
    pub(crate) fn add(&self, once: &Once<'_>, token: &Reliance<'_>, now: u64) -> Result<(), Reject> {
        // T291: whatever was accepted before the start had an `iat` of at most LEEWAY seconds after it.
        if once.issued_at <= self.since.saturating_add(LEEWAY) {
            return Err(Reject::BeforeMemory(self.since.saturating_add(LEEWAY)));
        }
        let id = short(&[token.trust_domain().as_bytes(), b"\0", once.jti.as_bytes()]);
        self.used.lock().add((token.ends_at(), id), short(&[once.root.as_bytes()]), now)
    }
}

impl Used {
    fn add(&mut self, token: (u64, [u8; 16]), owner: [u8; 16], now: u64) -> Result<(), Reject> {
        while let Some(first) = self.tokens.first_entry().filter(|first| first.key().0 <= now) {
            let ((ends_at, _), owner) = first.remove_entry();
            self.removed = self.removed.max(ends_at);
            if let Some(count) = self.owners.get_mut(&owner) {
                *count -= 1;
                if *count == 0 {
                    self.owners.remove(&owner);
                }
            }
        }
        // T290: nobody knows any more whether it was used, if the clock was set back.
        if token.0 <= self.removed || self.tokens.contains_key(&token) {
            return Err(Reject::Used);
        }
        let count = self.owners.get(&owner).copied().unwrap_or_default();
        // T292: a token that cannot be remembered could be used again.
        if self.tokens.len() >= MOST || count >= MOST_OF_ONE {
            return Err(Reject::Used);
        }
        self.owners.insert(owner, count + 1);
        self.tokens.insert(token, owner);
        Ok(())
    }
}

/// The issuer makes the ids by chance, so half of a digest tells them apart.
fn short(parts: &[&[u8]]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = sha256(&parts.concat());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn id(n: usize) -> [u8; 16] {
        short(&[&n.to_be_bytes()])
    }

    #[test]
    fn t290_a_token_is_used_once_until_its_end_whatever_the_clock_does() {
        let mut used = Used::default();
        let mut add = |n, ends_at, now| used.add((ends_at, id(n)), id(0), now).map_err(|e| e.code());
        assert_eq!(add(1, NOW + 300, NOW), Ok(()));
        assert_eq!(add(1, NOW + 300, NOW), Err("CREDENTIAL_USED"));
        assert_eq!(add(1, NOW + 300, NOW + 299), Err("CREDENTIAL_USED"));
        assert_eq!(add(2, NOW + 300, NOW), Ok(()));
        assert_eq!(add(3, NOW + 600, NOW + 300), Ok(()), "the first two have expired, and are forgotten");
        for n in [1, 2, 4] {
            assert_eq!(
                add(n, NOW + 300, NOW),
                Err("CREDENTIAL_USED"),
                "a clock that was set back makes none of them valid again"
            );
        }
        assert_eq!(add(5, NOW + 301, NOW), Ok(()));
        assert_eq!((used.tokens.len(), used.owners.get(&id(0))), (2, Some(&2)));
    }

    #[test]
    fn t292_what_cannot_be_remembered_is_refused_and_one_workload_cannot_use_up_the_memory_of_others() {
        let mut used = Used::default();
        let mut add = |n, owner, now| used.add((NOW + 300, id(n)), id(owner), now).map_err(|e| e.code());
        for n in 0..MOST_OF_ONE {
            assert_eq!(add(n, 1, NOW), Ok(()));
        }
        assert_eq!(add(MOST, 1, NOW), Err("CREDENTIAL_USED"));
        assert_eq!(add(MOST, 2, NOW), Ok(()));
        let later = used.add((NOW + 600, id(MOST + 1)), id(1), NOW + 300).map_err(|e| e.code());
        assert_eq!((later, used.tokens.len(), used.owners.len()), (Ok(()), 1, 1), "it is free again when they have expired");
    }
}
