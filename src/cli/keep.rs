//! `mayfly keep`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_agent::validity;
use serde_json::json;
use tokio::sync::mpsc;

use super::exit::{Failure, INVALID};
use super::global::Global;
use super::keeping::{self, When};
use super::{output, serving};
use crate::config::LogFormat;
use crate::process;
use crate::telemetry;

/// Renew the identities of workloads and agents in folders, before they expire
///
/// Each is renewed when half of its life has passed, with a fresh key; key and certificate switch together, so a program may read
/// the folder, or start again, at any moment. Several keepers may run on one folder. It runs until Ctrl-C, or until no identity is
/// left that can be renewed: one that was revoked or has ended is given up, with exit code 3, and one that expired with 4. The lease
/// of an agent is not extended.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Folders that `spawn --out`, `redeem --out` or `run --ticket --as` wrote
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Renew what is due and return
    #[arg(long)]
    once: bool,
    /// host:port of the issuer; by default that of the issuer in --home, or the one that the folder names [env: MAYFLY_SERVER]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
}

/// Shortest and longest pause after a failure.
const PAUSES: (u64, u64) = (1, 60);
/// What to do when an identity is over.
const END: &str = "this folder is kept no longer: get another identity into it, and start the keeper again";
/// Longest time between two readings of the clock, because it can be set, and machines sleep.
const LOOK: Duration = Duration::from_secs(20);

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if args.once {
        return once(&args, global).await;
    }
    telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "warn".into()))?;
    // ORDER: the process is protected before there is a key in memory.
    process::begin()?;
    let shown: Vec<String> = args.dirs.iter().map(|dir| dir.display().to_string()).collect();
    output::print_one(global.output, &json!({ "keeping": shown }), || format!("keeping {}; Ctrl-C stops it", shown.join(", ")))?;
    let (over, mut ended) = mpsc::channel(args.dirs.len().max(1));
    let mut left = args.dirs.len();
    for dir in args.dirs {
        let (global, server, over) = (global.clone(), args.server.clone(), over.clone());
        process::task("keeper of a folder", async move {
            let failure = keep(&global, server.as_deref(), &dir).await;
            tracing::error!(folder = %dir.display(), cause = %failure, "the identity can no longer be kept");
            let _ = over.send(failure).await;
        });
    }
    tokio::select! {
        requested = serving::requested() => requested,
        last = async {
            while let Some(failure) = ended.recv().await {
                left -= 1;
                if left == 0 {
                    return failure;
                }
            }
            Failure::incomplete_answer()
        } => Err(last),
    }
}

/// Renews each folder that is due, also if another failed. The exit code is that of the first failure.
async fn once(args: &Args, global: &Global) -> Result<(), Failure> {
    let mut failed = None;
    for dir in &args.dirs {
        if let Err(failure) = one(global, args.server.as_deref(), dir).await {
            let shown = dir.display().to_string();
            let object = json!({ "dir": shown, "renewed": false, "error": failure.message });
            output::print_one(global.output, &object, || format!("{shown}: {failure}"))?;
            failed.get_or_insert(failure);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Renews one folder if it is due, and says so. Returns when it is due next, in Unix seconds.
async fn one(global: &Global, server: Option<&str>, dir: &Path) -> Result<u64, Failure> {
    let got = keeping::renew(global, server, dir, When::Due).await?;
    let validity = keeping::validity_of(dir)?;
    let (until, next) = (output::time(validity.ends_at), output::time(validity.half()));
    let object = json!({
        "dir": dir.display().to_string(),
        "renewed": got.is_some(),
        "spiffe_id": got.as_ref().and_then(|got| got.svid.as_ref()).map(|svid| &svid.spiffe_id),
        "svid_expires_at": until,
        "due_at": next,
    });
    let said = if got.is_some() { "renewed" } else { "not due" };
    output::print_one(global.output, &object, || format!("{}: {said}, valid until {until}, due at {next}", dir.display()))?;
    Ok(validity.half())
}

/// Keeps one folder until its identity has ended. Returns why.
async fn keep(global: &Global, server: Option<&str>, dir: &Path) -> Failure {
    loop {
        let due = match keeping::validity_of(dir) {
            Ok(validity) if validity.half() > validity::now() => validity.half(),
            _ => match one(global, server, dir).await {
                Ok(next) => next,
                // T282: the certificate has expired, or the issuer refuses it for good: the identity never becomes valid again.
                Err(failure) if failure.code == INVALID || failure.is_final() => return failure.and_then(END),
                Err(failure) => {
                    let pause = pause(dir);
                    tracing::warn!(folder = %dir.display(), cause = %failure, pause, "not renewed: trying again");
                    validity::now() + pause
                }
            },
        };
        while let Some(left) = due.checked_sub(validity::now()).filter(|left| *left > 0) {
            tokio::time::sleep(Duration::from_secs(left).min(LOOK)).await;
        }
        // A certificate of a few seconds may be due again at once.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Seconds until the next attempt: a fifth of what is left of the certificate's life, within bounds.
fn pause(dir: &Path) -> u64 {
    let left = keeping::validity_of(dir).map_or(0, |validity| validity.ends_at.saturating_sub(validity::now()));
    (left / 5).clamp(PAUSES.0, PAUSES.1)
}
