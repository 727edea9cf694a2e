//! `mayfly my`.

use std::path::PathBuf;

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::reopen_request::Target as Reopened;
use mayfly_agent::api::v1::target::Target;
use serde_json::{Value, json};

use super::exit::Failure;
use super::global::Global;
use super::output::user::Names;
use super::output::{self, Format, delegation, entry};
use super::when::{self, When};
use super::{connect, found, happened, place, user};

/// See the agents that act for you, and stop them
///
/// It needs a token of yours, for an audience with `user = true` in the issuer's configuration. Nothing about other users is shown.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    command: Command,
}

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
struct Asking {
    /// File with your token; `-` reads stdin. Without it, the token of `mayfly login`
    #[arg(long, global = true, value_name = "FILE")]
    user_token: Option<PathBuf>,
    /// host:port of the issuer; by default that of the context, or that of the issuer in --home [env: MAYFLY_SERVER]
    #[arg(long, global = true, value_name = "ADDRESS")]
    server: Option<String>,
    /// Trust bundle of the issuer (PEM); by default that of the context, or that of the issuer in --home
    #[arg(long, global = true, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// The agents that act for you
    Agents {
        /// Also those that ended, expired or were revoked
        #[arg(long)]
        all: bool,
    },
    /// What you let workloads do
    Delegations {
        /// Also those that have ended
        #[arg(long)]
        all: bool,
    },
    /// What was done for you, and by you
    History {
        /// From a time on: RFC 3339, or how long ago, such as 1h or 30d
        #[arg(long, value_name = "WHEN")]
        since: Option<When>,
        /// Up to a time: RFC 3339, or how long ago
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        /// Of a kind, such as mint, revocation or denial; may be given several times
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
    },
    /// Revoke agents that act for you, a delegation, or everything; agents below them are revoked with them
    Stop {
        /// Agents: SPIFFE IDs, UUIDs, or the beginnings of UUIDs
        #[arg(required_unless_present_any = ["delegation", "all"], conflicts_with_all = ["delegation", "all"])]
        agents: Vec<String>,
        /// A delegation, with all agents under it
        #[arg(long, value_name = "ID", conflicts_with = "all")]
        delegation: Option<String>,
        /// All agents that act for you; no new ones can until `mayfly my reopen`
        #[arg(long)]
        all: bool,
        /// With --all: let new agents act for you, by tokens that are issued from now on
        #[arg(long, requires = "all")]
        allow_new: bool,
        /// Why; recorded, and shown to you and to operators
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Let agents act for you again, after you stopped everything; it needs a token that was issued after that
    Reopen,
}

/// A user with their token, connected.
struct Me {
    channel: connect::Channel,
    token: String,
    user: v1::User,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let me = connect(&args.asking, global).await?;
    match args.command {
        Command::Agents { all } => agents(&me, all, global.output).await,
        Command::Delegations { all } => delegations(&me, all, global.output).await,
        Command::History { since, until, kinds } => history(&me, (since, until), kinds, global.output).await,
        Command::Stop { agents, delegation, all, allow_new, reason } => {
            let targets = match (delegation, all) {
                (Some(id), _) => vec![Target::Delegation(id)],
                (None, true) => vec![Target::User(me.user.clone())],
                (None, false) => found(&me, &agents).await?,
            };
            stop(&me, targets, allow_new, &reason, global.output).await
        }
        Command::Reopen => reopen(&me, global.output).await,
    }
}

async fn connect(asking: &Asking, global: &Global) -> Result<Me, Failure> {
    let usage = "give --user-token FILE, or sign in with `mayfly login`: a token of yours, for an audience that the issuer takes from users \
                 themselves";
    let token = place::token_or(asking.user_token.as_deref(), global, usage).await?;
    let user = user::of_token(&token)?;
    let channel = connect::as_stranger(global, asking.server.as_deref(), asking.bundle.as_deref()).await?;
    Ok(Me { channel, token, user })
}

async fn agents(me: &Me, all: bool, format: Format) -> Result<(), Failure> {
    let (agents, revision) = found::all(&mut InspectionClient::new(me.channel.clone()), all, &me.token).await?;
    let objects: Vec<_> = agents.iter().map(output::agent::object).collect();
    let object = json!({ "agents": objects, "revision": revision });
    output::print(format, &object, || output::agent::table(&agents, "no agent acts for you"))
}

async fn delegations(me: &Me, all: bool, format: Format) -> Result<(), Failure> {
    let mut client = happened::over(me.channel.clone());
    let entries = happened::of_kinds(&mut client, &["delegation", "revocation"], &me.token).await?;
    let (delegations, revocations): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.kind == "delegation");
    let delegations: Vec<_> = delegations.iter().filter(|entry| all || !delegation::has_ended(entry)).collect();
    let objects: Vec<_> = delegations.iter().map(|entry| delegation::object(entry, &revocations)).collect();
    output::print(format, &json!({ "delegations": objects }), || {
        delegation::table(&delegations, &revocations, "you let nobody act for you")
    })
}

