//! Checks that a caller is still valid: when its request arrives, at the commit, and before a signature is released.

use mayfly_verify::{Target, Workload};

use super::Rules;
use super::assignment::{Office, office};
use super::{check_issuer_open, check_token};
use crate::caller::{Caller, unauthenticated};
use crate::denial::Denial;
use crate::state::{Generation, Owner, View, seconds};

/// Checks that a caller's credential is still valid at `at` (Unix microseconds). Returns the generation of an agent's certificate;
/// for a caller that is no agent this is `Current`.
pub fn who(view: &impl View, rules: &Rules, caller: &Caller, at: u64) -> Result<Generation, Denial> {
    match caller {
        Caller::Stranger | Caller::Operator { by: None, .. } | Caller::Auditor { by: None, .. } => Ok(Generation::Current),
        // A token from before the user's last revocation is refused once they are open again. While they are closed, everything of
        // theirs is revoked already, and a repeated request gets the same answer. While their issuer is closed, its keys may be
        // stolen, so the token is refused.
        Caller::User { user, issued_at, .. } => {
            check_issuer_open(view, &user.iss)?;
            if !view.is_closed(&Target::User(user.clone())) {
                check_token(view, user, *issued_at)?;
            }
            Ok(Generation::Current)
        }
        // T240: revoking a user also ends their rights as an operator. The present configuration decides on those rights.
        Caller::Person { user, provider, issued_at, ends_at, .. } => {
            if rules.issuers.get(&user.iss) != Some(provider) {
                return Err(unauthenticated("CALLER_UNKNOWN", "the provider of this token is no longer configured"));
            }
            check_issuer_open(view, &user.iss)?;
            if view.is_closed(&Target::User(user.clone())) {
                return Err(Denial::denied("USER_CLOSED", "this user was revoked: an operator must reopen them"));
            }
            check_token(view, user, *issued_at)?;
            if at >= seconds(*ends_at) {
                let message = "the token has expired or is too old: bring a fresh one";
                return Err(Denial::denied("USER_TOKEN_EXPIRED", message));
            }
            Ok(Generation::Current)
        }
        // An operator is also a workload or a person, and is refused when that one is.
        Caller::Operator { by: Some(by), .. } => {
            let generation = who(view, rules, by, at)?;
            operates(view, rules, by)?;
            Ok(generation)
        }
        Caller::Auditor { by: Some(by), .. } => {
            let generation = who(view, rules, by, at)?;
            audits(view, rules, by)?;
            Ok(generation)
        }
        Caller::Workload { name, key, serial, opened, authority } => {
            // Its keys were revoked because it was closed, so the denial says that it is closed.
            if view.key_revoked(key) && view.is_closed(&Target::Workload(Workload::Own(name.clone()))) {
                return Err(workload_closed());
            }
            check_signature(view, key, authority)?;
            match view.owner(key) {
                Some(Owner::Workload(owner, ends_at)) if owner == name && at < seconds(ends_at) => {}
                _ => {
                    let message = "this key is not certified for the workload: redeem a fresh join token";
                    return Err(unauthenticated("WORKLOAD_UNKNOWN", message));
                }
            }
            if !rules.workloads.contains(name) {
                return Err(unauthenticated("WORKLOAD_UNKNOWN", "the workload is no longer configured"));
            }
            Ok(generation_of_workload(view, key, serial, *opened))
        }
        // A foreign trust domain certified it, so there is no key in our state. A class must list it, and it must not have expired.
        Caller::Foreign { ends_at, .. } => {
            if at >= seconds(*ends_at) {
                return Err(unauthenticated("CREDENTIAL_EXPIRED", "the certificate has expired"));
            }
            if !rules.classes.values().any(|class| class.workloads.iter().any(|listed| caller.is(listed))) {
                return Err(unauthenticated("CALLER_UNKNOWN", "no class lists the caller as a spawner"));
            }
            Ok(Generation::Current)
        }
        // A JWT-SVID does not prove the agent's key, so only its authority and its agent are checked.
        Caller::Bearer { id, incarnation, authority, ends_at, .. } => {
            if view.authority_tainted(authority) {
                let message = "the authority that signed this JWT-SVID is tainted: nothing it signed is valid";
                return Err(unauthenticated("AUTHORITY_TAINTED", message));
            }
            if at >= seconds(*ends_at) {
                return Err(unauthenticated("CREDENTIAL_EXPIRED", "the JWT-SVID has expired"));
            }
            let Some(agent) = view.agent(&id.uuid).filter(|_| *incarnation == view.incarnation()) else {
                return Err(unauthenticated("AGENT_UNKNOWN", "this issuer does not know the agent"));
            };
            match view.standing(agent, at).refusal() {
                Some((code, message)) => Err(unauthenticated(code, message)),
                None => Ok(Generation::Current),
            }
        }
        Caller::Agent { id, key, serial, incarnation, authority, .. } => {
            check_signature(view, key, authority)?;
            let ours = *incarnation == view.incarnation() && view.owner(key) == Some(Owner::Agent(id.uuid));
            let Some(agent) = view.agent(&id.uuid).filter(|_| ours) else {
                return Err(unauthenticated("AGENT_UNKNOWN", "this issuer does not know the agent"));
            };
            if let Some((code, message)) = view.standing(agent, at).refusal() {
                return Err(unauthenticated(code, message));
            }
            Ok(agent.generation(serial))
        }
    }
}

