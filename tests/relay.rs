//! A relay hands on what the issuer says: cuts arrive through it, silence of either is noticed, and who is cut
//! is not served (T41, T69).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use mayfly::folder;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::channel::{connect_peer, connect_unix};
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_agent::tls::{CurrentIdentity, client_config};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Bundle, Live, Reject, SpiffeId, TrustDomain, X509Svid, verify_x509};
use support::{BIN, Dev};
use tonic::transport::Channel;

struct Relay {
    child: Child,
    address: String,
}

impl Relay {
    fn start(dev: &Dev) -> Relay {
        let mut child = Command::new(BIN)
            .args(["relay", "--as", "relay", "-o", "json"])
            .current_dir(dev.dir.path())
            .env_remove("MAYFLY_HOME")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A JSON object on several lines.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        Relay { child, address: told["listen"].as_str().unwrap().to_owned() }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

fn bundle(dev: &Dev) -> Bundle {
    Bundle::from_json(td(), &std::fs::read(dev.path("a1/bundle.json")).unwrap()).unwrap()
}

/// A channel to the relay, for the identity in a folder.
async fn channel(dev: &Dev, relay: &Relay, dir: &str) -> Result<Channel, mayfly_agent::channel::ConnectError> {
    let bundles = Bundles::default();
    bundles.set(bundle(dev));
    // Whether the relay is cut only the feed can tell. What makes its words true is their signature.
    let verifier = Verifier::new(bundles, Live::new(td(), Freshness::BestEffort));
    let own = CurrentIdentity::new(folder::identity(&dev.path(dir)).unwrap()).unwrap();
    let id: SpiffeId = "spiffe://dev.mayfly.test/workload/relay".parse().unwrap();
    let tls = client_config(&own, &verifier, Authorize::ids([id])).unwrap();
    connect_peer(&relay.address, tls, Duration::from_secs(5)).await
}

async fn verifier(dev: &Dev, relay: &Relay, dir: &str) -> Following {
    let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
    let got = BundlesClient::new(operator).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
    follow(channel(dev, relay, dir).await.unwrap(), key, td(), Freshness::Strict(Duration::from_secs(2)))
}

fn svid(dev: &Dev, dir: &str) -> X509Svid {
    let chain = folder::certificates(&dev.path(&format!("{dir}/svid.pem"))).unwrap();
    verify_x509(&chain, &bundle(dev), &BindingOid::default(), now().as_secs()).unwrap()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(15), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t41_t69_a_relay_hands_on_what_the_issuer_signs_and_serves_nobody_who_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), "[[workloads]]\nname = \"relay\"\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    let spawn = |dir: &str| {
        let agent = dev.json(&format!("spawn --class worker --user-token demo.jwt --out {dir}"));
        agent["agent_id"].as_str().unwrap().to_owned()
    };
    let ids = ["a1", "a2", "a3"].map(spawn);
    std::fs::write(dev.path("ticket"), dev.run("join relay").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out relay");
    let relay = Relay::start(&dev);

    // 1. What is cut arrives, as fresh as the receipt.
    let far = verifier(&dev, &relay, "a1").await;
    let (kept, cut, live) = (svid(&dev, "a1"), svid(&dev, "a2"), far.live().clone());
    until("the first word", || live.check(now(), &kept).is_ok() && live.check(now(), &cut).is_ok()).await;
    live.require(dev.json(&format!("revoke --agent {}", ids[1]))["revision"].as_u64().unwrap());
    until("the cut", || live.check(now(), &cut) == Err(Reject::Cut)).await;
    assert_eq!(live.check(now(), &kept), Ok(()));

    // 2. Somebody who comes later gets everything, under the issuer's own signature.
    let later = verifier(&dev, &relay, "a3").await;
    until("the snapshot", || later.live().check(now(), &cut) == Err(Reject::Cut)).await;

    // 3. Who is cut is not served: not on the connection that stands, and not on a new one.
    let mut open = RevocationsClient::new(channel(&dev, &relay, "a3").await.unwrap());
    let mut stream = open.watch_cuts(v1::WatchCutsRequest::default()).await.unwrap().into_inner();
    dev.json(&format!("revoke --agent {}", ids[2]));
    let ended = tokio::time::timeout(Duration::from_secs(5), async { while let Ok(Some(_)) = stream.message().await {} });
    ended.await.unwrap();
    let again = match channel(&dev, &relay, "a3").await {
        Ok(channel) => RevocationsClient::new(channel).watch_cuts(v1::WatchCutsRequest::default()).await.map(drop),
        Err(e) => Err(tonic::Status::unavailable(e.to_string())),
    };
    assert!(again.is_err());
    assert_eq!(live.check(now(), &svid(&dev, "a3")), Err(Reject::Cut));

    // 4. A relay that stands still, and an issuer that is gone, are the same: nothing is known any more.
    relay.signal("-STOP");
    until("silence", || matches!(live.check(now(), &kept), Err(Reject::Stale(_)))).await;
    relay.signal("-CONT");
    until("another word", || live.check(now(), &kept).is_ok()).await;
    let dir = dev.kill();
    until("silence of the issuer", || matches!(live.check(now(), &kept), Err(Reject::Stale(_)))).await;
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    until("the issuer's word again", || live.check(now(), &kept).is_ok()).await;
    assert_eq!(live.check(now(), &cut), Err(Reject::Cut));
    live.require(dev.json("revoke --user dev/demo")["revision"].as_u64().unwrap());
    until("a cut after all that", || live.check(now(), &kept) == Err(Reject::Cut)).await;
    drop(relay);
}
