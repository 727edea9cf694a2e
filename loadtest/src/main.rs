//! Measures a Mayfly issuer against the floor of this machine, in the same run.
//!
//! The floor of a request is every signature operation that it must do, plus one empty RPC to the same server at the same
//! concurrency. Server CPU is read from `/proc`; the ratio to the floor is the figure that holds on any machine.

mod client;
mod floor;
mod html;
mod issuer;
mod load;
mod machine;
mod report;
mod rounds;
mod row;
mod scenario;
mod seed;
mod server;
mod spire;
mod supply;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, ValueEnum};
use issuer::Issuer;
use report::Report;
use scenario::{exchange, feed, grow, issue, keyless, revoke};
use spire::Spire;

/// Measure an issuer against the floor of this machine.
///
/// Without --home and --address it starts an issuer of its own, in a process of its own. Ctrl-C ends the measurement, and the
/// report is still written; a second Ctrl-C ends the program at once.
#[derive(Parser)]
#[command(name = "mayfly-loadtest", version, max_term_width = 100)]
struct Cli {
    /// What to do
    #[arg(value_enum)]
    scenario: Scenario,
    #[command(flatten)]
    options: Options,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with the distributions, the throughput over time, and where the CPU went
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Args)]
struct Options {
    /// The binary under test; without it, the `mayfly` beside this program
    #[arg(long, value_name = "FILE")]
    mayfly: Option<PathBuf>,
    /// Seconds that are measured; by default as long as the scenario needs, which is less than a minute
    #[arg(long, value_parser = seconds)]
    duration: Option<f64>,
    /// Calls in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000).map(usize::from))]
    concurrency: usize,
    /// Calls a second, whether or not they are answered; latency counts from when each was due
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Subscribers of the feed, each with a connection of its own
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    subscribers: u16,
    /// Live agents: those of the largest issuer in `scale` and `restart`, those below the largest target in `revoke`
    #[arg(long, value_parser = clap::value_parser!(u32).range(1000..=20_000_000).map(|n| usize::try_from(n).unwrap_or(1000)))]
    live: Option<usize>,
    /// Keep the issuer on the first core and this program on the second
    #[arg(long)]
    pin: bool,
    /// Load the `mayfly dev` that runs in this home
    #[arg(long, value_name = "DIR", conflicts_with = "address")]
    home: Option<PathBuf>,
    /// Load the issuer at host:port; needs --join-token, --class and --user-token
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// File with a join token: this program joins as that workload
    #[arg(long, value_name = "FILE")]
    join_token: Option<PathBuf>,
    /// Class that the workload may spawn
    #[arg(long)]
    class: Option<String>,
    /// File with a user token that the workload may present
    #[arg(long, value_name = "FILE")]
    user_token: Option<PathBuf>,
    /// Audience of the tokens that are minted
    #[arg(long, default_value = "https://search.example", value_name = "URL")]
    audience: String,
    /// Admin socket of a SPIRE server
    #[arg(long, default_value = "/tmp/spire-server/private/api.sock", value_name = "PATH")]
    spire_socket: PathBuf,
    /// Process id of that server; by default that of the process that listens on its socket
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    spire_pid: Option<u32>,
    /// Workload API socket of a SPIRE agent; with it the time until an SVID is usable is measured too
    #[arg(long, value_name = "PATH")]
    spire_agent_socket: Option<PathBuf>,
    /// SPIFFE ID of that agent; needed if its server has several
    #[arg(long, value_name = "ID", requires = "spire_agent_socket")]
    spire_agent_id: Option<String>,
}

