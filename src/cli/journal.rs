//! `mayfly journal`: what an operator can do with the journal of a stopped issuer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::exit::Failure;
use super::global::Global;
use super::output;
use crate::authority::Authority;
use crate::clock::{Clock, SECOND};
use crate::config::Config;
use crate::home::{Beats, Home};
use crate::journal::sqlite::Sqlite;
use crate::journal::{Journal as _, decode};
use crate::keys::keystore::Keystore;
use crate::ledger::{Head, Watermark as _, repair, replay};

/// Check or repair the journal of a stopped issuer
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the journal's time back to that of the machine's clock, after the issuer was started under a clock that was ahead
    RepairTime(Offline),
    /// Check each row of the journal: a changed bit and a missing row are found
    Check(Offline),
}

/// The home of a stopped issuer.
#[derive(clap::Args)]
struct Offline {
    /// The configuration of `serve`; without it, the home is a development one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Offline {
    fn config(&self, global: &Global) -> Result<Config, Failure> {
        let config = match &self.config {
            Some(path) => Config::load(path),
            None => Config::dev(&global.home, SocketAddr::from(([127, 0, 0, 1], 0)), None),
        };
        Ok(config.map_err(|e| e.to_string())?)
    }

    /// Opens the existing journal. Fails if there is none.
    fn journal(home: &Home) -> Result<Sqlite, Failure> {
        if !home.journal().exists() {
            return Err(format!("there is no journal in `{}`", home.dir.display()).into());
        }
        Ok(Sqlite::open(&home.journal(), None)?)
    }
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::RepairTime(offline) => repair_time(offline, global),
        Command::Check(offline) => check(offline, global),
    }
}

/// The head of a journal, for the watermark.
fn head(incarnation: uuid::Uuid, revision: u64, journal: &Sqlite) -> Head {
    let chain = journal.head().filter(|(at, _)| *at == revision).map(|(_, chain)| chain);
    Head { incarnation, revision, chain }
}

fn check(offline: &Offline, global: &Global) -> Result<(), Failure> {
    let home = Home::open(&offline.config(global)?.home)?;
    let mut journal = Offline::journal(&home)?;
    let mut rows = 0u64;
    journal.replay(&mut |revision, bytes| {
        rows += 1;
        decode(bytes).map(drop).map_err(|e| format!("revision {revision}: {e}"))
    })?;
    let state = replay(&mut journal).map_err(|e| e.to_string())?;
    let chain = journal.head().map(|(_, chain)| hex::encode(chain)).unwrap_or_default();
    let object = json!({ "rows": rows, "revision": state.revision, "chain": chain });
    output::print(global.output, &object, || format!("ok: {rows} rows up to revision {}, chain {chain}", state.revision))
}

fn repair_time(offline: &Offline, global: &Global) -> Result<(), Failure> {
    let config = offline.config(global)?;
    let home = Home::open(&config.home)?;
    let now = Clock::system().now();
    let mut journal = Offline::journal(&home)?;
    let keystore = Keystore::open(&home.dir.join("keys")).map_err(|e| e.to_string())?;
    let td = config.trust_domain.clone();
    let (root, development) = (config.root.as_ref(), offline.config.is_none());
    let authority = Authority::open(keystore, &td, &config.oid, root, development, now / SECOND).map_err(|e| e.to_string())?;
    let mut beats = Beats { path: home.dir.join("heartbeat.json"), authority: Arc::new(authority), trust_domain: td, last: None };
    let mark = beats.read()?;
    let state = replay(&mut journal).map_err(|e| e.to_string())?;
    // ORDER: the watermark is checked before anything is written, which would overwrite it.
    if let Some(mark) = &mark {
        mark.check(&journal, &state)?;
    }
    let Some(done) = repair::repair(&mut journal, now).map_err(|e| e.to_string())? else {
        // If no record is ahead of the clock, the watermark alone may be.
        beats.write(head(state.incarnation, state.revision, &journal), now);
        let object = json!({ "repaired": false, "revision": state.revision });
        return output::print(global.output, &object, || "the journal is not ahead of the clock: nothing is changed".to_owned());
    };
    beats.write(head(done.incarnation, done.head, &journal), now);
    let lead = done.lead / SECOND;
    let object = json!({
        "repaired": true, "revision": done.head, "first": done.first, "lead_seconds": lead, "revoked": done.revoked,
        "everything_revoked": done.everything,
    });
    output::print(global.output, &object, || {
        let what = if done.everything {
            "everything issued before is revoked, because revocations may have been forgotten while the clock was ahead: workloads \
             must join again"
                .to_owned()
        } else {
            format!(
                "agents, workloads and authorities live as before; {} that were issued under that clock are revoked",
                done.revoked
            )
        };
        format!("the journal was {lead} seconds ahead from revision {} on, and is not any more: {what}", done.first)
    })
}
