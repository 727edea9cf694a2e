//! Who has heard: a revocation waits for those who follow the feed, and says who has not; and the kinds of agents that one may see.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_verify::TrustDomain;
use mayfly_verify::feed::FeedKey;
use serde_json::Value;
use support::{BIN, Dev, ORCHESTRATOR, channel};
use tonic::Code;

fn spawn(dev: &Dev, out: &str) -> String {
    dev.json(&format!("spawn --class researcher --user-token demo.jwt --out {out}"))["agent_id"].as_str().unwrap().to_owned()
}

/// A verifier of the SDK with the identity of a workload, which follows already.
async fn verifier(dev: &Dev) -> Following {
    let channel = channel(dev, Some(ORCHESTRATOR)).await;
    let got = BundlesClient::new(channel.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
    let following = follow(channel, key, TrustDomain::new("dev.mayfly.test").unwrap(), Freshness::default());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    while following.live().fresh(now()).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    following
}

/// The receipt of a revocation that must exit so.
fn revoke(dev: &Dev, agent: &str, more: &str, code: i32) -> Value {
    let out = dev.run(&format!("revoke --agent {agent} -o json {more}"));
    assert_eq!(out.status.code(), Some(code), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t162_a_revocation_waits_until_all_who_follow_say_that_they_have_heard_and_names_who_has_not() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let agents = ["a", "b", "c"].map(|out| spawn(&dev, out));
    let receipt = revoke(&dev, &agents[0], "--wait", 0);
    assert_eq!((&receipt["all_heard"], receipt["heard"].as_array().unwrap().len()), (&true.into(), 0), "nobody follows");
    // Two verifiers that say what they have heard.
    let (_first, _second) = (verifier(&dev).await, verifier(&dev).await);
    let receipt = revoke(&dev, &agents[1], "--wait", 0);
    let heard = receipt["heard"].as_array().unwrap();
    assert_eq!((&receipt["all_heard"], heard.len()), (&true.into(), 2), "{receipt}");
    for one in heard {
        assert_eq!(one["id"], "spiffe://dev.mayfly.test/workload/orchestrator");
        assert!(one["heard"].as_u64() >= receipt["revision"].as_u64() && one["peer"] == "127.0.0.1", "{one}");
    }
    // One of another make that says nothing, and one that gave its stream a name and hangs.
    let mut client = RevocationsClient::new(channel(&dev, Some(ORCHESTRATOR)).await);
    let mut silent = client.watch_cuts(v1::WatchCutsRequest::default()).await.unwrap().into_inner();
    silent.message().await.unwrap();
    let named = v1::WatchCutsRequest { subscription: vec![7; 16], ..Default::default() };
    let mut hanging = client.watch_cuts(named).await.unwrap().into_inner();
    hanging.message().await.unwrap();
    let receipt = revoke(&dev, &agents[2], "--wait --wait-for 2", 7);
    let (heard, missing) = (receipt["heard"].as_array().unwrap(), receipt["not_heard"].as_array().unwrap());
    assert_eq!((&receipt["all_heard"], heard.len(), missing.len()), (&false.into(), 2, 2), "{receipt}");
    assert_eq!(missing.iter().filter(|one| one["confirms"] == false).count(), 1, "{receipt}");
    assert!(missing.iter().all(|one| one["heard"].is_null()), "{receipt}");
    // It is revoked all the same.
    assert_eq!(dev.run("verify c/svid.pem --live").status.code(), Some(6));
    let status = dev.json("status");
    assert_eq!(status["feed"]["subscribers"].as_array().unwrap().len(), 4, "{status}");
    // Another identity cannot say it for the one that hangs; it itself can.
    let revision = receipt["revision"].as_u64().unwrap();
    spawn(&dev, "d");
    let said = v1::ConfirmCutsRequest { subscription: vec![7; 16], head: revision };
    let mut other = RevocationsClient::new(channel(&dev, Some("d")).await);
    other.confirm_cuts(said.clone()).await.unwrap();
    let heard = |status: &Value| status["feed"]["subscribers"].as_array().unwrap().iter().filter(|s| s["heard"].is_u64()).count();
    assert_eq!(heard(&dev.json("status")), 2);
    client.confirm_cuts(said).await.unwrap();
    assert_eq!(heard(&dev.json("status")), 3);
    drop((silent, hanging));
    // Who follows is for operators.
    let refused = other.list_subscribers(v1::ListSubscribersRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let odd = v1::WatchCutsRequest { subscription: vec![1], ..Default::default() };
    assert_eq!(other.watch_cuts(odd).await.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn t13_whoever_may_not_spawn_a_class_does_not_see_it() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    spawn(&dev, "a");
    let names = |object: Value| -> Vec<String> {
        object["classes"].as_array().unwrap().iter().map(|class| class["class"].as_str().unwrap().to_owned()).collect()
    };
    let all = dev.json("classes list");
    let researcher = all["classes"].as_array().unwrap().iter().find(|class| class["class"] == "researcher").unwrap();
    assert_eq!((&researcher["live_agents"], &researcher["closed"]), (&1.into(), &false.into()));
    assert!(
        researcher["scopes"].is_array() && researcher["spawners"].as_array().unwrap().contains(&"workload/orchestrator".into())
    );
    let below = dev.json("classes list --as a");
    assert!(below["classes"].as_array().unwrap().iter().all(|class| class["live_agents"].is_null()));
    let below = names(below);
    assert!(below.contains(&"worker".to_owned()) && !below.contains(&"researcher".to_owned()), "{below:?}");
    assert_eq!(names(dev.json(&format!("classes list --as {ORCHESTRATOR}"))), names(all));
    dev.json("revoke --class worker");
    let closed = dev.json("classes list --as a")["classes"][0].clone();
    assert_eq!((&closed["class"], &closed["closed"]), (&"worker".into(), &true.into()));
}

#[test]
fn t162_a_person_who_watches_says_what_they_have_heard_and_stops_when_nobody_reads() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let agent = spawn(&dev, "a");
    let mut watch = Command::new(BIN)
        .arg("watch")
        .current_dir(dev.dir.path())
        .env_remove("MAYFLY_HOME")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("everything that is revoked follows"));
    let receipt = revoke(&dev, &agent, "--wait", 0);
    assert_eq!((&receipt["all_heard"], receipt["heard"].as_array().unwrap().len()), (&true.into(), 1), "{receipt}");
    drop(lines);
    assert!(watch.wait().unwrap().success(), "at its next line it finds that nobody reads");
}