async fn history(me: &Me, during: (Option<When>, Option<When>), kinds: Vec<String>, format: Format) -> Result<(), Failure> {
    let (since, until) = (during.0.map(When::timestamp), during.1.map(When::timestamp));
    let wanted = v1::ListEntriesRequest { since, until, kinds, user_token: me.token.clone(), ..Default::default() };
    let entries = happened::all(&mut happened::over(me.channel.clone()), wanted).await?;
    let objects: Vec<_> = entries.iter().map(entry::object).collect();
    output::print(format, &json!({ "entries": objects }), || entry::table(&entries, Names::default(), "nothing was done for you"))
}

/// The agents to stop. All of them are looked up before the first is stopped.
async fn found(me: &Me, texts: &[String]) -> Result<Vec<Target>, Failure> {
    let mut client = InspectionClient::new(me.channel.clone());
    let mut targets = Vec::new();
    for text in texts {
        targets.push(Target::Agent(found::agent(&mut client, text, &me.token).await?.agent_id));
    }
    Ok(targets)
}

async fn stop(me: &Me, targets: Vec<Target>, allow_new: bool, reason: &str, format: Format) -> Result<(), Failure> {
    let mut client = OperationsClient::new(me.channel.clone());
    let mut stopped = Vec::new();
    for target in targets {
        let name = match &target {
            Target::Agent(id) => json!({ "agent_id": id }),
            Target::Delegation(id) => json!({ "delegation_id": id }),
            _ => json!({ "user": { "iss": me.user.iss, "sub": me.user.sub } }),
        };
        let request = v1::RevokeRequest {
            target: Some(v1::Target { target: Some(target) }),
            user_token: me.token.clone(),
            reason: reason.to_owned(),
            allow_new,
            dry_run: false,
        };
        let got = client.revoke(request).await?.into_inner();
        let mut object = name;
        output::insert(&mut object, "revision", got.revision);
        output::insert(&mut object, "agents_at_most", got.agents_at_most);
        output::insert(&mut object, "open_for_new", got.open_for_new);
        output::insert(&mut object, "worst_case_seconds", got.worst_case_seconds);
        output::insert(&mut object, "recorded_at", output::timestamp(got.recorded_at.as_ref()));
        stopped.push(object);
    }
    output::print(format, &json!({ "stopped": stopped }), || stopped.iter().map(line).collect::<Vec<_>>())
}

fn line(object: &Value) -> String {
    let (text, number) =
        (|name: &str| object.get(name).and_then(Value::as_str), |name: &str| object.get(name).and_then(Value::as_u64));
    let revision = number("revision").unwrap_or_default();
    match text("agent_id").or_else(|| text("delegation_id")) {
        Some(id) => format!("{id} is revoked at revision {revision}, with everything below it"),
        None => {
            let open = object.get("open_for_new").and_then(Value::as_bool).unwrap_or_default();
            let then = if open {
                "new agents may act for you by fresh tokens"
            } else {
                "nothing new acts for you until `mayfly my reopen`"
            };
            format!("everything that acts for you is revoked at revision {revision}; {then}")
        }
    }
}

async fn reopen(me: &Me, format: Format) -> Result<(), Failure> {
    let target = Some(Reopened::User(me.user.clone()));
    let request = v1::ReopenRequest { target, user_token: me.token.clone() };
    let got = OperationsClient::new(me.channel.clone()).reopen(request).await?.into_inner();
    // Tokens carry whole seconds, so the issuer refuses tokens of the second in which this was recorded. Waiting for the next
    // second makes every token valid that is issued after this command.
    when::second_after(got.recorded_at.as_ref().map_or(0, |at| at.seconds)).await;
    let object = json!({ "revision": got.revision, "recorded_at": output::timestamp(got.recorded_at.as_ref()) });
    output::print(format, &object, || format!("open again at revision {}, for tokens issued from now on", got.revision))
}
