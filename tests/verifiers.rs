//! Those who verify, against the real issuer: the SDK's example of a service is called by agents, and one is taken back.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../agent-sdk/examples/service.rs"]
#[expect(dead_code, reason = "its main is for the shell")]
mod service;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mayfly_agent::api::v1::GetBundleRequest;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::peers::{Authorize, Bundles, FollowingBundle, Verifier};
use mayfly_agent::revocation::{Following, Freshness, follow};
use mayfly_agent::tls::{CurrentIdentity, PeerVerifier, client_config};
use mayfly_verify::feed::FeedKey;
use mayfly_verify::{SpiffeId, TrustDomain};
use rustls::ClientConfig;
use support::{Dev, ORCHESTRATOR, channel};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// After the command has returned. It takes milliseconds, and the machine does other things too.
const SOON: Duration = Duration::from_secs(1);

/// Whoever calls the service: it knows by its SPIFFE ID that it is the right one.
struct Caller<'a> {
    dev: &'a Dev,
    service: SocketAddr,
    verifier: Verifier,
    _feed: Following,
    bundle: FollowingBundle,
}

impl<'a> Caller<'a> {
    async fn new(dev: &'a Dev, service: SocketAddr) -> Caller<'a> {
        let channel = channel(dev, Some(ORCHESTRATOR)).await;
        let got = BundlesClient::new(channel.clone()).get_bundle(GetBundleRequest {}).await.unwrap().into_inner();
        let td = TrustDomain::new("dev.mayfly.test").unwrap();
        let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
        // What the service does when nothing is heard is the question, not what its callers do.
        let feed = follow(channel.clone(), key, td.clone(), Freshness::BestEffort);
        let bundles = Bundles::default();
        let bundle = bundles.follow(channel, td);
        Caller { dev, service, verifier: Verifier::new(bundles, feed.live().clone()), _feed: feed, bundle }
    }

    fn expects(&self) -> Authorize {
        Authorize::ids([SpiffeId::new("spiffe://dev.mayfly.test/workload/orchestrator").unwrap()])
    }

    /// With the identity in a folder, or with none.
    async fn connect(&self, folder: Option<&str>) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = match folder {
            Some(folder) => {
                let identity = mayfly::folder::identity(&self.dev.path(folder)).unwrap();
                client_config(&CurrentIdentity::new(identity).unwrap(), &self.verifier, self.expects()).unwrap()
            }
            None => ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(self.verifier.clone(), self.expects())))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = TcpStream::connect(self.service).await?;
        TlsConnector::from(Arc::new(config)).connect("service".try_into().unwrap(), tcp).await
    }

    /// A whole answer, head and body; or why there is none.
    async fn ask(&self, what: &str, folder: Option<&str>, token: Option<&str>) -> Result<String, String> {
        let mut tls = self.open(what, folder, token).await?;
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).await.map_err(|e| e.to_string())?;
        Ok(String::from_utf8(answer).unwrap())
    }

    async fn open(&self, what: &str, folder: Option<&str>, token: Option<&str>) -> Result<TlsStream<TcpStream>, String> {
        let mut tls = self.connect(folder).await.map_err(|e| e.to_string())?;
        let token = token.map(|file| format!("Authorization: Bearer {}\r\n", self.dev.file(file))).unwrap_or_default();
        let head = format!("{what} HTTP/1.1\r\nHost: service\r\nConnection: close\r\n{token}\r\n");
        tls.write_all(head.as_bytes()).await.map_err(|e| e.to_string())?;
        Ok(tls)
    }

    /// A stream of events, of which two have come.
    async fn events(&self, folder: Option<&str>, token: Option<&str>) -> TlsStream<TcpStream> {
        let mut tls = self.open("GET /events", folder, token).await.unwrap();
        assert!(tick(&mut tls, 2).await);
        tls
    }
}

/// Whether so many events come; false: it has ended.
async fn tick(tls: &mut TlsStream<TcpStream>, count: usize) -> bool {
    let (mut seen, mut some) = (String::new(), [0; 4096]);
    while seen.matches("tick").count() < count {
        let read = tokio::time::timeout(Duration::from_secs(5), tls.read(&mut some)).await;
        match read.unwrap_or_else(|_| panic!("neither an event nor an end after `{seen}`")) {
            Ok(0) | Err(_) => return false,
            Ok(n) => seen += std::str::from_utf8(some.get(..n).unwrap()).unwrap(),
        }
    }
    true
}

