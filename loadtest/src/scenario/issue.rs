//! Issuing identities: one by one, in batches, by ticket, by renewal, and as tokens.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mayfly_agent::api::v1;

use crate::Options;
use crate::client::Client;
use crate::floor::{Floor, Must, median};
use crate::issuer::{BATCH, Issuer};
use crate::load::{self, Call, Calling, Plan, boxed, float};
use crate::rounds::{self, Work, rounds};
use crate::row::Row;
use crate::supply::csrs;

/// The signature operations of one spawn.
pub(crate) const SPAWN: Must = Must { verify: 1.0, x509: 1.0, jwt: 0.0 };
/// One token.
pub(crate) const JWT: Must = Must { verify: 0.0, x509: 0.0, jwt: 1.0 };
/// Those of a redemption include the server's signature in the handshake.
const REDEEM: Must = Must { verify: 1.0, x509: 2.0, jwt: 0.0 };
/// Those of a renewal also include the client's chain of two certificates, and its signature in the handshake.
const RENEW: Must = Must { verify: 4.0, x509: 2.0, jwt: 0.0 };
/// Of ten calls five spawn an agent, four mint a token, and one ends an agent.
const MIXED: Must = Must { verify: 0.5, x509: 0.5, jwt: 0.4 };

/// Tickets of one round at most: they last a minute.
const TICKETS: usize = 12_000;

/// Measures signatures and the empty RPC alone.
pub(crate) async fn floor(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let seconds = options.duration.unwrap_or(5.0);
    drop(rounds::empty(issuer, options.concurrency, Duration::from_millis(300)).await?);
    let run = rounds::empty(issuer, options.concurrency, Duration::from_secs_f64(seconds)).await?;
    let floor = Floor { rpc: run.cpu_us(), ..Floor::signatures()? };
    let row = Row::of(issuer, "floor", 1, floor, &[run]).await?.beside(Must::default());
    Ok(vec![row.with("csr_verify_us", floor.csr_verify).with("sign_us", floor.x509_sign)])
}

/// Spawns under a recorded delegation; then at 70 % of the rate that was reached, unless the options give a rate.
pub(crate) async fn spawn(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let client = issuer.as_workload().await?;
    let mut prepare = async |count| spawning(issuer, &client, count).await;
    let work = Work { must: SPAWN, ..Work::new("spawn", options, 9.0) };
    let full = rounds(issuer, work, &mut prepare).await?;
    if options.rate.is_some() || load::ending() {
        return Ok(vec![full]);
    }
    let rate = Some(full.achieved * 0.7);
    let part = rounds(issuer, Work { name: "spawn at 70 %", rate, ..work }, &mut prepare).await?;
    Ok(vec![full, part])
}

/// Calls that spawn an agent of the workload each.
pub(crate) async fn spawning(issuer: &Issuer, client: &Client, count: usize) -> Result<Call, String> {
    Ok(spawning_for(issuer.request(Vec::new()), client, csrs(count).await?))
}

/// The same for this request and these certification requests.
pub(crate) fn spawning_for(template: v1::SpawnRequest, client: &Client, csrs: Vec<Vec<u8>>) -> Call {
    let (csrs, client) = (Arc::new(csrs), client.clone());
    // Says which bundle it already has, as an orchestrator does.
    let known = Arc::new(AtomicU64::new(0));
    boxed(move |n: usize| {
        let (client, csr, known) = (client.clone(), csrs.get(n).cloned().unwrap_or_default(), Arc::clone(&known));
        let request = v1::SpawnRequest { csr, known_bundle: known.load(Ordering::Relaxed), ..template.clone() };
        async move {
            if let Some(bundle) = client.spawn(request).await?.bundle {
                known.store(bundle.sequence, Ordering::Relaxed);
            }
            Ok(())
        }
    })
}

/// Children of one agent, a thousand in a batch, one batch after the other.
pub(crate) async fn batch(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let (client, template) = issuer.parent().await?;
    let prepare = async |count: usize| {
        let csrs: Arc<Vec<Vec<Vec<u8>>>> = Arc::new(csrs(count * BATCH).await?.chunks(BATCH).map(<[_]>::to_vec).collect());
        let (client, template) = (client.clone(), template.clone());
        Ok(move |n: usize| {
            let (client, csrs) = (client.clone(), csrs.get(n).cloned().unwrap_or_default());
            let request = v1::SpawnBatchRequest { template: Some(template.clone()), csrs, count: 0 };
            async move { client.batch(request, BATCH).await.map(drop) }
        })
    };
    let work = Work::new("batch", options, 6.0);
    let work = Work { must: SPAWN, weight: 1000, concurrency: 1, warm: 2, ..work };
    // The floor of one spawn is that of the unary call, at its concurrency.
    let mut row = rounds(issuer, work, prepare).await?;
    row.floor.rpc = rounds::empty(issuer, options.concurrency, Duration::from_secs(2)).await?.cpu_us();
    Ok(vec![row.beside(SPAWN)])
}

