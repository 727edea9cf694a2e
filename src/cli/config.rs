//! `mayfly config`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::exit::{FAILURE, Failure};
use super::output;
use crate::config::{Config, EXAMPLE};

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
    output::line(&format!(
        "{}: good: trust domain {}, {} workloads, {} issuers, {} classes",
        path.display(),
        config.trust_domain,
        config.workloads.len(),
        config.issuers.len(),
        config.classes.len()
    ))
}
