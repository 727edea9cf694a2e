//! Reads the target of a revocation from the wire, and writes its receipt.

use std::cmp::Reverse;

use mayfly_agent::api::v1;
use mayfly_verify::{DelegationId, NameError, Target, User};

use super::message::{timestamp, user_message};
use crate::acts::Issuer;
use crate::acts::inspect::Made;
use crate::acts::revoke::{Reach, Revoked, What};
use crate::clock::SECOND;
use crate::denial::{Denial, Kind};

/// Most users that a dry run names.
const USERS: usize = 1000;

/// The target of a cut.
pub(super) fn revoked(issuer: &Issuer, target: Option<v1::Target>) -> Result<What, Denial> {
    use v1::target::Target as Wire;
    let target = match target.and_then(|t| t.target) {
        Some(Wire::RecordedBefore(time)) => return Ok(What::Before(microseconds(&time)?)),
        Some(Wire::Agent(agent)) => Ok(Target::Agent(issuer.agent_id(&agent)?)),
        Some(Wire::User(u)) => user(issuer, u).map(Target::User),
        Some(Wire::Delegation(id)) => Ok(Target::Delegation(delegation(&id)?)),
        Some(Wire::Workload(name)) => workload(&name),
        Some(Wire::Class(name)) => class(&name),
        Some(Wire::Key(key)) => Ok(Target::Key(digest("KEY_MALFORMED", &key)?)),
        Some(Wire::Issuer(name)) => provider(issuer, name).map(Target::Issuer),
        Some(Wire::Token(_)) => {
            let message = "an access token is revoked by whoever holds it, with `Tokens.Revoke` or at `/oauth/revoke`";
            Err(Denial::malformed("TARGET_MISSING", message))
        }
        // T11: an unset oneof, or an arm of a later version.
        None => {
            let message =
                "say what to revoke: an agent, a user, an issuer of users, a workload, a class, a delegation, a key or a time";
            Err(Denial::malformed("TARGET_MISSING", message))
        }
    };
    target.map(What::Target)
}

pub(super) fn microseconds(time: &prost_types::Timestamp) -> Result<u64, Denial> {
    let (seconds, nanos) = (u64::try_from(time.seconds), u64::try_from(time.nanos));
    match (seconds, nanos) {
        // In a record, 0 means no time.
        (Ok(seconds), Ok(nanos)) if seconds > 0 && nanos < 1_000_000_000 => {
            Ok(seconds.saturating_mul(SECOND).saturating_add(nanos / 1000))
        }
        _ => Err(Denial::malformed("TIME_MALFORMED", "write a time after 1970, with 0 to 999,999,999 nanoseconds")),
    }
}

/// The receipt of a revocation.
pub(super) fn receipt(revoked: &Revoked) -> v1::RevokeResponse {
    let Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at } = *revoked;
    let recorded_at = Some(timestamp(at / SECOND));
    v1::RevokeResponse { revision, agents_at_most, open_for_new, worst_case_seconds, recorded_at, ..Default::default() }
}

/// The answer to a dry run: agents are counted one by one, each at the moment at which it is visited.
pub(super) fn would_end(issuer: &Issuer, revoked: &Revoked, reach: Reach) -> v1::RevokeResponse {
    use v1::agent_count::Of;
    let count = |(of, agents)| v1::AgentCount { of: Some(of), agents };
    let mut users: Vec<_> = reach.users.into_iter().collect();
    users.sort_by(|(a, m), (b, n)| (Reverse(m), &a.iss, &a.sub).cmp(&(Reverse(n), &b.iss, &b.sub)));
    users.truncate(USERS);
    v1::RevokeResponse {
        agents_at_most: reach.agents,
        recorded_at: None,
        by_class: reach.classes.into_iter().map(|(class, n)| count((Of::Class(class.to_string()), n))).collect(),
        by_user: users.into_iter().map(|(u, n)| count((Of::User(user_message(issuer, &u)), n))).collect(),
        ..receipt(revoked)
    }
}

