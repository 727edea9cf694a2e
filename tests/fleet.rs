//! Many agents through trouble, each with an identity that rotates itself: authorities rotate, the issuer is killed and comes
//! back, and is away for a minute. Pairs of them shake hands all the time.
//!
//! What holds, by how long the issuer is away:
//!
//! - Shorter than what is left of a certificate: nobody notices, and nobody comes in a herd when it is back.
//! - Longer: an agent whose certificate runs out is over. It says so, and no handshake is made with what it had.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod support;

use std::alloc::System;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::identity::{Current, Identity, Issuer, Over};
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_agent::ticket::Ticket;
use mayfly_agent::tls::{client_config, server_config};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_x509};
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::Dev;
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SEARCH: &str = "https://search.example";
/// In seconds, of the class `worker`.
const BRIEF: u64 = 20;
/// The same of `researcher`. A minute is less than a fifth of it, so that nobody comes in a herd after that either.
const PATIENT: u64 = 450;

fn config(rotate: u64, workload: u64) -> String {
    let mut text = format!(
        "[server]\nmax_connections = 4096\n[authorities]\nrotate_x509 = \"{rotate}s\"\nrotate_jwt = \"{rotate}s\"\n\
         bundle_refresh = \"5s\"\n[credentials]\njwt_ttl = \"10s\"\nworkload_ttl = \"{workload}s\"\n"
    );
    for (name, ttl) in [("worker", BRIEF), ("payer", BRIEF), ("researcher", PATIENT.min(workload))] {
        text += &format!(
            "[[classes]]\nname = \"{name}\"\nowner = \"tests\"\nscopes = [\"search:read\"]\naudiences = [\"{SEARCH}\"]\n\
             svid_ttl = \"{ttl}s\"\nmax_lease = \"1h\"\nmodes = [\"delegated\"]\nspawners = [\"workload/orchestrator\"]\n"
        );
    }
    text
}

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One agent, with TLS settings that were made once and follow it, and the bundle as it knows it.
struct Agent {
    identity: Identity,
    verifier: Verifier,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

#[derive(Default)]
struct Seen {
    handshakes: AtomicU64,
    expired: AtomicU64,
    tokens: AtomicU64,
    gaps: Mutex<Vec<String>>,
    authorities: Mutex<BTreeSet<String>>,
    renewals: Mutex<Vec<Instant>>,
    quiet: AtomicBool,
}

struct Fleet {
    dev: Option<Dev>,
    agents: Vec<Arc<Agent>>,
    seen: Arc<Seen>,
    tasks: tokio::task::JoinSet<()>,
    began: Instant,
    /// Each second, in KiB: what the heap holds, and what the process has.
    memory: Arc<Mutex<Vec<[u64; 2]>>>,
    // They are followed for as long as these live.
    _workload: Identity,
    _feed: Following,
}

impl Fleet {
    /// So many agents of each class, and `samplers` that shake hands with a pause in between.
    async fn start(config: &str, classes: &[(&str, usize)], samplers: usize) -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("extra.toml"), config).unwrap();
        let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
        dev.token("demo", "demo.jwt");
        let issuer = Issuer { address: dev.text("grpc"), trust_domain: td(), connect_timeout: Duration::from_secs(10) };

