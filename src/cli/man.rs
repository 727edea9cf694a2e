//! `mayfly man`.

use std::path::PathBuf;

use super::exit::Failure;
use super::output;

/// Write a manual page for each command into a folder
#[derive(clap::Args)]
pub(super) struct Args {
    /// The folder, which is made if it is not there
    dir: PathBuf,
}

pub(super) fn run(args: &Args, command: clap::Command) -> Result<(), Failure> {
    let text = |e: std::io::Error| format!("`{}`: {e}", args.dir.display());
    std::fs::create_dir_all(&args.dir).map_err(text)?;
    clap_mangen::generate_to(command, &args.dir).map_err(text)?;
    output::line(&format!("man -l {}/mayfly.1", args.dir.display()))
}
