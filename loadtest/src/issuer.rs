//! A `mayfly dev` of our own, loaded over mTLS, with its CPU read from `/proc`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mayfly::folder::{self, Key};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::channel::{ChannelSettings, Trust, connect};
use mayfly_verify::TrustDomain;
use tokio::io::AsyncBufReadExt;
use tokio::process::{Child, Command};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// What one run measured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Microseconds of server CPU for one call.
    pub(crate) cpu: f64,
    /// Calls a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

pub(crate) struct Issuer {
    dir: tempfile::TempDir,
    child: Child,
    grpc: String,
    token: String,
}

impl Issuer {
    pub(crate) async fn start(binary: &Path) -> Result<Issuer, String> {
        let binary = std::path::absolute(binary).map_err(|e| e.to_string())?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let command = |args: &[&str]| {
            let mut command = Command::new(&binary);
            command.args(args).current_dir(dir.path()).env_remove("MAYFLY_HOME").kill_on_drop(true);
            command
        };
        let missing = |e: std::io::Error| format!("`{}`: {e}; build it with `cargo build --release`", binary.display());
        let mut child = command(&["dev", "-o", "json"]).stdout(Stdio::piped()).spawn().map_err(missing)?;
        let out = child.stdout.take().ok_or("no output")?;
        let line = tokio::io::BufReader::new(out).lines().next_line().await.map_err(|e| e.to_string())?.unwrap_or_default();
        let endpoint: serde_json::Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        let grpc = endpoint.get("grpc").and_then(|g| g.as_str()).ok_or("no address")?.to_owned();
        let token = command(&["token", "demo"]).output().await.map_err(|e| e.to_string())?;
        let token = String::from_utf8(token.stdout).map_err(|e| e.to_string())?.trim().to_owned();
        Ok(Issuer { dir, child, grpc, token })
    }

    /// An RPC that does nothing, to the same server over the same kind of connection.
    pub(crate) async fn empty(&self, requests: usize, in_flight: usize) -> Result<Sample, String> {
        let client = HealthClient::new(self.channel(&self.workload()).await?);
        self.load(requests, in_flight, move |_| {
            let mut client = client.clone();
            async move { client.check(HealthCheckRequest::default()).await.map(drop).map_err(|e| e.to_string()) }
        })
        .await
    }

    /// Children of one agent, one call for each.
    pub(crate) async fn children(&self, requests: usize, in_flight: usize) -> Result<Sample, String> {
        let parent = self.agent("researcher").await?;
        let client = IdentitiesClient::new(self.channel(&parent).await?);
        let csrs: Vec<Vec<u8>> = (0..requests).map(|_| Key::new().map(|k| k.csr)).collect::<Result<_, _>>()?;
        let csrs = Arc::new(csrs);
        self.load(requests, in_flight, move |n| {
            let (mut client, csr) = (client.clone(), csrs.get(n).cloned().unwrap_or_default());
            async move {
                let request = v1::SpawnRequest { class: "worker".into(), csr, ..Default::default() };
                client.spawn(request).await.map(drop).map_err(|e| e.to_string())
            }
        })
        .await
    }

