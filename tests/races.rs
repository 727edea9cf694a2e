//! T85: a cut races everything that is issued below it, and wins. Real connections, real issuer, everything at once.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mayfly::folder::{self, Key};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_agent::ticket::Ticket;
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Bundle, Reject, TrustDomain, verify_jwt, verify_x509};
use rustls_pki_types::CertificateDer;
use support::{Dev, ORCHESTRATOR, channel};
use tokio::task::JoinSet;
use tonic::transport::Channel;

const AUDIENCE: &str = "https://search.example";

/// A credential that somebody got out of the issuer, and whether it was asked for after the receipt was there.
enum Got {
    X509(Vec<Vec<u8>>, bool),
    Jwt(String, bool),
}

/// What a race is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Agent,
    Delegation,
    User,
    Class,
    Workload,
}

struct Arena {
    dev: Dev,
    spawner: Channel,
    stranger: Channel,
    operator: Channel,
    feed: Following,
    bundle: Bundle,
    token: String,
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

impl Arena {
    async fn open() -> Arena {
        let dev = Dev::start();
        dev.token("demo", "demo.jwt");
        let spawner = channel(&dev, Some(ORCHESTRATOR)).await;
        let stranger = channel(&dev, None).await;
        let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
        let got = BundlesClient::new(stranger.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
        let got = got.bundle.unwrap();
        let td = TrustDomain::new("dev.mayfly.test").unwrap();
        let bundle = Bundle::from_json(td.clone(), &got.spiffe_json).unwrap();
        let feed = follow(operator.clone(), FeedKey::from_point(&got.feed_key).unwrap(), td, Freshness::default());
        let token = dev.file("demo.jwt");
        Arena { dev, spawner, stranger, operator, feed, bundle, token }
    }

    fn request(&self, class: &str, user: bool, csr: Vec<u8>) -> v1::SpawnRequest {
        let user_token = if user { self.token.clone() } else { String::new() };
        v1::SpawnRequest { class: class.into(), csr, user_token, ..Default::default() }
    }

    /// An agent with a connection of its own.
    async fn agent(&self, from: &Channel, request: v1::SpawnRequest, key: &Key, dir: &str) -> (v1::Agent, Channel) {
        let got = IdentitiesClient::new(from.clone()).spawn(request).await.unwrap().into_inner();
        folder::write(&self.dev.path(dir), key, got.svid.as_ref().unwrap(), got.bundle.as_ref().unwrap(), None).unwrap();
        (got.agent.unwrap(), channel(&self.dev, Some(dir)).await)
    }

    /// One race, whose cut comes when so many credentials are out; how many came out of it.
    async fn race(&mut self, cut: Cut, head_start: usize) -> usize {
        let (parent_key, child_key) = (Key::new().unwrap(), Key::new().unwrap());
        let request = self.request("researcher", true, parent_key.csr.clone());
        let (parent, as_parent) = self.agent(&self.spawner, request, &parent_key, "parent").await;
        let request = self.request("worker", false, child_key.csr.clone());
        let (_, as_child) = self.agent(&as_parent, request, &child_key, "child").await;
        let over = Arc::new(Race::default());
        let mut load: JoinSet<Vec<Got>> = JoinSet::new();
        for _ in 0..3 {
            load.spawn(spawning(as_parent.clone(), self.request("worker", false, vec![]), Arc::clone(&over)));
        }
        if cut != Cut::Agent {
            load.spawn(spawning(self.spawner.clone(), self.request("worker", true, vec![]), Arc::clone(&over)));
        }
        load.spawn(redeeming(as_parent.clone(), self.stranger.clone(), self.request("worker", false, vec![]), Arc::clone(&over)));
        load.spawn(renewing(as_child.clone(), Arc::clone(&over)));
        for minter in [&as_child, &as_parent] {
            load.spawn(minting(minter.clone(), Arc::clone(&over)));
        }
        while over.out.load(Ordering::SeqCst) < head_start {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        let target = self.target(cut, &parent);
        let revoke = v1::RevokeRequest { target: Some(v1::Target { target: Some(target) }), ..Default::default() };
        let receipt = OperationsClient::new(self.operator.clone()).revoke(revoke).await.unwrap().into_inner();
        over.over.store(true, Ordering::SeqCst);
        let got: Vec<Got> = load.join_all().await.into_iter().flatten().collect();
        self.judge(cut, &got, receipt.revision).await;
        self.reopen(cut).await;
        got.len()
    }

    fn user(&self) -> v1::User {
        v1::User { iss: self.dev.text("oidc"), sub: "demo".into(), ..Default::default() }
    }

    fn target(&self, cut: Cut, parent: &v1::Agent) -> v1::target::Target {
        use v1::target::Target;
        match cut {
            Cut::Agent => Target::Agent(parent.agent_id.clone()),
            Cut::Delegation => Target::Delegation(parent.delegation_id.clone()),
            Cut::User => Target::User(self.user()),
            Cut::Class => Target::Class("worker".into()),
            Cut::Workload => Target::Workload("orchestrator".into()),
        }
    }

    /// Neither a verifier that knows of the cut nor the issuer takes any of it.
    async fn judge(&self, cut: Cut, got: &[Got], revision: u64) {
        let live = self.feed.live();
        live.require(revision);
        let started = Instant::now();
        while live.fresh(now()).is_err() {
            assert!(started.elapsed() < Duration::from_secs(5), "the cut does not arrive");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let oid = BindingOid::default();
        for credential in got {
            let (verdict, late) = match credential {
                Got::X509(chain, late) => {
                    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
                    let svid = verify_x509(&chain, &self.bundle, &oid, now().as_secs()).unwrap();
                    // The class is that of the workers: whoever spawned them is none.
                    let spared = cut == Cut::Class && svid.id.path().contains("researcher");
                    (if spared { Err(Reject::Cut) } else { live.check(now(), &svid) }, *late)
                }
                Got::Jwt(token, late) => {
                    let svid = verify_jwt(token, AUDIENCE, &self.bundle, &oid, now().as_secs()).unwrap();
                    let spared = cut == Cut::Class && svid.id.path().contains("researcher");
                    (if spared { Err(Reject::Cut) } else { live.check(now(), &svid) }, *late && !spared)
                }
            };
            assert!(matches!(verdict, Err(Reject::Cut)), "{cut:?}: a verifier takes what the cut is about: {verdict:?}");
            assert!(!late, "{cut:?}: something was issued to a call that began after the receipt");
        }
        for dir in ["parent", "child"] {
            if cut == Cut::Class && dir == "parent" {
                continue;
            }
            let fresh = channel(&self.dev, Some(dir)).await;
            let mint = v1::MintJwtRequest { audience: AUDIENCE.into(), ..Default::default() };
            let answer = IdentitiesClient::new(fresh).mint_jwt(mint).await;
            assert!(answer.is_err(), "{cut:?}: the issuer serves `{dir}`");
        }
    }

    /// What was revoked stays that; what comes next starts anew.
    async fn reopen(&mut self, cut: Cut) {
        use v1::reopen_request::Target;
        let target = match cut {
            Cut::Agent => return,
            Cut::Delegation => None,
            Cut::User => Some(Target::User(self.user())),
            Cut::Class => Some(Target::Class("worker".into())),
            Cut::Workload => Some(Target::Workload("orchestrator".into())),
        };
        if let Some(target) = target {
            let request = v1::ReopenRequest { target: Some(target), ..Default::default() };
            OperationsClient::new(self.operator.clone()).reopen(request).await.unwrap();
        }
        if cut == Cut::Workload {
            // Its own certificates went with it, and it has joined again.
            self.spawner = channel(&self.dev, Some(ORCHESTRATOR)).await;
        }
        if matches!(cut, Cut::User | Cut::Delegation) {
            // Tokens tell whole seconds.
            let second = now().as_secs();
            while now().as_secs() == second {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            self.dev.token("demo", "demo.jwt");
            self.token = self.dev.file("demo.jwt");
        }
    }
}

/// How far a race is.
#[derive(Default)]
struct Race {
    /// Credentials that are out.
    out: AtomicUsize,
    /// The receipt is there.
    over: AtomicBool,
}

/// Goes on until it has had three answers after the receipt.
struct Pace {
    race: Arc<Race>,
    after: usize,
}

impl Pace {
    fn new(race: Arc<Race>) -> Pace {
        Pace { race, after: 0 }
    }

    fn out(&self) {
        self.race.out.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether another call may begin, and whether it begins after the receipt.
    fn next(&mut self) -> Option<bool> {
        let late = self.race.over.load(Ordering::SeqCst);
        self.after += usize::from(late);
        (self.after <= 3).then_some(late)
    }
}

async fn spawning(from: Channel, request: v1::SpawnRequest, race: Arc<Race>) -> Vec<Got> {
    let (mut client, mut pace, mut got) = (IdentitiesClient::new(from), Pace::new(race), vec![]);
    while let Some(late) = pace.next() {
        let request = v1::SpawnRequest { csr: Key::new().unwrap().csr, jwt_audience: AUDIENCE.into(), ..request.clone() };
        if let Ok(answer) = client.spawn(request).await {
            let answer = answer.into_inner();
            pace.out();
            got.push(Got::X509(answer.svid.unwrap().certificates, late));
            got.push(Got::Jwt(answer.jwt.unwrap().token, late));
        }
    }
    got
}

async fn redeeming(from: Channel, stranger: Channel, request: v1::SpawnRequest, race: Arc<Race>) -> Vec<Got> {
    let (mut parent, mut client) = (IdentitiesClient::new(from), IdentitiesClient::new(stranger));
    let (mut pace, mut got) = (Pace::new(race), vec![]);
    let mut tickets: Vec<String> = vec![];
    while let Some(late) = pace.next() {
        if let Ok(answer) = parent.spawn(v1::SpawnRequest { ticket: true, ..request.clone() }).await {
            tickets.push(answer.into_inner().ticket);
        }
        // Some are redeemed at once, some lie about until the cut.
        if late || tickets.len().is_multiple_of(2) {
            let Some(ticket) = tickets.pop() else { continue };
            let ticket = Ticket::parse(&ticket).unwrap();
            let request = v1::RedeemRequest { secret: ticket.secret().expose().to_vec(), csr: Key::new().unwrap().csr };
            if let Ok(answer) = client.redeem(request).await {
                pace.out();
                got.push(Got::X509(answer.into_inner().svid.unwrap().certificates, late));
            }
        }
    }
    got
}

async fn renewing(from: Channel, race: Arc<Race>) -> Vec<Got> {
    let (mut client, mut pace, mut got) = (IdentitiesClient::new(from), Pace::new(race), vec![]);
    while let Some(late) = pace.next() {
        let answer = client.renew(v1::RenewRequest { csr: Key::new().unwrap().csr }).await;
        match answer {
            Ok(answer) => {
                pace.out();
                got.push(Got::X509(answer.into_inner().svid.unwrap().certificates, late));
            }
            // There is a bound on renewals that nobody used.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    got
}

async fn minting(from: Channel, race: Arc<Race>) -> Vec<Got> {
    let (mut client, mut pace, mut got) = (IdentitiesClient::new(from), Pace::new(race), vec![]);
    while let Some(late) = pace.next() {
        if let Ok(answer) = client.mint_jwt(v1::MintJwtRequest { audience: AUDIENCE.into(), ..Default::default() }).await {
            pace.out();
            got.push(Got::Jwt(answer.into_inner().svid.unwrap().token, late));
        }
    }
    got
}

async fn races(count: usize) {
    let mut arena = Arena::open().await;
    let (mut credentials, mut fewest) = (0, usize::MAX);
    for n in 0..count {
        // Whoever is cut of these needs a second to come back: every twentieth race.
        let cut = match n % 20 {
            3 => Cut::Class,
            9 => Cut::User,
            13 => Cut::Workload,
            17 => Cut::Delegation,
            _ => Cut::Agent,
        };
        let got = arena.race(cut, n % 24).await;
        credentials += got;
        fewest = fewest.min(got);
    }
    eprintln!("{count} races: {credentials} credentials came out, at least {fewest} of each race; none is accepted");
    assert!(credentials > count * 8, "nothing raced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t85_nothing_issued_around_a_cut_is_accepted_after_its_receipt() {
    races(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: cargo test --release --test races -- --ignored --nocapture"]
async fn t85_a_thousand_races() {
    races(1000).await;
}
