//! Measures a Mayfly issuer against the floor of this machine, in the same run.
//!
//! The floor of a request is every signature operation that it must do, plus one empty RPC to the same server at the same
//! concurrency. Server CPU is read from `/proc`; the ratio to the floor is the figure that holds on any machine.

mod cuts;
mod issuer;

use std::path::PathBuf;
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use clap::{Parser, Subcommand};
use issuer::{Issuer, Sample};

/// Measure an issuer against the floor of this machine.
#[derive(Parser)]
#[command(name = "mayfly-loadtest", version)]
struct Cli {
    /// The binary under test
    #[arg(long, global = true, default_value = "target/release/mayfly")]
    mayfly: PathBuf,
    /// Requests in one run
    #[arg(long, global = true, default_value_t = 5000)]
    requests: usize,
    /// Requests in flight
    #[arg(long, global = true, default_value_t = 64)]
    in_flight: usize,
    /// Runs; the median counts
    #[arg(long, global = true, default_value_t = 3)]
    runs: usize,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Clone, Copy, Subcommand)]
enum Scenario {
    /// Signature operations and the empty RPC alone
    Floor,
    /// Spawns under a recorded delegation, beside their floor
    Spawn,
    /// Children of one agent, a thousand in a batch, beside the floor of single spawns; times are of a whole batch
    Batch,
    /// A burst of a thousand children of one agent: by one batch, and by a thousand calls
    Burst,
    /// JWT-SVIDs of one agent, beside their floor
    Jwt,
    /// From a revocation's receipt to every subscriber of the feed: one at a time, and in a storm
    Cuts {
        /// Subscribers, each with a connection of its own; at most 1,000
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
        subscribers: u16,
    },
    /// All of it in one table
    All,
}

#[tokio::main]
async fn main() -> Result<(), String> {
    let cli = Cli::parse();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let issuer = Issuer::start(&cli.mayfly).await?;
    if let Scenario::Cuts { subscribers } = cli.scenario {
        return cuts_scenario(&cli, &issuer, subscribers.into()).await;
    }
    let (sign, verify) = signatures()?;
    let mut rows = Vec::new();
    let mut empty = Vec::new();
    let (mut spawns, mut batches, mut jwts, mut children) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Interleaved, so that all of them see the same machine.
    for run in 0..cli.runs.max(1) {
        eprintln!("run {} of {}", run + 1, cli.runs.max(1));
        empty.push(issuer.empty(cli.requests, cli.in_flight).await?);
        if matches!(cli.scenario, Scenario::Spawn | Scenario::All) {
            spawns.push(issuer.spawn(cli.requests, cli.in_flight).await?);
        }
        if matches!(cli.scenario, Scenario::Batch | Scenario::All) {
            batches.push(issuer.batch(cli.requests).await?);
        }
        if matches!(cli.scenario, Scenario::Burst) {
            batches.push(issuer.batch(1000).await?);
            children.push(issuer.children(1000, cli.in_flight).await?);
        }
        if matches!(cli.scenario, Scenario::Jwt | Scenario::All) {
            jwts.push(issuer.jwt(cli.requests, cli.in_flight).await?);
        }
    }
    let rpc = median(&empty);
    rows.push(("empty rpc", rpc, rpc.cpu));
    if !spawns.is_empty() {
        rows.push(("spawn", median(&spawns), rpc.cpu + sign + verify));
    }
    if !batches.is_empty() {
        rows.push(("batch", median(&batches), rpc.cpu + sign + verify));
    }
    if !children.is_empty() {
        rows.push(("children", median(&children), rpc.cpu + sign + verify));
    }
    if !jwts.is_empty() {
        rows.push(("jwt", median(&jwts), rpc.cpu + sign));
    }
    report(&cli, sign, verify, &rows);
    Ok(())
}

