//! One issuer through everything that can happen to it, one after the other: after each fault is healed it works again without a
//! hand, no verifier accepts what was revoked beyond its bound, and nothing that was acknowledged is lost (T236).
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::connect_peer;
use mayfly_agent::identity::{Identity, Issuer};
use mayfly_agent::peers::{Authorize, Verifier};
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_agent::ticket::Ticket;
use mayfly_agent::tls::client_config;
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Live, Reject, TrustDomain, X509Svid, inspect_x509};
use parking_lot::Mutex;
use support::faults::Faults;
use support::{BIN, Dev};
use tokio::task::JoinSet;

/// What a strict verifier may not know at most.
const BOUND: Duration = Duration::from_secs(5);
/// By which the clocks of an issuer and a verifier may differ.
const LEEWAY: Duration = Duration::from_secs(1);
/// After a fault is healed everything works within this time.
const HEALED: Duration = Duration::from_secs(30);
const CONFIG: [&str; 2] = ["--config", "extra.toml"];

fn config(ttl: u64) -> String {
    let mut text = "[server]\nrequest_timeout = \"4s\"\n[[workloads]]\nname = \"relay\"\n".to_owned();
    for (class, lease) in [("worker", "2h"), ("researcher", "2h")] {
        text += &format!(
            "[[classes]]\nname = \"{class}\"\nowner = \"tests\"\nscopes = [\"search:read\"]\naudiences = [\"https://search.example\"]\n\
             svid_ttl = \"{ttl}s\"\nmax_lease = \"{lease}\"\nmodes = [\"delegated\"]\nspawners = [\"workload/orchestrator\"]\n"
        );
    }
    text
}

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// What happens to the issuer, and then stops.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    /// The same, and what reads its log is gone from then on.
    Unheard,
    Stopped,
    Full,
    Slow,
    Hanging,
    Ahead,
    Behind,
    /// Connections that say nothing, to every port.
    Idle,
}

const ALL: [Fault; 9] = [
    Fault::Killed,
    Fault::Slow,
    Fault::Stopped,
    Fault::Full,
    Fault::Ahead,
    Fault::Unheard,
    Fault::Idle,
    Fault::Behind,
    Fault::Hanging,
];

/// A revoked credential: accepted by nobody from a bound after the receipt on.
struct Revoked {
    svid: X509Svid,
    at: Instant,
}

#[derive(Default)]
struct Seen {
    spawned: Mutex<HashSet<String>>,
    revoked: Mutex<Vec<Revoked>>,
    // What must never be seen.
    wrong: Mutex<Vec<String>>,
    checks: AtomicU64,
    over: AtomicBool,
}

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    faults: Faults,
    dev: Option<Dev>,
    workload: Arc<Identity>,
    agents: Vec<Identity>,
    verifiers: Vec<Following>,
    _relays: Vec<Relay>,
    seen: Arc<Seen>,
    tasks: JoinSet<()>,
    token: String,
}

fn relay(dev: &Dev, dir: &str) -> (Relay, String) {
    let command = ["relay", "--as", dir, "-o", "json"];
    let mut child = Command::new(BIN)
        .args(command)
        .current_dir(dev.dir.path())
        .env_remove("MAYFLY_HOME")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        text += &line;
        if line == "}" {
            break;
        }
    }
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    (Relay(child), told["listen"].as_str().unwrap().to_owned())
}

