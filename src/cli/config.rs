//! `mayfly config`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::exit::{FAILURE, Failure};
use super::output;
use crate::app::files;
use crate::config::{Config, EXAMPLE};
use crate::listen::Shares;

/// Check a configuration, or print an example
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report every fault of a file at once
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print a complete, commented file
    Example,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Check { file } => check(&file),
        Command::Example => output::line(EXAMPLE.trim_end()),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path).map_err(|faults| {
        let count = faults.0.len();
        let plural = if count == 1 { "" } else { "s" };
        Failure::new(FAILURE, format!("{faults}\n{count} fault{plural}"))
    })?;
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
