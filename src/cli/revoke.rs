//! `mayfly revoke` and `mayfly reopen`.

use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::json;

use super::act::{as_identity, operator};
use super::{Acting, Common, Failure, ReopenTarget, RevokeTarget, USAGE, show};
use crate::home;

pub(super) async fn cut(
    common: &Common,
    acting: &Acting,
    target: RevokeTarget,
    reason: String,
    allow_new: bool,
) -> Result<(), Failure> {
    let target = Some(v1::Target { target: Some(wire(common, target)?) });
    let channel = match &acting.identity {
        Some(dir) => as_identity(common, acting, dir).await?,
        None => operator(common).await?,
    };
    let got = OperationsClient::new(channel).revoke(v1::RevokeRequest { target, reason, allow_new }).await?.into_inner();
    let object = json!({ "revision": got.revision, "agents_at_most": got.agents_at_most, "open_for_new": got.open_for_new,
        "worst_case_seconds": got.worst_case_seconds, "recorded_at": show::stamp(got.recorded_at.as_ref()) });
    show::either(common, &object, || {
        format!(
            "revoked at revision {}: at most {} live agents end\nnew issuance is {}\n\
             a verifier that hears nothing accepts what is out for at most {} seconds",
            got.revision,
            got.agents_at_most,
            if got.open_for_new { "open" } else { "closed" },
            got.worst_case_seconds
        )
    })
}

pub(super) async fn reopen(common: &Common, target: ReopenTarget) -> Result<(), Failure> {
    use v1::reopen_request::Target;
    let target = match target {
        ReopenTarget { user: Some(user), .. } => Target::User(user_of(common, &user)?),
        ReopenTarget { workload: Some(name), .. } => Target::Workload(name),
        ReopenTarget { class: Some(name), .. } => Target::Class(name),
        _ => return Err(Failure::new(USAGE, "say what to reopen: --user, --workload or --class")),
    };
    let of_user = matches!(target, Target::User(_));
    let request = v1::ReopenRequest { target: Some(target) };
    let got = OperationsClient::new(operator(common).await?).reopen(request).await?.into_inner();
    // Tokens tell whole seconds: one of this very second may be from before. When we return, fresh ones count.
    let second = got.recorded_at.as_ref().map_or(0, |t| t.seconds);
    while of_user && i64::try_from(crate::clock::Clock::system().seconds()).unwrap_or(i64::MAX) <= second {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let object = json!({ "revision": got.revision, "recorded_at": show::stamp(got.recorded_at.as_ref()) });
    let whom = if of_user { ", for user tokens issued from now on" } else { "; what was revoked stays revoked" };
    show::either(common, &object, || format!("open again at revision {}{whom}", got.revision))
}

fn wire(common: &Common, target: RevokeTarget) -> Result<v1::target::Target, Failure> {
    use v1::target::Target;
    Ok(match target {
        RevokeTarget { agent: Some(id), .. } => Target::Agent(id),
        RevokeTarget { user: Some(user), .. } => Target::User(user_of(common, &user)?),
        RevokeTarget { root: Some(name), .. } => Target::Workload(name),
        RevokeTarget { class: Some(name), .. } => Target::Class(name),
        RevokeTarget { delegation: Some(id), .. } => Target::Delegation(id),
        RevokeTarget { key: Some(key), .. } => Target::Key(key),
        _ => return Err(Failure::new(USAGE, "say what to revoke, such as --agent or --user")),
    })
}

/// `dev/demo`: the configured name of an issuer, and a subject there.
fn user_of(common: &Common, text: &str) -> Result<v1::User, Failure> {
    let at = home::endpoint(&common.home).map_err(|e| Failure::new(5, e))?;
    let (name, sub) = text
        .split_once('/')
        .ok_or_else(|| Failure::new(USAGE, format!("`{text}`: write <issuer>/<subject>, such as dev/demo")))?;
    let known = || at.issuers.keys().cloned().collect::<Vec<_>>().join(", ");
    let iss = at
        .issuers
        .get(name)
        .ok_or_else(|| Failure::new(1, format!("there is no issuer `{name}`: configured are {}", known())))?;
    Ok(v1::User { iss: iss.clone(), sub: sub.to_owned() })
}
