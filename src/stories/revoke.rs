//! Revoke: cuts, reopening, ends, and join tokens, which operators hand out.

use mayfly_agent::ticket::Ticket;
use mayfly_verify::{Target, WorkloadName, sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::Issuer;
use super::desk::Done;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, No};
use crate::registry::{Ask, Outcome, Proposal};

/// Seconds a join token lasts at most.
pub const TICKET_LIFE: u64 = 600;

/// Cuts a target; a user, a workload or a class is closed by that, unless `allow_new`.
pub async fn cut(issuer: &Issuer, caller: Caller, target: Target, reason: String, allow_new: bool) -> Result<Outcome, No> {
    let reason = short(reason)?;
    recorded(issuer, caller, Proposal::Revoke { target: sound(target)?, reason, allow_new }).await
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