impl Options {
    /// Whether the issuer was not started by this program.
    fn runs_elsewhere(&self) -> bool {
        self.home.is_some() || self.address.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Signatures, and an RPC that does nothing
    Floor,
    /// Spawns under a recorded delegation; then at 70 % of that rate
    Spawn,
    /// Children of one agent, a thousand in a batch; times are of a whole batch
    Batch,
    /// Children of one agent, with a key each and without, in turns
    Keyless,
    /// JWT-SVIDs of one agent
    Jwt,
    /// Access tokens of one agent; then by an access token that it presents
    Exchange,
    /// Tickets, each over a new connection
    Redeem,
    /// Agents renew, each time over a new connection
    Renew,
    /// Five spawns, four mints and an end, of ten calls
    Mixed,
    /// A thousand children at once: by one batch, and by a thousand calls
    Burst,
    /// Revocations with 1, 1,000 and 100,000 live agents below; then spawns beside a storm of them
    Revoke,
    /// From an acknowledged revocation to every subscriber of the feed
    Subscribers,
    /// Memory and speed with a thousand and with a million live agents
    Scale,
    /// How long a restart takes after a kill
    Restart,
    /// The calls of `mixed` at a fixed rate, in three parts, with the memory of each
    Soak,
    /// Spawns, tokens and revocations, in turns with the same operations of a running SPIRE server
    Spire,
    /// All scenarios but `spire`, one after the other, each with an issuer of its own
    All,
}

impl Scenario {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("mayfly-loadtest: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if cli.options.pin {
        // ORDER: before the runtime has threads.
        machine::stay_on(1)?;
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let twice = tokio::spawn(load::interrupted_twice());
        // Dropping these futures also kills the issuer that this program started.
        tokio::select! {
            measured = measure(cli) => measured.map(|()| ExitCode::SUCCESS),
            twice = twice => twice.map_err(|e| e.to_string())?.map(|()| ExitCode::from(130)),
        }
    })
}

async fn measure(cli: &Cli) -> Result<(), String> {
    let mut report = Report::new(cli.scenario.name(), &cli.options);
    let scenarios = match cli.scenario {
        Scenario::All => {
            Scenario::value_variants().iter().copied().filter(|s| !matches!(s, Scenario::Spire | Scenario::All)).collect()
        }
        one => vec![one],
    };
    for scenario in scenarios {
        if !load::ending() {
            one(scenario, &cli.options, &mut report).await?;
        }
    }
    report.print()?;
    if let Some(file) = &cli.json {
        std::fs::write(file, report.json()).map_err(|e| format!("`{}`: {e}", file.display()))?;
    }
    if let Some(file) = &cli.html {
        std::fs::write(file, html::page(&report)).map_err(|e| format!("`{}`: {e}", file.display()))?;
    }
    Ok(())
}

async fn one(scenario: Scenario, options: &Options, report: &mut Report) -> Result<(), String> {
    // These scenarios start issuers of several sizes, or with agents in their journal.
    let seeded = match scenario {
        Scenario::Revoke => Some(revoke::revoke(options).await?),
        Scenario::Subscribers => Some(feed::subscribers(options).await?),
        Scenario::Scale => Some(grow::scale(options).await?),
        Scenario::Restart => Some(grow::restart(options).await?),
        _ => None,
    };
    if let Some(rows) = seeded {
        report.rows.extend(rows);
        return Ok(());
    }
    if scenario == Scenario::Spire {
        return beside_spire(options, report).await;
    }
    let issuer = Issuer::start(options).await?;
    let before = issuer.metrics().await;
    let rows = match scenario {
        Scenario::Floor => issue::floor(&issuer, options).await,
        Scenario::Spawn => issue::spawn(&issuer, options).await,
        Scenario::Batch => issue::batch(&issuer, options).await,
        Scenario::Keyless => keyless::keyless(&issuer, options).await,
        Scenario::Jwt => issue::jwt(&issuer, options).await,
        Scenario::Exchange => exchange::exchange(&issuer, options).await,
        Scenario::Redeem => issue::redeem(&issuer, options).await,
        Scenario::Renew => issue::renew(&issuer, options).await,
        Scenario::Mixed => issue::mixed(&issuer, options).await,
        Scenario::Burst => issue::burst(&issuer, options).await,
        _ => issue::soak(&issuer, options).await,
    }?;
    report.rows.extend(rows);
    report.count(&issuer, before).await;
    Ok(())
}

async fn beside_spire(options: &Options, report: &mut Report) -> Result<(), String> {
    // ORDER: before an issuer is started, which would be in vain without a SPIRE server.
    let spire = Spire::reach(options).await?;
    let issuer = Issuer::start(options).await?;
    let before = issuer.metrics().await;
    report.rows.extend(scenario::spire::beside(&issuer, &spire, options).await?);
    report.count(&issuer, before).await;
    report.count_here(&spire.counts);
    Ok(())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|e| e.to_string())?;
    if (0.1..=604_800.0).contains(&seconds) { Ok(seconds) } else { Err("give 0.1 to 604800 seconds".into()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|e| e.to_string())?;
    if (0.1..=100_000.0).contains(&rate) { Ok(rate) } else { Err("give 0.1 to 100000 calls a second".into()) }
}