        // Who verifies through an outage says how long it may last: by default revocation is known or nobody is believed.
        let token = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
        let workload = Identity::redeem(&Ticket::parse(&token).unwrap(), Duration::from_secs(10)).await.unwrap();
        let got = BundlesClient::new(workload.channel()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
        let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
        let feed = follow(workload.channel(), key, td(), Freshness::Strict(Duration::from_secs(90)));

        let (seen, mut tasks, mut spawns) = (Arc::new(Seen::default()), tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
        let user_token = dev.file("demo.jwt");
        let mut wanted: Vec<_> = classes.iter().flat_map(|(class, many)| std::iter::repeat_n(*class, *many)).collect();
        let mut agents = Vec::new();
        while agents.len() < classes.iter().map(|(_, many)| many).sum() {
            while spawns.len() < 16
                && let Some(class) = wanted.pop()
            {
                let request = v1::SpawnRequest { class: class.into(), user_token: user_token.clone(), ..Default::default() };
                spawns.spawn(Identity::spawn(workload.channel(), issuer.clone(), request));
            }
            let identity = spawns.join_next().await.unwrap().unwrap().unwrap();
            let bundles = Bundles::default();
            bundles.set(believed(&identity.current()));
            tasks.spawn(followed(identity.changed(), bundles.clone(), Arc::clone(&seen)));
            let verifier = Verifier::new(bundles, feed.live().clone());
            let (shown, peers) = (identity.shown(), Authorize::agents(td()));
            let server = Arc::new(server_config(&shown, &verifier, peers.clone()).unwrap());
            let client = Arc::new(client_config(&shown, &verifier, peers).unwrap());
            agents.push(Arc::new(Agent { identity, verifier, server, client }));
        }
        for _ in 0..samplers {
            tasks.spawn(sample(agents.clone(), Arc::clone(&seen)));
        }
        let memory = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&memory);
        tasks.spawn(async move {
            loop {
                kept.lock().push([in_use(), resident()]);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Fleet { dev: Some(dev), agents, seen, tasks, began: Instant::now(), memory, _workload: workload, _feed: feed }
    }

    fn of(&self, class: &str) -> Vec<Arc<Agent>> {
        let of = |agent: &&Arc<Agent>| agent.identity.current().spiffe_id().contains(&format!("/agent/{class}/"));
        self.agents.iter().filter(of).cloned().collect()
    }

    /// Kills the issuer, and starts it again after a while; when it was ready again.
    async fn away(&mut self, time: Duration) -> Instant {
        let dir = self.dev.take().unwrap().kill();
        tokio::time::sleep(time).await;
        let started = tokio::task::spawn_blocking(|| Dev::start_args(dir, &["--config", "extra.toml"], &[]));
        self.dev = Some(started.await.unwrap());
        Instant::now()
    }

    /// Nobody noticed anything.
    fn undisturbed(&self, agents: &[Arc<Agent>]) {
        let over: Vec<Over> = agents.iter().filter_map(|a| a.identity.over().borrow().clone()).collect();
        assert!(over.is_empty(), "{} are over: {:?}", over.len(), &over[..over.len().min(5)]);
        for agent in agents {
            assert!(agent.identity.current().expires_at() > SystemTime::now(), "{}", agent.identity.current().spiffe_id());
        }
        let gaps = self.seen.gaps.lock();
        assert!(gaps.is_empty(), "{} gaps: {:?}", gaps.len(), &gaps[..gaps.len().min(5)]);
    }

    /// Renewals in each window of a time, by so many agents whose certificates last `life` seconds: never twice the mean.
    fn no_herd(&self, from: Instant, until: Instant, window: Duration, agents: usize, life: u64) {
        let mut windows = vec![0u32; usize::try_from((until - from).as_millis() / window.as_millis()).unwrap()];
        for at in self.seen.renewals.lock().iter().filter(|at| **at >= from) {
            let n = usize::try_from((*at - from).as_millis() / window.as_millis()).unwrap();
            if let Some(count) = windows.get_mut(n) {
                *count += 1;
            }
        }
        // A renewal for each agent and half a life.
        let mean = agents as f64 * window.as_secs_f64() / (life as f64 / 2.0);
        let most = windows.iter().max().copied().unwrap_or(0);
        println!("renewals in {window:?}: at most {most}, the mean of a steady fleet is {mean:.0}; {windows:?}");
        assert!(f64::from(most) <= 2.0 * mean, "a herd: {most} of {mean}");
    }

    /// What half of the time is held at most does not grow. At a renewal both certificates and both connections are held, and
    /// after an outage many renew: the rest is more.
    fn flat_memory(&self) {
        let memory = self.memory.lock();
        let (first, second) = memory.split_at(memory.len() / 2);
        for (n, what, allowed) in [(0, "held", 1.1), (1, "resident", 1.3)] {
            let [before, after] = [first, second].map(|half| {
                let mut of: Vec<_> = half.iter().map(|m| m[n]).collect();
                of.sort_unstable();
                of[of.len() / 2]
            });
            println!("{what}: {} MiB in the first half, {} in the second", before >> 10, after >> 10);
            assert!(after as f64 <= allowed * before as f64, "memory grows: {memory:?}");
        }
    }

    fn report(&self) {
        let n = |of: &AtomicU64| of.load(Ordering::SeqCst);
        println!(
            "{} agents, {} s: {} handshakes between pairs, {} refused because a certificate had expired; {} tokens; {} renewals; {} \
             authorities",
            self.agents.len(),
            self.began.elapsed().as_secs(),
            n(&self.seen.handshakes),
            n(&self.seen.expired),
            n(&self.seen.tokens),
            self.seen.renewals.lock().len(),
            self.seen.authorities.lock().len(),
        );
    }
}

fn believed(current: &Current) -> Bundle {
    Bundle::from_json(td(), &current.bundle().spiffe_json).unwrap()
}

/// Each change of an identity: the bundle for its verifier, and the time of each renewal.
async fn followed(mut changed: tokio::sync::watch::Receiver<Arc<Current>>, bundles: Bundles, seen: Arc<Seen>) {
    let mut last = changed.borrow_and_update().expires_at();
    while changed.changed().await.is_ok() {
        let current = changed.borrow_and_update().clone();
        bundles.set(believed(&current));
        if current.expires_at() != last {
            last = current.expires_at();
            seen.renewals.lock().push(Instant::now());
        }
    }
}

async fn sample(agents: Vec<Arc<Agent>>, seen: Arc<Seen>) {
    let any = || {
        let mut random = [0u8; 4];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        &agents[u32::from_be_bytes(random) as usize % agents.len()]
    };
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if seen.quiet.load(Ordering::SeqCst) {
            continue;
        }
        let (server, client) = (any(), any());
        shake(server, client, &seen).await;
        // A token of one, believed by the other; what is remembered is used while the issuer is away.
        if let Ok(token) = client.identity.jwt(SEARCH).await
            // Who is over learns of no new key.
            && server.identity.over().borrow().is_none()
        {
            match server.verifier.verify_jwt(&token.token, SEARCH) {
                Ok(_) => _ = seen.tokens.fetch_add(1, Ordering::SeqCst),
                Err(e) => seen.gaps.lock().push(format!("token: {e}")),
            }
        }
    }
}

/// A handshake, judged by what both knew when it began.
async fn shake(server: &Agent, client: &Agent, seen: &Seen) {
    let ends_at = |agent: &Agent| agent.identity.current().expires_at();
    let (before, ends_at, bundles) =
        (SystemTime::now(), ends_at(server).min(ends_at(client)), [server, client].map(|a| believed(&a.identity.current())));
    let over = [server, client].iter().find_map(|a| a.identity.over().borrow().clone());
    let (near, far) = tokio::io::duplex(16 * 1024);
    let name = "agent".try_into().unwrap();
    let (accepted, connected) = tokio::join!(
        TlsAcceptor::from(Arc::clone(&server.server)).accept(near),
        TlsConnector::from(Arc::clone(&client.client)).connect(name, far)
    );
    // In TLS 1.3 a client is done before it has been judged: only both together are a connection.
    match (accepted, connected) {
        (Ok(near), Ok(far)) => {
            let chains = [far.get_ref().1.peer_certificates(), near.get_ref().1.peer_certificates()].map(Option::unwrap);
            for (chain, bundle) in chains.into_iter().zip(&bundles) {
                judge(chain, bundle, seconds(before), seen);
            }
            if let Some(over) = over {
                seen.gaps.lock().push(format!("a handshake was made with an agent that is over: {over}"));
            }
            seen.handshakes.fetch_add(1, Ordering::SeqCst);
        }
        // It ended meanwhile.
        _ if ends_at <= SystemTime::now() => _ = seen.expired.fetch_add(1, Ordering::SeqCst),
        (accepted, connected) if over.is_none() => {
            let text = |e: Option<std::io::Error>| e.map(|e| e.to_string());
            seen.gaps.lock().push(format!("{:?}, {:?}", text(accepted.err()), text(connected.err())));
        }
        // Cut, and known to be.
        _ => {}
    }
}

fn judge(chain: &[CertificateDer<'_>], bundle: &Bundle, at: u64, seen: &Seen) {
    match verify_x509(chain, bundle, &BindingOid::default(), at) {
        Ok(svid) => _ = seen.authorities.lock().insert(hex::encode(&svid.authority)),
        Err(e) => seen.gaps.lock().push(format!("a handshake was made with what does not hold: {e}")),
    }
}

/// KiB.
fn in_use() -> u64 {
    let stats = HEAP.stats();
    (stats.bytes_allocated.saturating_sub(stats.bytes_deallocated) >> 10) as u64
}

/// KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap()
}

/// Of this process, in hundredths of a second.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Two connections an agent at the time of a renewal, here and there.
fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(limit.maximum.is_none_or(|most| most >= 8192), "this needs 8192 files: ulimit -Hn");
}

async fn all_over(agents: &[Arc<Agent>]) {
    for agent in agents {
        let why = tokio::time::timeout(Duration::from_secs(60), agent.identity.ended()).await.unwrap();
        assert!(matches!(why, Over::Expired(_)), "{why:?}");
        assert!(agent.identity.jwt(SEARCH).await.is_err(), "nor is a token given out");
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_restart_and_nobody_outlives_a_certificate() {
    let mut fleet = Fleet::start(&config(20, 60), &[("worker", 50)], 2).await;
    let began = Instant::now();
    pass(5).await;
    fleet.away(Duration::from_secs(1)).await;
    pass(8).await;
    fleet.away(Duration::from_millis(2500)).await;
    pass(6).await;
    fleet.undisturbed(&fleet.agents);
    fleet.no_herd(began, Instant::now(), Duration::from_secs(10), 50, BRIEF);
    // Away for good.
    drop(fleet.dev.take());
    all_over(&fleet.agents).await;
    pass(1).await;
    fleet.report();
    assert!(fleet.seen.gaps.lock().is_empty(), "{:?}", fleet.seen.gaps.lock());
    assert!(fleet.seen.handshakes.load(Ordering::SeqCst) > 100 && fleet.seen.expired.load(Ordering::SeqCst) > 0);
    assert!(fleet.seen.authorities.lock().len() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: four minutes; cargo test --release --test fleet -- --ignored --nocapture --test-threads 1"]
async fn a_thousand_agents_do_not_notice_rotations_and_restarts() {
    many_files();
    let mut fleet = Fleet::start(&config(20, 60), &[("worker", 1000)], 4).await;
    pass(BRIEF).await;
    // From here on they are spread, and memory counts.
    fleet.memory.lock().clear();
    let began = Instant::now();
    for away in [0, 1000, 3000, 500, 2000, 1000, 3000] {
        pass(20).await;
        fleet.away(Duration::from_millis(away)).await;
    }
    pass(BRIEF).await;
    fleet.report();
    fleet.undisturbed(&fleet.agents);
    fleet.no_herd(began, Instant::now(), Duration::from_secs(1), 1000, BRIEF);
    fleet.flat_memory();
    assert!(fleet.seen.authorities.lock().len() >= 8, "authorities have rotated");
    fleet.tasks.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: nine minutes; see above"]
async fn a_thousand_agents_and_a_minute_without_an_issuer() {
    many_files();
    let mut fleet = Fleet::start(&config(40, PATIENT), &[("worker", 200), ("researcher", 800)], 4).await;
    let (brief, patient) = (fleet.of("worker"), fleet.of("researcher"));
    pass(PATIENT / 2).await;
    fleet.undisturbed(&fleet.agents);
    fleet.seen.quiet.store(true, Ordering::SeqCst);
    let (used, since) = (cpu(), Instant::now());
    pass(10).await;
    let usual = (cpu() - used) as f64 / since.elapsed().as_secs_f64();
    fleet.seen.quiet.store(false, Ordering::SeqCst);

    let dir = fleet.dev.take().unwrap().kill();
    let gone = Instant::now();
    pass(BRIEF + 2).await;
    all_over(&brief).await;
    fleet.undisturbed(&patient);
    // Nothing spins: who cannot renew does less than who does.
    fleet.seen.quiet.store(true, Ordering::SeqCst);
    let (used, since) = (cpu(), Instant::now());
    pass(10).await;
    let alone = (cpu() - used) as f64 / since.elapsed().as_secs_f64();
    println!("hundredths of a second of CPU in each: {usual:.1} as usual, {alone:.1} without an issuer");
    assert!(alone <= usual, "{alone} without an issuer, {usual} as usual");
    fleet.seen.quiet.store(false, Ordering::SeqCst);

    tokio::time::sleep(Duration::from_secs(60).saturating_sub(gone.elapsed())).await;
    let started = tokio::task::spawn_blocking(|| Dev::start_args(dir, &["--config", "extra.toml"], &[]));
    fleet.dev = Some(started.await.unwrap());
    let back = Instant::now();
    pass(PATIENT / 2).await;
    fleet.report();
    fleet.undisturbed(&patient);
    fleet.no_herd(back, Instant::now(), Duration::from_secs(PATIENT / 20), 800, PATIENT);
    // Who was over stays so.
    all_over(&brief).await;
    fleet.flat_memory();
    fleet.tasks.shutdown().await;
}