/// A revocation, with the names of what it revoked.
pub(super) fn made(issuer: &Issuer, made: Made) -> v1::MadeCut {
    use v1::target::Target as Wire;
    let Made { target, standing, before } = made;
    let wire = match target {
        Target::Agent(uuid) => {
            let id = |agent: &crate::state::Agent| agent.id(&issuer.trust_domain).to_string();
            Wire::Agent(issuer.ledger.read(|state| state.agent(&uuid).map(id)).unwrap_or_else(|| uuid.to_string()))
        }
        Target::User(u) => Wire::User(user_message(issuer, &u)),
        Target::Delegation(id) => Wire::Delegation(id.to_string()),
        Target::Workload(name) => Wire::Workload(name.to_string()),
        Target::Class(name) => Wire::Class(name.to_string()),
        Target::Key(key) => Wire::Key(hex::encode(key)),
        Target::TrustDomain => Wire::RecordedBefore(timestamp(standing.since / SECOND)),
        Target::Authority(id) => Wire::Key(hex::encode(id)),
        Target::Token(jti) => Wire::Token(jti),
        Target::Issuer(iss) => Wire::Issuer(iss),
    };
    v1::MadeCut {
        target: Some(v1::Target { target: Some(wire) }),
        revision: standing.revision,
        before: (before < u64::MAX).then_some(before),
        closed: standing.closed,
        reason: standing.why.reason.clone(),
        by: standing.why.by.clone(),
        recorded_at: Some(timestamp(standing.why.at / SECOND)),
        // A closed target has no end, and the cut at the beginning of an epoch is kept for good.
        kept_until: (standing.until < u64::MAX && !standing.closed).then(|| timestamp(standing.until / SECOND)),
    }
}

/// The target of a reopening.
pub(super) fn reopened(issuer: &Issuer, target: Option<v1::reopen_request::Target>) -> Result<Target, Denial> {
    use v1::reopen_request::Target as Wire;
    match target {
        Some(Wire::User(u)) => user(issuer, u).map(Target::User),
        Some(Wire::Workload(name)) => workload(&name),
        Some(Wire::Class(name)) => class(&name),
        Some(Wire::Issuer(name)) => provider(issuer, name).map(Target::Issuer),
        None => {
            let message = "say what to reopen: a user, an issuer of users, a workload or a class";
            Err(Denial::malformed("TARGET_MISSING", message))
        }
    }
}

/// Reads a user. A client on another machine may know only the configured name of a provider, not its URL.
pub(super) fn user(issuer: &Issuer, u: v1::User) -> Result<User, Denial> {
    Ok(User { iss: provider(issuer, u.iss)?, sub: u.sub })
}

/// The URL of an issuer of users. `iss` is this URL or the issuer's configured name.
fn provider(issuer: &Issuer, iss: String) -> Result<String, Denial> {
    match issuer.providers.load().urls.get(&iss) {
        Some(url) => Ok(url.clone()),
        None if iss.is_empty() || iss.contains("://") => Ok(iss),
        None => {
            let name: String = iss.chars().take(64).collect();
            let message = format!("no issuer of users is named `{name}`: write its name in the configuration, or its URL");
            Err(Denial::new(Kind::NotFound, "USER_ISSUER_UNKNOWN", message))
        }
    }
}

fn workload(name: &str) -> Result<Target, Denial> {
    let malformed = |e: NameError| Denial::malformed("WORKLOAD_MALFORMED", e.to_string());
    Ok(Target::Workload(name.parse().map_err(malformed)?))
}

fn class(name: &str) -> Result<Target, Denial> {
    let malformed = |e: NameError| Denial::malformed("CLASS_MALFORMED", e.to_string());
    Ok(Target::Class(name.parse().map_err(malformed)?))
}

/// A delegation, by its id.
pub(super) fn delegation(text: &str) -> Result<DelegationId, Denial> {
    Ok(DelegationId(digest("DELEGATION_MALFORMED", text)?))
}

fn digest(code: &'static str, text: &str) -> Result<[u8; 32], Denial> {
    let mut bytes = [0u8; 32];
    let malformed = |_| Denial::malformed(code, "write the SHA-256 as 64 hexadecimal digits");
    hex::decode_to_slice(text, &mut bytes).map_err(malformed)?;
    Ok(bytes)
}
