//! Approvals: reads one, or lists those that a caller may see. Nothing is recorded.

use super::Issuer;
use crate::caller::Caller;
use crate::denial::Denial;
use crate::judge::approval::{sees, standing, unknown_approval};
use crate::state::{Agent, Approval, Status};

/// Approvals of one answer at most.
const MOST: usize = 1000;

/// An approval as it stands, with the agent that asked.
pub struct Known {
    /// The approval.
    pub approval: Approval,
    /// How it stands.
    pub status: Status,
    /// The agent.
    pub agent: Agent,
}

/// The id of an approval from 32 hexadecimal digits.
pub fn id(text: &str) -> Result<[u8; 16], Denial> {
    let mut id = [0; 16];
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let read = hex::decode_to_slice(text, &mut id).ok().filter(|()| lower);
    read.map(|()| id).ok_or_else(unknown_approval)
}

/// The address of the page for one approval. `None` if nobody can sign in there.
pub fn page(issuer: &Issuer, id: [u8; 16]) -> Option<String> {
    let rules = issuer.ledger.rules();
    let served = rules.client_audience.as_ref()?;
    issuer.providers.load().assertions.sign_ins().next()?;
    Some(format!("{served}/me/approvals/{}", hex::encode(id)))
}

/// One approval. T13: one of which the caller may not know looks as if it did not exist.
pub fn get(issuer: &Issuer, caller: &Caller, text: &str) -> Result<Known, Denial> {
    let (id, now, rules) = (id(text)?, issuer.clock.now(), issuer.ledger.rules());
    let found = issuer.ledger.read(|state| {
        let approval = state.approval(&id)?;
        let agent = state.agent(&approval.agent).filter(|agent| sees(&rules, caller, agent, approval))?;
        Some(Known { approval: approval.clone(), status: standing(state, approval, now), agent: agent.clone() })
    });
    found.ok_or_else(unknown_approval)
}

/// The approvals that a caller may see, the newest first, and the revision at which they were read. Without `all` only those that
/// can still be answered or used.
pub fn list(issuer: &Issuer, caller: &Caller, all: bool) -> (Vec<Known>, u64) {
    let (now, rules) = (issuer.clock.now(), issuer.ledger.rules());
    issuer.ledger.read(|state| {
        let seen = state.approvals().filter_map(|approval| {
            let agent = state.agent(&approval.agent).filter(|agent| sees(&rules, caller, agent, approval))?;
            let status = standing(state, approval, now);
            let open = matches!(status, Status::Pending | Status::Approved);
            (all || open).then_some((approval, status, agent))
        });
        let mut seen: Vec<_> = seen.collect();
        seen.sort_unstable_by_key(|(approval, ..)| std::cmp::Reverse(approval.revision));
        seen.truncate(MOST);
        let known = |(approval, status, agent): (&Approval, Status, &Agent)| Known {
            approval: approval.clone(),
            status,
            agent: agent.clone(),
        };
        (seen.into_iter().map(known).collect(), state.revision)
    })
}
