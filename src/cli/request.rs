//! The request for a new agent, from the options that `mayfly spawn` and `mayfly run` share.

use std::path::{Path, PathBuf};

use mayfly_agent::api::v1;

use super::connect::Acting;
use super::exit::Failure;
use super::file;

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
pub(super) struct Limits {
    /// What the agent may do; repeat, or leave out for all that is allowed
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Seconds that the agent may live; 0 means as long as allowed
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    lease: u64,
    /// How many levels of agents there may be below it
    #[arg(long)]
    max_depth: Option<u32>,
    /// Accept less than was asked for instead of being denied
    #[arg(long)]
    clip: bool,
}

/// Whom the new agent acts for. With `None`, `None` and `false` it is a child of an agent, and acts for the user of its parent.
pub(super) struct For<'a> {
    /// File with the user's token.
    pub(super) user_token: Option<&'a Path>,
    /// Id of a delegation that is recorded already.
    pub(super) delegation: Option<String>,
    /// Whether it acts for nobody.
    pub(super) autonomous: bool,
}

/// Makes the request, without a key.
pub(super) fn spawn(class: String, whom: For<'_>, limits: Limits) -> Result<v1::SpawnRequest, Failure> {
    let user_token = match whom.user_token {
        Some(file) => file::read_text(file)?.trim().to_owned(),
        None => String::new(),
    };
    let mode = if whom.autonomous { v1::Mode::Autonomous } else { v1::Mode::Unspecified };
    let excess = if limits.clip { v1::Excess::Clip } else { v1::Excess::Deny };
    Ok(v1::SpawnRequest {
        class,
        user_token,
        delegation: whom.delegation.unwrap_or_default(),
        mode: mode.into(),
        scopes: limits.scopes,
        lease_seconds: limits.lease,
        max_depth: limits.max_depth,
        excess: excess.into(),
        ..Default::default()
    })
}

/// The folder of whoever spawns: `--as`; without it, the workload that `mayfly dev` sets up.
pub(super) fn spawner(home: &Path, acting: &Acting) -> PathBuf {
    acting.identity.clone().unwrap_or_else(|| home.join("workloads").join("orchestrator"))
}
