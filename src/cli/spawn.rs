//! `mayfly spawn`.

use std::path::{Path, PathBuf};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::spawn_batch_response::Result as OneResult;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::connect::{self, Acting};
use super::exit::{DENIED, FAILURE, Failure};
use super::file;
use super::global::Global;
use super::output::{self, Format};
use super::request::{self, For, Limits};
use crate::folder::{self, Key};

/// Spawn agents and write their identities
///
/// A workload spawns for a user, whose token it brings. With `--as` an agent's folder the new agent is its child: it acts
/// for the same user, and may do no more than its parent.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Class of the agent
    #[arg(long)]
    class: String,
    /// File with the user's ID token or at+jwt access token; `-` reads stdin. Not for children of an agent
    #[arg(long, value_name = "FILE", conflicts_with = "autonomous")]
    user_token: Option<PathBuf>,
    /// Instead of a user token: the delegation that an earlier token recorded for the same workload; `mayfly agents show` prints
    /// its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["user_token", "autonomous"])]
    delegation: Option<String>,
    /// Act for nobody, where the class allows it
    #[arg(long)]
    autonomous: bool,
    #[command(flatten)]
    limits: Limits,
    /// Also mint a first JWT-SVID for this audience
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// Makes a retry the same agent (with the same key: only for programs that keep theirs)
    #[arg(long, default_value = "", hide = true)]
    request_id: String,
    /// Spawn this many in one batch, into DIR/0001, DIR/0002, …; prints a line for each as it is signed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: Option<u32>,
    /// Write DIR/ticket and nothing else: the agent's process fetches its identity with `mayfly redeem`
    #[arg(long, conflicts_with = "audience")]
    ticket: bool,
    /// Folder for svid.pem, key.pem, bundle.pem, bundle.json and svid.jwt
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the identity that is in the folder already; its agent lives on without it
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let spawner = request::spawner(&global.home, &args.acting);
    let whom = For { user_token: args.user_token.as_deref(), delegation: args.delegation, autonomous: args.autonomous };
    let mut request = request::spawn(args.class, whom, args.limits)?;
    request.request_id = args.request_id;
    request.jwt_audience = args.audience.unwrap_or_default();
    request.ticket = args.ticket;
    // ORDER: before there is an agent that nobody would hold.
    for n in args.count.map_or(0..=0, |count| 1..=count) {
        file::vacant(&if n == 0 { args.out.clone() } else { numbered(&args.out, n) }, None, args.force)?;
    }
    let server = args.acting.server.as_deref();
    let issuer = connect::settings(&global.home, server, &spawner)?.address;
    let channel = connect::as_identity(&global.home, server, &spawner).await?;
    let into = Into { dir: &args.out, issuer: &issuer };
    match args.count {
        Some(count) => batch(channel, request, count, &into, global.output).await,
        None => one(channel, request, &into, global.output).await,
    }
}

/// Where identities are written, and what they say of the issuer: `host:port`.
struct Into<'a> {
    dir: &'a Path,
    issuer: &'a str,
}

/// The folder of the nth of many, counted from 1.
fn numbered(out: &Path, n: u32) -> PathBuf {
    out.join(format!("{n:04}"))
}

async fn one(channel: Channel, mut request: v1::SpawnRequest, into: &Into<'_>, format: Format) -> Result<(), Failure> {
    let key = if request.ticket { None } else { Some(Key::new()?) };
    if let Some(key) = &key {
        request.csr = key.csr.clone();
    }
    let got = IdentitiesClient::new(channel).spawn(request).await?.into_inner();
    let out = into.dir;
    let agent = save(out, into.issuer, key.as_ref(), &got, got.bundle.as_ref())?;
    output::print(format, &object(agent, &got, out), || {
        let until = output::timestamp(agent.lease_expires_at.as_ref());
        let mut lines = vec![
            agent.agent_id.clone(),
            format!("acts for {} until {until}", output::agent::user(agent)),
            format!("may {}", agent.scopes.join(" ")),
        ];
        if !got.clipped.is_empty() {
            lines.push(format!("clipped: {}", got.clipped.join(" ")));
        }
        lines.push(format!("in {}", out.display()));
        lines
    })
}

