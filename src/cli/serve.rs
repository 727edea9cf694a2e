//! `mayfly serve`.

use std::path::PathBuf;

use super::exit::Failure;
use super::shutdown;
use crate::app;
use crate::clock::Clock;
use crate::config::Config;
use crate::process;
use crate::telemetry;

/// Run the issuer in production
#[derive(clap::Args)]
pub(super) struct Args {
    /// Configuration file; see `mayfly config example`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    // ORDER: before there is a key in memory.
    process::begin()?;
    let config = Config::load(&args.config).map_err(|e| e.to_string())?;
    telemetry::logs(config.log, &config.log_filter)?;
    process::lock_memory();
    let running = app::start(config, false, Clock::system()).await?;
    shutdown::requested().await?;
    running.stop().await;
    Ok(())
}
