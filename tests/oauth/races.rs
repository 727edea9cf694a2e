//! Exchanges race revocations: what was issued around one is accepted by nobody after its receipt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mayfly::folder::{self, Key};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::revocation::{Freshness, follow};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{BindingOid, Bundle, Possession, Reject, TrustDomain, verify_access_token};
use tokio::task::JoinSet;

use super::support::{Dev, ORCHESTRATOR, channel};
use super::{House, MAIL};

/// Exchanges that are under way at once in one race.
const AT_ONCE: usize = 50;

/// An exchange that got a token: the token, and whether it was asked for after the receipt was there.
type Got = (String, bool);

/// Agents exchange while an operator revokes them, until so many exchanges have ended. Returns how many tokens came out.
async fn races(exchanges: usize) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let text = "[writes]\nexchange = { caller = \"1000000/s\", root = \"1000000/s\" }\n\
                revoke = { caller = \"1000000/s\", root = \"1000000/s\" }\n";
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    let house = House::of(dev);
    let operator = connect_unix(&house.dev.path(".mayfly/operator.sock")).await.unwrap();
    let bundle =
        BundlesClient::new(operator.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner().bundle.unwrap();
    let td = TrustDomain::new("dev.mayfly.test").unwrap();
    let keys = Bundle::from_json(td.clone(), &bundle.spiffe_json).unwrap();
    let feed = follow(operator.clone(), FeedKey::from_point(&bundle.feed_key).unwrap(), td, Freshness::default());
    let spawner = channel(&house.dev, Some(ORCHESTRATOR)).await;
    let (oid, held) = (BindingOid::default(), Possession::default());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (mut tried, mut issued) = (0, 0);
    while tried < exchanges {
        // 1. An agent with a connection of its own, which exchanges all the time.
        let key = Key::new().unwrap();
        let user_token = house.dev.file("demo.jwt");
        let request = v1::SpawnRequest { class: "researcher".into(), csr: key.csr.clone(), user_token, ..Default::default() };
        let got = super::IdentitiesClient::new(spawner.clone()).spawn(request).await.unwrap().into_inner();
        folder::write(&house.dev.path("racer"), &key, got.svid.as_ref().unwrap(), got.bundle.as_ref().unwrap(), None).unwrap();
        let own = channel(&house.dev, Some("racer")).await;
        let over = Arc::new(AtomicBool::new(false));
        let mut racing = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (mut tokens, over) = (TokensClient::new(own.clone()), Arc::clone(&over));
            racing.spawn(async move {
                let (mut got, mut tried) = (Vec::<Got>::new(), 0);
                // Each goes on until it is refused, or has seen the receipt and asked once more.
                loop {
                    let late = over.load(Ordering::SeqCst);
                    let request = v1::ExchangeRequest { audience: MAIL.into(), ..Default::default() };
                    tried += 1;
                    match tokens.exchange(request).await {
                        Ok(token) => got.push((token.into_inner().access_token, late)),
                        Err(_) => return (got, tried),
                    }
                    if late {
                        return (got, tried);
                    }
                }
            });
        }
        // 2. The revocation, at another moment of each race.
        tokio::time::sleep(Duration::from_micros(u64::try_from(tried * 37 % 20_000).unwrap())).await;
        let target = v1::target::Target::Agent(got.agent.unwrap().agent_id);
        let revoke = v1::RevokeRequest { target: Some(v1::Target { target: Some(target) }), ..Default::default() };
        let receipt = OperationsClient::new(operator.clone()).revoke(revoke).await.unwrap().into_inner();
        over.store(true, Ordering::SeqCst);
        // 3. No token counts for a verifier that knows of it, and none was issued to a call that began after the receipt.
        let live = feed.live();
        live.require(receipt.revision);
        let began = Instant::now();
        while live.fresh(now()).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "the cut does not arrive");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (got, asked) in racing.join_all().await {
            tried += asked;
            issued += got.len();
            for (token, late) in got {
                assert!(!late, "a token was issued to a call that began after the receipt");
                let verified = verify_access_token(&token, (&house.issuer, MAIL), &keys, &oid, &held, now().as_secs()).unwrap();
                assert_eq!(live.check(now(), &verified), Err(Reject::Cut), "a verifier takes it after the receipt");
            }
        }
    }
    issued
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t148_ten_thousand_exchanges_race_revocations_and_none_counts_after_the_receipt() {
    assert!(races(10_000).await > 1000, "some of them were issued before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: cargo test --release --test oauth t148 -- --ignored --nocapture"]
async fn t148_a_million_exchanges_race_revocations_and_none_counts_after_the_receipt() {
    let exchanges = std::env::var("EXCHANGES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let began = Instant::now();
    let issued = races(exchanges).await;
    eprintln!("of {exchanges} exchanges {issued} got a token, and none counted after the receipt; {:?}", began.elapsed());
}
