//! `mayfly dev`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::Failure;
use super::global::Global;
use super::output::{self, Format};
use super::serving;
use crate::app;
use crate::clock::Clock;
use crate::config::{LogFormat, Source};
use crate::home::Endpoint;
use crate::process::{self, manager::Manager};
use crate::telemetry;

/// Run a development trust domain: issuer, journal and OpenID provider in one process
#[derive(clap::Args)]
pub(super) struct Args {
    /// Address for gRPC; port 0 takes a free one and keeps it
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// File that adds classes, workloads and limits
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Accept the machine's clock at this start, however far it is ahead of the journal
    #[arg(long)]
    accept_clock: bool,
    /// Start although no witness answers, or one has seen later revisions (`journal.witnesses`)
    #[arg(long)]
    without_witnesses: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    if !args.listen.ip().is_loopback() {
        return Err(Failure::usage("`mayfly dev` listens on loopback only: use `mayfly serve` for others to reach it"));
    }
    // Unlike in production, memory is not locked: keys of development may be swapped out.
    process::begin()?;
    let hangups = serving::hangups()?;
    let source = Source::Development { home: global.home.clone(), listen: args.listen, over: args.config };
    let mut config = source.load().map_err(|e| e.to_string())?;
    if args.without_witnesses {
        config.witnesses.clear();
        config.witnesses_needed = 0;
    }
    if args.accept_clock {
        config.max_downtime = Duration::MAX;
    }
    telemetry::logs(LogFormat::Text, &std::env::var("MAYFLY_LOG").unwrap_or_else(|_| "warn".into()))?;
    let running = app::start_from(Some(source), config, true, Clock::system()).await?;
    match global.output {
        Format::Json => output::line(&serde_json::to_string(&running.endpoint).map_err(|e| e.to_string())?)?,
        Format::Text => output::line(&welcome(&global.home, &running.endpoint))?,
    }
    serving::serve(&running, hangups, &Manager::default()).await?;
    running.stop().await;
    Ok(())
}

fn welcome(home: &Path, at: &Endpoint) -> String {
    let home = home.display().to_string();
    let option = if home == ".mayfly" { String::new() } else { format!("export MAYFLY_HOME={home}\n  ") };
    format!(
        "mayfly dev is ready: trust domain {td}, for development only\n\
         \x20 gRPC (mTLS)      {grpc}\n\x20 OpenID provider  {oidc}   users demo, guest\n\
         \x20 OIDC discovery   {https}   verify with {home}/https-ca.pem\n\x20 SPIFFE bundle    {bundle}\n\x20 metrics, health  http://{http}\n\x20 operator socket  {socket}\n\
         \x20 workload         {home}/workloads/orchestrator\n\n\
         Paste into a second terminal:\n\n\
         \x20 {option}mayfly token demo > demo.jwt\n\
         \x20 mayfly spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1\n\
         \x20 mayfly verify a1/svid.pem\n\
         \x20 mayfly verify a1/svid.jwt --audience https://search.example\n\
         \x20 mayfly agents tree\n\
         \x20 mayfly revoke --user dev/demo\n\
         \x20 mayfly verify a1/svid.pem --live\n\
         \x20 mayfly reopen --user dev/demo\n\n\
         Ctrl-C stops it; started again with the same home, it goes on with what it had.",
        td = at.trust_domain,
        grpc = at.grpc,
        oidc = at.oidc.as_deref().unwrap_or_default(),
        http = at.http,
        https = at.https_issuer.as_deref().unwrap_or_default(),
        bundle = at.bundle.as_deref().unwrap_or_default(),
        socket = at.socket.display(),
    )
}
