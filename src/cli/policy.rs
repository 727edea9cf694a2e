//! `mayfly policy`.

mod diff;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::policies_client::PoliciesClient;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::output::{self, Format};
use super::when::When;
use crate::clock::Clock;
use crate::policies::cases::Cases;
use crate::policies::{Default, EXAMPLE, EXAMPLE_TESTS, Policies, Policy, SCHEMA, TESTS};

/// Check, test and compare policies, and see those in force (operator)
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report every fault of a set of policies at once, with file and line
    Check {
        /// The folder with the `*.cedar` files
        dir: PathBuf,
    },
    /// Run the test cases that the owners wrote, and compare the answers
    Test {
        /// The folder with the `*.cedar` files
        dir: PathBuf,
        /// The file with the test cases; by default `tests.toml` in the folder
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
    },
    /// The policies in force
    Show {
        #[command(flatten)]
        acting: Acting,
    },
    /// What a set would change for agents that are live now, and would have changed of the last day's decisions
    Diff {
        /// The folder with the `*.cedar` files
        dir: PathBuf,
        /// Compare the decisions from a time on: RFC 3339, or how long ago
        #[arg(long, value_name = "WHEN", default_value = "24h")]
        since: When,
        #[command(flatten)]
        acting: Acting,
    },
    /// Print two policies as a starting point
    Example {
        /// Their test cases instead
        #[arg(long)]
        tests: bool,
    },
    /// Print the schema: what policies can be about
    Schema,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    match args.command {
        Command::Check { dir } => check(&dir, global.output),
        Command::Test { dir, cases } => test(&dir, &cases.unwrap_or_else(|| dir.join(TESTS)), global.output),
        Command::Show { acting } => {
            let client = PoliciesClient::new(connect::as_identity_or_operator(global, &acting).await?);
            show(client, global.output).await
        }
        Command::Diff { dir, since, acting } => {
            let set = load(&dir)?;
            let channel = connect::as_identity_or_operator(global, &acting).await?;
            diff::diff(channel, &set, since.timestamp(), global.output).await
        }
        Command::Example { tests } => output::line((if tests { EXAMPLE_TESTS } else { EXAMPLE }).trim_end()),
        Command::Schema => output::line(SCHEMA.trim_end()),
    }
}

/// A set as requests have it.
pub(super) fn set_message(set: &Policies) -> v1::PolicySet {
    let text = |(file, text): &(String, String)| v1::PolicyText { file: file.clone(), text: text.clone() };
    v1::PolicySet { digest: set.digest().to_vec(), texts: set.texts().iter().map(text).collect() }
}

pub(super) fn load(dir: &Path) -> Result<Policies, Failure> {
    Policies::load(dir).map_err(|faults| {
        let count = faults.len();
        let plural = if count == 1 { "" } else { "s" };
        Failure::new(FAILURE, format!("{}\n{count} fault{plural}", faults.join("\n")))
    })
}

fn check(dir: &Path, format: Format) -> Result<(), Failure> {
    let set = load(dir)?;
    let today = output::time(Clock::system().seconds());
    // Which classes and workloads are configured is not known here.
    let notes = set.notes(today.get(..10).unwrap_or_default(), |_, _| true);
    let mut object = described(&set);
    output::insert(&mut object, "notes", notes.clone());
    output::print(format, &object, || {
        let mut lines =
            vec![format!("{}: good: {} policies, digest {}", dir.display(), set.all().len(), hex::encode(set.digest()))];
        lines.extend(notes);
        lines
    })
}

