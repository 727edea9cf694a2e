//! Revoke: cuts, reopening, ends, and join tokens, which operators hand out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mayfly_agent::ticket::Ticket;
use mayfly_verify::{ClassName, Target, User, WorkloadName, sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Issuer;
use super::desk::Done;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::registry::state::{Agent, Standing};
use crate::registry::{Ask, Outcome, Proposal, Since};

/// Seconds a join token lasts at most.
pub const TICKET_LIFE: u64 = 600;

/// What is to be cut.
pub enum What {
    /// A target.
    Target(Target),
    /// Everything that was recorded before a time, in unix microseconds.
    Before(u64),
}

/// How it is to be cut.
pub struct How {
    /// Why; stays inside.
    pub reason: String,
    /// Leave a user, a workload or a class open for what is new.
    pub allow_new: bool,
}

/// Cuts a target; a user, a workload or a class is closed by that, unless `allow_new`.
pub async fn cut(issuer: &Issuer, caller: Caller, what: What, how: How) -> Result<Outcome, No> {
    let proposal = proposal(issuer, what, how, false).await?;
    recorded(issuer, caller, proposal).await
}

/// The live agents that a cut would end, after the same decision, and recorded nowhere.
pub async fn would_end(issuer: &Arc<Issuer>, caller: Caller, what: What, how: How) -> Result<(Outcome, Reach), No> {
    let proposal = proposal(issuer, what, how, true).await?;
    let Proposal::Revoke { target, since, .. } = &proposal else { return Err(Fault::new("revoke", "no cut").into()) };
    let (target, before) = (target.clone(), since.map_or(u64::MAX, |since| since.revision));
    let outcome = recorded(issuer, caller, proposal).await?;
    // Every agent is looked at: whoever may ask for it must not make the others wait.
    let _place = issuer
        .counting
        .try_acquire()
        .map_err(|_| Denial::new(Kind::Exhausted, "BUSY", "another dry run is being counted: ask again in a moment"))?;
    let counting = Arc::clone(issuer);
    let counted = tokio::task::spawn_blocking(move || reach(&counting, &target, before)).await;
    Ok((outcome, counted.map_err(|e| Fault::new("count", e))?))
}

/// Who takes back what is theirs: a person, by a token for an audience that is configured for that.
pub async fn person(issuer: &Issuer, token: &str) -> Result<Caller, Denial> {
    let delegator = super::issue::verify_user(issuer, token).await?;
    if !delegator.revokes() {
        let message = "tokens of this audience do not revoke: use one of an audience that is configured with `revokes = true`";
        return Err(Denial::denied("USER_TOKEN_AUDIENCE", message));
    }
    Ok(Caller::User(delegator.user().clone()))
}

async fn proposal(issuer: &Issuer, what: What, how: How, dry: bool) -> Result<Proposal, No> {
    let (reason, allow_new) = (short(how.reason)?, how.allow_new);
    let (target, since) = match what {
        What::Target(target) => (sound(target)?, None),
        What::Before(time) => {
            if time > issuer.clock.now() {
                let message = "the time lies in the future: nothing can be known of what is recorded until then";
                return Err(Denial::malformed("TIME_IN_FUTURE", message).into());
            }
            let registry = issuer.registry.clone();
            let revision = tokio::task::spawn_blocking(move || registry.revision_at(time)).await;
            let revision = revision.map_err(|e| Fault::new("revoke", e))??;
            (Target::TrustDomain, Some(Since { revision, time }))
        }
    };
    Ok(Proposal::Revoke { target, since, dry, reason, allow_new })
}

/// Live agents by class and by user.
#[derive(Default)]
pub struct Reach {
    /// All of them.
    pub agents: u64,
    /// By class.
    pub classes: BTreeMap<ClassName, u64>,
    /// By user; the autonomous are nobody's.
    pub users: HashMap<User, u64>,
}

/// Agents that are looked at under one lock.
const LOOK: usize = 1000;

fn reach(issuer: &Issuer, target: &Target, before: u64) -> Reach {
    let (mut reach, mut after) = (Reach::default(), None);
    let (subject, now) = (target.subject(), issuer.clock.now());
    let hit = |agent: &Agent| match target {
        Target::Key(key) => agent.current.iter().chain(&agent.rare.next).any(|c| c.key == *key),
        _ => agent.stamps().any(|s| s.subject == subject && s.since < before),
    };
    loop {
        let seen = issuer.registry.read(|state| {
            let mut seen = 0;
            for agent in state.agents_after(after).take(LOOK) {
                (seen, after) = (seen + 1, Some(agent.uuid));
                if hit(agent) && state.standing(agent, now) == Standing::Live {
                    reach.agents += 1;
                    *reach.classes.entry(agent.mandate.class.clone()).or_default() += 1;
                    if let Some(delegation) = &agent.delegation {
                        *reach.users.entry(delegation.user.clone()).or_default() += 1;
                    }
                }
            }
            seen
        });
        if seen < LOOK {
            return reach;
        }
    }
}

/// Opens a user, a workload or a class again.
pub async fn reopen(issuer: &Issuer, caller: Caller, target: Target) -> Result<Outcome, No> {
    recorded(issuer, caller, Proposal::Reopen { target: sound(target)? }).await
}

fn sound(target: Target) -> Result<Target, Denial> {
    match &target {
        Target::User(u) if u.iss.is_empty() || u.sub.is_empty() || u.iss.len() > 512 || u.sub.len() > 255 => {
            Err(Denial::malformed("USER_MALFORMED", "a user is an issuer URL and a subject, neither empty"))
        }
        _ => Ok(target),
    }
}

/// Ends an agent; none: the caller itself.
pub async fn end(issuer: &Issuer, caller: Caller, agent: Option<Uuid>) -> Result<Outcome, No> {
    recorded(issuer, caller, Proposal::End { agent }).await
}

/// Makes a join token; 0 seconds: as long as allowed. Gives the ticket, its end in unix microseconds, its revision.
pub async fn join_token(issuer: &Issuer, caller: Caller, workload: WorkloadName, ttl: u64) -> Result<(Ticket, u64, u64), No> {
    if ttl > TICKET_LIFE {
        return Err(Denial::malformed("TTL_TOO_LONG", format!("a join token lasts {TICKET_LIFE} seconds at most")).into());
    }
    let ttl = if ttl == 0 { TICKET_LIFE } else { ttl };
    let mut secret = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|e| Fault::new("join token", e))?;
    let hash = sha256(secret.as_slice());
    match recorded(issuer, caller, Proposal::Ticket { workload, hash, ttl }).await? {
        Outcome::Ticketed { ends_at, revision } => Ok((super::issue::ticket(issuer, &secret)?, ends_at, revision)),
        _ => Err(Fault::new("join token", "another outcome").into()),
    }
}

async fn recorded(issuer: &Issuer, caller: Caller, proposal: Proposal) -> Result<Outcome, No> {
    match issuer.desk.run(Ask { caller, proposal }, Vec::new()).await? {
        Done::Recorded(outcome) => Ok(outcome),
        _ => Err(Fault::new("record", "another outcome").into()),
    }
}

fn short(reason: String) -> Result<String, Denial> {
    if reason.len() > 256 { Err(Denial::malformed("REASON_TOO_LONG", "a reason has at most 256 bytes")) } else { Ok(reason) }
}
