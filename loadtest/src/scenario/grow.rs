//! What a million live agents cost: memory for each, speed beside a thousand, and how long a restart takes.

use std::time::Duration;

use crate::Options;
use crate::floor::{Floor, median};
use crate::issuer::Issuer;
use crate::load::{self, Plan, Run, float};
use crate::machine::Process;
use crate::row::Row;
use crate::scenario::issue::{SPAWN, spawning};
use crate::scenario::revoke::thousands;
use crate::seed::Trees;

/// Turns of the sizes.
const TURNS: usize = 5;
/// Live agents of the smallest issuer.
const FEW: usize = 1000;

/// Issuers with a thousand, a hundred thousand and a million live agents, loaded in turns.
pub(crate) async fn scale(options: &Options) -> Result<Vec<Row>, String> {
    if options.runs_elsewhere() {
        return Err("`scale` starts issuers of its own: leave --home and --address out".into());
    }
    let most = options.live.unwrap_or(1_000_000);
    let mut sizes = vec![FEW, most / 10, most];
    sizes.dedup();
    sizes.retain(|size| *size >= FEW);
    let mut issuers = Vec::new();
    for size in &sizes {
        let (issuer, _) = Issuer::seeded(options, &Trees::of(*size)).await?;
        let resident = issuer.process.and_then(Process::resident);
        issuers.push((*size, issuer, resident));
    }
    let turn = Duration::from_secs_f64(options.duration.unwrap_or(15.0) / float(u64::try_from(TURNS * sizes.len()).unwrap_or(1)));
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); sizes.len()];
    let mut best = 0.0f64;
    // The first turn is the warm-up.
    for n in 0..=TURNS {
        for ((_, issuer, _), runs) in issuers.iter().zip(&mut runs) {
            if load::ending() {
                break;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of calls")]
            let supply = if n == 0 { 1500 } else { (best * 1.3 * turn.as_secs_f64()).ceil() as usize };
            let (client, concurrency) = (issuer.as_workload().await?, options.concurrency);
            let plan = Plan { name: "scale", concurrency, rate: None, duration: turn, supply, server: issuer.process };
            let run = load::run(plan, spawning(issuer, &client, supply).await?).await?;
            best = best.max(run.rate());
            if n > 0 || load::ending() {
                runs.push(run);
            }
        }
    }
    let least = issuers.first().map(|(size, _, resident)| (*size, *resident));
    let speed = runs.first().cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for ((size, issuer, resident), runs) in issuers.iter().zip(&runs) {
        let name = format!("scale, {} live", thousands(*size));
        let mut row = Row::of(issuer, &name, 1, Floor::signatures()?, runs).await?.beside(SPAWN);
        if let (Some((few, Some(before))), Some(after)) = (least, *resident)
            && *size > few
        {
            let more = float(u64::try_from(size - few).unwrap_or(1));
            row = row.with("rss_bytes_per_agent", (float(after) - float(before)) / more);
            // Runs of the same turn are compared, because the speed of the machine changes with time.
            let pairs = runs.iter().zip(&speed);
            let ratio = |of: fn(&Run) -> f64| median(pairs.clone().map(|(many, few)| of(many) / of(few).max(1e-9)).collect());
            row = row.with("speed_to_a_thousand", ratio(Run::rate));
            row = row.with("cpu_to_a_thousand", ratio(|run| run.cpu_us().unwrap_or_default()));
        }
        rows.push(row.with("ready_s", issuer.started_in));
    }
    Ok(rows)
}

/// From the start of the process until it is ready, after a kill: with a thousand live agents, and with a million.
pub(crate) async fn restart(options: &Options) -> Result<Vec<Row>, String> {
    if options.runs_elsewhere() {
        return Err("`restart` starts an issuer of its own: leave --home and --address out".into());
    }
    let mut rows = Vec::new();
    for (size, times) in [(FEW, 10), (options.live.unwrap_or(1_000_000), 3)] {
        let (mut issuer, _) = Issuer::seeded(options, &Trees::of(size)).await?;
        let mut seconds = vec![issuer.started_in];
        for _ in 1..times {
            if load::ending() {
                break;
            }
            issuer.stop().await?;
            issuer.launch().await?;
            eprintln!("restart with {} live: ready in {:.2} s", thousands(size), issuer.started_in);
            seconds.push(issuer.started_in);
        }
        let mut row = Row::empty(&issuer, &format!("restart, {} live", thousands(size)), Floor::signatures()?).await?;
        seconds.iter().for_each(|s| load::record(&mut row.latency, Duration::from_secs_f64(*s)));
        row.done = u64::try_from(seconds.len()).unwrap_or(0);
        row.achieved = 1.0 / median(seconds.clone()).max(1e-9);
        rows.push(row.with("ready_s", median(seconds)));
    }
    Ok(rows)
}
