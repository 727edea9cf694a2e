//! Revocations: from the call to the acknowledgement, for trees of several sizes, and what a storm of revocations costs other
//! callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Options;
use crate::client::Client;
use crate::floor::{Floor, median};
use crate::issuer::Issuer;
use crate::load::{self, Call, Plan, Run, boxed};
use crate::row::{Row, Timed};
use crate::scenario::issue::spawning;
use crate::seed::Trees;

/// Pause between two revocations that are made one at a time.
const PAUSE: Duration = Duration::from_millis(5);
/// Revocations a second in the storm.
const STORM: f64 = 1000.0;
/// Turns of quiet and storm.
const TURNS: u32 = 3;

/// Revokes trees of three sizes, one at a time and in turns; then measures spawns alone, during a storm of revocations, and during
/// as many calls that do nothing.
pub(crate) async fn revoke(options: &Options) -> Result<Vec<Row>, String> {
    let turn = Duration::from_secs_f64(options.duration.unwrap_or(12.0) / f64::from(3 * TURNS));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of agents")]
    let each = (STORM * turn.as_secs_f64()).ceil() as usize;
    let largest = options.live.unwrap_or(100_000);
    let turns = usize::try_from(TURNS).unwrap_or(1);
    let singles = Trees { count: turns * each, below: 0 };
    let (issuer, sizes, mut tops) = if options.runs_elsewhere() {
        let issuer = Issuer::start(options).await?;
        let ids =
            |spawned: Vec<mayfly_agent::api::v1::SpawnResponse>| spawned.into_iter().filter_map(|s| Some(s.agent?.agent_id));
        let alone = ids(issuer.batches(200, false).await?).collect();
        let singles = ids(issuer.batches(singles.count, false).await?).collect();
        (issuer, vec![Trees { count: 200, below: 0 }], vec![alone, singles])
    } else {
        // 1, 1,000 and 100,000 live agents below the target.
        let sizes = vec![Trees { count: 200, below: 1 }, Trees { count: 200, below: 1000 }, Trees { count: 6, below: largest }];
        let (issuer, tops) = Issuer::seeded(options, &[sizes.as_slice(), &[singles]].concat()).await?;
        (issuer, sizes, tops)
    };
    let singles = tops.pop().unwrap_or_default();
    let revoker = issuer.as_revoker().await?;
    let mut rows = trees(&issuer, &revoker, &sizes, &tops).await?;
    rows.extend(storm(&issuer, &revoker, options, &singles, turn, each).await?);
    Ok(rows)
}

/// Revokes one tree at a time, the sizes in turns.
async fn trees(issuer: &Issuer, revoker: &Client, sizes: &[Trees], tops: &[Vec<String>]) -> Result<Vec<Row>, String> {
    // The first call is not measured, because it opens the connection.
    revoker.revision().await?;
    let mut of_size = vec![Timed::default(); sizes.len()];
    let most = tops.iter().map(Vec::len).max().unwrap_or(0);
    for n in 0..most {
        for ((size, ids), timed) in sizes.iter().zip(tops).zip(&mut of_size) {
            // The revocations of a size that has fewer trees are spread evenly among the others.
            let (count, at) = (ids.len(), n * ids.len() / most);
            let turn = n == (at * most).div_ceil(count.max(1));
            let Some(id) = ids.get(at).filter(|_| turn && !load::ending()) else { continue };
            tokio::time::sleep(PAUSE).await;
            let started = Instant::now();
            let result = revoker.revoke(id.clone()).await;
            let took = started.elapsed();
            timed.take(result.and_then(|receipt| match receipt.agents_at_most {
                all if all > u64::try_from(size.below).unwrap_or(0) => Ok(took),
                few => Err(format!("{few} agents end, and {} live below", size.below)),
            }));
        }
    }
    let mut rows = Vec::new();
    for (size, timed) in sizes.iter().zip(of_size) {
        rows.push(timed.row(issuer, &format!("revoke, {} below", thousands(size.below))).await?);
    }
    Ok(rows)
}

