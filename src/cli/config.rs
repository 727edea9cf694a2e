//! `mayfly config`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::{Value, json};

use super::bounded::within;
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::{changes, connect, output};
use crate::app::{self, files};
use crate::config::{Config, Difference, EXAMPLE, differences};
use crate::listen::Shares;

/// Check a configuration, compare it with the one in use, or print an example
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report every fault of a file at once, and every file named in it that `mayfly serve` could not use
    ///
    /// Nothing is written, no connection is opened, and no address is bound, so an issuer may run at the same time.
    Check {
        /// The file
        file: PathBuf,
    },
    /// Say what a file would change, also for agents that are live now; nothing is changed
    ///
    /// It is compared with the configuration of the running issuer, or with another file by `--against`.
    Diff {
        /// The file
        file: PathBuf,
        /// Compare with this file, and ask no issuer
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Print a complete, commented file
    Example,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    match args.command {
        Command::Check { file } => check(&file),
        Command::Diff { file, against: None } => diff(&file, global).await,
        Command::Diff { file, against: Some(other) } => compare(&file, &other, global),
        Command::Example => output::line(EXAMPLE.trim_end()),
    }
}

/// Asks the running issuer.
async fn diff(path: &Path, global: &Global) -> Result<(), Failure> {
    let name = path.display().to_string();
    let file = path.to_owned();
    let text = within(path, move || std::fs::read_to_string(file))?.map_err(|e| format!("`{name}`: {e}"))?;
    let request = v1::CompareConfigurationRequest { text, name };
    let channel = connect::as_operator(global).await?;
    let got = OperationsClient::new(channel).compare_configuration(request).await?.into_inner();
    tell(&got, global)
}

/// Compares two files.
fn compare(path: &Path, other: &Path, global: &Global) -> Result<(), Failure> {
    let load = |path: &Path| {
        let file = path.to_owned();
        within(path, move || Config::load(&file))?.map_err(|faults| Failure::new(FAILURE, faults.to_string()))
    };
    let changes = differences(&load(other)?, &load(path)?).into_iter();
    let change =
        |d: Difference| v1::ConfigurationChange { key: d.key, before: d.before, after: d.after, needs_restart: d.needs_restart };
    let changes = changes.map(change).collect();
    tell(&v1::CompareConfigurationResponse { changes, agents: Vec::new(), agents_affected: 0 }, global)
}

fn tell(got: &v1::CompareConfigurationResponse, global: &Global) -> Result<(), Failure> {
    let listed: Vec<Value> = got.changes.iter().map(changes::object).collect();
    let agents: Vec<Value> = got.agents.iter().map(|a| json!({ "agent_id": a.agent_id, "loses": a.loses })).collect();
    let object = json!({ "changes": listed, "agents": agents, "agents_affected": got.agents_affected });
    output::print(global.output, &object, || {
        let mut lines = changes::lines(&got.changes);
        if lines.is_empty() {
            lines.push("nothing differs".to_owned());
        }
        lines.extend(got.agents.iter().map(|a| format!("{} loses {}", a.agent_id, a.loses.join(", "))));
        let unlisted = got.agents_affected.saturating_sub(u64::try_from(got.agents.len()).unwrap_or(u64::MAX));
        if unlisted > 0 {
            lines.push(format!("{unlisted} more agents lose something"));
        }
        lines
    })
}

fn check(path: &Path) -> Result<(), Failure> {
    let file = path.to_owned();
    let opened = within(path, move || Config::load(&file).map(|config| (app::unusable(&config), config)))?;
    let (unusable, config) = opened.map_err(|faults| {
        let count = faults.0.len();
        let plural = if count == 1 { "" } else { "s" };
        Failure::new(FAILURE, format!("{faults}\n{count} fault{plural}"))
    })?;
    if !unusable.is_empty() {
        let lines: Vec<String> = unusable.iter().map(|why| format!("{}: {why}", path.display())).collect();
        return Err(Failure::new(FAILURE, format!("{}\n{} cannot be used", lines.join("\n"), lines.len())));
    }
    let shares = Shares::of(&config.bounds, files::most());
    output::line(&format!(
        "{}: good: trust domain {}, {} workloads, {} issuers, {} classes, {} connections",
        path.display(),
        config.trust_domain,
        config.workloads.len(),
        config.issuers.len(),
        config.classes.len(),
        shares.total
    ))?;
    for note in config.notes() {
        output::line(&note)?;
    }
    if shares.total < config.bounds.connections {
        let wanted = config.bounds.connections;
        output::line(&format!(
            "the limit on open files here (`ulimit -Hn`) allows {} of the {wanted} connections of `server.max_connections`",
            shares.total
        ))?;
    }
    Ok(())
}
