//! Secret discovery for Envoy: the identity and the bundles, as they change, for whoever may have the key and nobody else.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mayfly::envoy::config::core::v3::data_source::Specifier;
use mayfly::envoy::config::core::v3::{BuildVersion, Node, node};
use mayfly::envoy::extensions::transport_sockets::tls::v3::Secret;
use mayfly::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use mayfly::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use mayfly::envoy::r#type::v3::SemanticVersion;
use prost::Message as _;
use support::{BIN, Dev, run_in};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const OURS: &str = "spiffe://dev.mayfly.test";

/// A guard that is stopped at the end.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn guard(dev: &Dev) -> Guard {
    let child = Command::new(BIN)
        .args(["guard", "--as", "g", "--listen", "unix:g.sock", "--socket-mode", "0600", "--sds"])
        .current_dir(dev.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Guard(child)
}

fn join(dev: &Dev) {
    std::fs::write(dev.path("t"), dev.run("join guard").stdout).unwrap();
    dev.json("redeem --ticket-file t --out g");
}

async fn connect(dev: &Dev) -> Channel {
    let endpoint = Endpoint::try_from(format!("unix:{}", dev.path("g.sock").display())).unwrap();
    for _ in 0..200 {
        if let Ok(channel) = endpoint.connect().await {
            return channel;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the guard does not listen");
}

fn asking(names: &[&str], nonce: &str) -> DiscoveryRequest {
    let version = Some(SemanticVersion { major_number: 1, minor_number: 40, patch: 0 });
    let build = node::UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version });
    DiscoveryRequest {
        node: Some(Node { id: "test".into(), user_agent_version_type: Some(build) }),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: TYPE.into(),
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    }
}

struct Stream {
    asks: mpsc::Sender<DiscoveryRequest>,
    answers: Streaming<DiscoveryResponse>,
}

impl Stream {
    async fn open(channel: &Channel, first: DiscoveryRequest) -> Result<Stream, Status> {
        let (asks, asked) = mpsc::channel(4);
        asks.send(first).await.unwrap();
        let mut client = Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets".parse().unwrap();
        let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
        let answers = client.streaming(Request::new(ReceiverStream::new(asked)), path, codec).await?.into_inner();
        Ok(Stream { asks, answers })
    }

    async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.answers.message()).await;
        next.unwrap_or_else(|_| panic!("nothing came"))?.ok_or_else(|| Status::ok("the end"))
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.answers.message()).await.is_err()
    }
}

async fn fetch(channel: &Channel, request: DiscoveryRequest) -> Result<DiscoveryResponse, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
}

/// Certificate chain and key, in PEM.
fn pair(response: &DiscoveryResponse) -> (String, String) {
    let secret = Secret::decode(response.resources[0].value.as_slice()).unwrap();
    let Some(Type::TlsCertificate(one)) = secret.r#type else { panic!("no certificate") };
    let text = |source: Option<mayfly::envoy::config::core::v3::DataSource>| match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        None => panic!("empty"),
    };
    (text(one.certificate_chain), text(one.private_key))
}

