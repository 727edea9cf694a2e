//! Inspect: the agents that a caller may see, and what was revoked.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use mayfly_verify::Target;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Issuer;
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, Fault};
use crate::judge::policy::Class;
use crate::judge::{sees, unknown_agent};
use crate::state::{Agent, Count, Seat, Standing, TargetStanding, View, Why};

/// Page tokens. They are encrypted for one caller, so that they reveal nothing, and no other caller can use them. The key lives as
/// long as the process.
pub struct Pages(LessSafeKey);

impl Pages {
    /// A fresh key.
    pub fn new() -> Result<Pages, Fault> {
        let mut key = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(key.as_mut_slice()).map_err(|e| Fault::new("page tokens", e))?;
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|e| Fault::new("page tokens", e))?;
        Ok(Pages(LessSafeKey::new(key)))
    }

    /// The page token with which a caller continues after an agent.
    pub fn seal(&self, caller: &Caller, after: Uuid) -> Result<String, Fault> {
        self.seal_bytes(caller, after.as_bytes())
    }

    /// The page token with which a caller continues from a place.
    pub fn seal_bytes(&self, caller: &Caller, place: &[u8]) -> Result<String, Fault> {
        let fault = |_| Fault::new("page tokens", "the seal failed");
        let mut nonce = [0u8; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(fault)?;
        let mut sealed = place.to_vec();
        let whose = Aad::from(caller.scope().into_bytes());
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), whose, &mut sealed).map_err(fault)?;
        Ok(hex::encode([&nonce[..], &sealed].concat()))
    }

    /// The agent after which a page token of this caller continues. `None` for an empty token, which begins at the start.
    pub fn open(&self, caller: &Caller, token: &str) -> Result<Option<Uuid>, Denial> {
        let opened = self.open_bytes(caller, token)?;
        opened.map(|bytes| Uuid::from_slice(&bytes).map_err(|_| not_ours())).transpose()
    }

    /// The place from which a page token of this caller continues. `None` for an empty token, which begins at the start.
    pub fn open_bytes(&self, caller: &Caller, token: &str) -> Result<Option<Vec<u8>>, Denial> {
        if token.is_empty() {
            return Ok(None);
        }
        Origin::note(|origin| {
            let _ = origin.continues.set(());
        });
        let opened = || {
            let bytes = hex::decode(token).ok()?;
            let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
            let mut sealed = sealed.to_vec();
            let whose = Aad::from(caller.scope().into_bytes());
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            Some(self.0.open_in_place(nonce, whose, &mut sealed).ok()?.to_vec())
        };
        opened().map(Some).ok_or_else(not_ours)
    }
}

pub(super) fn not_ours() -> Denial {
    Denial::malformed("PAGE_TOKEN", "the page token is not one of this list: start again without one")
}

/// Agents on one page at most.
pub const PAGE: usize = 1000;

/// A page of agents in order of id, the id to continue after, and the revision at which it was read.
pub fn list(
    issuer: &Issuer,
    caller: &Caller,
    after: Option<Uuid>,
    size: usize,
    all: bool,
) -> (Vec<(Agent, Standing)>, Option<Uuid>, u64) {
    let now = issuer.clock.now();
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    issuer.ledger.read(|state| {
        let mut page = Vec::new();
        let mut last = None;
        // The number of agents that are examined is bounded even if most of them belong to others. So a page may be short without
        // being the last.
        for (seen, agent) in state.agents_after(after).enumerate() {
            if seen == 10 * PAGE {
                return (page, last, state.revision);
            }
            let standing = state.standing(agent, now);
            if sees(caller, agent) && (all || standing == Standing::Live) {
                // T13: a full page has a next one only if the caller may see more agents, and the token names an agent that the
                // caller has seen.
                if page.len() == size {
                    let last = page.last().map(|(agent, _): &(Agent, _)| agent.uuid);
                    return (page, last, state.revision);
                }
                page.push((agent.clone(), standing));
            }
            last = Some(agent.uuid);
        }
        (page, None, state.revision)
    })
}

/// One agent, its standing, and since when, by whom and why it may not act any more. T13: an agent that the caller may not see
/// looks as if it did not exist. Who decided and why is for operators, and for users who did it themselves.
pub fn get(issuer: &Issuer, caller: &Caller, agent: Uuid) -> Result<(Agent, Standing, Option<Why>), Denial> {
    let now = issuer.clock.now();
    let found = issuer.ledger.read(|state| {
        let agent = state.agent(&agent).filter(|agent| sees(caller, agent))?;
        let standing = state.standing(agent, now);
        Some((agent.clone(), standing, state.over(agent, standing)))
    });
    let (agent, standing, over) = found.ok_or_else(unknown_agent)?;
    let told = over.map(|why| match caller {
        Caller::Operator { .. } | Caller::Auditor { .. } => Why::clone(&why),
        Caller::User { .. } if why.by == caller.scope() => Why::clone(&why),
        _ => Why { at: why.at, ..Why::default() },
    });
    Ok((agent, standing, told))
}

/// A class, as it is now.
pub struct Known {
    /// As it is configured.
    pub class: Class,
    /// Whether the class is closed: no new agents until it is reopened.
    pub closed: bool,
    /// How many of its agents live; 0 for everybody but operators.
    pub live: u64,
}

/// The classes that a caller may see, in order of name, and the revision at which that was read. T13: a class that the caller may not
/// spawn looks as if it did not exist.
pub fn classes(issuer: &Issuer, caller: &Caller) -> (Vec<Known>, u64) {
    let operator = caller.reads_everything();
    issuer.ledger.read(|state| {
        let own = caller.agent_uuid().and_then(|uuid| state.agent(&uuid)).map(|agent| agent.mandate.class.clone());
        let spawns = |class: &Class| {
            let listed = class.workloads.iter().any(|listed| caller.is(listed));
            listed || own.as_ref().is_some_and(|own| class.classes.contains(own))
        };
        let known = |class: &Class| {
            let target = Target::Class(class.name.clone());
            let live =
                if operator { u64::try_from(state.seats(Seat(Count::OfClass, state.subject(&target)))).unwrap_or(0) } else { 0 };
            Known { class: class.clone(), closed: state.is_closed(&target), live }
        };
        let rules = issuer.ledger.rules();
        (rules.classes.values().filter(|class| operator || spawns(class)).map(known).collect(), state.revision)
    })
}

/// A revocation, as its target is now.
pub struct Made {
    /// What was revoked.
    pub target: Target,
    /// Its standing.
    pub standing: TargetStanding,
    /// Everything that relies on it since a revision before this one is revoked.
    pub before: u64,
}

/// A page of what was revoked in the order of the records, the revision to continue after, and the revision at which it was read.
pub fn cuts(issuer: &Issuer, after: u64, size: usize) -> (Vec<Made>, Option<u64>, u64) {
    let size = if size == 0 { 100 } else { size.min(PAGE) };
    issuer.ledger.read(|state| {
        let made = |(target, standing, before): (&Target, &TargetStanding, u64)| Made {
            target: target.clone(),
            standing: standing.clone(),
            before,
        };
        let mut page: Vec<Made> = state.standings_after(after).take(size + 1).map(made).collect();
        let more = page.len() > size;
        page.truncate(size);
        let next = page.last().filter(|_| more).map(|made| made.standing.revision);
        (page, next, state.revision)
    })
}
