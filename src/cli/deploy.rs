//! `mayfly deploy`.

use std::path::PathBuf;

use super::exit::Failure;
use super::output;
use crate::deploy::{Proxy, configuration};

/// Print the configuration of a proxy that asks a guard about each request
#[derive(clap::Args)]
pub(super) struct Args {
    proxy: Proxy,
    /// The service's own audience
    #[arg(long, value_name = "AUDIENCE", default_value = "https://search.example")]
    audience: String,
    /// A scope that a request needs; repeatable
    #[arg(long = "scope", value_name = "SCOPE", default_value = "search:read")]
    scopes: Vec<String>,
    /// The Unix socket of the guard: `mayfly guard --listen unix:PATH`
    #[arg(long, value_name = "PATH", default_value = "/run/mayfly/guard.sock")]
    socket: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let text = configuration(args.proxy, &args.audience, &args.scopes, &args.socket).map_err(Failure::usage)?;
    output::line(text.trim_end())
}
