//! `mayfly serve`.

use std::path::PathBuf;
use std::time::Duration;

use super::bounded::within;
use super::exit::Failure;
use super::serving;
use crate::app;
use crate::clock::Clock;
use crate::config::Source;
use crate::process::{self, manager::Manager};
use crate::telemetry;

/// Run the issuer in production
#[derive(clap::Args)]
pub(super) struct Args {
    /// Configuration file; see `mayfly config example`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Accept the machine's clock at this start, however far it is ahead of the journal
    #[arg(long)]
    accept_clock: bool,
    /// Start although no witness answers, or one has seen later revisions (`journal.witnesses`)
    #[arg(long)]
    without_witnesses: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    // ORDER: the process is protected before there is a key in memory.
    process::begin()?;
    let hangups = serving::hangups()?;
    let (path, source) = (args.config.clone(), Source::File(args.config));
    let its = source.clone();
    // Files that the configuration names are only read here, to find those whose reading never ends. Their faults are reported by
    // the start itself.
    let read = within(&path, move || its.load().inspect(|config| drop(app::unusable(config))))?;
    let mut config = read.map_err(|e| e.to_string())?;
    if args.without_witnesses {
        config.witnesses.clear();
        config.witnesses_needed = 0;
    }
    if args.accept_clock {
        config.max_downtime = Duration::MAX;
    }
    telemetry::logs(config.log, &config.log_filter)?;
    process::lock_memory();
    let running = app::start_from(Some(source), config, false, Clock::system()).await?;
    serving::serve(&running, hangups, &Manager::of_environment()).await?;
    running.stop().await;
    Ok(())
}
