//! What a check costs at a guard, how much memory it takes, and how soon it knows of a revocation while a hundred others listen.
//!
//! `MAYFLY_MEASURED` is the binary whose guard is measured, by default that of the tests. The issuer is that of the tests.

use mayfly_agent::api::v1 as api;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_verify::TrustDomain;
use mayfly_verify::feed::FeedKey;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

/// How long each rate is offered.
const WINDOW: Duration = Duration::from_secs(5);
const FOLLOWERS: usize = 100;
const REVOCATIONS: usize = 20;

/// Microseconds at these hundredths of the sorted latencies.
fn at(latencies: &[u64], hundredth: usize) -> u64 {
    latencies.get((latencies.len() * hundredth / 100).min(latencies.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// Offers `rate` calls a second, whether or not they are answered. Returns the sorted latencies, in microseconds from the sending.
async fn offered<F>(rate: u32, call: impl Fn() -> F) -> Vec<u64>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (began, mut calls) = (Instant::now(), tokio::task::JoinSet::new());
    let mut sent = 0;
    while began.elapsed() < WINDOW {
        let due = u32::try_from(began.elapsed().as_micros() * u128::from(rate) / 1_000_000).unwrap();
        for _ in sent..due {
            let call = call();
            calls.spawn(async move {
                let sent = Instant::now();
                call.await;
                u64::try_from(sent.elapsed().as_micros()).unwrap()
            });
        }
        sent = sent.max(due);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut latencies = calls.join_all().await;
    latencies.sort_unstable();
    latencies
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

async fn check(mut channel: tonic::client::Grpc<Channel>, request: CheckRequest) -> CheckResponse {
    channel.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<CheckRequest, CheckResponse>::default();
    let path = "/envoy.service.auth.v3.Authorization/Check".parse().unwrap();
    channel.unary(tonic::Request::new(request), path, codec).await.unwrap().into_inner()
}

/// A follower of the feed, as a guard is one.
async fn follower(operator: Channel) -> Following {
    let got =
        BundlesClient::new(operator.clone()).get_bundle(api::GetBundleRequest {}).await.unwrap().into_inner().bundle.unwrap();
    let key = FeedKey::from_point(&got.feed_key).unwrap();
    follow(operator, key, TrustDomain::new("dev.mayfly.test").unwrap(), Freshness::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: figures of a guard, which are printed; they are of use on a quiet machine"]
async fn figures_of_a_guard() {
    let dev = world();
    spawn(&dev, "a1");
    let guard = Guard::start(&dev, &["unix:g.sock"]);
    let (channel, pid) = (connect_unix(&dev.path("g.sock")).await.unwrap(), guard.child.id());
    println!("guard: {} KiB after its start", rss_kib(pid));
    let token = format!("Bearer {}", dev.file("a1/svid.jwt"));
    let rule = [("audience", SEARCH), ("scopes", "search:read")];
    let asked = request(&Asked { headers: &[("authorization", &token)], rule: &rule, ..Asked::default() });
    let (grpc, health) = (tonic::client::Grpc::new(channel.clone()), HealthClient::new(channel));
    for rate in [500, 1000, 2000, 5000] {
        let empty = offered(rate, || {
            let mut health = health.clone();
            async move { drop(health.check(HealthCheckRequest::default()).await.unwrap()) }
        });
        let empty = empty.await;
        let checks = offered(rate, || {
            let (grpc, asked) = (grpc.clone(), asked.clone());
            async move { assert_eq!(check(grpc, asked).await.status.unwrap().code, 0) }
        });
        let checks = checks.await;
        println!(
            "{rate}/s: {} checks, p50 {} us, p99 {} us; {} empty calls, p50 {} us, p99 {} us; {} KiB",
            checks.len(),
            at(&checks, 50),
            at(&checks, 99),
            empty.len(),
            at(&empty, 50),
            at(&empty, 99),
            rss_kib(pid)
        );
    }

    let mut followers = Vec::new();
    // The socket of operators has places for fewer connections than that.
    for _ in 0..FOLLOWERS / 4 {
        let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
        for _ in 0..4 {
            followers.push(follower(operator.clone()).await);
        }
    }
    let mut until_refused = Vec::new();
    for n in 0..REVOCATIONS {
        let agent = spawn(&dev, &format!("r{n}"));
        let token = format!("Bearer {}", dev.file(&format!("r{n}/svid.jwt")));
        let asked = request(&Asked { headers: &[("authorization", &token)], rule: &rule, ..Asked::default() });
        assert_eq!(check(grpc.clone(), asked.clone()).await.status.unwrap().code, 0);
        dev.json(&format!("revoke --agent {}", agent["agent_id"].as_str().unwrap()));
        // The command has ended, so this is from a little after the receipt.
        let acknowledged = Instant::now();
        while check(grpc.clone(), asked.clone()).await.status.unwrap().code == 0 {
            assert!(acknowledged.elapsed() < Duration::from_secs(30));
        }
        until_refused.push(u64::try_from(acknowledged.elapsed().as_micros()).unwrap());
    }
    until_refused.sort_unstable();
    println!(
        "from the end of `mayfly revoke` to the refusal, {FOLLOWERS} streams following: p50 {} us, most {} us of {REVOCATIONS}; {} KiB",
        at(&until_refused, 50),
        at(&until_refused, 100),
        rss_kib(pid)
    );
}
