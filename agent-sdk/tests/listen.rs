//! Connections of verified peers on a real server of tonic: what a cut does to them while they stand.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../verify/tests/feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;
#[path = "support/ticker.rs"]
mod ticker;
#[path = "support/world.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::delegation::DelegationLayer;
use mayfly_agent::listen::{Bounds, Counts, accept};
use mayfly_agent::peers::Authorize;
use mayfly_agent::tls::{PeerVerifier, client_config, server_config_optional};
use mayfly_verify::Target;
use rustls::ClientConfig;
use ticker::Ticker;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;
use world::{Somebody, World};

/// Well under a second, on a machine that does other things too.
const SOON: Duration = Duration::from_millis(500);

struct Service {
    address: SocketAddr,
    counts: Counts,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whoever is of `td` gets through the handshake, and whoever shows nothing; agents get answers.
async fn serve(world: &World, bounds: Bounds) -> Service {
    let verifier = world.verifier();
    let ours = Authorize::trust_domain(verifier.own().clone());
    let config = server_config_optional(&world.workload("search").current(), &verifier, ours).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = accept(listener, config, verifier.clone(), bounds);
    let counts = incoming.counts();
    let server = Server::builder().layer(DelegationLayer::new(verifier)).add_service(Ticker);
    let task = tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    Service { address, counts, task }
}

async fn connect(world: &World, service: &Service, who: &Somebody) -> Result<Channel, tonic::transport::Error> {
    let anybody = Authorize::when(|_| true);
    let tls = TlsConnector::from(Arc::new(client_config(&who.current(), &world.verifier(), anybody).unwrap()));
    let address = service.address;
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tls.connect("search".try_into().unwrap(), tcp).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://search").connect_with_connector(connector).await
}

/// A stream that ticks for as long as it is let; its first tick has come.
async fn ticks(channel: &Channel) -> Result<Streaming<v1::WatchCutsResponse>, Status> {
    let mut stream = RevocationsClient::new(channel.clone()).watch_cuts(v1::WatchCutsRequest::default()).await?.into_inner();
    stream.message().await?.expect("a tick");
    Ok(stream)
}

/// How a stream ends, and after how long from now.
async fn end(stream: &mut Streaming<v1::WatchCutsResponse>) -> (Status, Duration) {
    let started = Instant::now();
    loop {
        match tokio::time::timeout(Duration::from_secs(5), stream.message()).await.expect("it ticks, or it ends") {
            Ok(next) => assert!(next.is_some(), "never OK"),
            Err(status) => return (status, started.elapsed()),
        }
        assert!(started.elapsed() < Duration::from_secs(10), "it goes on");
    }
}

async fn goes_on(stream: &mut Streaming<v1::WatchCutsResponse>) {
    for _ in 0..5 {
        stream.message().await.unwrap().expect("a tick");
    }
}

#[tokio::test]
async fn a_cut_ends_the_connections_that_it_hits_at_once_and_no_other() {
    let mut world = World::new();
    let (agent, other) = (world.agent("worker", &[]), world.agent("worker", &[]));
    let service = serve(&world, Bounds::default()).await;
    let (hit, spared) = (connect(&world, &service, &agent).await.unwrap(), connect(&world, &service, &other).await.unwrap());
    let (mut first, mut second, mut kept) =
        (ticks(&hit).await.unwrap(), ticks(&hit).await.unwrap(), ticks(&spared).await.unwrap());
    world.cut(&Target::Agent(uuid::Uuid::nil()));
    goes_on(&mut first).await;
    world.cut(&agent.target());
    for stream in [&mut first, &mut second] {
        let (status, after) = end(stream).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "CREDENTIAL_REVOKED");
        assert!(after < SOON, "{after:?}");
    }
    // When the connection is gone too, the channel connects anew by itself, and the handshake refuses it.
    tokio::time::sleep(Bounds::default().drain * 2).await;
    let again = ticks(&hit).await.unwrap_err();
    assert!(again.code() != Code::Ok && again.code() != Code::Unauthenticated, "{again}");
    goes_on(&mut kept).await;
    assert!(ticks(&spared).await.is_ok());
    assert_eq!((service.counts.accepted(), service.counts.ended()), (2, 1));
    assert!(service.counts.refused() >= 1);

    // The same by whatever it relies on: its user, and the whole trust domain.
    world.cut(&Target::User(mayfly_verify::User { iss: "https://idp".into(), sub: "demo".into() }));
    let (_, after) = end(&mut kept).await;
    assert!(after < SOON, "{after:?}");
}

#[tokio::test]
async fn a_connection_ends_with_its_peers_certificate() {
    let mut world = World::new();
    let early = world.agent("worker", &[]);
    world.pass(100);
    world.publish();
    let late = world.agent("worker", &[]);
    let service = serve(&world, Bounds::default()).await;
    let (early, late) = (connect(&world, &service, &early).await.unwrap(), connect(&world, &service, &late).await.unwrap());
    let (mut early, mut late) = (ticks(&early).await.unwrap(), ticks(&late).await.unwrap());
    world.pass(799);
    world.publish();
    goes_on(&mut early).await;
    // Nothing is published: time alone.
    world.pass(1);
    let (_, after) = end(&mut early).await;
    assert!(after < Duration::from_secs(2), "{after:?}");
    goes_on(&mut late).await;
}

