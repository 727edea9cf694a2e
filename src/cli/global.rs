//! The options that every command has.

use std::path::PathBuf;

use super::output::Format;

// No documentation comment: clap would show it as the help of each command.
#[derive(clap::Args)]
pub(super) struct Global {
    /// Folder of all state; other commands find the issuer through it
    #[arg(long, global = true, env = "MAYFLY_HOME", default_value = ".mayfly", value_name = "DIR")]
    pub(super) home: PathBuf,
    /// Print for people or for programs
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub(super) output: Format,
}