/// Whether the key belongs to the certificate.
fn fits(pair: &(String, String)) -> bool {
    let chain = mayfly_agent::folder::certificates_from_pem(pair.0.as_bytes()).unwrap();
    let key = rcgen::KeyPair::from_pem(&pair.1).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    leaf.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key).as_slice()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_key_and_certificate_as_one_at_once_and_after_each_renewal() {
    let dev = Dev::start();
    join(&dev);
    let _guard = guard(&dev);
    let channel = connect(&dev).await;
    let mut svid = Stream::open(&channel, asking(&["default"], "")).await.unwrap();
    let first = svid.next().await.unwrap();
    assert_eq!((first.type_url.as_str(), first.resources.len()), (TYPE, 1));
    let mut before = pair(&first);
    assert!(fits(&before));
    assert_eq!(before.0.trim_end(), dev.file("g/svid.pem"));
    svid.asks
        .send(DiscoveryRequest { version_info: first.version_info.clone(), ..asking(&["default"], &first.nonce) })
        .await
        .unwrap();
    assert!(svid.is_silent().await, "what has not changed is not sent again");
    let mut roots = Stream::open(&channel, asking(&["ROOTCA"], "")).await.unwrap();
    let told = roots.next().await.unwrap();
    assert_eq!(Secret::decode(told.resources[0].value.as_slice()).unwrap().name, "ROOTCA");
    for _ in 0..3 {
        dev.json("renew --as g");
        let next = svid.next().await.unwrap();
        let after = pair(&next);
        assert!(fits(&after) && after.0 != before.0 && after.1 != before.1, "another pair");
        // T198: what Envoy could not use is told, and it gets the next one all the same.
        let failed = tonic_types::pb::Status { code: 13, message: "no\n".into(), ..Default::default() };
        let nack = DiscoveryRequest { error_detail: Some(failed), ..asking(&["default"], &next.nonce) };
        svid.asks.send(nack).await.unwrap();
        before = after;
    }
    // Other names on the same stream, and an answer to an old one, which is ignored.
    svid.asks.send(asking(&["nobody"], &first.nonce)).await.unwrap();
    assert!(svid.is_silent().await);
    svid.asks.send(asking(&["ALL", OURS], "4")).await.unwrap();
    assert_eq!(svid.next().await.unwrap().resources.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn t198_a_request_that_cannot_be_answered_is_refused_and_silence_has_a_bound() {
    let dev = Dev::start();
    join(&dev);
    let _guard = guard(&dev);
    let channel = connect(&dev).await;
    let all = fetch(&channel, asking(&[], "")).await.unwrap();
    assert_eq!(all.resources.len(), 2, "the bundle and the identity");
    let many = vec!["ALL"; 65];
    for bad in
        [asking(&["default", "nobody"], ""), asking(&many, ""), DiscoveryRequest { type_url: "x".into(), ..asking(&[], "") }]
    {
        assert_eq!(fetch(&channel, bad.clone()).await.unwrap_err().code(), Code::InvalidArgument);
        let mut stream = Stream::open(&channel, bad).await.unwrap();
        assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
    // An older Envoy has no validator: roots alone, and never those of all trust domains as if they were one.
    let old = DiscoveryRequest { node: None, ..asking(&["ROOTCA"], "") };
    let secret = Secret::decode(fetch(&channel, old).await.unwrap().resources[0].value.as_slice()).unwrap();
    assert!(matches!(secret.r#type, Some(Type::ValidationContext(one)) if one.trusted_ca.is_some()));
    let old = DiscoveryRequest { node: None, ..asking(&["ALL"], "") };
    assert_eq!(fetch(&channel, old).await.unwrap_err().code(), Code::InvalidArgument);
    // Nobody asks: the stream ends.
    let (_asks, asked) = mpsc::channel::<DiscoveryRequest>(1);
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let mut silent = client.streaming(Request::new(ReceiverStream::new(asked)), path, codec).await.unwrap().into_inner();
    let end = tokio::time::timeout(Duration::from_secs(60), silent.message()).await.unwrap();
    assert_eq!(end.unwrap_err().code(), Code::DeadlineExceeded);
}

#[test]
fn t197_a_private_key_is_not_for_whoever_is_on_this_machine() {
    let dev = Dev::start();
    join(&dev);
    for (line, why) in [
        ("guard --as g --sds", "unix:PATH"),
        ("guard --as g --sds --listen 127.0.0.1:0", "unix:PATH"),
        ("guard --as g --sds --listen unix:g.sock --socket-mode 0666", "leave others out"),
        ("guard --as g --sds --listen unix:g.sock --socket-mode 0601", "leave others out"),
    ] {
        let out = run_in(dev.dir.path(), line);
        assert_eq!(out.status.code(), Some(2), "{line}");
        assert!(String::from_utf8_lossy(&out.stderr).contains(why), "{line}");
    }
    assert!(!dev.path("g.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn t197_a_guard_that_was_not_told_to_gives_no_key() {
    let dev = Dev::start();
    join(&dev);
    let child = Command::new(BIN)
        .args(["guard", "--as", "g", "--listen", "unix:g.sock"])
        .current_dir(dev.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _guard = Guard(child);
    let channel = connect(&dev).await;
    assert_eq!(fetch(&channel, asking(&["default"], "")).await.unwrap_err().code(), Code::Unimplemented);
}
