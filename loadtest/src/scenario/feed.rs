//! From an acknowledged revocation to every subscriber of the feed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use mayfly_verify::{AgentId, Target};
use tokio::sync::{Barrier, mpsc};
use tonic::Streaming;

use crate::Options;
use crate::client::Client;
use crate::floor::Floor;
use crate::issuer::Issuer;
use crate::load::{self, float, histogram, record};
use crate::machine::Process;
use crate::row::Row;
use crate::seed::Trees;

/// Number and distance of the revocations that are made one at a time. Delivering one to a thousand subscribers takes about 50 ms
/// of both ends, and it must be over before the next one.
const IDLE: (usize, Duration) = (60, Duration::from_millis(250));
/// Number and distance of the revocations of the storm.
const STORM: (usize, Duration) = (2000, Duration::from_millis(1));

/// Revokes one agent at a time, then a thousand a second. The rows give the times from the acknowledgement to each arrival.
pub(crate) async fn subscribers(options: &Options) -> Result<Vec<Row>, String> {
    let count = IDLE.0 + STORM.0;
    let (issuer, agents) = if options.runs_elsewhere() {
        let issuer = Issuer::start(options).await?;
        let spawned = issuer.batches(count, false).await?;
        (issuer, spawned.into_iter().filter_map(|s| Some(s.agent?.agent_id)).collect())
    } else {
        let (issuer, mut tops) = Issuer::seeded(options, &[Trees { count, below: 0 }]).await?;
        (issuer, tops.pop().unwrap_or_default())
    };
    let count = usize::from(options.subscribers);
    eprintln!("subscribing {count} times");
    let mut subscribers = Subscribers::start(&issuer, count).await?;
    let (idle, storm) = agents.split_at(IDLE.0.min(agents.len()));
    let mut rows = Vec::new();
    for (name, agents, pause) in [("subscribers, one cut", idle, IDLE.1), ("subscribers, 1,000/s", storm, STORM.1)] {
        if !load::ending() {
            eprintln!("{name}: {} revocations", agents.len());
            rows.push(subscribers.run(&issuer, name, agents, pause).await?);
        }
    }
    Ok(rows)
}

/// Subscribers of one issuer, each with a connection of its own.
struct Subscribers {
    arrived: mpsc::UnboundedReceiver<(Vec<u8>, Instant)>,
    count: usize,
    // Bytes of the issuer's memory for each subscriber.
    bytes: Option<f64>,
}

impl Subscribers {
    async fn start(issuer: &Issuer, count: usize) -> Result<Subscribers, String> {
        let before = issuer.process.and_then(Process::resident);
        let (sender, arrived) = mpsc::unbounded_channel();
        let ready = Arc::new(Barrier::new(count + 1));
        for _ in 0..count {
            let client = issuer.as_workload().await?;
            tokio::spawn(read(client.watch().await?, sender.clone(), Arc::clone(&ready), client));
        }
        ready.wait().await;
        let after = issuer.process.and_then(Process::resident);
        let each = |(after, before)| (float(after) - float(before)) / float(u64::try_from(count.max(1)).unwrap_or(1));
        Ok(Subscribers { arrived, count, bytes: after.zip(before).map(each) })
    }

    /// Revokes agents, `pause` apart, however long each takes.
    async fn run(&mut self, issuer: &Issuer, name: &str, agents: &[String], pause: Duration) -> Result<Row, String> {
        let revoker = issuer.as_revoker().await?;
        let (mut receipts, mut acknowledged) = (histogram()?, HashMap::new());
        let (started, cpu) = (Instant::now(), issuer.process.and_then(Process::cpu));
        let mut calls = tokio::task::JoinSet::new();
        let mut pace = tokio::time::interval(pause);
        for agent in agents {
            let due = pace.tick().await.into_std();
            if load::ending() {
                break;
            }
            let (revoker, agent) = (revoker.clone(), agent.clone());
            calls.spawn(async move {
                let id = AgentId::parse(&agent).map_err(|e| e.to_string())?;
                revoker.revoke(agent).await?;
                Ok::<_, String>((Target::Agent(id.uuid).unsalted().0.to_vec(), due.elapsed(), Instant::now()))
            });
        }
        let (mut errors, mut first_error) = (0, None);
        while let Some(done) = calls.join_next().await {
            match done.map_err(|e| e.to_string())? {
                Ok((subject, took, at)) => {
                    record(&mut receipts, took);
                    acknowledged.insert(subject, at);
                }
                Err(error) => {
                    errors += 1;
                    first_error.get_or_insert(error);
                }
            }
        }
        let wall = started.elapsed().as_secs_f64();
        let mut row = Row::empty(issuer, name, Floor::signatures()?).await?;
        let expected = acknowledged.len() * self.count;
        let (mut came, mut longest) = (0, Duration::ZERO);
        while came < expected {
            match tokio::time::timeout(Duration::from_secs(10), self.arrived.recv()).await {
                Ok(Some((subject, at))) => {
                    if let Some(receipt) = acknowledged.get(&subject) {
                        came += 1;
                        // A revocation that arrived before its receipt took no time.
                        let took = at.saturating_duration_since(*receipt);
                        longest = longest.max(took);
                        record(&mut row.latency, took);
                    }
                }
                Ok(None) | Err(_) => {
                    errors += u64::try_from(expected - came).unwrap_or(0);
                    first_error.get_or_insert_with(|| format!("{} cuts did not arrive", expected - came));
                    break;
                }
            }
        }
        row.done = u64::try_from(acknowledged.len()).unwrap_or(0);
        row.achieved = float(row.done) / wall;
        (row.errors, row.first_error) = (errors, first_error);
        let used = issuer.process.and_then(Process::cpu).zip(cpu).map(|(after, before)| after - before);
        row.cpu_us = used.map(|used| used * 1e6 / float(row.done.max(1)));
        let receipt_ms = float(receipts.value_at_quantile(0.99)) / 1e6;
        let row = row.with("receipt_p99_ms", receipt_ms).with("arrivals", float(u64::try_from(came).unwrap_or(0)));
        Ok(if let Some(bytes) = self.bytes { row.with("rss_bytes_per_subscriber", bytes) } else { row })
    }
}

async fn read(
    mut stream: Streaming<v1::WatchCutsResponse>,
    arrived: mpsc::UnboundedSender<(Vec<u8>, Instant)>,
    ready: Arc<Barrier>,
    _client: Client,
) {
    let mut waiting = Some(ready);
    while let Ok(Some(message)) = stream.message().await {
        let at = Instant::now();
        if waiting.is_none() {
            for cut in message.cuts {
                let _ = arrived.send((cut.subject, at));
            }
        }
        // A subscriber that has received a heartbeat is subscribed.
        if message.heartbeat.is_some()
            && let Some(ready) = waiting.take()
        {
            ready.wait().await;
        }
    }
}
