//! `mayfly completion`.

use clap_complete::Shell;

use super::exit::Failure;
use super::output;

/// Print a completion script for a shell
#[derive(clap::Args)]
pub(super) struct Args {
    shell: Known,
}

/// A shell whose script is tested.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &Args, mut command: clap::Command) -> Result<(), Failure> {
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "mayfly", &mut text);
    output::line(String::from_utf8_lossy(&text).trim_end())
}