/// Spawns many in one call, and prints a line for each as it comes. If one was denied the command fails, at the end.
async fn batch(channel: Channel, template: v1::SpawnRequest, count: u32, into: &Into<'_>, format: Format) -> Result<(), Failure> {
    // With tickets the agents make their own keys.
    let tickets = template.ticket;
    let keys = if tickets { Vec::new() } else { (0..count).map(|_| Key::new()).collect::<Result<Vec<_>, _>>()? };
    let request = v1::SpawnBatchRequest {
        count: if tickets { count } else { 0 },
        csrs: keys.iter().map(|key| key.csr.clone()).collect(),
        template: Some(template),
    };
    let mut answers = BatchesClient::new(channel).spawn(request).await?.into_inner();
    // Only the first answer carries the bundle.
    let mut bundle = None;
    let mut answered = 0u32;
    let mut denied = 0u32;
    while let Some(answer) = answers.message().await? {
        answered += 1;
        let index = usize::try_from(answer.index).unwrap_or(usize::MAX);
        let dir = numbered(into.dir, answer.index.saturating_add(1));
        match answer.result.ok_or_else(Failure::incomplete_answer)? {
            OneResult::Spawned(got) => {
                bundle = bundle.or_else(|| got.bundle.clone());
                let agent = save(&dir, into.issuer, keys.get(index), &got, bundle.as_ref())?;
                let object = object(agent, &got, &dir);
                output::print_one(format, &object, || format!("{} in {}", agent.agent_id, dir.display()))?;
            }
            OneResult::Denied(status) => {
                denied += 1;
                let message = Failure::from(status_of(&status)).message;
                let object = json!({ "dir": dir.display().to_string(), "error": message });
                output::print_one(format, &object, || format!("{}: {message}", dir.display()))?;
            }
        }
    }
    if denied > 0 {
        return Err(Failure::new(DENIED, format!("{denied} of {count} were denied")));
    }
    if answered < count {
        let message = format!("{answered} of {count} were answered: ask `mayfly agents list` for the rest");
        return Err(Failure::new(FAILURE, message));
    }
    Ok(())
}

/// Writes what the issuer gave for one agent: its identity, or its ticket. Returns the agent.
fn save<'a>(
    dir: &Path,
    issuer: &str,
    key: Option<&Key>,
    got: &'a v1::SpawnResponse,
    bundle: Option<&v1::Bundle>,
) -> Result<&'a v1::Agent, Failure> {
    let agent = got.agent.as_ref().ok_or_else(Failure::incomplete_answer)?;
    match (key, &got.svid, bundle) {
        (Some(key), Some(svid), Some(bundle)) => folder::write(dir, key, svid, bundle, Some(issuer))?,
        (None, None, _) if !got.ticket.is_empty() => {
            std::fs::create_dir_all(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
            file::write_secret(&dir.join("ticket"), got.ticket.as_bytes())?;
        }
        _ => return Err(Failure::incomplete_answer()),
    }
    if let Some(jwt) = &got.jwt {
        file::write_secret(&dir.join("svid.jwt"), jwt.token.as_bytes())?;
    }
    Ok(agent)
}

fn object(agent: &v1::Agent, got: &v1::SpawnResponse, dir: &Path) -> Value {
    let mut object = output::agent::object(agent);
    if !got.clipped.is_empty() {
        output::insert(&mut object, "clipped", got.clipped.as_slice());
    }
    output::insert(&mut object, "dir", dir.display().to_string());
    object
}

/// The status of one of many, as a call of its own would have ended.
fn status_of(status: &tonic_types::Status) -> Status {
    let details = prost::Message::encode_to_vec(status);
    Status::with_details(Code::from(status.code), status.message.clone(), details.into())
}
