//! The request for a new agent, from the options that `mayfly spawn`, `mayfly run` and `mayfly explain` share.

use std::path::{Path, PathBuf};

use mayfly_agent::api::v1;

use super::connect::Acting;
use super::duration::Length;
use super::exit::Failure;
use super::global::Global;
use super::{file, place, spiffe_id};
use crate::folder;

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
pub(super) struct Limits {
    /// What the agent may do; repeat, or leave out for all that is allowed
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// How long the agent may live, such as 30m or 8h; by default as long as allowed
    #[arg(long, value_name = "DURATION", default_value = "0", hide_default_value = true)]
    lease: Length,
    /// How many levels of agents there may be below it
    #[arg(long)]
    max_depth: Option<u32>,
    /// Accept less than was asked for instead of being denied
    #[arg(long)]
    clip: bool,
}

// No documentation comment, as above.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// Class of the agent
    #[arg(long)]
    class: String,
    /// File with the user's ID token or at+jwt access token; `-` reads stdin. Not for children of an agent
    #[arg(long, value_name = "FILE", conflicts_with = "autonomous")]
    user_token: Option<PathBuf>,
    /// Instead of a user token: the delegation that an earlier token recorded for the same workload; `mayfly agents show` prints
    /// its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["user_token", "autonomous"])]
    delegation: Option<String>,
    /// Act for nobody, if the class allows that
    #[arg(long)]
    autonomous: bool,
    #[command(flatten)]
    limits: Limits,
    /// Also mint a first JWT-SVID for this audience
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
}

impl Wanted {
    /// Makes the request of the identity in a folder, without a key.
    pub(super) async fn request(self, spawner: &Path, global: &Global) -> Result<v1::SpawnRequest, Failure> {
        let whom = For { user_token: self.user_token.as_deref(), delegation: self.delegation, autonomous: self.autonomous };
        let request = spawn(self.class, whom, self.limits, spawner, global).await?;
        Ok(v1::SpawnRequest { jwt_audience: self.audience.unwrap_or_default(), ..request })
    }
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

/// Makes the request, without a key. Without a user token and a delegation, a workload spawns for the person who has signed in.
pub(super) async fn spawn(
    class: String,
    whom: For<'_>,
    limits: Limits,
    spawner: &Path,
    global: &Global,
) -> Result<v1::SpawnRequest, Failure> {
    let is_said = whom.delegation.is_some() || whom.autonomous;
    let user_token = match whom.user_token {
        Some(file) => file::read_text(file)?.trim().to_owned(),
        None if is_said || !is_workload(spawner) => String::new(),
        None => signed_in(global).await?,
    };
    let mode = if whom.autonomous { v1::Mode::Autonomous } else { v1::Mode::Unspecified };
    let excess = if limits.clip { v1::Excess::Clip } else { v1::Excess::Deny };
    Ok(v1::SpawnRequest {
        class,
        user_token,
        delegation: whom.delegation.unwrap_or_default(),
        mode: mode.into(),
        scopes: limits.scopes,
        lease_seconds: limits.lease.seconds(),
        max_depth: limits.max_depth,
        excess: excess.into(),
        ..Default::default()
    })
}

/// The token of the person who has signed in at the context. Empty if there is none; the issuer then says what is missing.
async fn signed_in(global: &Global) -> Result<String, Failure> {
    Ok(if place::of(global)?.is_some() { place::token(global).await?.unwrap_or_default() } else { String::new() })
}

fn is_workload(dir: &Path) -> bool {
    let chain = folder::certificates(&dir.join("svid.pem")).unwrap_or_default();
    chain.first().and_then(|leaf| spiffe_id::of_certificate(leaf)).is_some_and(|id| id.contains("/workload/"))
}

/// The folder of the spawner: `--as`, or the identity of the context; without these, the workload that `mayfly dev` sets up.
pub(super) fn spawner(global: &Global, acting: &Acting) -> Result<PathBuf, Failure> {
    if let Some(dir) = &acting.identity {
        return Ok(dir.clone());
    }
    let of_place = place::of(global)?.and_then(|context| context.settings.identity);
    match of_place {
        Some(dir) => Ok(dir),
        None => {
            place::believe(global)?;
            Ok(global.home.join("workloads").join("orchestrator"))
        }
    }
}
