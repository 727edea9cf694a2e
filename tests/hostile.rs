//! A hostile hour: strangers, a hostile agent, a hostile workload and a hostile user, all at once, beside honest agents, an honest
//! spawner, an operator and a strict verifier. A slice of some seconds runs with every test, and holds to what no slow machine excuses;
//! the long one holds to the goals. `MAYFLY_HOSTILE_SECONDS` says how long that is; three minutes if it is not set.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly::folder::Key;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::identity::{Identity, Issuer};
use mayfly_agent::revocation::{Freshness, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{AgentId, Target, TrustDomain};
use support::{Dev, ORCHESTRATOR, channel};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

const CONFIG: &str = r#"
[writes]
taken_back_below = 1000
[[workloads]]
name = "rival"
[[classes]]
name = "swarm"
owner = "a rival"
scopes = []
audiences = ["https://search.example"]
svid_ttl = "1m"
max_lease = "10m"
max_depth = 3
modes = ["autonomous"]
spawners = ["workload/rival", "class/swarm"]
"#;
const SEARCH: &str = "https://search.example";

/// How much of everything there is.
#[derive(Clone, Copy)]
struct Scale {
    seconds: u64,
    /// Honest agents, each of which mints every two seconds.
    agents: usize,
    /// Strangers who connect and do nothing.
    idle: usize,
    /// Strangers who try tickets that nobody made.
    guessing: u8,
    /// How long an answer to the honest may take.
    wait: Duration,
    /// How old the verifier's news may be.
    strict: Duration,
}

/// What came of it.
struct Outcome {
    refused: u64,
    stale: u64,
    spawned: usize,
    revoked: usize,
    minted: u64,
    hostile: u64,
    /// Resident memory before and after, and the journal, in MiB.
    memory: (u64, u64),
    journal: u64,
    /// Connections of strangers at the most, and the places for them.
    strangers: (u64, u64),
    spawns: Duration,
    revocations: Duration,
}

/// What the honest saw.
#[derive(Default)]
struct Seen {
    strangers: AtomicU64,
    /// The agent that was revoked last.
    last: parking_lot::Mutex<Option<uuid::Uuid>>,
    spawns: parking_lot::Mutex<Vec<Duration>>,
    revocations: parking_lot::Mutex<Vec<Duration>>,
    refused: AtomicU64,
    stale: AtomicU64,
    minted: AtomicU64,
    hostile: AtomicU64,
}

fn p(of: &parking_lot::Mutex<Vec<Duration>>, percent: usize) -> Duration {
    let mut all = of.lock().clone();
    all.sort_unstable();
    all.get((all.len() * percent / 100).min(all.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// A call of the honest, which must end by itself.
async fn timely<T>(wait: Duration, what: &str, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::deadline_exceeded(format!("{what}: no answer in {wait:?}")));
    tokio::time::timeout(wait, call).await.unwrap_or_else(late)
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn swarm(ticket: bool, csr: Vec<u8>) -> v1::SpawnRequest {
    v1::SpawnRequest { class: "swarm".into(), ticket, csr, lease_seconds: 60, ..Default::default() }
}

/// A gauge of the issuer, or 0 if it is not there.
fn gauge(dev: &Dev, name: &str) -> u64 {
    let Ok(mut stream) = std::net::TcpStream::connect(dev.text("http")) else { return 0 };
    let mut text = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut text));
    let value = text.lines().find_map(|line| line.strip_prefix(name)).filter(|_| asked.is_ok());
    value.and_then(|value| value.trim().split('.').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn t232_nothing_honest_is_refused_and_revocations_arrive_whatever_the_hostile_do() {
    let wait = Duration::from_secs(60);
    let of = Scale { seconds: 8, agents: 12, idle: 30, guessing: 4, wait, strict: Duration::from_secs(30) };
    let got = run(of).await;
    assert_eq!((got.refused, got.stale), (0, 0), "refused, stale");
    // However slow the machine is, everybody got something done, the hostile too.
    assert!(got.spawned > 0 && got.revoked > 0 && got.minted > 0 && got.hostile > 0);
    assert!(got.memory.1 < got.memory.0 + 512 && got.journal < 256, "memory {:?}, journal {}", got.memory, got.journal);
    assert!(got.strangers.0 <= got.strangers.1, "strangers {:?}", got.strangers);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: MAYFLY_HOSTILE_SECONDS=3600 cargo test --release --test hostile -- --ignored --nocapture"]
async fn the_honest_are_served_whatever_the_hostile_do() {
    let seconds = std::env::var("MAYFLY_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(180);
    let wait = Duration::from_secs(15);
    let of = Scale { seconds, agents: 100, idle: 150, guessing: 16, wait, strict: Duration::from_secs(2) };
    let got = run(of).await;
    assert_eq!((got.refused, got.stale), (0, 0), "refused, stale");
    assert!(got.spawned > 10 && got.minted > of.agents as u64);
    assert!(got.memory.1 < got.memory.0 + 1024 && got.journal < 1024, "memory and journal are bounded");
    assert!(got.strangers.0 <= got.strangers.1, "strangers {:?}", got.strangers);
    // The goals are for a release build.
    if !cfg!(debug_assertions) {
        println!("goals: spawn p99 {:?} (25 ms), revocation p99 {:?} (20 ms)", got.spawns, got.revocations);
    }
}

async fn run(of: Scale) -> Outcome {
    let Scale { seconds, wait, .. } = of;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), CONFIG).unwrap();
    let dev = Arc::new(Dev::start_args(dir, &["--config", "more.toml"], &[]));
    for user in ["demo", "guest"] {
        dev.token(user, &format!("{user}.jwt"));
    }
    std::fs::write(dev.path("ticket"), dev.run("join rival").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out rival");
    std::fs::write(dev.path("own.jwt"), dev.run("token guest --audience mayfly-dev-revoke").stdout).unwrap();

    // The honest.
    let at = Issuer {
        address: dev.text("grpc"),
        trust_domain: TrustDomain::new("dev.mayfly.test").unwrap(),
        connect_timeout: Duration::from_secs(10),
    };
    let spawner = channel(&dev, Some(ORCHESTRATOR)).await;
    let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file("demo.jwt"), ..Default::default() };
    let mut identities = Vec::new();
    for _ in 0..of.agents {
        identities.push(Identity::spawn(spawner.clone(), at.clone(), request.clone()).await.unwrap());
    }
    let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
    let got = BundlesClient::new(operator.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
    let verifier = follow(identities[0].channel(), key, at.trust_domain.clone(), Freshness::Strict(of.strict));
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (seen, over, before) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)), resident(dev.pid()));
    let mut honest = JoinSet::new();
    for (n, identity) in identities.into_iter().enumerate() {
        let (seen, over) = (Arc::clone(&seen), Arc::clone(&over));
        honest.spawn(async move {
            tokio::time::sleep(Duration::from_millis(20 * n as u64)).await;
            while !over.load(Ordering::SeqCst) {
                let request = v1::MintJwtRequest { audience: SEARCH.into(), ..Default::default() };
                match timely(wait, "mint", IdentitiesClient::new(identity.channel()).mint_jwt(request)).await {
                    Ok(_) => drop(seen.minted.fetch_add(1, Ordering::SeqCst)),
                    Err(status) => {
                        println!("an honest agent heard {status:?}");
                        seen.refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
    }
    {
        let (seen, over, operator) = (Arc::clone(&seen), Arc::clone(&over), operator.clone());
        honest.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let (key, started) = (Key::new().unwrap(), Instant::now());
                let request = v1::SpawnRequest { csr: key.csr, ..request.clone() };
                let spawned = match timely(wait, "spawn", IdentitiesClient::new(spawner.clone()).spawn(request)).await {
                    Ok(spawned) => spawned.into_inner(),
                    Err(status) => {
                        println!("the honest spawner heard {status:?}");
                        seen.refused.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                };
                seen.spawns.lock().push(started.elapsed());
                let agent_id = spawned.agent.unwrap().agent_id;
                let id = AgentId::parse(&agent_id).unwrap().uuid;
                let target = v1::target::Target::Agent(agent_id);
                let revoke = v1::RevokeRequest { target: Some(v1::Target { target: Some(target) }), ..Default::default() };
                let started = Instant::now();
                match timely(wait, "revoke", OperationsClient::new(operator.clone()).revoke(revoke)).await {
                    Ok(_) => {
                        seen.revocations.lock().push(started.elapsed());
                        *seen.last.lock() = Some(id);
                    }
                    Err(status) => {
                        println!("the operator heard {status:?}");
                        seen.refused.fetch_add(1, Ordering::SeqCst);
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    {
        let (seen, over, live) = (Arc::clone(&seen), Arc::clone(&over), verifier.live().clone());
        honest.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                if live.fresh(SystemTime::now().duration_since(UNIX_EPOCH).unwrap()).is_err() {
                    seen.stale.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    {
        let (seen, over, dev) = (Arc::clone(&seen), Arc::clone(&over), Arc::clone(&dev));
        honest.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let dev = Arc::clone(&dev);
                let now = tokio::task::spawn_blocking(move || gauge(&dev, "mayfly_connections{kind=\"stranger\"} "));
                seen.strangers.fetch_max(now.await.unwrap(), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    // The hostile.
    let mut hostile = JoinSet::new();
    let stranger = |dev: Arc<Dev>| async move { channel(&dev, None).await };
    for _ in 0..of.idle {
        // Idle strangers, who come again when they are ended.
        let (dev, over) = (Arc::clone(&dev), Arc::clone(&over));
        hostile.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let idle = stranger(Arc::clone(&dev)).await;
                let _ = BundlesClient::new(idle.clone()).get_bundle(v1::GetBundleRequest {}).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
    }
    for n in 0..of.guessing {
        // Tickets that nobody made, from strangers.
        let (dev, over, seen) = (Arc::clone(&dev), Arc::clone(&over), Arc::clone(&seen));
        hostile.spawn(async move {
            let from = stranger(dev).await;
            let csr = Key::new().unwrap().csr;
            while !over.load(Ordering::SeqCst) {
                let calls = (0..8).map(|m| {
                    let request = v1::RedeemRequest { secret: vec![n ^ m; 32], csr: csr.clone() };
                    let mut client = IdentitiesClient::new(from.clone());
                    async move { client.redeem(request).await }
                });
                for call in calls.collect::<Vec<_>>() {
                    let _ = call.await;
                    seen.hostile.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    let rival = channel(&dev, Some("rival")).await;
    {
        // A workload that asks for batches of tickets.
        let (over, rival) = (Arc::clone(&over), rival.clone());
        hostile.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let request = v1::SpawnBatchRequest { template: Some(swarm(true, vec![])), csrs: vec![], count: 200 };
                if let Ok(answers) = BatchesClient::new(rival.clone()).spawn(request).await {
                    let mut answers = answers.into_inner();
                    while let Ok(Some(_)) = answers.message().await {}
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    {
        // An agent that revokes what it spawns; when it is taken with them, the rival sends another.
        let (dev, over, seen) = (Arc::clone(&dev), Arc::clone(&over), Arc::clone(&seen));
        hostile.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let Some(agent) = noisy(&dev, rival.clone()).await else {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                };
                while let Ok(child) = IdentitiesClient::new(agent.clone()).spawn(swarm(true, vec![])).await {
                    let target = v1::target::Target::Agent(child.into_inner().agent.unwrap().agent_id);
                    let request = v1::RevokeRequest { target: Some(v1::Target { target: Some(target) }), ..Default::default() };
                    let _ = OperationsClient::new(agent.clone()).revoke(request).await;
                    seen.hostile.fetch_add(1, Ordering::SeqCst);
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                }
            }
        });
    }
    {
        // A user who revokes their own access without end.
        let (dev, over) = (Arc::clone(&dev), Arc::clone(&over));
        hostile.spawn(async move {
            let (from, user_token) = (stranger(Arc::clone(&dev)).await, dev.file("own.jwt"));
            let user = v1::User { iss: dev.text("oidc"), sub: "guest".into(), ..Default::default() };
            while !over.load(Ordering::SeqCst) {
                let target = Some(v1::Target { target: Some(v1::target::Target::User(user.clone())) });
                let request = v1::RevokeRequest { target, user_token: user_token.clone(), allow_new: true, ..Default::default() };
                let _ = OperationsClient::new(from.clone()).revoke(request).await;
            }
        });
    }

    tokio::time::sleep(Duration::from_secs(seconds)).await;
    over.store(true, Ordering::SeqCst);
    let after = resident(dev.pid());
    hostile.abort_all();
    while let Some(done) = honest.join_next().await {
        done.unwrap();
    }
    let journal: u64 = ["journal.db", "journal.db-wal"]
        .iter()
        .filter_map(|name| std::fs::metadata(dev.path(".mayfly").join(name)).ok())
        .map(|file| file.len() >> 20)
        .sum();
    // What the operator revoked last has reached the verifier, or does.
    let last = seen.last.lock().unwrap();
    let (subject, since) = (Target::Agent(last).unsalted(), Instant::now());
    while verifier.live().known().is_none_or(|known| known.cuts.before(subject).is_none()) {
        assert!(since.elapsed() < wait, "the verifier never heard of the last revocation");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (spawns, revocations) = (p(&seen.spawns, 99), p(&seen.revocations, 99));
    let count = |of: &parking_lot::Mutex<Vec<Duration>>| of.lock().len();
    let (spawned, revoked) = (count(&seen.spawns), count(&seen.revocations));
    let got = |of: &AtomicU64| of.load(Ordering::SeqCst);
    let most = got(&seen.strangers);
    let places =
        ["mayfly_connections", "mayfly_connection_places"].map(|name| gauge(&dev, &format!("{name}{{kind=\"stranger\"}} ")));
    let places = places.into_iter().sum();
    println!(
        "{seconds} s: {spawned} spawns p50 {:?} p99 {spawns:?}; {revoked} revocations p50 {:?} p99 {revocations:?}; {} mints; {} \
         refused; {} looks stale; {} hostile acts; {most} strangers at most; resident {before} MiB before, {after} after; journal \
         {journal} MiB",
        p(&seen.spawns, 50),
        p(&seen.revocations, 50),
        got(&seen.minted),
        got(&seen.refused),
        got(&seen.stale),
        got(&seen.hostile),
    );
    Outcome {
        refused: got(&seen.refused),
        stale: got(&seen.stale),
        spawned,
        revoked,
        minted: got(&seen.minted),
        hostile: got(&seen.hostile),
        memory: (before, after),
        journal,
        strangers: (most, places),
        spawns,
        revocations,
    }
}

/// An agent of the rival, on a connection of its own.
async fn noisy(dev: &Dev, rival: Channel) -> Option<Channel> {
    let key = Key::new().ok()?;
    let got = IdentitiesClient::new(rival).spawn(swarm(false, key.csr.clone())).await.ok()?.into_inner();
    mayfly::folder::write(&dev.path("noisy"), &key, got.svid.as_ref()?, got.bundle.as_ref()?, None).ok()?;
    Some(channel(dev, Some("noisy")).await)
}
