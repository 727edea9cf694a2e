//! `mayfly spawn`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::spawn_batch_response::Result as OneResult;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tonic::{Code, Status, Streaming};

use super::connect::{self, Acting, Channel};
use super::exit::{DENIED, FAILURE, Failure, INTERRUPTED};
use super::file;
use super::global::Global;
use super::output::{self, Format};
use super::request::{self, Wanted};
use crate::folder::{self, Key};

/// Spawn agents and write their identities
///
/// A workload spawns for a user, whose token it presents. If `--as` names an agent's folder, the new agent is its child: it acts
/// for the same user, and may do no more than its parent.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    #[command(flatten)]
    wanted: Wanted,
    /// Makes a retry the same agent (with the same key: only for programs that keep theirs)
    #[arg(long, default_value = "", hide = true)]
    request_id: String,
    /// Spawn this many in one batch, into DIR/0001, DIR/0002, …; prints a line for each as it is signed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: Option<u32>,
    /// Write DIR/ticket and nothing else: the agent's process fetches its identity with `mayfly redeem`
    #[arg(long, conflicts_with = "audience")]
    ticket: bool,
    /// Give the agent no key: the agent of `--as` acts in its name, and gets its tokens with `mayfly mint --for`
    #[arg(long, conflicts_with_all = ["audience", "ticket", "out", "force"], requires = "identity")]
    keyless: bool,
    /// Folder for svid.pem, key.pem, bundle.pem, bundle.json and svid.jwt
    #[arg(long, value_name = "DIR", required_unless_present = "keyless")]
    out: Option<PathBuf>,
    /// Replace the identity that is in the folder already; its agent lives on without it
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let spawner = request::spawner(global, &args.acting)?;
    let mut request = args.wanted.request(&spawner, global).await?;
    request.request_id = args.request_id;
    request.ticket = args.ticket;
    request.keyless = args.keyless;
    let out = args.out.unwrap_or_default();
    // ORDER: folders are checked before an agent is made that could not be written anywhere.
    for n in args.count.map_or(0..=0, |count| 1..=count).filter(|_| !args.keyless) {
        file::vacant(&if n == 0 { out.clone() } else { numbered(&out, n) }, None, args.force)?;
    }
    let server = args.acting.server.as_deref();
    let issuer = connect::settings(global, server, &spawner)?.address;
    let channel = connect::as_identity(global, server, &spawner).await?;
    let into = Into { dir: &out, issuer: &issuer };
    match args.count {
        Some(count) => batch(channel, request, count, &into, global.output).await,
        None => one(channel, request, &into, global.output).await,
    }
}

/// The folder for identities, and the `host:port` of the issuer that is written into them.
struct Into<'a> {
    dir: &'a Path,
    issuer: &'a str,
}

/// The folder of the nth of many, counted from 1.
fn numbered(out: &Path, n: u32) -> PathBuf {
    out.join(format!("{n:04}"))
}

async fn one(channel: Channel, mut request: v1::SpawnRequest, into: &Into<'_>, format: Format) -> Result<(), Failure> {
    let keyless = request.keyless;
    let key = if request.ticket || keyless { None } else { Some(Key::new()?) };
    if let Some(key) = &key {
        request.csr = key.csr.clone();
    }
    let got = IdentitiesClient::new(channel).spawn(request).await?.into_inner();
    let out = into.dir;
    let agent = save(out, into.issuer, key.as_ref(), &got, got.bundle.as_ref())?;
    output::print(format, &object(agent, &got, (!keyless).then_some(out)), || {
        let until = output::timestamp(agent.lease_expires_at.as_ref());
        let mut lines = vec![
            agent.agent_id.clone(),
            format!("acts for {} until {until}", output::agent::user(agent)),
            format!("may {}", agent.scopes.join(" ")),
        ];
        if !got.clipped.is_empty() {
            lines.push(format!("clipped: {}", got.clipped.join(" ")));
        }
        lines.push(if keyless { "without a key: its parent gets its tokens".into() } else { format!("in {}", out.display()) });
        lines
    })
}