/// Measures spawns without and with a storm, in turns.
async fn storm(
    issuer: &Issuer,
    revoker: &Client,
    options: &Options,
    singles: &[String],
    turn: Duration,
    each: usize,
) -> Result<Vec<Row>, String> {
    let client = issuer.as_workload().await?;
    let plan = Plan {
        name: "spawn, quiet",
        concurrency: options.concurrency,
        rate: None,
        duration: Duration::from_millis(1500),
        supply: 2000,
        server: issuer.process,
    };
    let mut best = load::run(plan, spawning(issuer, &client, 2000).await?).await?.rate();
    let (mut quiet, mut beside, mut cuts, mut calls): (Vec<Run>, Vec<Run>, Vec<Run>, Vec<Run>) = Default::default();
    for targets in singles.chunks(each.max(1)) {
        if load::ending() {
            break;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of calls")]
        let supply = (best * 1.3 * turn.as_secs_f64()).ceil() as usize;
        let plan = Plan { duration: turn, supply, ..plan };
        let run = load::run(plan, spawning(issuer, &client, supply).await?).await?;
        best = best.max(run.rate());
        quiet.push(run);
        let cut = cutting(revoker, targets.to_vec());
        let storm = Plan { name: "revoke, storm", rate: Some(STORM), supply: each, ..plan };
        let spawn = spawning(issuer, &client, supply).await?;
        let (spawned, cut) = tokio::join!(load::run(Plan { name: "spawn, storm", ..plan }, spawn), load::run(storm, cut));
        beside.push(spawned?);
        cuts.push(cut?);
        // As many calls that do nothing: a storm of real calls cannot cost less.
        let empty = Plan { name: "empty, storm", ..storm };
        let spawn = spawning(issuer, &client, supply).await?;
        let (spawned, empty) =
            tokio::join!(load::run(Plan { name: "spawn, calls", ..plan }, spawn), load::run(empty, idle(revoker)));
        calls.push(spawned?);
        empty?.first_error.map_or(Ok(()), Err)?;
    }
    let floor = Floor::signatures()?;
    let ratio = |of: &[Run], to: &[Run]| median(to.iter().zip(of).map(|(to, of)| of.rate() / to.rate().max(1.0)).collect());
    let (of_quiet, of_calls) = (ratio(&beside, &quiet), ratio(&beside, &calls));
    let calls =
        Row::of(issuer, "spawn beside empty calls", 1, floor, &calls).await?.with("speed_to_no_storm", ratio(&calls, &quiet));
    let quiet = Row::of(issuer, "spawn, no storm", 1, floor, &quiet).await?;
    let beside = Row::of(issuer, "spawn beside storm", 1, floor, &beside).await?;
    let beside = beside.with("speed_to_no_storm", of_quiet).with("speed_to_empty_calls", of_calls);
    // Revocations and spawns share the server's CPU, so the cost of a revocation alone is unknown.
    let cuts = Row { cpu_us: None, ..Row::of(issuer, "revoke, storm", 1, floor, &cuts).await? };
    Ok(vec![quiet, Row { cpu_us: None, ..calls }, Row { cpu_us: None, ..beside }, cuts])
}

/// Calls that do nothing.
fn idle(client: &Client) -> Call {
    let client = client.clone();
    boxed(move |_| {
        let client = client.clone();
        async move { client.empty().await }
    })
}

/// Calls that each revoke an agent.
pub(crate) fn cutting(revoker: &Client, targets: Vec<String>) -> Call {
    let (targets, revoker) = (Arc::new(targets), revoker.clone());
    boxed(move |n: usize| {
        let (revoker, id) = (revoker.clone(), targets.get(n).cloned().unwrap_or_default());
        async move { revoker.revoke(id).await.map(drop) }
    })
}

/// With a comma at each thousand.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let comma = |(at, digit): (usize, char)| {
        let parts = at > 0 && at % 3 == first;
        parts.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(comma).collect()
}