#[tokio::test]
async fn a_root_that_leaves_the_bundle_takes_its_connections_along() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let service = serve(&world, Bounds::default()).await;
    let channel = connect(&world, &service, &agent).await.unwrap();
    let mut stream = ticks(&channel).await.unwrap();
    world.bundles.remove(&issuer::td());
    let (_, after) = end(&mut stream).await;
    assert!(after < SOON, "{after:?}");
}

#[tokio::test]
async fn t41_while_nothing_is_heard_requests_are_refused_and_connections_stand_only_so_long() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let service = serve(&world, Bounds { stale: Duration::from_secs(2), ..Bounds::default() }).await;
    let channel = connect(&world, &service, &agent).await.unwrap();
    let mut stream = ticks(&channel).await.unwrap();
    world.pass(36);
    let status = ticks(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_error_info().unwrap().reason, "CREDENTIAL_STALE");
    goes_on(&mut stream).await;
    // A word in time, and all is as it was.
    world.publish();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    ticks(&channel).await.unwrap();
    goes_on(&mut stream).await;
    world.pass(36);
    let (_, after) = end(&mut stream).await;
    assert!(after > Duration::from_secs(1) && after < Duration::from_secs(4), "{after:?}");
}

#[tokio::test]
async fn who_may_not_call_is_told_and_a_connection_that_says_nothing_is_closed_too() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let workload = world.workload("orchestrator");
    let service = serve(&world, Bounds::default()).await;
    // One that is let through the handshake and may not call.
    let channel = connect(&world, &service, &workload).await.unwrap();
    let status = ticks(&channel).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.get_details_error_info().unwrap().reason, "CALLER_NOT_AN_AGENT");
    // Raw: nothing is ever sent on it, and it is closed all the same.
    let anybody = Authorize::when(|_| true);
    let tls = TlsConnector::from(Arc::new(client_config(&agent.current(), &world.verifier(), anybody).unwrap()));
    let tcp = TcpStream::connect(service.address).await.unwrap();
    let mut idle = tls.connect("search".try_into().unwrap(), tcp).await.unwrap();
    while service.counts.accepted() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.cut(&agent.target());
    let mut seen = Vec::new();
    let closed = tokio::time::timeout(SOON, idle.read_to_end(&mut seen)).await;
    assert!(closed.is_ok(), "it stands");
}

#[tokio::test]
async fn a_connection_without_a_certificate_stands_only_so_long() {
    let world = World::new();
    let service = serve(&world, Bounds { stranger: Duration::from_millis(1500), ..Bounds::default() }).await;
    let believes = Arc::new(PeerVerifier::new(world.verifier(), Authorize::when(|_| true)));
    let bare = ClientConfig::builder_with_details(
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        Arc::new(world.verifier().clock().clone()),
    );
    let bare = bare.with_safe_default_protocol_versions().unwrap().dangerous();
    let bare = bare.with_custom_certificate_verifier(believes).with_no_client_auth();
    let tcp = TcpStream::connect(service.address).await.unwrap();
    let mut idle = TlsConnector::from(Arc::new(bare)).connect("search".try_into().unwrap(), tcp).await.unwrap();
    let (started, mut seen) = (Instant::now(), Vec::new());
    let closed = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut seen)).await;
    assert!(closed.is_ok() && started.elapsed() > Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(service.counts.ended(), 1);
}

#[tokio::test]
async fn t39_t63_the_bounds_of_a_listener_hold() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let bounds = Bounds { handshake: Duration::from_millis(300), connections: 3, ..Bounds::default() };
    let service = serve(&world, bounds).await;
    let until = async |what: &str, done: &dyn Fn(&Counts) -> bool| {
        let started = Instant::now();
        while !done(&service.counts) {
            assert!(started.elapsed() < Duration::from_secs(5), "{what}: {:?}", service.counts);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Three that never finish take all the room there is, and only for so long.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(service.address).await.unwrap());
    }
    until("a fourth is closed", &|counts| counts.full() == 1).await;
    until("the handshakes are cut off", &|counts| counts.slow() == 3).await;
    // No TLS at all.
    for _ in 0..20 {
        let mut garbage = TcpStream::connect(service.address).await.unwrap();
        let _ = tokio::io::AsyncWriteExt::write_all(&mut garbage, &[0xff; 600]).await;
    }
    until("what is no TLS is refused", &|counts| counts.refused() + counts.full() >= 20).await;
    let channel = connect(&world, &service, &agent).await.unwrap();
    assert!(ticks(&channel).await.is_ok(), "and it still listens");
    // A connection that has ended leaves its place to another.
    drop((channel, silent));
    for _ in 0..10 {
        let channel = connect(&world, &service, &agent).await.unwrap();
        assert!(ticks(&channel).await.is_ok());
        drop(channel);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