    /// SPIFFE IDs of so many fresh agents.
    pub(crate) async fn agents(&self, count: usize) -> Result<Vec<String>, String> {
        let mut client = BatchesClient::new(self.channel(&self.workload()).await?);
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let csrs = (0..(count - ids.len()).min(1000)).map(|_| Key::new().map(|k| k.csr)).collect::<Result<_, _>>()?;
            let template =
                Some(v1::SpawnRequest { class: "worker".into(), user_token: self.token.clone(), ..Default::default() });
            let request = v1::SpawnBatchRequest { template, csrs, count: 0 };
            let mut answers = client.spawn(request).await.map_err(|e| e.to_string())?.into_inner();
            while let Some(answer) = answers.message().await.map_err(|e| e.to_string())? {
                match answer.result {
                    Some(v1::spawn_batch_response::Result::Spawned(s)) => ids.extend(s.agent.map(|a| a.agent_id)),
                    other => return Err(format!("{other:?}")),
                }
            }
        }
        Ok(ids)
    }

    /// A channel to the operator socket.
    pub(crate) async fn operator(&self) -> Result<Channel, String> {
        let path = self.dir.path().join(".mayfly/operator.sock");
        mayfly_agent::channel::connect_unix(&path).await.map_err(|e| e.to_string())
    }

    /// Kilobytes of memory that the server holds: `VmRSS` of proc(5).
    pub(crate) fn resident(&self) -> Result<f64, String> {
        let pid = self.child.id().ok_or("the issuer has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        line.split_whitespace().next().and_then(|n| n.parse().ok()).ok_or_else(|| "no number".to_owned())
    }

    pub(crate) async fn spawn(&self, requests: usize, in_flight: usize) -> Result<Sample, String> {
        let client = IdentitiesClient::new(self.channel(&self.workload()).await?);
        // Keys are the caller's work, not the issuer's: made before the clock starts.
        let csrs: Vec<Vec<u8>> = (0..requests).map(|_| Key::new().map(|k| k.csr)).collect::<Result<_, _>>()?;
        let (csrs, token) = (Arc::new(csrs), self.token.clone());
        // The first use of the token records the delegation; the rest is what is measured.
        let first =
            v1::SpawnRequest { class: "worker".into(), csr: Key::new()?.csr, user_token: token.clone(), ..Default::default() };
        client.clone().spawn(first).await.map_err(|e| e.to_string())?;
        self.load(requests, in_flight, move |n| {
            let (mut client, csr, user_token) = (client.clone(), csrs.get(n).cloned().unwrap_or_default(), token.clone());
            async move {
                let request = v1::SpawnRequest { class: "worker".into(), csr, user_token, ..Default::default() };
                client.spawn(request).await.map(drop).map_err(|e| e.to_string())
            }
        })
        .await
    }

    /// Children of one agent, a thousand in a batch, one batch after the other. Times are those of a whole batch.
    pub(crate) async fn batch(&self, requests: usize) -> Result<Sample, String> {
        const BATCH: usize = 1000;
        let parent = self.agent("researcher").await?;
        let client = BatchesClient::new(self.channel(&parent).await?);
        let batches = requests.div_ceil(BATCH).max(1);
        let csrs: Vec<Vec<u8>> = (0..batches * BATCH).map(|_| Key::new().map(|k| k.csr)).collect::<Result<_, _>>()?;
        let csrs = Arc::new(csrs);
        let batch = self.load(batches, 1, move |n| {
            let mut client = client.clone();
            let csrs = csrs.chunks(BATCH).nth(n).unwrap_or_default().to_vec();
            async move {
                let template = Some(v1::SpawnRequest { class: "worker".into(), ..Default::default() });
                let request = v1::SpawnBatchRequest { template, csrs, count: 0 };
                let mut answers = client.spawn(request).await.map_err(|e| e.to_string())?.into_inner();
                let mut spawned = 0;
                while let Some(answer) = answers.message().await.map_err(|e| e.to_string())? {
                    spawned += usize::from(matches!(answer.result, Some(v1::spawn_batch_response::Result::Spawned(_))));
                }
                if spawned == BATCH { Ok(()) } else { Err(format!("{spawned} of {BATCH} were spawned")) }
            }
        });
        let batch = batch.await?;
        Ok(Sample { cpu: batch.cpu / 1000.0, rate: batch.rate * 1000.0, ..batch })
    }

    /// An identity of a fresh agent, in a folder.
    async fn agent(&self, class: &str) -> Result<PathBuf, String> {
        let mut orchestrator = IdentitiesClient::new(self.channel(&self.workload()).await?);
        let key = Key::new()?;
        let request =
            v1::SpawnRequest { class: class.into(), csr: key.csr.clone(), user_token: self.token.clone(), ..Default::default() };
        let got = orchestrator.spawn(request).await.map_err(|e| e.to_string())?.into_inner();
        let agent = self.dir.path().join("agent");
        let (svid, bundle) = got.svid.zip(got.bundle).ok_or("an incomplete answer")?;
        folder::write(&agent, &key, &svid, &bundle)?;
        Ok(agent)
    }

    pub(crate) async fn jwt(&self, requests: usize, in_flight: usize) -> Result<Sample, String> {
        let agent = self.agent("worker").await?;
        let client = IdentitiesClient::new(self.channel(&agent).await?);
        self.load(requests, in_flight, move |_| {
            let mut client = client.clone();
            async move {
                let request = v1::MintJwtRequest { audience: "https://search.example".into(), ..Default::default() };
                client.mint_jwt(request).await.map(drop).map_err(|e| e.to_string())
            }
        })
        .await
    }

    async fn load<F, C>(&self, requests: usize, in_flight: usize, call: C) -> Result<Sample, String>
    where
        C: Fn(usize) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send,
    {
        let (call, next) = (Arc::new(call), Arc::new(AtomicUsize::new(0)));
        let (before, started) = (self.cpu()?, Instant::now());
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..in_flight.max(1) {
            let (call, next) = (Arc::clone(&call), Arc::clone(&next));
            workers.spawn(async move {
                let mut times = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return Ok::<_, String>(times);
                    }
                    let at = Instant::now();
                    call(n).await?;
                    times.push(at.elapsed());
                }
            });
        }
        let mut times: Vec<Duration> = Vec::with_capacity(requests);
        while let Some(worker) = workers.join_next().await {
            times.extend(worker.map_err(|e| e.to_string())??);
        }
        let (wall, cpu) = (started.elapsed().as_secs_f64(), self.cpu()? - before);
        times.sort_unstable();
        let count = f64::from(u32::try_from(times.len().max(1)).map_err(|e| e.to_string())?);
        let at = |part: usize| times.get(times.len() * part / 100).map_or(0.0, |t| t.as_secs_f64() * 1e3);
        Ok(Sample { cpu: cpu * 1e6 / count, rate: count / wall, p50: at(50), p99: at(99) })
    }

    /// Seconds of CPU that the server has used: utime and stime of proc(5), in ticks of 10 ms.
    fn cpu(&self) -> Result<f64, String> {
        let pid = self.child.id().ok_or("the issuer has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|e| e.to_string())?;
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u32 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u32>().ok()).sum();
        Ok(f64::from(ticks) / 100.0)
    }

    pub(crate) fn workload(&self) -> PathBuf {
        self.dir.path().join(".mayfly/workloads/orchestrator")
    }

    pub(crate) async fn channel(&self, identity: &Path) -> Result<Channel, String> {
        let roots = folder::certificates(&identity.join("bundle.pem"))?;
        let settings = ChannelSettings {
            address: self.grpc.clone(),
            trust_domain: TrustDomain::new("dev.mayfly.test").map_err(|e| e.to_string())?,
            trust: Trust::Roots(roots),
            identity: Some(folder::identity(identity)?),
            connect_timeout: Duration::from_secs(5),
        };
        connect(settings).await.map_err(|e| e.to_string())
    }
}
