//! Answer: a person approves or denies what an agent asked for.

use mayfly_verify::sha256;

use super::{Issuer, approvals};
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::action::{all_within, canonical, read_actions};
use crate::judge::approval::{may_answer, not_approved, standing, unknown_approval};
use crate::judge::{Act, Chance, Check, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::{Approval, Status, View, seconds};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The approval.
    pub id: [u8; 16],
    /// What they say.
    pub says: Says,
    /// SHA-256 of the token by which the person proved themselves.
    pub evidence: [u8; 32],
    /// How they signed in (`acr`), empty if nobody said; where their provider asked them. `None` if they came by themselves.
    pub at_provider: Option<String>,
}

/// What a person says.
#[derive(Clone, Debug)]
pub enum Says {
    /// No.
    No,
    /// Yes, to all that was shown.
    Yes {
        /// The digest of what was shown.
        shown: [u8; 32],
    },
    /// Yes, to a part of what was shown.
    Part {
        /// The digest of what was shown.
        shown: [u8; 32],
        /// The actions: a JSON array; empty if there are none.
        details: String,
        /// Scopes.
        scopes: Vec<String>,
    },
}

/// Approves or denies. `token` is the one by which the person proved themselves. Returns the approval as it stands then, and the revision of
/// the record.
pub async fn answer(issuer: &Issuer, caller: Caller, id: &str, token: &str, says: Says) -> Result<(Approval, u64), No> {
    let (id, evidence) = (approvals::id(id)?, sha256(token.as_bytes()));
    record_answer(issuer, caller, Answer { id, says, evidence, at_provider: None }).await
}

/// Records an answer, and tells whoever waits for it.
pub(super) async fn record_answer(issuer: &Issuer, caller: Caller, answer: Answer) -> Result<(Approval, u64), No> {
    let id = answer.id;
    let answered = issuer.pipeline.record(caller, answer).await?;
    issuer.pings.answered(&id);
    Ok(answered)
}

/// The digest of what a person was shown, from 64 hexadecimal digits.
pub fn digest(text: &str) -> Result<[u8; 32], Denial> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).map(|()| digest).map_err(|_| changed())
}

fn changed() -> Denial {
    let message = "this is not the digest of what the agent asks for: look at it again, and answer what it is";
    Denial::new(Kind::Precondition, "APPROVAL_CHANGED", message)
}

impl Record for Answer {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Act for Answer {
    type Permit = (Approval, u64);

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Self::Permit, No> {
        let Caller::User { user, .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only people answer").into());
        };
        // 1. The person must be one who was asked. T13: a question to somebody else looks as if it did not exist.
        j.checking(Check::Ownership);
        let approval = j.view().approval(&self.id).ok_or_else(unknown_approval)?.clone();
        let agent = j.view().agent(&approval.agent).ok_or_else(unknown_approval)?.clone();
        if !may_answer(j.rules(), &agent, &approval, user) {
            return Err(unknown_approval().into());
        }
        if j.view().is_closed(&mayfly_verify::Target::User(user.clone())) {
            return Err(Denial::denied("USER_CLOSED", "you were revoked: an operator must reopen you").into());
        }
        // 2. An approval is answered once, and only while the agent and everything that it relies on is valid.
        j.checking(Check::Approval);
        match standing(j.view(), &approval, j.at()) {
            Status::Pending => {}
            Status::Denied | Status::Used => return Err(not_approved(Status::Approved).into()),
            status => return Err(not_approved(status).into()),
        }
        // 3. T183: the person approves exactly what they were shown, or a part of it.
        if let Says::Yes { shown } | Says::Part { shown, .. } = &self.says
            && *shown != approval.digest
        {
            return Err(changed().into());
        }
        let narrowed = self.part(j, &approval)?;
        // 4. The record. An approval lasts no longer than the authority that it is about.
        j.checking(Check::Lifetime);
        let most = j.at().saturating_add(seconds(approval.lasts)).min(seconds(agent.lease_ends_at));
        let ends_at = agent.delegation.as_ref().map_or(most, |delegation| most.min(delegation.ends_at));
        let body = record::Answered {
            id: self.id.to_vec(),
            approved: !matches!(self.says, Says::No),
            by: Some(record::User { iss: user.iss.clone(), sub: user.sub.clone() }),
            evidence: self.evidence.to_vec(),
            ends_at,
            narrowed,
            at_provider: self.at_provider.is_some(),
            acr: self.at_provider.clone().unwrap_or_default(),
        };
        let revision = j.push(caller, Body::Answered(body))?;
        let answered = j.view().approval(&self.id).cloned();
        Ok((answered.ok_or_else(|| Fault::new("answer", "the approval is not in the state"))?, revision))
    }
}

impl Answer {
    /// T270: the part that is approved, within what was asked for. `None` approves all of it, or nothing.
    fn part(&self, j: &Judgement<'_>, approval: &Approval) -> Result<Option<record::Narrowed>, Denial> {
        let Says::Part { details, scopes, .. } = &self.says else { return Ok(None) };
        let types = &j.rules().actions;
        let (actions, asked) = (read_actions(types, details)?, read_actions(types, &approval.details)?);
        let mut scopes = scopes.clone();
        scopes.sort_unstable();
        scopes.dedup();
        if actions.is_empty() && scopes.is_empty() {
            return Err(Denial::malformed("ACTION_MALFORMED", "nothing is left of what was asked for: deny it"));
        }
        if !all_within(&actions, &asked) || !scopes.iter().all(|scope| approval.scopes.contains(scope)) {
            let message = "this is not within what the agent asked for: an answer makes it narrower, and nothing else";
            return Err(Denial::denied("ACTION_NOT_ALLOWED", message));
        }
        Ok(Some(record::Narrowed { details: canonical(&actions), scopes }))
    }
}