fn test(dir: &Path, cases: &Path, format: Format) -> Result<(), Failure> {
    let set = load(dir)?;
    let fault = |e: &dyn std::fmt::Display| Failure::new(FAILURE, format!("{}: {e}", cases.display()));
    let text = std::fs::read_to_string(cases).map_err(|e| fault(&e))?;
    let all = Cases::parse(&text).map_err(|e| fault(&e))?;
    let outcomes: Vec<_> = all.tests.iter().map(|case| (case, case.run(&set))).collect();
    let failed = outcomes.iter().filter(|(_, outcome)| outcome.failure.is_some()).count();
    let decided = |policy: &&Policy| outcomes.iter().any(|(_, outcome)| outcome.policies.contains(&policy.id));
    let untested: Vec<&str> = set.all().iter().filter(|policy| !decided(policy)).map(|policy| policy.id.as_str()).collect();
    let object = |(case, outcome): &(&crate::policies::cases::Case, crate::policies::cases::Outcome)| json!({ "name": case.name, "passed": outcome.failure.is_none(), "failure": outcome.failure, "policies": outcome.policies });
    let objects: Vec<Value> = outcomes.iter().map(object).collect();
    let whole = json!({ "tests": objects, "failed": failed, "untested_policies": untested });
    output::print(format, &whole, || {
        let line = |(case, outcome): &(&crate::policies::cases::Case, crate::policies::cases::Outcome)| match &outcome.failure {
            None => format!("ok      {}", case.name),
            Some(failure) => format!("FAILED  {}: {failure}", case.name),
        };
        let mut lines: Vec<String> = outcomes.iter().map(line).collect();
        lines.push(format!("{} of {} passed", outcomes.len() - failed, outcomes.len()));
        if !untested.is_empty() {
            lines.push(format!("decided by no test: {}", untested.join(", ")));
        }
        lines
    })?;
    if failed > 0 { Err(Failure::new(FAILURE, String::new())) } else { Ok(()) }
}

async fn show(mut client: PoliciesClient<connect::Channel>, format: Format) -> Result<(), Failure> {
    let got = client.get_policies(v1::GetPoliciesRequest {}).await?.into_inner();
    let (in_force, shadow) = (read(got.in_force)?, read(got.shadow)?);
    let object = |set: &Option<Policies>| set.as_ref().map(described);
    let whole = json!({ "in_force": object(&in_force), "shadow": object(&shadow) });
    output::print(format, &whole, || {
        let mut lines = Vec::new();
        for (name, set) in [("in force", &in_force), ("shadow", &shadow)] {
            match set {
                None => lines.push(format!("{name}: none")),
                Some(set) => {
                    lines.push(format!("{name}: {} policies, digest {}", set.all().len(), hex::encode(set.digest())));
                    lines.extend(set.all().iter().map(|p| format!("  {:<32} {:<28} {}  {}", p.id, p.owner, p.place(), p.reason)));
                }
            }
        }
        lines
    })
}

/// The set of an answer. An issuer of another version may have a schema that this one does not know.
fn read(set: Option<v1::PolicySet>) -> Result<Option<Policies>, Failure> {
    let Some(set) = set else { return Ok(None) };
    let texts = set.texts.into_iter().map(|text| (text.file, text.text)).collect();
    let read = Policies::of_texts(texts);
    let read =
        read.map_err(|faults| Failure::new(FAILURE, format!("the issuer's policies, read here: {}", faults.join("\n"))))?;
    Ok(Some(read))
}

/// A set as JSON.
fn described(set: &Policies) -> Value {
    let policies: Vec<Value> = set.all().iter().map(described_policy).collect();
    let default = match set.default() {
        Default::Permit => json!({ "effect": "permit" }),
        Default::Deny { owner, reason } => json!({ "effect": "deny", "owner": owner, "reason": reason }),
    };
    json!({ "digest": hex::encode(set.digest()), "default": default, "policies": policies })
}

fn described_policy(policy: &Policy) -> Value {
    let effect = if policy.forbids { "forbid" } else { "permit" };
    json!({
        "id": policy.id, "effect": effect, "owner": policy.owner, "reason": policy.reason, "where": policy.place(),
        "review": policy.review, "contact": policy.contact,
    })
}
