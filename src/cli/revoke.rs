//! `mayfly revoke`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgGroup;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::agent_count::Of;
use mayfly_agent::api::v1::authorities_client::AuthoritiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::target::Target as WireTarget;
use prost_types::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::connect::{self, Acting, Channel};
use super::duration::Length;
use super::exit::{Failure, STALE};
use super::global::Global;
use super::heard::Heard;
use super::output::{self, Format, user};
use super::target::{self, Target};
use super::{file, heard};

/// Revoke an agent, or everything of a user, an issuer of users, a workload, a class, a delegation or a key
///
/// Everything below it is revoked with it, in one step. A user, an issuer, a workload or a class is also closed for new agents until
/// `mayfly reopen`, unless --allow-new. Agents, delegations and keys never come back. An operator may revoke all of these. With
/// --as, an agent may revoke itself and those below it, a workload its own agents, and a workload that is configured as an
/// operator everything. With --user-token, users may revoke themselves, their delegations and the agents that act for them.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("what").required(true).args(target::OPTIONS).args(["key", "authority", "before"])))]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// File with the revoking user's own token, for an audience that is configured for that; `-` reads stdin
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    user_token: Option<PathBuf>,
    /// Trust bundle (PEM) for --user-token; by default that of the issuer in --home
    #[arg(long, value_name = "FILE", requires = "user_token")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// A certified public key, by the SHA-256 of its SubjectPublicKeyInfo in hex
    #[arg(long, value_name = "SHA256")]
    key: Option<String>,
    /// A signing key that has retired: nothing that it ever signed is valid any more. Same as `mayfly authority taint`
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    authority: Option<String>,
    /// Everything recorded before a time: agents, delegations, join tokens. RFC 3339, such as 2026-11-25T12:00:00Z, or `now`
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Why; recorded, never shown to callers
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Revoke what has been issued, but leave the user, issuer, workload or class open for new agents
    #[arg(long)]
    allow_new: bool,
    /// Wait until all followers of the feed have confirmed it, and list those that have not (operator); exits 7 if there are any
    #[arg(long, conflicts_with_all = ["user_token", "dry_run", "authority"])]
    wait: bool,
    /// Longest wait, from 1s to 10m
    #[arg(long, default_value = "10s", value_name = "DURATION", requires = "wait")]
    wait_for: Length,
    /// Revoke nothing: say which live agents would end, by class and by user
    #[arg(long)]
    dry_run: bool,
}

/// How long a revocation waits for a dry run that counts the agents.
const COUNTING: Duration = Duration::from_millis(500);

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if let Some(id) = args.authority {
        if args.dry_run {
            return Err(Failure::usage("--dry-run counts agents; an authority has none of its own"));
        }
        return taint(id, &args.acting, global).await;
    }
    if !(1..=600).contains(&args.wait_for.seconds()) {
        return Err(Failure::usage("--wait-for is from 1s to 10m"));
    }
    let wait_for = Duration::from_secs(args.wait_for.seconds());
    let target = wire(args.target, args.key, args.before)?;
    let user_token = match &args.user_token {
        Some(file) => file::read_text(file)?.trim().to_owned(),
        None => String::new(),
    };
    let channel = if args.user_token.is_some() {
        connect::as_stranger(global, args.acting.server.as_deref(), args.bundle.as_deref()).await?
    } else {
        connect::as_identity_or_operator(global, &args.acting).await?
    };
    let request = v1::RevokeRequest {
        target: Some(v1::Target { target: Some(target) }),
        user_token,
        reason: args.reason,
        allow_new: args.allow_new,
        dry_run: args.dry_run,
    };
    let mut client = OperationsClient::new(channel.clone());
    if args.dry_run {
        return would_end(global.output, &client.revoke(request).await?.into_inner());
    }
    let exactly = count(&mut client, &request).await;
    let got = client.revoke(request).await?.into_inner();
    if !args.wait {
        return receipt(global.output, &got, exactly, None);
    }
    // ORDER: the receipt is printed even if the wait fails, because the revocation is recorded.
    match heard::wait(channel, got.revision, wait_for).await {
        Ok(heard) => {
            receipt(global.output, &got, exactly, Some(&heard))?;
            match heard.missing.len() {
                0 => Ok(()),
                missing => Err(Failure::new(
                    STALE,
                    format!("revoked, but {missing} who follow the feed have not said that they have heard"),
                )),
            }
        }
        Err(failure) => {
            receipt(global.output, &got, exactly, None)?;
            Err(failure)
        }
    }
}

/// The number of live agents that would end, from a dry run just before. `None` if that takes longer than [`COUNTING`].
async fn count(client: &mut OperationsClient<Channel>, request: &v1::RevokeRequest) -> Option<u64> {
    let dry = v1::RevokeRequest { dry_run: true, ..request.clone() };
    let counted = tokio::time::timeout(COUNTING, client.revoke(dry)).await.ok()?.ok()?;
    Some(counted.into_inner().agents_at_most)
}