/// One at a time, then a thousand a second.
#[expect(clippy::print_stdout, reason = "the report")]
async fn cuts_scenario(cli: &Cli, issuer: &Issuer, count: usize) -> Result<(), String> {
    let mut subscribers = cuts::Subscribers::start(issuer, count).await?;
    let agents = issuer.agents(2100).await?;
    let (idle, storm) = agents.split_at(100.min(agents.len()));
    let idle = subscribers.run(issuer, idle, std::time::Duration::from_millis(50)).await?;
    let storm = subscribers.run(issuer, storm, std::time::Duration::from_millis(1)).await?;
    if cli.json {
        let row = |name: &str, c: &cuts::Cuts| {
            let spread = |s: &cuts::Spread| serde_json::json!({ "p50_ms": s.p50, "p99_ms": s.p99, "max_ms": s.max });
            serde_json::json!({ "scenario": name, "receipt": spread(&c.receipt), "arrival": spread(&c.arrival),
                "arrivals": c.arrivals, "per_second": c.rate })
        };
        let rows = [row("one at a time", &idle), row("storm", &storm)];
        println!("{}", serde_json::json!({ "subscribers": count, "kb_each": subscribers.kilobytes, "rows": rows }));
        return Ok(());
    }
    println!("{count} subscribers, a connection each: {:.1} KiB of the issuer's memory for each", subscribers.kilobytes);
    println!(
        "{:<14} {:>8} {:>24} {:>26} {:>10}",
        "cuts", "cuts/s", "receipt ms p50/p99/max", "arrival ms p50/p99/max", "arrivals"
    );
    for (name, c) in [("one at a time", idle), ("storm", storm)] {
        let of = |s: cuts::Spread| format!("{:.2} / {:.2} / {:.2}", s.p50, s.p99, s.max);
        println!("{name:<14} {:>8.0} {:>24} {:>26} {:>10}", c.rate, of(c.receipt), of(c.arrival), c.arrivals);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report")]
fn report(cli: &Cli, sign: f64, verify: f64, rows: &[(&str, Sample, f64)]) {
    if cli.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, s, floor)| {
                serde_json::json!({ "scenario": name, "cpu_us": s.cpu, "floor_us": floor, "ratio": s.cpu / floor,
                    "per_second": s.rate, "p50_ms": s.p50, "p99_ms": s.p99 })
            })
            .collect();
        println!(
            "{}",
            serde_json::json!({ "sign_us": sign, "verify_us": verify, "in_flight": cli.in_flight,
            "requests": cli.requests, "runs": cli.runs, "rows": rows })
        );
        return;
    }
    println!(
        "P-256: sign {sign:.1} us, verify {verify:.1} us; {} in flight, {} requests, median of {} runs",
        cli.in_flight, cli.requests, cli.runs
    );
    println!(
        "{:<10} {:>12} {:>10} {:>7} {:>10} {:>9} {:>9}",
        "scenario", "cpu us/call", "floor us", "ratio", "calls/s", "p50 ms", "p99 ms"
    );
    for (name, s, floor) in rows {
        println!(
            "{name:<10} {:>12.1} {floor:>10.1} {:>7.2} {:>10.0} {:>9.2} {:>9.2}",
            s.cpu,
            s.cpu / floor,
            s.rate,
            s.p50,
            s.p99
        );
    }
}

fn median(samples: &[Sample]) -> Sample {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Microseconds of one P-256 signature and one verification, on one core.
fn signatures() -> Result<(f64, f64), String> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|e| e.to_string())?;
    let message = [7u8; 400];
    let signature = key.sign(&random, &message).map_err(|e| e.to_string())?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref());
    let time = |work: &dyn Fn() -> bool| {
        let mut runs: Vec<f64> = (0..9)
            .map(|_| {
                let started = Instant::now();
                let done = (0..500).filter(|_| work()).count();
                started.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(done.max(1)).unwrap_or(1))
            })
            .collect();
        runs.sort_by(f64::total_cmp);
        runs.get(4).copied().unwrap_or_default()
    };
    Ok((time(&|| key.sign(&random, &message).is_ok()), time(&|| public.verify(&message, signature.as_ref()).is_ok())))
}
