//! The feed on the wire: what is cut reaches those who verify, once, in order, and soon (T66, T69, T71, T75, T76, T82).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::channel::connect_unix;
use mayfly_verify::{AgentId, Target, User, sha256};
use support::{BIN, Dev, ORCHESTRATOR, channel};
use tonic::{Code, Status, Streaming};

fn dev() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev
}

fn spawn(dev: &Dev, line: &str) -> AgentId {
    let agent = dev.json(&format!("spawn {line}"));
    AgentId::parse(agent["agent_id"].as_str().unwrap()).unwrap()
}

/// A subscriber that believes nothing: it adds up what it was told, and compares with what the heartbeat signs.
struct Reader {
    stream: Streaming<v1::WatchCutsResponse>,
    key: Vec<u8>,
    cuts: HashMap<Vec<u8>, (u64, u64)>,
    pending: Vec<v1::Cut>,
    snapshots: usize,
    incarnation: Vec<u8>,
    head: u64,
    as_of: u64,
    chain: Vec<u8>,
}

impl Reader {
    async fn open(dev: &Dev, identity: &str, from: Option<&Reader>) -> Reader {
        let channel = channel(dev, Some(identity)).await;
        let got = BundlesClient::new(channel.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
        let request = from.map_or_else(v1::WatchCutsRequest::default, |r| v1::WatchCutsRequest {
            incarnation: r.incarnation.clone(),
            after: r.head,
            chain: r.chain.clone(),
            ..Default::default()
        });
        let stream = RevocationsClient::new(channel).watch_cuts(request).await.unwrap().into_inner();
        let (cuts, incarnation) = from.map(|r| (r.cuts.clone(), r.incarnation.clone())).unwrap_or_default();
        let key = got.bundle.unwrap().feed_key;
        Reader { stream, key, cuts, pending: vec![], snapshots: 0, incarnation, head: 0, as_of: 0, chain: vec![] }
    }

    /// Takes messages to the next heartbeat.
    async fn beat(&mut self) -> Result<(), Status> {
        loop {
            let wait = tokio::time::timeout(Duration::from_secs(5), self.stream.message());
            let message = wait.await.expect("a heartbeat comes every second")?.expect("never OK");
            if message.snapshot {
                self.cuts.clear();
                self.pending.clear();
                self.snapshots += 1;
            }
            self.pending.extend(message.cuts);
            if let Some(beat) = message.heartbeat {
                self.check(&beat);
                return Ok(());
            }
        }
    }

    fn check(&mut self, beat: &v1::Heartbeat) {
        for cut in std::mem::take(&mut self.pending) {
            assert!(cut.revision <= beat.head, "T76");
            assert_eq!(cut.subject.len(), 16, "a digest, and no name");
            let slot = self.cuts.entry(cut.subject).or_default();
            *slot = (slot.0.max(cut.before), slot.1.max(cut.keep_until));
        }
        self.cuts.retain(|_, (_, until)| *until > beat.as_of / 1_000_000);
        assert!(beat.head >= self.head && beat.as_of >= self.as_of, "T75: time never goes back");
        (self.head, self.as_of) = (beat.head, beat.as_of);
        if self.snapshots > 0 {
            self.incarnation.clone_from(&beat.incarnation);
        }
        assert_eq!(beat.incarnation, self.incarnation);
        self.chain.clone_from(&beat.chain);
        // The sum of all hashes modulo 2^256, byte by byte.
        let mut sum = [0u8; 32];
        for (subject, (before, _)) in &self.cuts {
            let hash = sha256(&[subject.as_slice(), &before.to_be_bytes()].concat());
            let mut carry = 0u16;
            for (to, more) in sum.iter_mut().zip(hash).rev() {
                let all = u16::from(*to) + u16::from(more) + carry;
                (*to, carry) = (u8::try_from(all & 0xff).unwrap(), all >> 8);
            }
        }
        assert_eq!((beat.count, beat.digest.as_slice()), (self.cuts.len() as u64, &sum[..]), "nothing is left out");
        let mut message = b"mayfly feed v2\0".to_vec();
        message.extend_from_slice(&(beat.trust_domain.len() as u64).to_be_bytes());
        message.extend_from_slice(beat.trust_domain.as_bytes());
        message.extend_from_slice(&beat.incarnation);
        for n in [beat.head, beat.as_of, beat.count] {
            message.extend_from_slice(&n.to_be_bytes());
        }
        message.extend_from_slice(&beat.digest);
        assert_eq!(beat.chain.len(), 32);
        message.extend_from_slice(&beat.chain);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.key).verify(&message, &beat.signature).unwrap();
    }

