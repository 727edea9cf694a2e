//! After a restart of the issuer its followers come back within a second and resume where they were (T233), and the keys of
//! providers are still known (T234).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{AgentId, BindingOid, Bundle, Reject, TrustDomain, X509Svid, verify_x509};
use support::{Dev, ORCHESTRATOR, channel};

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

async fn verifier(dev: &Dev) -> Following {
    let channel = channel(dev, Some(ORCHESTRATOR)).await;
    let got = BundlesClient::new(channel.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
    follow(channel, key, td(), Freshness::Strict(Duration::from_secs(5)))
}

fn svid(dev: &Dev, dir: &str) -> X509Svid {
    let bundle = Bundle::from_json(td(), &std::fs::read(dev.path("a0/bundle.json")).unwrap()).unwrap();
    let chain = mayfly::folder::certificates(&dev.path(&format!("{dir}/svid.pem"))).unwrap();
    verify_x509(&chain, &bundle, &BindingOid::default(), now().as_secs()).unwrap()
}

/// The value of a metric, summed over its labels that contain `label`; 0 if there is none.
fn metric(dev: &Dev, name: &str, label: &str) -> f64 {
    let mut stream = TcpStream::connect(dev.text("http")).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t233_after_a_restart_followers_resume_where_they_were_and_nobody_takes_everything_again() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let spawn = |dev: &Dev, dir: &str, class: &str| {
        let agent = dev.json(&format!("spawn --class {class} --user-token demo.jwt --out {dir}"));
        agent["agent_id"].as_str().unwrap().to_owned()
    };
    spawn(&dev, "a0", "worker");
    let ids: Vec<String> = (1..=4).map(|n| spawn(&dev, &format!("a{n}"), "researcher")).collect();
    let below_id = dev.json("spawn --as a2 --class worker --out w2")["agent_id"].as_str().unwrap().to_owned();
    let mut followers = Vec::new();
    for _ in 0..5 {
        followers.push(verifier(&dev).await);
    }
    let first = dev.json(&format!("revoke --agent {}", ids[0]))["revision"].as_u64().unwrap();
    // The revocation of an agent is taken off again when one above it is revoked.
    dev.json(&format!("revoke --agent {below_id}"));
    let (cut, below, other, kept) = (svid(&dev, "a1"), svid(&dev, "w2"), svid(&dev, "a2"), svid(&dev, "a0"));
    for follower in &followers {
        follower.live().require(first);
        until("the first cut", || follower.live().check(now(), &cut) == Err(Reject::Cut));
    }
    assert_eq!(metric(&dev, "mayfly_feed_snapshots_total", ""), 5.0, "who is new gets everything");
    until("the revocation of w2", || followers[0].live().check(now(), &below) == Err(Reject::Cut));

    let early = followers[0].live().known().unwrap();

    // Whether anybody still hears of these is not certain: the issuer is killed at once.
    let last = dev.json(&format!("revoke --agent {}", ids[1]))["revision"].as_u64().unwrap();
    dev.json("end --as a3");
    let dev = Dev::start_in(dev.kill());
    let ready = Instant::now();
    for follower in &followers {
        let live = follower.live();
        until("the issuer's word after the restart", || {
            live.check(now(), &kept) == Ok(()) && live.known().is_some_and(|known| known.head >= last)
        });
        for gone in [&cut, &other, &below] {
            assert_eq!(live.check(now(), gone), Err(Reject::Cut));
        }
    }
    println!("all five were back after {:?}", ready.elapsed());
    until("five who resume", || metric(&dev, "mayfly_feed_resumed_total", "") >= 5.0);
    // Who had heard less, and for certain not of these: it is told what the journal has after that, under one heartbeat.
    let heartbeat = early.heartbeat.clone().unwrap();
    let request = v1::WatchCutsRequest {
        incarnation: heartbeat.incarnation.as_bytes().to_vec(),
        after: heartbeat.head,
        chain: heartbeat.chain.unwrap().to_vec(),
        ..Default::default()
    };
    let mut client = RevocationsClient::new(channel(&dev, Some(ORCHESTRATOR)).await);
    let mut stream = client.watch_cuts(request.clone()).await.unwrap().into_inner();
    let told = stream.message().await.unwrap().unwrap();
    assert!(!told.snapshot && told.heartbeat.is_some());
    let subject = |agent: &str| mayfly_verify::Target::Agent(AgentId::parse(agent).unwrap().uuid).unsalted().0.to_vec();
    let about = |subject: &[u8]| told.cuts.iter().filter(|cut| cut.subject == subject).map(|cut| cut.before).collect::<Vec<_>>();
    assert_eq!(about(&subject(&ids[0])), Vec::<u64>::new(), "it knew this one");
    assert_eq!(about(&subject(&ids[1])), [u64::MAX]);
    assert_eq!(about(&subject(&ids[2])), [u64::MAX]);
    assert_eq!(about(&subject(&below_id)), [0], "the one below it is taken off");
    // Another past is a fork all the same.
    let forked = v1::WatchCutsRequest { chain: vec![7; 32], ..request };
    assert_eq!(client.watch_cuts(forked).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    assert_eq!(metric(&dev, "mayfly_feed_snapshots_total", ""), 0.0, "nobody took everything again");
    // What is revoked now arrives, under heartbeats that sign what each of them has put together.
    let again = dev.json(&format!("revoke --agent {}", ids[3]))["revision"].as_u64().unwrap();
    let fourth = svid(&dev, "a4");
    for follower in &followers {
        follower.live().require(again);
        until("a cut after the restart", || follower.live().check(now(), &fourth) == Err(Reject::Cut));
    }
    assert_eq!(metric(&dev, "mayfly_feed_snapshots_total", ""), 0.0);
}

#[test]
fn t234_users_of_a_provider_that_is_down_are_known_after_a_restart() {
    let provider = Dev::start();
    for user in ["demo", "guest"] {
        provider.token(user, user);
    }
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in
        [(provider.text("oidc_ca").into(), "ca.pem"), (provider.path("demo"), "demo.jwt"), (provider.path("guest"), "guest.jwt")]
    {
        std::fs::copy::<std::path::PathBuf, _>(from, dir.path().join(to)).unwrap();
    }
    let config = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\nca_file = \"{}\"\n[[issuers.audiences]]\naudience = \"mayfly-dev\"\n\
         workloads = [\"orchestrator\"]\n",
        provider.text("oidc"),
        dir.path().join("ca.pem").display()
    );
    std::fs::write(dir.path().join("more.toml"), config).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let oidc = provider.text("oidc");
    until("the keys are kept", || {
        let files = std::fs::read_dir(dev.path(".mayfly/providers")).unwrap().map(|entry| entry.unwrap().path());
        files.filter_map(|file| std::fs::read_to_string(file).ok()).any(|text| text.contains(&oidc))
    });
    drop(provider.kill());
    let dev = Dev::start_args(dev.kill(), &["--config", "more.toml"], &[]);
    // A token that this issuer has never seen, of a user whom it does not know.
    dev.json("spawn --class researcher --user-token guest.jwt --out b1");
}
