//! What a revocation is about, from the wire.

use mayfly_agent::api::v1;
use mayfly_verify::{DelegationId, NameError, Target, User};

use crate::denial::Denial;
use crate::stories::{Issuer, issue};

/// The target of a cut.
pub(super) fn revoked(issuer: &Issuer, target: Option<v1::Target>) -> Result<Target, Denial> {
    use v1::target::Target as Wire;
    match target.and_then(|t| t.target) {
        Some(Wire::Agent(agent)) => Ok(Target::Agent(issue::agent_id(issuer, &agent)?)),
        Some(Wire::User(u)) => Ok(user(u)),
        Some(Wire::Delegation(id)) => Ok(Target::Delegation(DelegationId(digest("DELEGATION_MALFORMED", &id)?))),
        Some(Wire::Workload(name)) => workload(&name),
        Some(Wire::Class(name)) => class(&name),
        Some(Wire::Key(key)) => Ok(Target::Key(digest("KEY_MALFORMED", &key)?)),
        // T11: an unset oneof, or an arm of a later version.
        None => {
            let message = "say what to revoke: an agent, a user, a workload, a class, a delegation or a key";
            Err(Denial::malformed("TARGET_MISSING", message))
        }
    }
}

/// The target of a reopening.
pub(super) fn reopened(target: Option<v1::reopen_request::Target>) -> Result<Target, Denial> {
    use v1::reopen_request::Target as Wire;
    match target {
        Some(Wire::User(u)) => Ok(user(u)),
        Some(Wire::Workload(name)) => workload(&name),
        Some(Wire::Class(name)) => class(&name),
        None => Err(Denial::malformed("TARGET_MISSING", "say what to reopen: a user, a workload or a class")),
    }
}

fn user(u: v1::User) -> Target {
    Target::User(User { iss: u.iss, sub: u.sub })
}

fn workload(name: &str) -> Result<Target, Denial> {
    let malformed = |e: NameError| Denial::malformed("WORKLOAD_MALFORMED", e.to_string());
    Ok(Target::Workload(name.parse().map_err(malformed)?))
}

fn class(name: &str) -> Result<Target, Denial> {
    let malformed = |e: NameError| Denial::malformed("CLASS_MALFORMED", e.to_string());
    Ok(Target::Class(name.parse().map_err(malformed)?))
}

fn digest(code: &'static str, text: &str) -> Result<[u8; 32], Denial> {
    let mut bytes = [0u8; 32];
    let malformed = |_| Denial::malformed(code, "write the SHA-256 as 64 hexadecimal digits");
    hex::decode_to_slice(text, &mut bytes).map_err(malformed)?;
    Ok(bytes)
}
