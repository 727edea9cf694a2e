//! Every authority rotates every few seconds while agents are spawned, renewed and minted for: nobody notices.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::channel::{ChannelSettings, Identity, Trust, connect};
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_jwt, verify_x509};
use parking_lot::{Mutex, RwLock};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::{Dev, ORCHESTRATOR, channel};

// The shortest lives that a class can have, and rotations as often as twenty published keys allow.
const CONFIG: &str = r#"
[authorities]
rotate_x509 = "10s"
rotate_jwt = "8s"
bundle_refresh = "1s"
[credentials]
jwt_ttl = "10s"
workload_ttl = "60s"
[[classes]]
name = "researcher"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "60s"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
[[classes]]
name = "worker"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "60s"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
[[classes]]
name = "payer"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "60s"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
"#;

const AUDIENCE: &str = "https://search.example";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

/// What all of them saw.
#[derive(Default)]
struct Seen {
    spawned: AtomicU64,
    renewed: AtomicU64,
    minted: AtomicU64,
    x509: Mutex<BTreeSet<String>>,
    jwt: Mutex<BTreeSet<String>>,
    most_keys: AtomicU64,
}

/// A verifier that looks for a newer bundle every second, as the refresh hint says, and never in between.
struct Verifier {
    bundle: RwLock<Bundle>,
    seen: Seen,
}

impl Verifier {
    fn x509(&self, certificates: &[Vec<u8>]) {
        let chain: Vec<_> = certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let svid = verify_x509(&chain, &self.bundle.read(), &BindingOid::default(), now()).unwrap();
        // T17, XL-13: no SVID outlives its authority.
        let (_, authority) = x509_parser::parse_x509_certificate(&chain[1]).unwrap();
        assert!(svid.not_after <= u64::try_from(authority.validity().not_after.timestamp()).unwrap());
        assert!(svid.not_after >= now() + 30, "nor is one cut short");
        self.seen.x509.lock().insert(hex::encode(&svid.authority));
    }

    fn jwt(&self, token: &str) {
        // BU-9: the verifier knows every key before it is used.
        let svid = verify_jwt(token, AUDIENCE, &self.bundle.read(), &BindingOid::default(), now()).unwrap();
        self.seen.jwt.lock().insert(svid.authority);
    }
}

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

async fn load(time: Duration) -> Verifier {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Arc::new(Dev::start_args(dir, &["--config", "extra.toml"], &[]));
    dev.token("demo", "demo.jwt");
    let token = std::fs::read_to_string(dev.path("demo.jwt")).unwrap().trim().to_owned();
    let mut bundles = BundlesClient::new(channel(&dev, None).await);
    let fetched = bundles.get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner().bundle.unwrap();
    let first = Bundle::from_json(td(), &fetched.spiffe_json).unwrap();
    let verifier = Arc::new(Verifier { bundle: RwLock::new(first), seen: Seen::default() });
    let until = Instant::now() + time;

    let mut tasks = tokio::task::JoinSet::new();
    let reader = Arc::clone(&verifier);
    tasks.spawn(async move {
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let fetched = bundles.get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner().bundle.unwrap();
            let next = Bundle::from_json(td(), &fetched.spiffe_json).unwrap();
            assert!(next.sequence() >= reader.bundle.read().sequence(), "BU-2");
            reader.seen.most_keys.fetch_max(next.jwt_authorities().len() as u64, Ordering::SeqCst);
            *reader.bundle.write() = next;
        }
    });
    // Eight spawners, each 25 agents in two seconds, and each of their agents renews and mints a second later.
    for _ in 0..8 {
        let (dev, token, verifier) = (Arc::clone(&dev), token.clone(), Arc::clone(&verifier));
        tasks.spawn(async move {
            let mut agents = tokio::task::JoinSet::new();
            let mut pace = tokio::time::interval(Duration::from_millis(80));
            let (mut client, mut connected) = (IdentitiesClient::new(channel(&dev, Some(ORCHESTRATOR)).await), Instant::now());
            while Instant::now() < until {
                pace.tick().await;
                // The workload's own certificate lasts a minute: `dev` renews it in its folder.
                if connected.elapsed() > Duration::from_secs(15) {
                    (client, connected) = (IdentitiesClient::new(channel(&dev, Some(ORCHESTRATOR)).await), Instant::now());
                }
                let key = KeyPair::generate().unwrap();
                let request = v1::SpawnRequest {
                    class: "researcher".into(),
                    csr: csr(&key),
                    user_token: token.clone(),
                    jwt_audience: AUDIENCE.into(),
                    ..Default::default()
                };
                let got = client.spawn(request).await.unwrap().into_inner();
                verifier.x509(&got.svid.as_ref().unwrap().certificates);
                verifier.jwt(&got.jwt.unwrap().token);
                verifier.seen.spawned.fetch_add(1, Ordering::SeqCst);
                agents.spawn(live(Arc::clone(&dev), Arc::clone(&verifier), got.svid.unwrap(), key));
                while agents.try_join_next().transpose().unwrap().is_some() {}
            }
            while agents.join_next().await.transpose().unwrap().is_some() {}
        });
    }
    while tasks.join_next().await.transpose().unwrap().is_some() {}
    Arc::into_inner(verifier).unwrap()
}