/// JWT-SVIDs of one agent.
pub(crate) async fn jwt(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let (folder, _) = issuer.agent(&issuer.class).await?;
    let client = issuer.as_identity(&folder).await?;
    let work = Work { must: JWT, ..Work::new("jwt", options, 9.0) };
    Ok(vec![rounds(issuer, work, async |_| Ok(minting(&client, &issuer.audience))).await?])
}

/// Calls that mint a token each.
pub(crate) fn minting(client: &Client, audience: &str) -> Call {
    let (client, audience) = (client.clone(), audience.to_owned());
    boxed(move |_| {
        let (client, audience) = (client.clone(), audience.clone());
        async move { client.mint(audience).await }
    })
}

/// Tickets, each redeemed over a connection of its own.
pub(crate) async fn redeem(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let prepare = async |count| {
        let tickets: Vec<String> = issuer.batches(count, true).await?.into_iter().map(|spawned| spawned.ticket).collect();
        let (tickets, csrs, counts) = (Arc::new(tickets), Arc::new(csrs(count).await?), Arc::clone(&issuer.counts));
        Ok(move |n: usize| {
            let (tickets, csr) = (Arc::clone(&tickets), csrs.get(n).cloned().unwrap_or_default());
            let counts = Arc::clone(&counts);
            async move {
                let ticket = tickets.get(n).map(String::as_str).unwrap_or_default();
                let (client, secret) = Issuer::with_ticket(ticket, counts).await?;
                client.redeem(v1::RedeemRequest { secret, csr }).await.map(drop)
            }
        })
    };
    let work = Work::new("redeem", options, 9.0);
    Ok(vec![rounds(issuer, Work { must: REDEEM, warm: 500, most: TICKETS, ..work }, prepare).await?])
}

/// Folders of agents, with the certification requests of their keys.
type Waiting = Mutex<Vec<(PathBuf, Vec<u8>)>>;

/// Agents renew, each time over a new connection with the certificate of the time before.
pub(crate) async fn renew(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let mut agents = Vec::new();
    for _ in 0..options.concurrency * 2 {
        agents.push(issuer.agent(&issuer.class).await?);
    }
    // Guards the agents that are not being renewed at the moment.
    let agents: Arc<Waiting> = Arc::new(Mutex::new(agents));
    let dialer = Arc::new(issuer.dialer());
    let prepare = async |_| {
        let (agents, dialer) = (Arc::clone(&agents), Arc::clone(&dialer));
        Ok(move |_| {
            let (agents, dialer) = (Arc::clone(&agents), Arc::clone(&dialer));
            async move {
                let taken = agents.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let (folder, csr) = taken.ok_or("every agent is being renewed")?;
                let got = dialer.connect(&folder).await?.renew(csr.clone()).await?;
                let svid = got.svid.ok_or("an incomplete answer")?;
                let pems =
                    |ders: &[Vec<u8>]| ders.iter().map(|der| mayfly::authority::pem("CERTIFICATE", der)).collect::<String>();
                std::fs::write(folder.join("svid.pem"), pems(&svid.certificates)).map_err(|e| e.to_string())?;
                agents.lock().unwrap_or_else(PoisonError::into_inner).push((folder, csr));
                Ok(())
            }
        })
    };
    Ok(vec![rounds(issuer, Work { must: RENEW, warm: 500, ..Work::new("renew", options, 9.0) }, prepare).await?])
}

/// Of ten calls five spawn an agent, four mint a token, and one ends an agent.
pub(crate) async fn mixed(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let work = Work { must: MIXED, ..Work::new("mixed", options, 9.0) };
    let (spawner, minter) = mixers(issuer).await?;
    Ok(vec![rounds(issuer, work, async |count| mixing(issuer, &spawner, &minter, count).await).await?])
}

/// Makes the calls of `mixed` at a fixed rate, in three parts, for hours if the options say so. Each part reports the memory before
/// and after.
pub(crate) async fn soak(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    const NAMES: [&str; 3] = ["soak, first third", "soak, second third", "soak, last third"];
    let (spawner, minter) = mixers(issuer).await?;
    let third = Duration::from_secs_f64(options.duration.unwrap_or(42.0) / 3.0);
    let rate = options.rate.unwrap_or(1000.0);
    let mut rows = Vec::new();
    for name in NAMES {
        if load::ending() {
            break;
        }
        let before = issuer.process.and_then(crate::machine::Process::resident);
        let concurrency = options.concurrency;
        // In parts of some seconds, so that hours need no more keys at once.
        let (mut left, mut runs) = (third, Vec::new());
        while left > Duration::ZERO && !load::ending() {
            let duration = left.min(Duration::from_secs(10));
            left -= duration;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of calls")]
            let supply = (rate * duration.as_secs_f64()).ceil().max(1.0) as usize;
            let plan = Plan { name, concurrency, rate: Some(rate), duration, supply, server: issuer.process };
            runs.push(load::run(plan, mixing(issuer, &spawner, &minter, supply).await?).await?);
        }
        let row = Row::of(issuer, name, 1, Floor::signatures()?, &runs).await?;
        let grown = row.rss.zip(before).map(|(after, before)| (float(after) - float(before)) / float(row.done.max(1)));
        rows.push(if let Some(grown) = grown { row.with("rss_bytes_per_call", grown) } else { row });
    }
    Ok(rows)
}