async fn taint(id: String, acting: &Acting, global: &Global) -> Result<(), Failure> {
    let mut client = AuthoritiesClient::new(connect::as_identity_or_operator(global, acting).await?);
    let got = client.taint_authority(v1::TaintAuthorityRequest { id }).await?.into_inner();
    output::authority::receipt(global.output, &got.authority.unwrap_or_default(), got.revision)
}

/// What is revoked, as it is sent.
fn wire(target: Target, key: Option<String>, before: Option<String>) -> Result<WireTarget, Failure> {
    match (key, before) {
        (Some(key), _) => Ok(WireTarget::Key(key)),
        (None, Some(time)) => Ok(WireTarget::RecordedBefore(moment(&time)?)),
        (None, None) => target.wire(),
    }
}

fn moment(text: &str) -> Result<Timestamp, Failure> {
    let at = if text == "now" { Ok(OffsetDateTime::now_utc()) } else { OffsetDateTime::parse(text, &Rfc3339) };
    let at = at.map_err(|_| Failure::usage(format!("`{text}`: write a time such as 2026-11-25T12:00:00Z, or `now`")))?;
    Ok(Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or(0) })
}

fn receipt(format: Format, got: &v1::RevokeResponse, exactly: Option<u64>, heard: Option<&Heard>) -> Result<(), Failure> {
    let mut object = json!({
        "revision": got.revision,
        "agents": exactly,
        "agents_at_most": got.agents_at_most,
        "unknown_user": got.unknown_user,
        "open_for_new": got.open_for_new,
        "worst_case_seconds": got.worst_case_seconds,
        "recorded_at": output::timestamp(got.recorded_at.as_ref()),
    });
    if let Some(Heard { heard, missing }) = heard {
        output::insert(&mut object, "all_heard", missing.is_empty());
        output::insert(&mut object, "heard", heard.iter().map(heard::object).collect::<Vec<_>>());
        output::insert(&mut object, "not_heard", missing.iter().map(heard::object).collect::<Vec<_>>());
    }
    output::print(format, &object, || {
        let agents = match exactly {
            Some(1) => "1 live agent ends".to_owned(),
            Some(agents) => format!("{agents} live agents end"),
            None => format!("at most {} live agents end", got.agents_at_most),
        };
        let mut lines = vec![format!("revoked at revision {}: {agents}", got.revision)];
        lines.extend(got.unknown_user.then(|| UNKNOWN.to_owned()));
        lines.push(format!("new issuance is {}", open_or_closed(got)));
        lines.push(format!(
            "a verifier that receives no revocations accepts revoked credentials for at most {}",
            Length::of(got.worst_case_seconds)
        ));
        if let Some(Heard { heard, missing }) = heard {
            lines.push(match (heard.len(), missing.len()) {
                (0, 0) => "nobody follows the feed now".to_owned(),
                (all, 0) => format!("heard by everybody who follows the feed: {all}"),
                (some, _) => format!("heard by {some} who follow the feed, and not by:"),
            });
            lines.extend(missing.iter().map(|subscriber| format!("  {}", heard::line(subscriber))));
        }
        lines
    })
}

fn would_end(format: Format, got: &v1::RevokeResponse) -> Result<(), Failure> {
    let mut by_class = Vec::new();
    let mut by_user = Vec::new();
    let first = format!(
        "nothing was revoked: {} live agents would end, and new issuance would be {}",
        got.agents_at_most,
        open_or_closed(got)
    );
    let mut lines = vec![first];
    lines.extend(got.unknown_user.then(|| UNKNOWN.to_owned()));
    for count in got.by_class.iter().chain(&got.by_user) {
        let agents = count.agents;
        match &count.of {
            Some(Of::Class(class)) => {
                by_class.push(json!({ "class": class, "agents": agents }));
                lines.push(format!("  {agents:>9}  of class {class}"));
            }
            Some(Of::User(user)) => {
                by_user.push(json!({ "iss": user.iss, "sub": user.sub, "user_name": user::name(user), "agents": agents }));
                lines.push(format!("  {agents:>9}  of user {}", user::name(user)));
            }
            None => {}
        }
    }
    let object = json!({
        "dry_run": true,
        "unknown_user": got.unknown_user,
        "revision": got.revision,
        "agents": got.agents_at_most,
        "open_for_new": got.open_for_new,
        "worst_case_seconds": got.worst_case_seconds,
        "by_class": Value::Array(by_class),
        "by_user": Value::Array(by_user),
    });
    output::print(format, &object, || lines)
}

/// The warning for an unknown user.
pub(super) const UNKNOWN: &str = "nothing is known of this user: see whether the name is right";

fn open_or_closed(got: &v1::RevokeResponse) -> &'static str {
    if got.open_for_new { "open" } else { "closed" }
}
