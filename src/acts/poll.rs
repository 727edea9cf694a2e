//! Poll: an agent asks how an approval stands, not faster than it may (CIBA Core 1.0, 11). Nothing is recorded.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::{Issuer, approvals, client};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::Denial;
use crate::judge::approval::{not_approved, unknown_approval};
use crate::state::Status;

/// Seconds between two polls of one approval. Each poll that comes too early makes the interval longer by as much.
pub const INTERVAL: u64 = 5;
/// Longest interval, in seconds.
const LONGEST: u64 = 60;
/// Approvals whose polls are remembered; more cannot wait at once in the default configuration.
const POLLS: usize = 16_384;
/// How long the last poll of an approval is remembered, in microseconds.
const REMEMBERED: u64 = 600 * SECOND;

/// The last poll of each approval. It is in memory only, so a restart forgets it.
#[derive(Default)]
pub struct Polls {
    // Guards, by the approval, the Unix microseconds of its last poll and its interval in seconds. Held for one look-up.
    last: Mutex<HashMap<[u8; 16], (u64, u64)>>,
}

/// The answer to a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// It was given: a token can be had for it.
    Approved,
    /// Nobody has answered.
    Pending,
    /// Nobody has answered, and this poll came too early: the interval is longer now.
    TooEarly,
}

impl Polls {
    /// Counts a poll of an approval that waits. Returns whether it came too early.
    fn count(&self, id: [u8; 16], now: u64) -> bool {
        let mut last = self.last.lock();
        if last.len() >= POLLS && !last.contains_key(&id) {
            last.retain(|_, (at, _)| at.saturating_add(REMEMBERED) > now);
            // If no more approvals can be remembered, the poll counts as too early.
            if last.len() >= POLLS {
                return true;
            }
        }
        let (at, interval) = last.entry(id).or_insert((0, INTERVAL));
        let early = now < at.saturating_add(*interval * SECOND);
        if early {
            *interval = interval.saturating_add(INTERVAL).min(LONGEST);
        }
        *at = now;
        early
    }
}

/// The status of an approval of the calling agent. Fails if the approval cannot be given or used any more, or belongs to another
/// agent.
pub fn poll(issuer: &Issuer, caller: &Caller, id: &str) -> Result<Polled, Denial> {
    let known = approvals::get(issuer, caller, id)?;
    let (Caller::Agent { id: agent, .. } | Caller::Bearer { id: agent, .. }) = caller else { return Err(unknown_approval()) };
    // T13: an approval of an agent below the caller is not the caller's own either.
    if agent.uuid != known.agent.uuid {
        return Err(unknown_approval());
    }
    // The exchange that follows is recorded, and that uses up the JWT-SVID by which the agent proved itself.
    if known.status == Status::Approved {
        return Ok(Polled::Approved);
    }
    // A JWT-SVID proves its agent for one request, also for one that records nothing.
    client::spend(issuer, caller)?;
    match known.status {
        Status::Pending if issuer.polls.count(known.approval.id, issuer.clock.now()) => Ok(Polled::TooEarly),
        Status::Pending => Ok(Polled::Pending),
        status => Err(not_approved(status)),
    }
}

/// Whether a hint names the user for whom the calling agent acts, or somebody whom its class names to approve: as tokens name them
/// (`corp|alice`), as people write them (`corp/alice`), or as JSON with the format `iss_sub`.
pub fn is_known(issuer: &Issuer, caller: &Caller, hint: &str) -> bool {
    let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = caller else { return false };
    let rules = issuer.ledger.rules();
    let structured = serde_json::from_str::<serde_json::Value>(hint).ok().and_then(|hint| {
        let member = |name: &str| hint.get(name)?.as_str().map(str::to_owned);
        member("format").filter(|format| format == "iss_sub")?;
        Some((rules.issuers.get(&member("iss")?)?.clone(), member("sub")?))
    });
    let plain = || hint.split_once(['|', '/']).map(|(provider, sub)| (provider.to_owned(), sub.to_owned()));
    let Some((provider, sub)) = structured.or_else(plain) else { return false };
    issuer.ledger.read(|state| {
        let Some(agent) = state.agent(&id.uuid) else { return false };
        let user = agent.delegation.as_ref().map(|delegation| &delegation.user);
        let is_user = user.is_some_and(|user| user.sub == sub && rules.issuers.get(&user.iss) == Some(&provider));
        let class = rules.classes.get(&agent.mandate.class);
        let mut people = class.into_iter().flat_map(|class| &class.approve).flat_map(|rule| &rule.by);
        is_user || people.any(|person| person.provider == provider && person.sub == sub)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_polls_too_early_waits_longer_each_time_and_up_to_a_bound() {
        let (polls, id) = (Polls::default(), [1; 16]);
        assert!(!polls.count(id, 100 * SECOND), "the first one");
        assert!(!polls.count(id, 105 * SECOND));
        assert!(polls.count(id, 109 * SECOND));
        assert!(polls.count(id, 118 * SECOND), "ten seconds now");
        assert!(!polls.count(id, 133 * SECOND), "fifteen");
        for n in 0..100 {
            polls.count(id, 133 * SECOND + n);
        }
        assert!(!polls.count(id, 200 * SECOND), "never more than a minute");
        assert!(!polls.count([2; 16], 200 * SECOND), "each for itself");
    }

    #[test]
    fn t185_polls_are_remembered_within_a_bound_and_forgotten_with_their_approval() {
        let polls = Polls::default();
        let id = |n: usize| u128::try_from(n).unwrap_or_default().to_be_bytes();
        let now = 1000 * SECOND;
        assert!((0..POLLS).all(|n| !polls.count(id(n), now)));
        assert!(polls.count(id(POLLS), now), "no room");
        assert!(!polls.count(id(POLLS), now + REMEMBERED + SECOND));
        assert_eq!(polls.last.lock().len(), 1);
    }
}
