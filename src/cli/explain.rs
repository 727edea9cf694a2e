//! `mayfly explain`.

use std::path::{Path, PathBuf};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::decisions_client::DecisionsClient;
use mayfly_agent::api::v1::explain_request::What;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;
use super::request::{self, Wanted};
use super::{file, found};
use crate::folder;

/// Say why an agent, a credential, a decision or a request is allowed or denied, where that is defined, who owns it, and what would
/// change the answer
///
/// Without --as an operator asks, who is told everything; with it, the answer holds what the identity may know. A `spawn` after
/// `--` is judged like a real one, by the workload of `mayfly dev` or by the identity of --as, but no agent is made and nothing is
/// charged. The command succeeds even if what it explains is a denial.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// An agent (SPIFFE ID, UUID or the beginning of a UUID), a decision as `mayfly history` prints it, or a credential: svid.pem, a
    /// folder with one, or a file with a JWT-SVID or an access token
    #[arg(required_unless_present = "request", conflicts_with = "request")]
    what: Option<String>,
    /// A request that is not made: `spawn` with its options
    #[arg(last = true, value_name = "REQUEST")]
    request: Vec<String>,
}

/// The options of a spawn that is only judged.
#[derive(clap::Parser)]
#[command(no_binary_name = true, disable_help_subcommand = true)]
enum Request {
    /// A new agent
    Spawn(Spawn),
}

#[derive(clap::Args)]
struct Spawn {
    #[arg(long = "as", value_name = "DIR")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    wanted: Wanted,
    /// Without a key, as a part of the agent of `--as`
    #[arg(long)]
    keyless: bool,
    /// Accepted and ignored: no agent is made
    #[arg(long, value_name = "DIR", hide = true)]
    out: Option<PathBuf>,
}

pub(super) async fn run(mut args: Args, global: &Global) -> Result<(), Failure> {
    let (channel, what) = match args.what {
        Some(what) => {
            let channel = connect::as_identity_or_operator(global, &args.acting).await?;
            let what = match credential(Path::new(&what))? {
                Some(credential) => credential,
                None if is_decision(&what) => What::Decision(what),
                None => What::Agent(found::agent(&mut InspectionClient::new(channel.clone()), &what, "").await?.agent_id),
            };
            (channel, what)
        }
        None => {
            let Request::Spawn(spawn) =
                clap::Parser::try_parse_from(&args.request).map_err(|e: clap::Error| Failure::usage(e.to_string()))?;
            args.acting.identity = args.acting.identity.or(spawn.identity);
            let dir = request::spawner(global, &args.acting)?;
            let channel = connect::as_identity(global, args.acting.server.as_deref(), &dir).await?;
            let wanted = spawn.wanted.request(&dir, global).await?;
            (channel, What::Spawn(v1::SpawnRequest { keyless: spawn.keyless, ..wanted }))
        }
    };
    let request = v1::ExplainRequest { what: Some(what) };
    let got = DecisionsClient::new(channel).explain(request).await?.into_inner();
    output::print(global.output, &object(&got), || lines(&got))
}

/// Whether this is the id of a decision: `r1204` of a record, `d19ac5f03b7e-17` of anything else. The beginning of a UUID never has
/// this form.
fn is_decision(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (text.strip_prefix('r'), text.strip_prefix('d').and_then(|rest| rest.split_once('-'))) {
        (Some(revision), _) => digits(revision),
        (_, Some((start, number))) => start.len() > 8 && start.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits(number),
        _ => false,
    }
}

/// The credential in a file or folder. `None` if there is no such file.
fn credential(path: &Path) -> Result<Option<What>, Failure> {
    let path = if path.is_dir() { path.join("svid.pem") } else { path.to_owned() };
    if !path.is_file() {
        return Ok(None);
    }
    let text = file::read_text(&path)?;
    if !text.contains("-----BEGIN") {
        return Ok(Some(What::Token(text.trim().to_owned())));
    }
    let certificates = folder::certificates(&path)?.iter().map(|der| der.to_vec()).collect();
    Ok(Some(What::Certificates(v1::ExplainedCertificates { certificates })))
}

