//! `mayfly backup restore`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::exit::Failure;
use super::global::Global;
use super::output;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::config::Config;
use crate::history::{Place, head_of};
use crate::home::{Beats, Home};
use crate::journal::Journal as _;
use crate::journal::sqlite::Sqlite;
use crate::keys::keystore::Keystore;
use crate::ledger::{Head, Watermark as _, restore};

/// Put a copy in the place of the journal of a stopped issuer: a new incarnation begins, and everything issued before is revoked
#[derive(clap::Args)]
pub(super) struct Args {
    /// A file that `mayfly backup` wrote
    file: PathBuf,
    /// The configuration of `serve`; without it, the home is a development one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    let clock = Clock::system();
    let development = args.config.is_none();
    let config = match &args.config {
        Some(path) => Config::load(path),
        None => Config::dev(&global.home, SocketAddr::from(([127, 0, 0, 1], 0)), None),
    };
    let config = config.map_err(|e| e.to_string())?;
    let home = Home::open(&config.home)?;
    let keystore = Keystore::open(&home.dir.join("keys")).map_err(|e| e.to_string())?;
    let td = config.trust_domain.clone();
    let authority = Authority::open(keystore, &td, &config.oid, config.root.as_ref(), development, clock.seconds());
    let authority = authority.map_err(|e| e.to_string())?;
    let mut beats =
        Beats { path: home.dir.join("heartbeat.json"), authority: Arc::new(authority), trust_domain: td.clone(), last: None };
    // The history may hold records of the last second, which the watermark has not seen.
    let held = head_of(&Place::of(&home.dir).segments())?;
    let last_head = beats.read()?.map_or(0, |mark| mark.head).max(held);

    let fresh = home.dir.join("journal.restoring");
    let failed = |e: std::io::Error| format!("`{}`: {e}", args.file.display());
    for name in ["journal.restoring", "journal.restoring-wal", "journal.restoring-shm"] {
        let _ = std::fs::remove_file(home.dir.join(name));
    }
    std::fs::copy(&args.file, &fresh).map_err(failed)?;
    let mut journal = Sqlite::open(&fresh, None)?;
    let restored = restore::restore(&mut journal, &td, last_head, clock.now()).map_err(|e| e.to_string())?;
    let chain = journal.head().map(|(_, chain)| chain);
    drop(journal);
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(home.dir.join(name));
    }
    std::fs::rename(&fresh, home.journal()).map_err(failed)?;
    for suffix in ["wal", "shm"] {
        let from = home.dir.join(format!("journal.restoring-{suffix}"));
        let to = home.dir.join(format!("journal.db-{suffix}"));
        let _ = std::fs::rename(from, to);
    }
    beats.write(Head { incarnation: restored.incarnation, revision: restored.head, chain }, restored.at);
    // Tokens carry whole seconds: one of this very second may be from before. A token from after we return counts.
    let second = clock.seconds();
    while clock.seconds() <= second {
        std::thread::sleep(Duration::from_millis(20));
    }
    let object = json!({ "incarnation": restored.incarnation.to_string(), "revision": restored.head });
    output::print(global.output, &object, || {
        format!(
            "restored: a new incarnation of the journal begins at revision {}; everything issued before is revoked, and \
             workloads must join again",
            restored.head
        )
    })
}
