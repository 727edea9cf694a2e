//! `mayfly revoke`, `mayfly reopen` and `mayfly cuts`.

use std::path::PathBuf;
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::act::{as_identity, as_stranger, operator, read_text};
use super::{Acting, Common, Failure, ReopenTarget, RevokeTarget, USAGE, show};
use crate::home;

/// Who revokes: an operator, an identity, or a user.
pub(super) struct By {
    pub(super) acting: Acting,
    pub(super) user_token: Option<PathBuf>,
    pub(super) bundle: Option<PathBuf>,
}

pub(super) async fn cut(common: &Common, by: &By, target: RevokeTarget, mut request: v1::RevokeRequest) -> Result<(), Failure> {
    request.target = Some(v1::Target { target: Some(wire(common, target)?) });
    if let Some(file) = &by.user_token {
        request.user_token = read_text(file)?.trim().to_owned();
    }
    let channel = match &by.user_token {
        Some(_) => as_stranger(common, by.acting.server.as_deref(), by.bundle.as_deref()).await?,
        _ => as_operator(common, &by.acting).await?,
    };
    let dry_run = request.dry_run;
    let got = OperationsClient::new(channel).revoke(request).await?.into_inner();
    if dry_run { would_end(common, &got) } else { receipt(common, &got) }
}

/// By an identity, or over the operator socket.
async fn as_operator(common: &Common, acting: &Acting) -> Result<Channel, Failure> {
    match &acting.identity {
        Some(dir) => as_identity(common, acting, dir).await,
        None => operator(common).await,
    }
}

fn receipt(common: &Common, got: &v1::RevokeResponse) -> Result<(), Failure> {
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

fn would_end(common: &Common, got: &v1::RevokeResponse) -> Result<(), Failure> {
    use v1::agent_count::Of;
    let counts: Vec<_> = got.by_class.iter().chain(&got.by_user).collect();
    let classes = counts.iter().filter_map(|c| match &c.of {
        Some(Of::Class(class)) => Some(json!({ "class": class, "agents": c.agents })),
        _ => None,
    });
    let users = counts.iter().filter_map(|c| match &c.of {
        Some(Of::User(u)) => Some(json!({ "iss": u.iss, "sub": u.sub, "agents": c.agents })),
        _ => None,
    });
    let object = json!({ "dry_run": true, "revision": got.revision, "agents": got.agents_at_most,
        "open_for_new": got.open_for_new, "worst_case_seconds": got.worst_case_seconds,
        "by_class": classes.collect::<Vec<_>>(), "by_user": users.collect::<Vec<_>>() });
    show::either(common, &object, || {
        let line = |c: &&v1::AgentCount| match &c.of {
            Some(Of::Class(class)) => format!("\n  {:>9}  of class {class}", c.agents),
            Some(Of::User(u)) => format!("\n  {:>9}  of user {} at {}", c.agents, u.sub, u.iss),
            None => String::new(),
        };
        let lines: String = counts.iter().map(line).collect();
        let after = if got.open_for_new { "open" } else { "closed" };
        format!("nothing was revoked: {} live agents would end, and new issuance would be {after}{lines}", got.agents_at_most)
    })
}

pub(super) async fn list(common: &Common, acting: &Acting) -> Result<(), Failure> {
    let mut client = RevocationsClient::new(as_operator(common, acting).await?);
    let (mut cuts, mut page_token) = (Vec::new(), String::new());
    let revision = loop {
        let page = client.list_cuts(v1::ListCutsRequest { page_size: 1000, page_token }).await?.into_inner();
        cuts.extend(page.cuts);
        if page.next_page_token.is_empty() {
            break page.revision;
        }
        page_token = page.next_page_token;
    };
    let object = json!({ "cuts": cuts.iter().map(cut_object).collect::<Vec<_>>(), "revision": revision });
    show::either(common, &object, || match cuts.as_slice() {
        [] => "nothing is revoked".to_owned(),
        cuts => cuts.iter().map(cut_line).collect::<Vec<_>>().join("\n"),
    })
}

/// What a cut is about: its kind, and its name.
fn named(cut: &v1::MadeCut) -> (&'static str, String) {
    use v1::target::Target;
    match cut.target.as_ref().and_then(|t| t.target.clone()) {
        Some(Target::Agent(id)) => ("agent", id),
        Some(Target::User(u)) => ("user", format!("{} at {}", u.sub, u.iss)),
        Some(Target::Delegation(id)) => ("delegation", id),
        Some(Target::Workload(name)) => ("workload", name),
        Some(Target::Class(name)) => ("class", name),
        Some(Target::Key(key)) => ("key", key),
        Some(Target::RecordedBefore(time)) => ("before", show::stamp(Some(&time))),
        None => ("unknown", String::new()),
    }
}

fn cut_object(cut: &v1::MadeCut) -> Value {
    let (kind, name) = named(cut);
    let user = match cut.target.as_ref().and_then(|t| t.target.as_ref()) {
        Some(v1::target::Target::User(u)) => Some(json!({ "iss": u.iss, "sub": u.sub })),
        _ => None,
    };
    json!({ "target": kind, "name": user.unwrap_or(Value::String(name)), "revision": cut.revision, "before": cut.before,
        "closed": cut.closed, "reason": cut.reason, "by": cut.by, "recorded_at": show::stamp(cut.recorded_at.as_ref()),
        "kept_until": cut.kept_until.as_ref().map(|t| show::stamp(Some(t))) })
}

fn cut_line(cut: &v1::MadeCut) -> String {
    let (kind, name) = named(cut);
    let closed = if cut.closed { ", closed" } else { "" };
    let reason = if cut.reason.is_empty() { String::new() } else { format!(": {}", cut.reason) };
    let by = if cut.by.is_empty() { "the issuer" } else { &cut.by };
    format!("{}  {kind} {name}{closed}  by {by}{reason}", show::stamp(cut.recorded_at.as_ref()))
}

pub(super) async fn reopen(common: &Common, acting: &Acting, target: ReopenTarget) -> Result<(), Failure> {
    use v1::reopen_request::Target;
    let target = match target {
        ReopenTarget { user: Some(user), .. } => Target::User(user_of(common, &user)?),
        ReopenTarget { workload: Some(name), .. } => Target::Workload(name),
        ReopenTarget { class: Some(name), .. } => Target::Class(name),
        _ => return Err(Failure::new(USAGE, "say what to reopen: --user, --workload or --class")),
    };
    let of_user = matches!(target, Target::User(_));
    let request = v1::ReopenRequest { target: Some(target) };
    let got = OperationsClient::new(as_operator(common, acting).await?).reopen(request).await?.into_inner();
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
        RevokeTarget { before: Some(time), .. } => Target::RecordedBefore(moment(&time)?),
        _ => return Err(Failure::new(USAGE, "say what to revoke, such as --agent or --user")),
    })
}

fn moment(text: &str) -> Result<prost_types::Timestamp, Failure> {
    let at = match text {
        "now" => Ok(time::OffsetDateTime::now_utc()),
        text => time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339),
    };
    let at = at.map_err(|_| Failure::new(USAGE, format!("`{text}`: write a time such as 2026-11-25T12:00:00Z, or `now`")))?;
    Ok(prost_types::Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or(0) })
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
