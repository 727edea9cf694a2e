//! From an acknowledged revocation to the first handshake that a verifier refuses: ten verifiers, each a TLS server of its own that
//! follows the feed. `cargo bench -p mayfly --bench handshakes`
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a benchmark")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly::folder::{self, Key};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::listen::{Bounds, accept};
use mayfly_agent::peers::{Authorize, Bundles, Verifier};
use mayfly_agent::revocation::{Freshness, follow};
use mayfly_agent::tls::{CurrentIdentity, client_config, server_config};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{Bundle, Live, TrustDomain};
use rustls_pki_types::ServerName;
use support::{Dev, ORCHESTRATOR, channel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const VERIFIERS: usize = 10;
const ROUNDS: usize = 50;

fn td() -> TrustDomain {
    TrustDomain::new("dev.mayfly.test").unwrap()
}

/// A TLS server that says one byte to whom it accepts.
async fn verifier(dev: &Dev, bundle: &v1::Bundle) -> SocketAddr {
    let key = FeedKey::from_point(&bundle.feed_key).unwrap();
    let feed = follow(channel(dev, Some(ORCHESTRATOR)).await, key, td(), Freshness::default());
    let bundles = Bundles::default();
    bundles.set(Bundle::from_json(td(), &bundle.spiffe_json).unwrap());
    let own = CurrentIdentity::new(folder::identity(&dev.path(ORCHESTRATOR)).unwrap()).unwrap();
    let verifier = Verifier::new(bundles, feed.live().clone());
    let config = server_config(&own, &verifier, Authorize::agents(td())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut incoming = accept(listener, config, verifier, Bounds::default());
    tokio::spawn(async move {
        let _feed = feed;
        while let Some(mut connection) = incoming.accept().await {
            tokio::spawn(async move {
                let _ = connection.write_all(b"y").await;
                let _ = connection.read(&mut [0]).await;
            });
        }
    });
    at
}

/// Whether a handshake is accepted; TLS 1.3 tells a client so with the first byte.
async fn accepted(at: SocketAddr, tls: &TlsConnector) -> bool {
    let tcp = TcpStream::connect(at).await.unwrap();
    let _ = tcp.set_nodelay(true);
    match tls.connect(ServerName::try_from("localhost").unwrap(), tcp).await {
        Ok(mut stream) => matches!(stream.read(&mut [0]).await, Ok(1)),
        Err(_) => false,
    }
}

async fn measure() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let spawner = channel(&dev, Some(ORCHESTRATOR)).await;
    let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
    let got = BundlesClient::new(operator.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let bundle = got.bundle.unwrap();
    let mut servers = Vec::new();
    for _ in 0..VERIFIERS {
        servers.push(verifier(&dev, &bundle).await);
    }
    let (mut times, mut floor, mut receipts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let key = Key::new().unwrap();
        let request = v1::SpawnRequest {
            class: "worker".into(),
            csr: key.csr.clone(),
            user_token: dev.file("demo.jwt"),
            ..Default::default()
        };
        let got = IdentitiesClient::new(spawner.clone()).spawn(request).await.unwrap().into_inner();
        folder::write(&dev.path("a"), &key, got.svid.as_ref().unwrap(), &bundle, None).unwrap();
        let own = CurrentIdentity::new(folder::identity(&dev.path("a")).unwrap()).unwrap();
        let bundles = Bundles::default();
        bundles.set(Bundle::from_json(td(), &bundle.spiffe_json).unwrap());
        let trust = Verifier::new(bundles, Live::new(td(), Freshness::BestEffort));
        let tls = TlsConnector::from(Arc::new(client_config(&own, &trust, Authorize::trust_domain(td())).unwrap()));
        for at in &servers {
            let started = Instant::now();
            assert!(accepted(*at, &tls).await, "before the cut");
            floor.push(started.elapsed());
        }
        let target = Some(v1::Target { target: Some(v1::target::Target::Agent(got.agent.unwrap().agent_id)) });
        let called = Instant::now();
        let revoke = v1::RevokeRequest { target, ..Default::default() };
        OperationsClient::new(operator.clone()).revoke(revoke).await.unwrap();
        let receipt = Instant::now();
        receipts.push(receipt - called);
        let mut tries = JoinSet::new();
        for at in servers.clone() {
            let tls = tls.clone();
            tries.spawn(async move {
                while accepted(at, &tls).await {}
                receipt.elapsed()
            });
        }
        times.extend(tries.join_all().await);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    for (what, times) in
        [("revoke to receipt", receipts), ("one handshake that is accepted", floor), ("receipt to refused handshake", times)]
    {
        let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let at = |part: usize| ms[(ms.len() * part / 100).min(ms.len() - 1)];
        println!("{what:<32} p50 {:>6.2}  p99 {:>6.2}  max {:>6.2} ms, of {}", at(50), at(99), at(100), ms.len());
    }
}

fn main() {
    // Also when tests ask for it, which is not to measure.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(measure());
}
