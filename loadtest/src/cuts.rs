//! From an acknowledged revocation to every subscriber of the feed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_verify::{AgentId, Target};
use tokio::sync::{Barrier, mpsc};
use tonic::Streaming;

use crate::issuer::Issuer;

/// Milliseconds: median, 99th percentile, maximum.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// What one run of revocations measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cuts {
    /// From the call to its receipt.
    pub(crate) receipt: Spread,
    /// From the receipt to each subscriber; what arrived before the receipt counts as nothing.
    pub(crate) arrival: Spread,
    /// Arrivals.
    pub(crate) arrivals: usize,
    /// Revocations a second.
    pub(crate) rate: f64,
}

/// Subscribers of one issuer, each with a connection of its own.
pub(crate) struct Subscribers {
    arrived: mpsc::UnboundedReceiver<(Vec<u8>, Instant)>,
    count: usize,
    /// Kilobytes of the issuer's memory for each.
    pub(crate) kilobytes: f64,
}

impl Subscribers {
    pub(crate) async fn start(issuer: &Issuer, count: usize) -> Result<Subscribers, String> {
        let before = issuer.resident()?;
        let (sender, arrived) = mpsc::unbounded_channel();
        let ready = Arc::new(Barrier::new(count + 1));
        for _ in 0..count {
            let channel = issuer.channel(&issuer.workload()).await?;
            let mut client = RevocationsClient::new(channel);
            let stream = client.watch_cuts(v1::WatchCutsRequest::default()).await.map_err(|e| e.to_string())?.into_inner();
            tokio::spawn(read(stream, sender.clone(), Arc::clone(&ready), client));
        }
        ready.wait().await;
        let kilobytes = (issuer.resident()? - before) / f64::from(u32::try_from(count.max(1)).unwrap_or(1));
        Ok(Subscribers { arrived, count, kilobytes })
    }

    /// Revokes agents one after the other, `pause` apart; `agents` are theirs to end.
    pub(crate) async fn run(&mut self, issuer: &Issuer, agents: &[String], pause: Duration) -> Result<Cuts, String> {
        let client = OperationsClient::new(issuer.operator().await?);
        let (mut receipts, mut acknowledged) = (Vec::new(), HashMap::new());
        let started = Instant::now();
        let mut calls = tokio::task::JoinSet::new();
        let mut pace = tokio::time::interval(pause.max(Duration::from_micros(1)));
        for agent in agents {
            pace.tick().await;
            let (mut client, agent) = (client.clone(), agent.clone());
            calls.spawn(async move {
                let id = AgentId::parse(&agent).map_err(|e| e.to_string())?;
                let target = Some(v1::Target { target: Some(v1::target::Target::Agent(agent)) });
                let at = Instant::now();
                client.revoke(v1::RevokeRequest { target, ..Default::default() }).await.map_err(|e| e.to_string())?;
                Ok::<_, String>((Target::Agent(id.uuid).subject().0.to_vec(), at.elapsed(), Instant::now()))
            });
        }
        while let Some(done) = calls.join_next().await {
            let (subject, took, at) = done.map_err(|e| e.to_string())??;
            receipts.push(took);
            acknowledged.insert(subject, at);
        }
        let wall = started.elapsed().as_secs_f64();
        let mut arrivals = Vec::with_capacity(agents.len() * self.count);
        while arrivals.len() < agents.len() * self.count {
            let next = tokio::time::timeout(Duration::from_secs(10), self.arrived.recv()).await;
            let (subject, at) = next.map_err(|_| "a cut did not arrive")?.ok_or("nobody listens")?;
            if let Some(receipt) = acknowledged.get(&subject) {
                arrivals.push(at.saturating_duration_since(*receipt));
            }
        }
        let count = f64::from(u32::try_from(agents.len()).unwrap_or(1));
        Ok(Cuts { receipt: spread(receipts), arrivals: arrivals.len(), arrival: spread(arrivals), rate: count / wall })
    }
}

async fn read(
    mut stream: Streaming<v1::WatchCutsResponse>,
    arrived: mpsc::UnboundedSender<(Vec<u8>, Instant)>,
    ready: Arc<Barrier>,
    _client: RevocationsClient<tonic::transport::Channel>,
) {
    let mut waiting = Some(ready);
    while let Ok(Some(message)) = stream.message().await {
        let at = Instant::now();
        if waiting.is_none() {
            for cut in message.cuts {
                let _ = arrived.send((cut.subject, at));
            }
        }
        // Whoever has taken a first heartbeat is there.
        if message.heartbeat.is_some()
            && let Some(ready) = waiting.take()
        {
            ready.wait().await;
        }
    }
}

fn spread(mut times: Vec<Duration>) -> Spread {
    times.sort_unstable();
    let at = |part: usize| {
        let index = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    Spread { p50: at(50), p99: at(99), max: at(100) }
}