fn object(got: &v1::ExplainResponse) -> Value {
    let outcome = |passed| if passed { "passed" } else { "failed" };
    let checks = got.checks.iter().map(|check| {
        json!({ "check": check.check, "outcome": outcome(check.passed), "saw": check.saw, "where": place(check.source.as_ref()),
                "owner": owner(check.source.as_ref()) })
    });
    let limits = got.limits.iter().map(|limit| {
        json!({ "name": limit.name, "per": limit.per, "measure": limit.measure, "used": limit.used, "limit": limit.limit,
                "left": limit.used.map(|used| limit.limit.saturating_sub(used)),
                "where": place(limit.source.as_ref()), "owner": owner(limit.source.as_ref()) })
    });
    let policies = got
        .policies
        .iter()
        .map(|policy| json!({ "id": policy.id, "where": place(policy.source.as_ref()), "owner": owner(policy.source.as_ref()) }));
    let mut object = json!({
        "about": got.about,
        "outcome": if got.allowed { "allowed" } else { "denied" },
        "checks": checks.collect::<Vec<_>>(),
        "scopes": got.scopes.iter().map(|part| part_object("scope", part)).collect::<Vec<_>>(),
        "audiences": got.audiences.iter().map(|part| part_object("audience", part)).collect::<Vec<_>>(),
        "limits": limits.collect::<Vec<_>>(),
        "policies": policies.collect::<Vec<_>>(),
        "revision": got.revision,
        "at": output::timestamp(got.at.as_ref()),
    });
    if !got.decision_id.is_empty() {
        output::insert(&mut object, "decision_id", got.decision_id.as_str());
    }
    if !got.allowed {
        let change = |change: &v1::FlipChange| {
            json!({ "change": change.change, "do": change.text, "where": place(change.source.as_ref()),
                    "owner": owner(change.source.as_ref()) })
        };
        let flip = got.flip.iter().map(|set| json!({ "changes": set.changes.iter().map(change).collect::<Vec<_>>() }));
        output::insert(&mut object, "reason", got.reason.as_str());
        output::insert(&mut object, "message", got.message.as_str());
        output::insert(&mut object, "flip", flip.collect::<Vec<_>>());
        output::insert(&mut object, "flip_complete", got.flip_complete);
    }
    object
}

fn part_object(kind: &str, part: &v1::ExplainedPart) -> Value {
    let source = |source: &v1::Source| json!({ "where": source.r#where, "owner": source.owner });
    match &part.removed_by {
        Some(by) => json!({ kind: part.name, "removed_by": source(by) }),
        None => json!({ kind: part.name, "from": part.from.iter().map(source).collect::<Vec<_>>() }),
    }
}

fn place(source: Option<&v1::Source>) -> &str {
    source.map_or("", |source| &source.r#where)
}

fn owner(source: Option<&v1::Source>) -> &str {
    source.map_or("", |source| &source.owner)
}

fn lines(got: &v1::ExplainResponse) -> Vec<String> {
    let outcome = if got.allowed { "allowed".to_owned() } else { format!("denied: {}: {}", got.reason, got.message) };
    let mut lines = vec![got.about.clone(), outcome];
    let whose = |source: Option<&v1::Source>| format!("[{}; {}]", place(source), owner(source));
    for check in &got.checks {
        let mark = if check.passed { "yes" } else { "no " };
        lines.push(format!("  {mark} {:<15} {} {}", check.check, check.saw, whose(check.source.as_ref())));
    }
    for part in got.scopes.iter().chain(&got.audiences) {
        lines.push(match &part.removed_by {
            Some(by) => format!("  -   {} removed by {}", part.name, whose(Some(by))),
            None => {
                format!("  +   {} from {}", part.name, part.from.iter().map(|s| whose(Some(s))).collect::<Vec<_>>().join(" and "))
            }
        });
    }
    for limit in &got.limits {
        let used = limit.used.map_or_else(|| "?".to_owned(), |used| used.to_string());
        lines.push(format!("  limit {}: {used} of {} {}", limit.name, limit.limit, whose(limit.source.as_ref())));
    }
    for set in &got.flip {
        let changes = set.changes.iter().map(|change| format!("{} {}", change.text, whose(change.source.as_ref())));
        lines.push(format!("  would turn it: {}", changes.collect::<Vec<_>>().join(", and ")));
    }
    if !got.allowed && got.flip.is_empty() {
        lines.push("  nothing that was tried would turn it".to_owned());
    }
    lines
}
