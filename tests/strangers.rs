//! Honest spawns and revocations beside 200 busy connections of strangers, against the same without them, in one run. The strangers are
//! a process of their own with the lowest priority, so that it is not their own work that is measured.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mayfly::folder::Key;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::{ChannelSettings, Trust, connect, connect_unix};
use mayfly_verify::TrustDomain;
use support::{Dev, ORCHESTRATOR, channel};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const CONNECTIONS: usize = 200;
const IN_FLIGHT: u8 = 16;
/// Honest spawns, and as many revocations, a second.
const RATE: u64 = 40;

/// The strangers, which end when this is dropped.
struct Strangers(Child);

impl Strangers {
    fn start(dev: &Dev) -> Strangers {
        let roots = dev.path(".mayfly/workloads/orchestrator/bundle.pem");
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .args(["busy_strangers", "--exact", "--ignored", "--quiet"])
            .env("STRANGERS_ADDRESS", dev.text("grpc"))
            .env("STRANGERS_ROOTS", roots)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Strangers(child)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of another test"]
async fn busy_strangers() {
    let Ok(address) = std::env::var("STRANGERS_ADDRESS") else { return };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let roots = mayfly::folder::certificates(std::env::var("STRANGERS_ROOTS").unwrap().as_ref()).unwrap();
    let csr = Key::new().unwrap().csr;
    let mut all = JoinSet::new();
    for n in 0..CONNECTIONS {
        let (address, roots, csr) = (address.clone(), roots.clone(), csr.clone());
        all.spawn(async move {
            loop {
                let settings = ChannelSettings {
                    address: address.clone(),
                    trust_domain: TrustDomain::new("dev.mayfly.test").unwrap(),
                    trust: Trust::Roots(roots.clone()),
                    identity: None,
                    connect_timeout: Duration::from_secs(10),
                };
                let Ok(from) = connect(settings).await else { continue };
                let mut each = JoinSet::new();
                for m in 0..IN_FLIGHT {
                    let (mut client, csr) = (IdentitiesClient::new(from.clone()), csr.clone());
                    let secret = vec![u8::try_from(n % 256).unwrap() ^ m; 32];
                    // As fast as it is answered, until the connection breaks.
                    each.spawn(async move {
                        let ask = || v1::RedeemRequest { secret: secret.clone(), csr: csr.clone() };
                        while client.redeem(ask()).await.is_err_and(|e| e.code() != tonic::Code::Unavailable) {}
                    });
                }
                while each.join_next().await.is_some() {}
            }
        });
    }
    while all.join_next().await.is_some() {}
}

#[derive(Default)]
struct Seen {
    spawns: Vec<Duration>,
    revocations: Vec<Duration>,
}

fn p99(of: &mut [Duration]) -> Duration {
    of.sort_unstable();
    of.get(of.len() * 99 / 100).copied().unwrap_or_default()
}

/// Spawns and revokes at a steady rate, whatever the answers take.
async fn honest(dev: &Dev, spawner: &Channel, operator: &Channel, time: Duration) -> Seen {
    let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file("demo.jwt"), ..Default::default() };
    let mut open = JoinSet::new();
    let (mut seen, began) = (Seen::default(), Instant::now());
    let mut turns = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    while began.elapsed() < time {
        turns.tick().await;
        let (spawner, operator) = (spawner.clone(), operator.clone());
        let request = v1::SpawnRequest { csr: Key::new().unwrap().csr, ..request.clone() };
        open.spawn(async move {
            let started = Instant::now();
            let spawned = IdentitiesClient::new(spawner).spawn(request).await.unwrap().into_inner();
            let spawn = started.elapsed();
            let target = v1::target::Target::Agent(spawned.agent.unwrap().agent_id);
            let revoke = v1::RevokeRequest { target: Some(v1::Target { target: Some(target) }), ..Default::default() };
            let started = Instant::now();
            OperationsClient::new(operator).revoke(revoke).await.unwrap();
            (spawn, started.elapsed())
        });
    }
    while let Some(done) = open.join_next().await {
        let (spawn, revocation) = done.unwrap();
        seen.spawns.push(spawn);
        seen.revocations.push(revocation);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: STRANGERS_SECONDS=20 cargo test --release --test strangers -- --ignored --nocapture beside"]
async fn the_honest_are_served_beside_busy_strangers() {
    let seconds = std::env::var("STRANGERS_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let time = Duration::from_secs(seconds);
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let spawner = channel(&dev, Some(ORCHESTRATOR)).await;
    let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
    honest(&dev, &spawner, &operator, Duration::from_secs(2)).await;
    let mut quiet = honest(&dev, &spawner, &operator, time).await;
    let strangers = Strangers::start(&dev);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut beside = honest(&dev, &spawner, &operator, time).await;
    drop(strangers);
    let [spawn, revoke] = [&mut quiet.spawns, &mut quiet.revocations].map(|of| p99(of));
    let [spawn_beside, revoke_beside] = [&mut beside.spawns, &mut beside.revocations].map(|of| p99(of));
    println!(
        "p99 quiet: spawn {spawn:?}, revoke {revoke:?}; beside {CONNECTIONS} strangers x {IN_FLIGHT}: spawn {spawn_beside:?}, \
         revoke {revoke_beside:?}"
    );
    assert!(beside.spawns.len() >= quiet.spawns.len() / 2, "nothing of the honest was refused, and nothing stood still");
}