    /// Goes on until a cut of the target is there.
    async fn until(&mut self, target: &Target) {
        let started = Instant::now();
        while !self.has(target) {
            assert!(started.elapsed() < Duration::from_secs(5), "{target:?}");
            self.beat().await.unwrap();
        }
    }

    fn has(&self, target: &Target) -> bool {
        self.cuts.contains_key(&target.unsalted().0[..])
    }
}

fn user(dev: &Dev, sub: &str) -> Target {
    Target::User(User { iss: dev.text("oidc"), sub: sub.into() })
}

/// The subjects that an agent's certificate relies on.
fn stamps(dev: &Dev, folder: &str) -> Vec<Vec<u8>> {
    let chain = mayfly_agent::folder::identity(&dev.path(folder)).unwrap().chain;
    let td = mayfly_verify::TrustDomain::new("dev.mayfly.test").unwrap();
    let svid = mayfly_verify::inspect_x509(&chain[0], &td, &mayfly_verify::BindingOid::default()).unwrap();
    svid.binding.unwrap().stamps.iter().map(|stamp| stamp.subject.0.to_vec()).collect()
}

/// L4: whoever reads the feed and can guess names learns of none, while the credentials that are revoked say so by themselves.
#[tokio::test]
async fn t229_nobody_finds_a_name_in_the_feed_by_guessing_it() {
    let dev = dev();
    for (revoked, n) in [("user dev/demo", 1), ("class researcher", 2), ("issuer dev", 3), ("root orchestrator", 4)] {
        let folder = format!("a{n}");
        spawn(&dev, &format!("--class researcher --user-token demo.jwt --out {folder}"));
        let mut reader = Reader::open(&dev, &folder, None).await;
        reader.beat().await.unwrap();
        let before: Vec<_> = reader.cuts.keys().cloned().collect();
        let relies_on = stamps(&dev, &folder);
        dev.json(&format!("revoke --{revoked} --allow-new"));
        // The agent's own connection ends with it, so somebody else reads on.
        let (mut reader, started) = (Reader::open(&dev, ORCHESTRATOR, None).await, Instant::now());
        let new = loop {
            reader.beat().await.unwrap();
            let new: Vec<_> = reader.cuts.keys().filter(|subject| !before.contains(subject)).cloned().collect();
            if !new.is_empty() {
                break new;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{revoked}");
        };
        assert!(new.len() == 1 && relies_on.contains(&new[0]), "{revoked}: {new:?}");
        assert!(dev.fails(&format!("verify {folder}/svid.pem --live"), 6).contains("REVOKED"), "{revoked}");
        if n % 2 == 1 {
            // A token from before the revocation of its user, or of their provider, counts no more.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            dev.token("demo", "demo.jwt");
        }
    }
    let mut reader = Reader::open(&dev, ORCHESTRATOR, None).await;
    reader.beat().await.unwrap();
    let iss = dev.text("oidc");
    let guesses = [
        user(&dev, "demo"),
        Target::Class("researcher".parse().unwrap()),
        Target::Issuer(iss),
        Target::Workload("orchestrator".parse().unwrap()),
    ];
    for guess in guesses {
        assert!(!reader.has(&guess), "{guess:?}");
    }
    assert!(reader.has(&Target::TrustDomain), "the guesses are made as the subjects are");
}

#[tokio::test]
async fn t75_t76_every_cut_arrives_once_in_order_and_a_break_loses_none() {
    let dev = dev();
    let mut reader = Reader::open(&dev, ORCHESTRATOR, None).await;
    reader.beat().await.unwrap();
    assert_eq!(reader.snapshots, 1, "everything comes first");
    let agent = spawn(&dev, "--class researcher --user-token demo.jwt --out a1");
    let receipt = dev.json(&format!("revoke --agent {agent}"));
    reader.until(&Target::Agent(agent.uuid)).await;
    assert!(reader.head >= receipt["revision"].as_u64().unwrap());
    // A break, and a cut in between.
    dev.json("revoke --user dev/demo");
    let mut again = Reader::open(&dev, ORCHESTRATOR, Some(&reader)).await;
    again.beat().await.unwrap();
    let new: Vec<_> = again.cuts.keys().filter(|subject| !reader.cuts.contains_key(*subject)).collect();
    assert!(new.len() == 1 && stamps(&dev, "a1").contains(new[0]) && again.snapshots == 0, "from where it was");
    // From another life of the journal: everything.
    let mut client = RevocationsClient::new(channel(&dev, Some(ORCHESTRATOR)).await);
    let known = v1::WatchCutsRequest {
        incarnation: again.incarnation.clone(),
        after: again.head,
        chain: again.chain.clone(),
        ..Default::default()
    };
    let elsewhere = v1::WatchCutsRequest { incarnation: vec![7; 16], ..known.clone() };
    let first = client.watch_cuts(elsewhere).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert!(first.snapshot);
    // T200: whoever was told a future that never was, or another past, hears "fork".
    let future = v1::WatchCutsRequest { after: again.head + 1000, ..known.clone() };
    let past = v1::WatchCutsRequest { chain: vec![7; 32], ..known.clone() };
    for told in [future, past] {
        let fork = client.watch_cuts(told).await.unwrap_err();
        assert_eq!(fork.code(), Code::FailedPrecondition);
        assert!(fork.message().starts_with("fork"), "{fork}");
    }
    for odd in
        [v1::WatchCutsRequest { incarnation: vec![1], ..known.clone() }, v1::WatchCutsRequest { chain: vec![1], ..known.clone() }]
    {
        assert_eq!(client.watch_cuts(odd).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // Nobody reads it without an identity.
    let mut stranger = RevocationsClient::new(channel(&dev, None).await);
    assert_eq!(stranger.watch_cuts(v1::WatchCutsRequest::default()).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn t281_whoever_subscribes_after_a_revocation_has_returned_hears_of_it_at_once() {
    let dev = dev();
    let spawned = dev.run("spawn --class worker --user-token demo.jwt --count 20 --out many -o json");
    let spawned = String::from_utf8(spawned.stdout).unwrap();
    let agents = spawned.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["agent_id"].clone());
    let agents: Vec<String> = agents.map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(agents.len(), 20);
    let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
    let verifier = RevocationsClient::new(channel(&dev, Some(ORCHESTRATOR)).await);
    for agent in agents {
        // The second of two within 20 ms shares a tick with what comes after it, so it is published later than it is answered.
        let target = Some(v1::Target { target: Some(v1::target::Target::Agent(agent)) });
        let request = v1::RevokeRequest { target, ..Default::default() };
        let revision = OperationsClient::new(operator.clone()).revoke(request).await.unwrap().into_inner().revision;
        let mut stream = verifier.clone().watch_cuts(v1::WatchCutsRequest::default()).await.unwrap().into_inner();
        let heartbeat = loop {
            if let Some(heartbeat) = stream.message().await.unwrap().unwrap().heartbeat {
                break heartbeat;
            }
        };
        assert!(heartbeat.head >= revision, "the first heartbeat is of {}, and {revision} was answered before", heartbeat.head);
    }
}

#[tokio::test]
async fn t69_t71_a_restart_forgets_no_cut_and_a_stop_is_unavailable() {
    let dev = dev();
    let agent = spawn(&dev, "--class researcher --user-token demo.jwt --out a1");
    let mut reader = Reader::open(&dev, ORCHESTRATOR, None).await;
    reader.beat().await.unwrap();
    dev.json(&format!("revoke --agent {agent}"));
    reader.until(&Target::Agent(agent.uuid)).await;
    Command::new("kill").arg(dev.pid().to_string()).status().unwrap();
    let end = loop {
        match reader.beat().await {
            Ok(()) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "clients stop for good at anything else");
    let dev = Dev::start_in(dev.kill());
    let mut again = Reader::open(&dev, ORCHESTRATOR, Some(&reader)).await;
    again.beat().await.unwrap();
    assert!(again.has(&Target::Agent(agent.uuid)));
    assert_eq!(again.incarnation, reader.incarnation, "the same life of the journal");
}

#[tokio::test]
async fn an_end_with_children_and_without_and_a_tainted_authority_are_cuts() {
    let dev = dev();
    let (alone, parent) = (
        spawn(&dev, "--class researcher --user-token demo.jwt --out a1"),
        spawn(&dev, "--class researcher --user-token demo.jwt --out a2"),
    );
    spawn(&dev, "--as a2 --class worker --out w1");
    let mut reader = Reader::open(&dev, ORCHESTRATOR, None).await;
    dev.json("end --as a1");
    dev.json("end --as a2");
    reader.until(&Target::Agent(parent.uuid)).await;
    reader.until(&Target::Agent(alone.uuid)).await;
    let old = dev.json("authority list")["authorities"][0]["id"].as_str().unwrap().to_owned();
    dev.json("authority rotate x509");
    dev.json(&format!("authority taint {old}"));
    // Whoever was signed by it is nobody from now on, and hears no more.
    let ended = loop {
        match reader.beat().await {
            Ok(()) => {}
            Err(status) => break status,
        }
    };
    assert_ne!(ended.code(), Code::Ok);
    std::fs::write(dev.path("ticket"), dev.run("join orchestrator").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out fresh");
    let mut fresh = Reader::open(&dev, "fresh", None).await;
    // T42.
    fresh.until(&Target::Authority(hex::decode(old).unwrap())).await;
}

#[tokio::test]
async fn a_cut_peers_connection_ends_with_its_open_calls() {
    let dev = dev();
    let agent = spawn(&dev, "--class researcher --user-token demo.jwt --out a1");
    spawn(&dev, "--class researcher --user-token demo.jwt --out a2");
    let (mut cut, mut other) = (Reader::open(&dev, "a1", None).await, Reader::open(&dev, "a2", None).await);
    cut.beat().await.unwrap();
    dev.json(&format!("revoke --agent {agent}"));
    let started = Instant::now();
    while cut.beat().await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(3), "the stream of a cut peer goes on");
    }
    other.until(&Target::Agent(agent.uuid)).await;
    other.beat().await.unwrap();
}

#[tokio::test]
async fn t66_a_subscriber_that_does_not_read_harms_nobody() {
    let dev = dev();
    let mut readers = Vec::new();
    let asleep = Reader::open(&dev, ORCHESTRATOR, None).await;
    for _ in 0..20 {
        readers.push(Reader::open(&dev, ORCHESTRATOR, None).await);
    }
    spawn(&dev, "--class researcher --user-token demo.jwt --out a1");
    assert!(dev.run("spawn --as a1 --class worker --count 60 --out many -o json").status.success());
    let mut last = None;
    for n in 1..=60 {
        let text = std::fs::read(dev.path(&format!("many/{n:04}/svid.pem"))).unwrap();
        let chain = pem::parse_many(text).unwrap();
        let leaf = rustls_pki_types::CertificateDer::from(chain[0].contents().to_vec());
        let td = mayfly_verify::TrustDomain::new("dev.mayfly.test").unwrap();
        let svid = mayfly_verify::inspect_x509(&leaf, &td, &mayfly_verify::BindingOid::default()).unwrap();
        dev.json(&format!("revoke --agent {}", svid.id));
        last = Some(Target::Agent(AgentId::parse(&svid.id.to_string()).unwrap().uuid));
    }
    for reader in &mut readers {
        reader.until(last.as_ref().unwrap()).await;
        assert_eq!(reader.cuts.len(), 61, "with that of the trust domain's beginning");
    }
    drop(asleep);
}

#[test]
fn watch_prints_a_line_for_each() {
    use std::io::BufRead;
    let dev = dev();
    let mut child =
        Command::new(BIN).args(["watch", "-o", "json"]).current_dir(dev.dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = |event: &str| {
        let found = lines.by_ref().map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
        found.take(50).find(|line| line["event"] == event).unwrap_or_else(|| panic!("no {event}"))
    };
    next("snapshot");
    next("heartbeat");
    dev.json("revoke --user dev/guest --reason secret");
    let cut = next("cut");
    assert_eq!(hex::decode(cut["subject"].as_str().unwrap()).unwrap().len(), 16);
    assert!(!cut.to_string().contains("secret"), "no reasons");
    let _ = child.kill();
    let _ = child.wait();
}

#[tokio::test]
async fn t41_t69_a_verifier_follows_the_feed_and_refuses_when_it_hears_nothing() {
    use mayfly_agent::revocation::{Freshness, Link, follow};
    use mayfly_verify::feed::FeedKey;
    use mayfly_verify::{BindingOid, Bundle, Reject, TrustDomain, verify_x509};
    let dev = dev();
    spawn(&dev, "--class researcher --user-token demo.jwt --out a1");
    let agent = spawn(&dev, "--class researcher --user-token demo.jwt --out a2");
    let td = TrustDomain::new("dev.mayfly.test").unwrap();
    let bundle = Bundle::from_json(td.clone(), &std::fs::read(dev.path("a1/bundle.json")).unwrap()).unwrap();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let read = |name: &str| {
        let chain = mayfly::folder::certificates(&dev.path(name)).unwrap();
        verify_x509(&chain, &bundle, &BindingOid::default(), now().as_secs()).unwrap()
    };
    let (kept, cut) = (read("a1/svid.pem"), read("a2/svid.pem"));
    let channel = channel(&dev, Some(ORCHESTRATOR)).await;
    let got = BundlesClient::new(channel.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
    let feed = follow(channel, key, td, Freshness::Strict(Duration::from_secs(2)));
    let live = feed.live().clone();
    assert!(matches!(live.check(now(), &kept), Err(Reject::Stale(_))), "T69: nothing was heard yet");
    let until = async |what: &str, done: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(10), "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    until("the first word", &|| live.check(now(), &kept).is_ok() && live.check(now(), &cut).is_ok()).await;
    let revision = dev.json(&format!("revoke --agent {agent}"))["revision"].as_u64().unwrap();
    live.require(revision);
    until("the cut", &|| matches!(live.check(now(), &cut), Err(Reject::Cut))).await;
    assert!(live.check(now(), &kept).is_ok(), "as fresh as the receipt");
    // Also by hand.
    assert!(dev.run("verify a1/svid.pem --live").status.success());
    assert!(dev.fails("verify a2/svid.pem --live", 6).contains("CREDENTIAL_REVOKED"));
    // An issuer that stands still says nothing, and that is told apart.
    let signal = |name: &str| assert!(Command::new("kill").args([name, &dev.pid().to_string()]).status().unwrap().success());
    signal("-STOP");
    assert!(dev.fails("verify a1/svid.pem --live", 7).contains("is not known"));
    signal("-CONT");
    // T41: the issuer is gone, and with it all that may be believed.
    let dir = dev.kill();
    until("staleness", &|| matches!(live.check(now(), &kept), Err(Reject::Stale(_)))).await;
    until("the break", &|| matches!(&*feed.link().borrow(), Link::Broken(_))).await;
    let _dev = Dev::start_in(dir);
    until("another word", &|| live.check(now(), &kept).is_ok()).await;
    assert!(matches!(live.check(now(), &cut), Err(Reject::Cut)), "and no cut is forgotten");
}