/// An agent's life: it renews, connects with what it got, mints, and ends.
async fn live(dev: Arc<Dev>, verifier: Arc<Verifier>, svid: v1::X509Svid, key: KeyPair) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let next = KeyPair::generate().unwrap();
    let renewed = as_agent(&dev, &svid, &key).await.renew(v1::RenewRequest { csr: csr(&next) }).await.unwrap().into_inner();
    let svid = renewed.svid.unwrap();
    verifier.x509(&svid.certificates);
    verifier.seen.renewed.fetch_add(1, Ordering::SeqCst);
    let mut client = as_agent(&dev, &svid, &next).await;
    let minted = client.mint_jwt(v1::MintJwtRequest { audience: AUDIENCE.into(), ..Default::default() }).await.unwrap();
    verifier.jwt(&minted.into_inner().svid.unwrap().token);
    verifier.seen.minted.fetch_add(1, Ordering::SeqCst);
    client.end(v1::EndRequest::default()).await.unwrap();
}

async fn as_agent(dev: &Dev, svid: &v1::X509Svid, key: &KeyPair) -> IdentitiesClient<tonic::transport::Channel> {
    let roots = mayfly::folder::certificates(&dev.path(&format!("{ORCHESTRATOR}/bundle.pem"))).unwrap();
    let chain = svid.certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let settings = ChannelSettings {
        address: dev.text("grpc"),
        trust_domain: td(),
        trust: Trust::Roots(roots),
        identity: Some(Identity { chain, key }),
        connect_timeout: Duration::from_secs(10),
    };
    IdentitiesClient::new(connect(settings).await.unwrap())
}

fn report(time: Duration, seen: &Seen) {
    let n = |of: &AtomicU64| of.load(Ordering::SeqCst);
    let (x509, jwt) = (seen.x509.lock().len(), seen.jwt.lock().len());
    println!(
        "{} s: {} spawned, {} renewed, {} minted; {x509} X.509 and {jwt} JWT authorities; at most {} keys published",
        time.as_secs(),
        n(&seen.spawned),
        n(&seen.renewed),
        n(&seen.minted),
        n(&seen.most_keys)
    );
    assert!(n(&seen.most_keys) <= 20, "T57");
    let rotations = time.as_secs() / 10;
    assert!(x509 as u64 > rotations.saturating_sub(2).max(1) && jwt as u64 > rotations.saturating_sub(2).max(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_t57_bu9_nobody_notices_that_authorities_rotate() {
    let time = Duration::from_secs(25);
    report(time, &load(time).await.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: five minutes; cargo test --release --test rotation -- --ignored --nocapture"]
async fn t17_t57_bu9_nobody_notices_for_five_minutes() {
    let time = Duration::from_secs(300);
    let seen = load(time).await.seen;
    report(time, &seen);
    let calls = seen.spawned.load(Ordering::SeqCst) + seen.renewed.load(Ordering::SeqCst);
    assert!(calls >= 200 * 290, "200 spawns and renewals a second");
}
