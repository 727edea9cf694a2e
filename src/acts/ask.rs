//! Ask: an agent asks a person for an approval, which its class requires for some requests. No call waits for the answer: the
//! question is a record.

use std::sync::Arc;

use mayfly_verify::approval::Shown;

use super::{Issuer, client, reach, webhook};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::action::{canonical, is_deceiving, read_actions};
use crate::judge::approval::Wanted;
use crate::judge::{Act, Chance, Check, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::{Agent, Approval, Count, Seat, seconds, waiting_seats};

/// Longest that a question may wait, in seconds, whatever the class says.
pub const LONGEST: u64 = 600;

/// The request as it comes from the wire.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Where the token will be accepted.
    pub audience: String,
    /// Scopes.
    pub scopes: Vec<String>,
    /// Actions: a JSON array; empty if there are none.
    pub details: String,
    /// Why.
    pub reason: String,
    /// Seconds for which it may wait; 0 asks for as long as the class allows.
    pub expires: u64,
}

/// A question.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked for.
    pub wanted: Wanted,
    /// Why.
    pub reason: String,
    /// Seconds for which it may wait.
    pub expires: u64,
    /// The JWT-SVID by which the caller has proved itself. `None` if that was a certificate.
    pub held: Option<Arc<client::Held>>,
}

/// Asks for an approval: the approval as it waits, and the revision of its record.
pub async fn ask(issuer: &Issuer, caller: Caller, asked: Asked) -> Result<(Approval, u64), No> {
    let Asked { audience, mut scopes, details, reason, expires } = asked;
    if audience.is_empty() || audience.len() > 256 {
        return Err(Denial::malformed("AUDIENCE_MALFORMED", "give one audience, of at most 256 bytes").into());
    }
    if scopes.len() > 16 || scopes.iter().any(|scope| scope.is_empty() || scope.len() > 128) {
        return Err(Denial::malformed("SCOPE_MALFORMED", "give at most 16 scopes, of at most 128 bytes each").into());
    }
    // T184: characters that could make a person read something else than was written are refused, and so are line breaks.
    if reason.len() > 256 || reason.chars().any(is_deceiving) {
        let message = "a reason has at most 256 bytes, in one line, without control characters";
        return Err(Denial::malformed("REASON_TOO_LONG", message).into());
    }
    scopes.sort_unstable();
    scopes.dedup();
    let actions = read_actions(&issuer.ledger.rules().actions, &details)?;
    let expires = if expires == 0 { LONGEST } else { expires.min(LONGEST) };
    let held = client::hold(issuer, &caller)?;
    let ask = Ask { wanted: Wanted { audience, scopes, actions }, reason, expires, held };
    let (approval, revision, is_new) = issuer.pipeline.record(caller, ask).await?;
    if is_new {
        webhook::tell(issuer, &approval);
    }
    reach::ask(issuer, &approval);
    Ok((approval, revision))
}

impl Record for Ask {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Act for Ask {
    /// The approval, the revision of its record, and whether it is new.
    type Permit = (Approval, u64, bool);

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<Self::Permit, No> {
        // 1. The caller. A JWT-SVID proves its agent for one request only.
        let (id, assertion) = match caller {
            Caller::Agent { id, .. } => (id, None),
            Caller::Bearer { id, jti, ends_at, .. } => (id, Some((jti, *ends_at))),
            _ => return Err(Denial::denied("ROLE_NOT_ALLOWED", "only agents ask for approvals").into()),
        };
        j.check_generation(caller)?;
        j.check_unused(caller)?;
        let agent = j.view().agent(&id.uuid).cloned().ok_or_else(|| Fault::new("ask", "the caller is gone"))?;
        // 2. May its class ask for this?
        let terms = j.terms(&agent, &self.wanted)?;
        let Wanted { audience, scopes, actions } = &self.wanted;
        let details = canonical(actions);
        // 3. What a person is shown. The same question again, while it waits, is the same approval.
        let shown = Shown {
            agent: &id.to_string(),
            audience,
            delegation: &agent.delegation.as_ref().map(|d| d.id.to_string()).unwrap_or_default(),
            scopes,
            details: &details,
            reason: &self.reason,
            uses: terms.uses,
            lasts: terms.lasts,
        };
        let digest = shown.digest().ok_or_else(|| Fault::new("ask", "actions that are no JSON"))?;
        if assertion.is_none()
            && let Some(waits) = j.view().waiting(&digest, j.at())
        {
            return Ok((waits.clone(), waits.revision, false));
        }
        // 4. There is room for one more.
        check_room(j, &agent)?;
        // 5. The question waits no longer than the authority that it is about can last.
        j.checking(Check::Lifetime);
        let most = j.now().saturating_add(self.expires.min(terms.expires)).min(agent.lease_ends_at);
        let ends_at = agent.delegation.as_ref().map_or(seconds(most), |delegation| seconds(most).min(delegation.ends_at));
        if ends_at <= j.at() {
            return Err(Denial::denied("DELEGATION_EXPIRED", "the delegation has ended: bring a fresh user token").into());
        }
        // 6. The record.
        let body = record::Asked {
            id: chance.nonce().to_vec(),
            agent: id.uuid.as_bytes().to_vec(),
            user: agent.delegation.as_ref().map(|d| record::User { iss: d.user.iss.clone(), sub: d.user.sub.clone() }),
            audience: audience.clone(),
            scopes: scopes.clone(),
            details,
            reason: self.reason.clone(),
            digest: digest.to_vec(),
            ends_at,
            uses: terms.uses,
            lasts: terms.lasts,
            assertion: assertion.map(|(jti, _)| jti.to_vec()).unwrap_or_default(),
            assertion_ends_at: assertion.map_or(0, |(_, ends_at)| ends_at),
        };
        let revision = j.push(caller, Body::Asked(body))?;
        let asked = j.view().approval(&chance.nonce()).cloned();
        Ok((asked.ok_or_else(|| Fault::new("ask", "the question is not in the state"))?, revision, true))
    }
}

/// T185: questions that wait are bounded for each agent, for each user, and in all.
fn check_room(j: &Judgement<'_>, agent: &Agent) -> Result<(), Denial> {
    j.checking(Check::Approval);
    let most = j.rules().waiting;
    let of_user = agent.delegation.as_ref().map(|delegation| &delegation.user);
    let bounds = [("agent", most.per_agent), ("user", most.per_user), ("issuer", most.total)];
    for (subject, (per, most)) in waiting_seats(agent.uuid, of_user).into_iter().zip(bounds) {
        let Some(subject) = subject else { continue };
        if j.view().seats(Seat(Count::Waiting, subject)) >= most {
            let message = format!("{most} approvals are waiting already for one {per}: wait until they are answered, or expire");
            let denial = Denial::new(Kind::Exhausted, "LIMIT_REACHED", message).with("limit", format!("approvals.per_{per}"));
            return Err(denial
                .with("per", per)
                .with("measure", "live")
                .with("value", most.to_string())
                .retry_after(Some(SECOND)));
        }
    }
    Ok(())
}
