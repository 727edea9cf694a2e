//! The options that every command has.

use std::path::PathBuf;

use clap::parser::ValueSource;

use super::output::Format;

// No documentation comment: clap would show it as the help of each command.
#[derive(Clone, clap::Args)]
pub(super) struct Global {
    /// Folder with all state of an issuer; other commands find the issuer through it
    #[arg(long, global = true, env = "MAYFLY_HOME", default_value = ".mayfly", value_name = "DIR")]
    pub(super) home: PathBuf,
    /// Use the issuer of this context, which `mayfly context add` made [env: MAYFLY_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) context: Option<String>,
    /// Print for people or for programs
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub(super) output: Format,
    #[arg(skip)]
    pub(super) home_given: Given,
}

/// Where the path of the home comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Given {
    /// Neither an option nor the environment: it is the default.
    #[default]
    No,
    /// The environment.
    Environment,
    /// An option.
    Option,
}

impl Given {
    pub(super) fn of(source: Option<ValueSource>) -> Given {
        match source {
            Some(ValueSource::CommandLine) => Given::Option,
            Some(ValueSource::EnvVariable) => Given::Environment,
            _ => Given::No,
        }
    }
}