impl World {
    async fn start(agents: usize, relays: usize, verifiers: usize, ttl: u64) -> World {
        let (faults, dir) = (Faults::new(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("extra.toml"), config(ttl)).unwrap();
        let dev = faults.start_args(dir, &CONFIG);
        dev.token("demo", "demo.jwt");
        let issuer = Issuer { address: dev.text("grpc"), trust_domain: td(), connect_timeout: Duration::from_secs(3) };
        let ticket = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
        let workload = Arc::new(Identity::redeem(&Ticket::parse(&ticket).unwrap(), Duration::from_secs(10)).await.unwrap());
        let token = dev.file("demo.jwt");
        let mut spawned = Vec::new();
        for _ in 0..agents {
            let request = v1::SpawnRequest { class: "worker".into(), user_token: token.clone(), ..Default::default() };
            spawned.push(Identity::spawn(workload.channel(), issuer.clone(), request).await.unwrap());
        }
        let got = BundlesClient::new(workload.channel()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
        let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
        let strict = |channel| follow(channel, key.clone(), td(), Freshness::Strict(BOUND));
        let mut followers: Vec<_> = (0..verifiers).map(|_| strict(workload.channel())).collect();
        let mut running = Vec::new();
        for n in 0..relays {
            let ticket = dev.run("join relay").stdout;
            std::fs::write(dev.path("ticket"), ticket).unwrap();
            dev.json(&format!("redeem --ticket-file ticket --out relay{n}"));
            let (relay, address) = relay(&dev, &format!("relay{n}"));
            let peers = Verifier::new(workload.bundles(), Live::new(td(), Freshness::BestEffort));
            let id = "spiffe://dev.mayfly.test/workload/relay".parse().unwrap();
            let tls = client_config(&workload.shown(), &peers, Authorize::ids([id])).unwrap();
            followers.push(strict(connect_peer(&address, tls, Duration::from_secs(5)).await.unwrap()));
            running.push(relay);
        }
        let (seen, mut tasks) = (Arc::new(Seen::default()), JoinSet::new());
        tasks.spawn(orchestrate(Arc::clone(&workload), token.clone(), Arc::clone(&seen)));
        tasks.spawn(watch(followers.iter().map(|f| f.live().clone()).collect(), Arc::clone(&seen)));
        World { faults, dev: Some(dev), workload, agents: spawned, verifiers: followers, _relays: running, seen, tasks, token }
    }

    fn dev(&self) -> &Dev {
        self.dev.as_ref().unwrap()
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.dev().pid().to_string()]).status().unwrap().success());
    }

    /// Lets a fault happen for so long.
    async fn suffer(&mut self, fault: Fault, time: Duration) {
        let set = |what: &str, on| self.faults.set(what, on);
        match fault {
            Fault::Killed | Fault::Unheard => {
                let dir = self.dev.take().unwrap().kill();
                tokio::time::sleep(time / 2).await;
                let started = match fault {
                    Fault::Unheard => self.faults.start_unheard(dir, &CONFIG),
                    _ => self.faults.start_args(dir, &CONFIG),
                };
                self.dev = Some(started);
            }
            Fault::Stopped => {
                self.signal("-STOP");
                tokio::time::sleep(time).await;
                self.signal("-CONT");
            }
            Fault::Full | Fault::Hanging => {
                let what = if matches!(fault, Fault::Full) { "full" } else { "hang" };
                set(what, true);
                tokio::time::sleep(time).await;
                set(what, false);
            }
            Fault::Slow => {
                self.faults.slow(Duration::from_millis(300));
                tokio::time::sleep(time).await;
                self.faults.slow(Duration::ZERO);
            }
            Fault::Ahead | Fault::Behind => {
                self.faults.clock(if matches!(fault, Fault::Ahead) { 3600 } else { -3600 });
                tokio::time::sleep(time).await;
                self.faults.clock(0);
            }
            Fault::Idle => {
                let ports = ["grpc", "http"].map(|port| self.dev().text(port));
                let idle: Vec<_> = (0..600).map(|n| TcpStream::connect(&ports[n % 2])).collect();
                tokio::time::sleep(time).await;
                drop(idle);
            }
        }
    }

    /// A spawn, a renewal and a revocation that each verifier hears of, within the time that healing may take.
    async fn works(&self, after: &str) {
        let began = Instant::now();
        loop {
            match self.whole().await {
                Ok(()) => return println!("{after}: everything works again after {:?}", began.elapsed()),
                Err(e) if began.elapsed() < HEALED => println!("{after}: not yet after {:?}: {e}", began.elapsed()),
                Err(e) => panic!("{after}: after {HEALED:?} still: {e}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn whole(&self) -> Result<(), String> {
        let text = |what: &'static str| move |e: &dyn std::fmt::Display| format!("{what}: {e}");
        let key = mayfly::folder::Key::new().unwrap();
        let spawned = spawn(&self.workload, &self.token, key.csr, "researcher").await.map_err(|e| text("spawn")(&e))?;
        let (id, svid) = admitted(&spawned);
        self.seen.spawned.lock().insert(id.clone());
        // What the agents of the SDK do from time to time, by a new one: the certificates of a workload that are not used are limited.
        let issuer = Issuer { address: self.dev().text("grpc"), trust_domain: td(), connect_timeout: Duration::from_secs(3) };
        let request = v1::SpawnRequest { class: "researcher".into(), user_token: self.token.clone(), ..Default::default() };
        let agent = Identity::spawn(self.workload.channel(), issuer, request).await.map_err(|e| text("spawn by the SDK")(&e))?;
        let renewed = within(renew(&agent)).await.map_err(|e| text("renew")(&e))?;
        assert!(!renewed.svid.unwrap().certificates.is_empty());
        revoke(&self.workload, &id, &svid, &self.seen).await.map_err(|e| text("revoke")(&e))?;
        let started = Instant::now();
        for (n, verifier) in self.verifiers.iter().enumerate() {
            while verifier.live().check(now(), &svid) != Err(Reject::Cut) {
                if started.elapsed() > HEALED / 3 {
                    return Err(format!("verifier {n} does not know the revocation: {:?}", verifier.live().check(now(), &svid)));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Everything that was acknowledged is there, and no agent of the SDK has noticed anything.
    async fn end(mut self) {
        self.seen.over.store(true, Ordering::SeqCst);
        while self.tasks.join_next().await.is_some() {}
        let listed = self.dev().json("agents list --all");
        let listed: Vec<_> = listed["agents"].as_array().unwrap().iter().collect();
        let state = |id: &str| listed.iter().find(|agent| agent["agent_id"] == id).map(|agent| agent["state"].clone());
        let (spawned, revoked) = (self.seen.spawned.lock(), self.seen.revoked.lock());
        for id in spawned.iter() {
            assert!(state(id).is_some(), "{id} was acknowledged and is lost");
        }
        for one in revoked.iter() {
            let id = one.svid.id.to_string();
            assert_eq!(state(&id).unwrap(), "revoked", "{id}");
        }
        let wrong = self.seen.wrong.lock();
        assert!(wrong.is_empty(), "{} times: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
        let checks = self.seen.checks.load(Ordering::SeqCst);
        println!("{} spawned, {} revoked, {checks} checks of what was revoked", spawned.len(), revoked.len());
        assert!(checks > 100);
        for agent in &self.agents {
            assert!(agent.over().borrow().is_none(), "{} is over: {:?}", agent.current().spiffe_id(), agent.over().borrow());
            assert!(agent.current().expires_at() > SystemTime::now());
        }
    }
}

async fn within<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Result<T, tonic::Status> {
    let late = |_| tonic::Status::deadline_exceeded("nothing was heard");
    tokio::time::timeout(Duration::from_secs(5), call).await.map_err(late)?
}

async fn spawn(from: &Identity, token: &str, csr: Vec<u8>, class: &str) -> Result<v1::SpawnResponse, tonic::Status> {
    let request = v1::SpawnRequest { class: class.into(), csr, user_token: token.to_owned(), ..Default::default() };
    Ok(within(IdentitiesClient::new(from.channel()).spawn(request)).await?.into_inner())
}

/// The agent has one certificate more; the one that its identity uses stays valid.
async fn renew(from: &Identity) -> Result<v1::RenewResponse, tonic::Status> {
    let csr = mayfly::folder::Key::new().unwrap().csr;
    Ok(IdentitiesClient::new(from.channel()).renew(v1::RenewRequest { csr }).await?.into_inner())
}

async fn revoke(from: &Identity, id: &str, svid: &X509Svid, seen: &Seen) -> Result<(), tonic::Status> {
    let target = Some(v1::Target { target: Some(v1::target::Target::Agent(id.to_owned())) });
    let request = v1::RevokeRequest { target, reason: "chaos".into(), ..Default::default() };
    within(OperationsClient::new(from.channel()).revoke(request)).await?;
    seen.revoked.lock().push(Revoked { svid: svid.clone(), at: Instant::now() });
    Ok(())
}

fn admitted(spawned: &v1::SpawnResponse) -> (String, X509Svid) {
    let leaf = spawned.svid.as_ref().unwrap().certificates[0].clone().into();
    (spawned.agent.as_ref().unwrap().agent_id.clone(), inspect_x509(&leaf, &td(), &BindingOid::default()).unwrap())
}

/// Spawns all the time, and revokes every other agent.
async fn orchestrate(workload: Arc<Identity>, token: String, seen: Arc<Seen>) {
    let mut turn = 0;
    while !seen.over.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let key = mayfly::folder::Key::new().unwrap();
        let Ok(spawned) = spawn(&workload, &token, key.csr, "worker").await else { continue };
        let (id, svid) = admitted(&spawned);
        seen.spawned.lock().insert(id.clone());
        turn += 1;
        if turn % 2 == 0 {
            let _ = revoke(&workload, &id, &svid, &seen).await;
        }
    }
}

/// Asks every verifier about everything that was revoked, all the time.
async fn watch(verifiers: Vec<Live>, seen: Arc<Seen>) {
    let mut known: HashSet<(usize, Vec<u8>)> = HashSet::new();
    while !seen.over.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let revoked = seen.revoked.lock();
        for one in revoked.iter().rev().take(200) {
            for (n, live) in verifiers.iter().enumerate() {
                // ORDER: the time is read before the check, so that what is late is late for certain.
                let (late, lives) = (one.at.elapsed() > BOUND + LEEWAY, now().as_secs() < one.svid.not_after);
                let told = live.check(now(), &one.svid);
                seen.checks.fetch_add(1, Ordering::Relaxed);
                let key = (n, one.svid.serial.clone());
                match told {
                    Err(Reject::Cut) => _ = known.insert(key),
                    Ok(()) if lives && (late || known.contains(&key)) => {
                        seen.wrong.lock().push(format!(
                            "verifier {n} accepts {} {:?} after its revocation",
                            one.svid.id,
                            one.at.elapsed()
                        ));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t236_after_each_fault_the_issuer_works_again_without_a_hand_and_nothing_was_lost_or_came_back() {
    let mut world = World::start(6, 1, 2, 40).await;
    world.works("at the beginning").await;
    for fault in ALL {
        world.suffer(fault, Duration::from_millis(1500)).await;
        world.works(&format!("{fault:?}")).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: an hour; cargo test --release --test chaos -- --ignored --nocapture"]
async fn t236_an_hour_of_chaos() {
    let hour = Duration::from_secs(std::env::var("SECONDS_OF_CHAOS").map_or(3600, |s| s.parse().unwrap()));
    let mut world = World::start(200, 2, 5, 120).await;
    let (began, mut last) = (Instant::now(), ALL.len());
    while began.elapsed() < hour {
        let mut random = [0u8; 4];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let (which, long) = (usize::from(random[0]) % ALL.len(), u64::from(u16::from_be_bytes([random[1], random[2]])) % 20_000);
        if std::mem::replace(&mut last, which) == which {
            continue;
        }
        println!("-- {:?} at {:?}, for {long} ms", ALL[which], began.elapsed());
        world.suffer(ALL[which], Duration::from_millis(long)).await;
        world.works(&format!("{:?}", ALL[which])).await;
        // If the next fault began at once, a certificate of two minutes might find no moment in which it can be renewed.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    world.end().await;
}

/// `mayfly` commands have no deadline of their own: some calls may take long. An issuer that stands still is noticed all the same.
#[test]
fn t236_a_command_whose_issuer_stands_still_ends_and_says_so() {
    let dev = Dev::start();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &dev.pid().to_string()]).status().unwrap().success());
    signal("-STOP");
    let began = Instant::now();
    let told = dev.fails("agents list", 5);
    assert!(began.elapsed() < Duration::from_secs(60), "{told}");
    signal("-CONT");
    dev.json("agents list");
}