/// Spawns many in one call, and prints a line for each as it comes. If one was denied the command fails, at the end. An interrupt
/// ends the agents that were not written yet.
async fn batch(channel: Channel, template: v1::SpawnRequest, count: u32, into: &Into<'_>, format: Format) -> Result<(), Failure> {
    // With tickets the agents make their own keys.
    let (without, keyless) = (template.ticket || template.keyless, template.keyless);
    let keys = if without { Vec::new() } else { (0..count).map(|_| Key::new()).collect::<Result<Vec<_>, _>>()? };
    let request = v1::SpawnBatchRequest {
        count: if without { count } else { 0 },
        csrs: keys.iter().map(|key| key.csr.clone()).collect(),
        template: Some(template),
    };
    // ORDER: interrupts are caught before the request is sent, so that one that comes meanwhile ends the agents that the request
    // made.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut client = BatchesClient::new(channel.clone());
    let mut asked = std::pin::pin!(client.spawn(request));
    let mut answers = tokio::select! {
        answers = &mut asked => answers?.into_inner(),
        Some(()) = interrupts.recv() => return Err(match soon(asked, &mut interrupts).await {
            Some(Ok(answers)) => end_the_rest(channel, answers.into_inner(), interrupts, count).await,
            Some(Err(status)) => status.into(),
            None => Failure::new(INTERRUPTED, UNKNOWN),
        }),
    };
    // Only the first answer carries the bundle.
    let mut bundle = None;
    let mut answered = 0u32;
    let mut denied = 0u32;
    loop {
        let answer = tokio::select! {
            answer = answers.message() => answer?,
            Some(()) = interrupts.recv() => return Err(end_the_rest(channel, answers, interrupts, count.saturating_sub(answered)).await),
        };
        let Some(answer) = answer else { break };
        answered += 1;
        let index = usize::try_from(answer.index).unwrap_or(usize::MAX);
        let dir = numbered(into.dir, answer.index.saturating_add(1));
        match answer.result.ok_or_else(Failure::incomplete_answer)? {
            OneResult::Spawned(got) => {
                bundle = bundle.or_else(|| got.bundle.clone());
                let agent = save(&dir, into.issuer, keys.get(index), &got, bundle.as_ref())?;
                let object = object(agent, &got, (!keyless).then_some(dir.as_path()));
                let line = || if keyless { agent.agent_id.clone() } else { format!("{} in {}", agent.agent_id, dir.display()) };
                output::print_one(format, &object, line)?;
            }
            OneResult::Denied(status) => {
                denied += 1;
                let message = Failure::from(status_of(&status)).message;
                let mut object = json!({ "error": message });
                if !keyless {
                    output::insert(&mut object, "dir", dir.display().to_string());
                }
                let line = || if keyless { message.clone() } else { format!("{}: {message}", dir.display()) };
                output::print_one(format, &object, line)?;
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

/// How long an interrupted batch may take to end the agents that it made.
const ENDING: Duration = Duration::from_secs(10);
/// The message if it is unknown which agents an interrupted batch made.
const UNKNOWN: &str = "interrupted: the issuer may have made agents that nobody holds; `mayfly agents list` shows them";

/// The result of `work`, or `None` after a second interrupt or ten seconds.
async fn soon<T>(work: impl Future<Output = T>, interrupts: &mut Signal) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        _ = interrupts.recv() => None,
        () = tokio::time::sleep(ENDING) => None,
    }
}

/// Ends the agents of a batch that were not written to any folder: the issuer has recorded them, or is about to.
async fn end_the_rest(
    channel: Channel,
    mut answers: Streaming<v1::SpawnBatchResponse>,
    mut interrupts: Signal,
    rest: u32,
) -> Failure {
    let mut client = IdentitiesClient::new(channel);
    let (mut ended, mut answered) = (0u32, 0u32);
    let end = async {
        while let Ok(Some(answer)) = answers.message().await {
            answered += 1;
            let Some(OneResult::Spawned(got)) = answer.result else { continue };
            let agent_id = got.agent.map(|agent| agent.agent_id).unwrap_or_default();
            ended += u32::from(client.end(v1::EndRequest { agent: agent_id }).await.is_ok());
        }
    };
    let complete = soon(end, &mut interrupts).await.is_some() && answered == rest;
    let message = format!("interrupted: {ended} agents that have no folder were ended");
    Failure::new(
        INTERRUPTED,
        if complete { message } else { format!("{message}, and there may be more: `mayfly agents list` shows them") },
    )
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
            std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o755)
                .create(dir)
                .map_err(|e| format!("`{}`: {e}", dir.display()))?;
            file::write_secret(&dir.join("ticket"), got.ticket.as_bytes())?;
        }
        (None, None, _) if agent.keyless => {}
        _ => return Err(Failure::incomplete_answer()),
    }
    if let Some(jwt) = &got.jwt {
        file::write_secret(&dir.join("svid.jwt"), jwt.token.as_bytes())?;
    }
    Ok(agent)
}

fn object(agent: &v1::Agent, got: &v1::SpawnResponse, dir: Option<&Path>) -> Value {
    let mut object = output::agent::object(agent);
    if !got.clipped.is_empty() {
        output::insert(&mut object, "clipped", got.clipped.as_slice());
    }
    if let Some(dir) = dir {
        output::insert(&mut object, "dir", dir.display().to_string());
    }
    object
}

/// Converts the status of one agent of a batch to that of a single call.
fn status_of(status: &tonic_types::Status) -> Status {
    let details = prost::Message::encode_to_vec(status);
    Status::with_details(Code::from(status.code), status.message.clone(), details.into())
}