async fn mixers(issuer: &Issuer) -> Result<(Client, Client), String> {
    let (folder, _) = issuer.agent(&issuer.class).await?;
    Ok((issuer.as_workload().await?, issuer.as_identity(&folder).await?))
}

async fn mixing(issuer: &Issuer, spawner: &Client, minter: &Client, count: usize) -> Result<Call, String> {
    let (csrs, template, audience) =
        (Arc::new(csrs(count.div_ceil(10) * 5).await?), issuer.request(Vec::new()), issuer.audience.clone());
    let ends: Vec<_> =
        issuer.batches(count.div_ceil(10), false).await?.into_iter().filter_map(|s| Some(s.agent?.agent_id)).collect();
    let (ends, spawner, minter) = (Arc::new(ends), spawner.clone(), minter.clone());
    Ok(Box::new(move |n: usize| -> Calling {
        let (tens, kind) = (n / 10, n % 10);
        match kind {
            0..5 => {
                let csr = csrs.get(tens * 5 + kind).cloned().unwrap_or_default();
                let (client, request) = (spawner.clone(), v1::SpawnRequest { csr, ..template.clone() });
                Box::pin(async move { client.spawn(request).await.map(drop) })
            }
            5..9 => {
                let (client, audience) = (minter.clone(), audience.clone());
                Box::pin(async move { client.mint(audience).await })
            }
            _ => {
                let (client, agent) = (spawner.clone(), ends.get(tens).cloned().unwrap_or_default());
                Box::pin(async move { client.end(agent).await })
            }
        }
    }))
}

/// A thousand children of one agent at once: by one batch, and by a thousand calls. Times are those of the whole burst.
pub(crate) async fn burst(issuer: &Issuer, options: &Options) -> Result<Vec<Row>, String> {
    let (client, template) = issuer.parent().await?;
    let rpc = rounds::empty(issuer, options.concurrency, Duration::from_secs(1)).await?.cpu_us();
    let (mut whole, mut calls) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + Duration::from_secs_f64(options.duration.unwrap_or(15.0));
    while !load::ending() && (Instant::now() < deadline || calls.is_empty()) {
        let keys = csrs(2 * BATCH).await?;
        let (one, other) = keys.split_at(BATCH);
        let plan = Plan {
            name: "burst",
            concurrency: 1,
            rate: None,
            duration: Duration::from_secs(60),
            supply: 1,
            server: issuer.process,
        };
        let (at, csrs) = (client.clone(), one.to_vec());
        let request = v1::SpawnBatchRequest { template: Some(template.clone()), csrs, count: 0 };
        let call = move |_| {
            let (at, request) = (at.clone(), request.clone());
            async move { at.batch(request, BATCH).await.map(drop) }
        };
        whole.push(load::run(plan, call).await?);
        let (at, csrs, template) = (client.clone(), Arc::new(other.to_vec()), template.clone());
        let call = move |n: usize| {
            let (at, csr) = (at.clone(), csrs.get(n).cloned().unwrap_or_default());
            let request = v1::SpawnRequest { csr, ..template.clone() };
            async move { at.spawn(request).await.map(drop) }
        };
        let mut run = load::run(Plan { concurrency: options.concurrency, supply: BATCH, ..plan }, call).await?;
        // The latency of a burst is the time until its last call was answered.
        run.latency = load::histogram()?;
        load::record(&mut run.latency, Duration::from_secs_f64(run.wall));
        calls.push(run);
    }
    let floor = Floor { rpc, ..Floor::signatures()? };
    let in_ms = |runs: &[load::Run]| median(runs.iter().map(|r| r.wall * 1e3).collect());
    let (batch_ms, calls_ms) = (in_ms(&whole), in_ms(&calls));
    let batch = Row::of(issuer, "burst, one batch", 1000, floor, &whole).await?.beside(SPAWN).with("burst_ms", batch_ms);
    let calls = Row::of(issuer, "burst, 1,000 calls", 1, floor, &calls).await?.beside(SPAWN).with("burst_ms", calls_ms);
    Ok(vec![batch, calls])
}