fn begins(answer: &Result<String, String>, code: u16) -> bool {
    answer.as_ref().is_ok_and(|text| text.starts_with(&format!("HTTP/1.1 {code} ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_serves_agents_by_scope_until_they_are_taken_back() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let spawn = |name: &str| {
        let made =
            dev.json(&format!("spawn --class worker --user-token demo.jwt --audience https://search.example --out {name}"));
        made["agent_id"].as_str().unwrap().to_owned()
    };
    let (agent, _other) = (spawn("a1"), spawn("a2"));
    dev.json("spawn --class worker --user-token demo.jwt --audience https://files.example --out a3");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = Caller::new(&dev, listener.local_addr().unwrap()).await;
    let (issuer, folder) = (dev.text("grpc"), dev.path(ORCHESTRATOR));
    let service = tokio::spawn(async move { service::serve(&issuer, &folder, listener).await.map_err(|e| e.to_string()) });

    // As soon as both have heard of the issuer.
    let started = Instant::now();
    while !begins(&caller.ask("GET /search", Some("a1"), None).await, 200) {
        assert!(started.elapsed() < Duration::from_secs(10) && !service.is_finished(), "it never serves");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*caller.bundle.link().borrow(), mayfly_agent::revocation::Link::Open);

    // By scope, for the user, and by either credential.
    for (folder, token) in [(Some("a1"), None), (None, Some("a1/svid.jwt")), (Some("a1"), Some("a1/svid.jwt"))] {
        let answer = caller.ask("GET /search", folder, token).await;
        assert!(begins(&answer, 200), "{answer:?}");
        assert!(answer.unwrap().contains(&format!("{agent} found nothing for demo")));
        let mail = caller.ask("POST /mail", folder, token).await;
        assert!(begins(&mail, 403), "{mail:?}");
    }
    for (folder, token, reason) in [
        (None, None, "CREDENTIAL_MISSING"),
        (Some("a2"), Some("a1/svid.jwt"), "CREDENTIALS_DIFFER"),
        (None, Some("a3/svid.jwt"), "CREDENTIAL_AUDIENCE"),
        (None, Some("demo.jwt"), "CREDENTIAL_SPIFFE_ID"),
    ] {
        let answer = caller.ask("GET /search", folder, token).await;
        assert!(begins(&answer, 401) && answer.as_ref().is_ok_and(|text| text.contains(reason)), "{reason}: {answer:?}");
    }
    assert!(caller.ask("GET /search", Some(ORCHESTRATOR), None).await.is_err(), "no agent, no handshake");

    // Another key signs tokens from here on: the service learns of it while it runs.
    dev.json("authority rotate jwt --now");
    dev.json("mint --as a2 --audience https://search.example --out later.jwt");
    let rotated = Instant::now();
    while !begins(&caller.ask("GET /search", None, Some("later.jwt")).await, 200) {
        assert!(rotated.elapsed() < Duration::from_secs(5), "it never learns of the key");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begins(&caller.ask("GET /search", None, Some("a1/svid.jwt")).await, 200), "and forgets no other");

    // Taken back, with all that is open: the connection, and the stream that its token opened.
    let (mut held, mut by_token) = (caller.events(Some("a1"), None).await, caller.events(None, Some("a1/svid.jwt")).await);
    let mut kept = caller.events(Some("a2"), None).await;
    dev.json(&format!("revoke --agent {agent}"));
    let revoked = Instant::now();
    while tick(&mut held, 1).await || tick(&mut by_token, 1).await {
        assert!(revoked.elapsed() < SOON, "a stream of a cut agent goes on");
    }
    assert!(!tick(&mut by_token, 1).await && !tick(&mut held, 1).await);
    assert!(revoked.elapsed() < SOON, "{:?}", revoked.elapsed());
    assert!(tick(&mut kept, 10).await, "another's goes on");
    let refused = caller.ask("GET /search", Some("a1"), None).await;
    assert!(refused.is_err(), "{refused:?}");
    let refused = caller.ask("GET /search", None, Some("a1/svid.jwt")).await;
    assert!(begins(&refused, 401) && refused.as_ref().is_ok_and(|text| text.contains("CREDENTIAL_REVOKED")), "{refused:?}");
    assert!(begins(&caller.ask("GET /search", Some("a2"), None).await, 200));

    // T41: without the issuer nothing may be believed, and the service says so. Whoever shows a certificate gets no handshake.
    std::process::Command::new("kill").arg(dev.pid().to_string()).status().unwrap();
    let (killed, token) = (Instant::now(), Some("a2/svid.jwt"));
    while begins(&caller.ask("GET /search", None, token).await, 200) {
        assert!(killed.elapsed() < Duration::from_secs(15), "it still believes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let stale = caller.ask("GET /search", None, token).await;
    assert!(begins(&stale, 503) && stale.as_ref().is_ok_and(|text| text.contains("CREDENTIAL_STALE")), "{stale:?}");
    assert!(caller.ask("GET /search", Some("a2"), None).await.is_err());
    assert!(!service.is_finished(), "and it goes on");
    service.abort();
}
