//! HTTP/2 by hand to a development issuer: what a hostile client would do.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test file uses what it needs"
)]

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::client::{ResponseFuture, SendRequest};
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{Dev, ORCHESTRATOR};

/// A TLS client, with the identity in a folder or with none.
pub fn client(dev: &Dev, identity: Option<&str>) -> rustls::ClientConfig {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    for root in mayfly::folder::certificates(&dev.path(ORCHESTRATOR).join("bundle.pem")).unwrap() {
        roots.add(root).unwrap();
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        Some(folder) => {
            let identity = mayfly::folder::identity(&dev.path(folder)).unwrap();
            builder.with_client_auth_cert(identity.chain, identity.key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A connection over TLS, from an address of this machine. `None` if it is closed before it is there.
pub async fn try_tls(dev: &Dev, client: &Arc<rustls::ClientConfig>, from: [u8; 4]) -> Option<TlsStream<tokio::net::TcpStream>> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let tcp = socket.connect(dev.text("grpc").parse().unwrap()).await.ok()?;
    tcp.set_nodelay(true).unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::clone(client)).connect(name, tcp).await.ok()
}

pub async fn tls(dev: &Dev, identity: Option<&str>) -> TlsStream<tokio::net::TcpStream> {
    try_tls(dev, &Arc::new(client(dev, identity)), [127, 0, 0, 1]).await.unwrap()
}

/// The task of a connection; it ends with the connection.
pub type Driver = tokio::task::JoinHandle<Result<(), h2::Error>>;

pub async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> (SendRequest<Bytes>, Driver) {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    (client.ready().await.unwrap(), driver)
}

pub fn post(method: &str) -> http::Request<()> {
    let uri = format!("https://localhost/{method}");
    http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// The head of a gRPC message.
pub fn head(length: usize) -> Bytes {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&[0][..], &length].concat().into()
}

/// The status of an answer, and its reason.
pub async fn status(answer: ResponseFuture) -> (Code, String) {
    let answer = answer.await.unwrap();
    let of = |status: Status| (status.code(), status.get_details_error_info().map(|i| i.reason).unwrap_or_default());
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return of(status);
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data.unwrap().len());
    }
    of(Status::from_header_map(&body.trailers().await.unwrap().unwrap()).unwrap())
}

/// One whole call with an empty message.
pub async fn call(client: &SendRequest<Bytes>, method: &str) -> (Code, String) {
    let mut client = client.clone().ready().await.unwrap();
    let (answer, mut body) = client.send_request(post(method), false).unwrap();
    let _ = body.send_data(head(0), true);
    status(answer).await
}

/// A figure of the metrics, by its name with labels; 0 where it is not there.
pub fn metric(dev: &Dev, name: &str) -> u64 {
    // A crowd of connections may take the place of this one before its request is there: then a probe asks again.
    let ask = || {
        let mut stream = std::net::TcpStream::connect(dev.text("http"))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let again = std::iter::repeat_with(ask).take(100).find_map(|told| {
        let told = told.ok().filter(|text| !text.is_empty());
        told.or_else(|| {
            std::thread::sleep(Duration::from_millis(50));
            None
        })
    });
    let text = again.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |n| n.parse().unwrap())
}

/// Waits until a figure of the metrics is as expected.
pub async fn reaches(dev: &Dev, name: &str, expected: impl Fn(u64) -> bool) -> u64 {
    let begun = Instant::now();
    loop {
        let now = metric(dev, name);
        if expected(now) {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{name} is {now}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes of memory that the issuer has resident.
pub fn resident(dev: &Dev) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", dev.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