/// The generation of a workload's certificate in its line of renewals. On a connection that was opened before the certificate was
/// replaced it counts as current, because programs with long connections are not notified of renewals.
fn generation_of_workload(view: &impl View, key: &[u8; 32], serial: &[u8], opened: u64) -> Generation {
    let Some((_, line)) = view.line(key) else { return Generation::Replaced };
    match line.generation(serial) {
        Generation::Past if line.replaced_at(serial).is_some_and(|(revision, _)| opened < revision) => Generation::Current,
        generation => generation,
    }
}

/// Checks that a workload or a person may act as an operator now.
pub fn operates(view: &impl View, rules: &Rules, caller: &Caller) -> Result<(), Denial> {
    let listed = matches!(caller, Caller::Workload { name, .. } if rules.operators.contains(name));
    if !listed && office(rules, caller) != Some(Office::Operator) {
        return Err(Denial::denied("ROLE_NOT_ALLOWED", "this identity is no longer an operator"));
    }
    open_workload(view, caller)
}

/// Checks that a workload or a person may act as an auditor now. Operators may too.
pub fn audits(view: &impl View, rules: &Rules, caller: &Caller) -> Result<(), Denial> {
    let listed = matches!(caller, Caller::Workload { name, .. } if rules.auditors.contains(name));
    if !listed && office(rules, caller).is_none() {
        return Err(Denial::denied("ROLE_NOT_ALLOWED", "this identity is no longer an auditor"));
    }
    open_workload(view, caller)
}

fn open_workload(view: &impl View, caller: &Caller) -> Result<(), Denial> {
    if caller.workload().is_some_and(|workload| view.is_closed(&Target::Workload(workload))) {
        return Err(workload_closed());
    }
    Ok(())
}

/// T42: the chain still leads to our root, but nothing that a tainted authority signed is valid, nor any certificate of a
/// revoked key.
fn check_signature(view: &impl View, key: &[u8; 32], authority: &[u8]) -> Result<(), Denial> {
    if view.authority_tainted(authority) {
        let message = "the authority that signed this certificate is tainted: nothing it signed is valid";
        return Err(unauthenticated("AUTHORITY_TAINTED", message));
    }
    if view.key_revoked(key) {
        return Err(unauthenticated("KEY_REVOKED", "the key of this certificate was revoked: make a new one"));
    }
    Ok(())
}

/// The denial for requests in the name of a closed workload.
pub(super) fn workload_closed() -> Denial {
    Denial::denied("WORKLOAD_CLOSED", "this workload was revoked: an operator must reopen it")
}
