//! The gRPC listener against clients that want to use it up: bodies, connections, control frames.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;
#[path = "support/wire.rs"]
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::bytes::Bytes;
use support::{BIN, Dev, ORCHESTRATOR};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;
use wire::{call, head, http2, metric, post, resident, status, tls};

/// An issuer with keys in the section `server`.
fn dev(server: &str) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), format!("[server]\n{server}\n")).unwrap();
    Dev::start_args(dir, &["--config", "more.toml"], &[])
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

const SOON: Duration = Duration::from_secs(5);

fn said(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test]
async fn t94_who_may_not_call_is_told_before_a_byte_of_the_body_is_read() {
    let dev = dev("request_timeout = \"300s\"");
    let needed = said(Code::Unauthenticated, "CERTIFICATE_NEEDED");
    let not_allowed = said(Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    for (identity, methods, expected) in [
        (None, ["Batches/Spawn", "Identities/Spawn", "Identities/MintJwt", "Operations/Backup"], needed),
        (
            Some(ORCHESTRATOR),
            ["Operations/Backup", "Operations/Reopen", "Identities/MintJwt", "Revocations/ListCuts"],
            not_allowed,
        ),
    ] {
        let (client, _driver) = http2(tls(&dev, identity).await).await;
        for method in methods {
            let mut client = client.clone().ready().await.unwrap();
            // Headers alone: not even the head of a message follows.
            let (answer, _body) = client.send_request(post(&format!("mayfly.v1.{method}")), false).unwrap();
            let got = tokio::time::timeout(SOON, status(answer)).await.expect("the body is waited for");
            assert_eq!(got, expected, "{method}");
            let counted = format!("mayfly_requests_total{{method=\"{method}\",outcome=\"denied\"}}");
            assert!(metric(&dev, &counted) >= 1, "{method}");
        }
        // The connection serves what is allowed.
        assert_eq!(call(&client, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
    }
    // A user's token comes in the body, so a stranger's revocation is read.
    let (client, _driver) = http2(tls(&dev, None).await).await;
    let mut ready = client.clone().ready().await.unwrap();
    let (answer, mut body) = ready.send_request(post("mayfly.v1.Operations/Revoke"), false).unwrap();
    body.send_data(head(0), true).unwrap();
    assert_eq!(status(answer).await, said(Code::Unauthenticated, "CERTIFICATE_NEEDED"));
}

/// A client's half of a request, and the connections under it.
struct Held {
    connections: Vec<(h2::client::SendRequest<Bytes>, wire::Driver)>,
    answers: tokio::task::JoinSet<((Code, String), h2::SendStream<Bytes>)>,
}

/// Requests of strangers that never get their last bytes: as many as a connection may have, from two addresses in turn, because each
/// has half of what strangers have.
async fn unfinished(dev: &Dev, connections: usize) -> Held {
    const STREAMS: usize = 16;
    let client = Arc::new(wire::client(dev, None));
    let mut held = Held { connections: Vec::new(), answers: tokio::task::JoinSet::new() };
    for n in 0..connections {
        let from = [127, 0, 0, if n % 2 == 0 { 1 } else { 2 }];
        let (client, driver) = http2(wire::try_tls(dev, &client, from).await.unwrap()).await;
        for _ in 0..STREAMS {
            let mut client = client.clone().ready().await.unwrap();
            let (answer, mut body) = client.send_request(post("mayfly.v1.Identities/Redeem"), false).unwrap();
            body.send_data(head(60_000), false).unwrap();
            body.send_data(Bytes::from(vec![0; 59_000]), false).unwrap();
            held.answers.spawn(async move { (status(answer).await, body) });
        }
        held.connections.push((client, driver));
    }
    held
}

#[tokio::test]
async fn t94_strangers_bodies_have_a_budget_that_leaves_room_for_others() {
    const CONNECTIONS: usize = 100;
    let dev = dev("request_timeout = \"300s\"");
    let before = resident(&dev);
    let mut held = unfinished(&dev, CONNECTIONS).await;
    // Some hear at once that there is no room; the rest is held.
    let first = tokio::time::timeout(SOON, held.answers.join_next()).await.expect("there is room for all");
    let (got, _body) = first.unwrap().unwrap();
    assert_eq!(got, said(Code::ResourceExhausted, "BUSY"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident(&dev).saturating_sub(before);
    assert!(grown < 64 << 20, "{CONNECTIONS} connections cost {} MiB", grown >> 20);
    // Others have their own share, also while this lasts.
    let (workload, _driver) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
    assert_eq!(call(&workload, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
    // What the connections held is given back with them.
    drop(held.connections);
    held.answers.shutdown().await;
    let begun = Instant::now();
    loop {
        let (client, _driver) = http2(tls(&dev, None).await).await;
        if call(&client, "mayfly.v1.Bundles/GetBundle").await.0 == Code::Ok {
            break;
        }
        assert!(begun.elapsed() < SOON, "the budget is used up for good");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A measurement: what connections cost the issuer, resident.
#[tokio::test]
#[ignore = "a measurement: cargo test --test listener -- --ignored --nocapture t94"]
async fn t94_what_connections_cost() {
    for kind in ["silent", "with a request answered", "of a workload", "with unfinished requests"] {
        let mut lines = Vec::new();
        for number in [200, 400] {
            let dev = dev("request_timeout = \"300s\"\nmax_connections_per_identity = 1000");
            let before = resident(&dev);
            let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
            match kind {
                "silent" => held.push(Box::new(silent(&dev, number).await)),
                "with unfinished requests" => held.push(Box::new(unfinished(&dev, number).await)),
                _ => {
                    let identity = (kind == "of a workload").then_some(ORCHESTRATOR);
                    let client = Arc::new(wire::client(&dev, identity));
                    for _ in 0..number {
                        let connection = http2(wire::try_tls(&dev, &client, [127, 0, 0, 1]).await.unwrap()).await;
                        assert_eq!(call(&connection.0, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
                        held.push(Box::new(connection));
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            lines.push((number, resident(&dev).saturating_sub(before) / 1024));
            drop(held);
        }
        let [(m, first), (n, second)] = lines[..] else { unreachable!() };
        let slope = second.saturating_sub(first) / (n - m);
        eprintln!("{kind}: {first} KiB for {m}, {second} KiB for {n}: {slope} KiB for each more");
    }
}

#[tokio::test]
async fn t94_a_body_longer_than_its_message_is_not_read_on() {
    let dev = dev("");
    let (client, _driver) = http2(tls(&dev, None).await).await;
    for method in ["mayfly.v1.Bundles/GetBundle", "grpc.health.v1.Health/Check"] {
        let mut ready = client.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(post(method), false).unwrap();
        // Small messages without end: each alone would be allowed.
        let feeding = tokio::spawn(async move {
            let many: Bytes = head(0).repeat(1000).into();
            loop {
                body.reserve_capacity(many.len());
                match std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
                    Some(Ok(_)) if body.send_data(many.clone(), false).is_ok() => {}
                    _ => return,
                }
            }
        });
        let got = tokio::time::timeout(SOON, status(answer)).await.expect("it is read for ever");
        assert_eq!(got.0, Code::OutOfRange, "{method}");
        feeding.abort();
    }
}

/// Connections of strangers that have sent nothing since their handshake, from two addresses in turn.
async fn silent(dev: &Dev, number: usize) -> Vec<Tls> {
    let client = Arc::new(wire::client(dev, None));
    let mut held = Vec::new();
    for n in 0..number {
        let from = [127, 0, 0, if n % 2 == 0 { 1 } else { 2 }];
        held.extend(wire::try_tls(dev, &client, from).await);
    }
    held
}

/// Waits until the other side closes; what it says before does not matter.
async fn closes(stream: &mut Tls, within: Duration) -> bool {
    let mut buffer = [0; 4096];
    let read = async { while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {} };
    tokio::time::timeout(within, read).await.is_ok()
}

#[tokio::test]
async fn t95_idle_strangers_lock_nobody_out() {
    // Strangers have 32 of these places, whatever they do.
    let dev = dev("max_connections = 128");
    let held = silent(&dev, 150).await;
    // A peer with an identity has its place, and so has a stranger: the idlest ones give way.
    let (workload, _driver) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
    assert_eq!(call(&workload, "mayfly.v1.Identities/Whoami").await.0, Code::Ok);
    let (client, _driver) = http2(tls(&dev, None).await).await;
    assert_eq!(call(&client, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
    assert_eq!(dev.json("agents list")["agents"].as_array().unwrap().len(), 0, "the operator socket answers");
    assert!(metric(&dev, "mayfly_connections{kind=\"stranger\"}") <= 32);
    assert_eq!(metric(&dev, "mayfly_connections{kind=\"certified\"}"), 1);
    assert_eq!(metric(&dev, "mayfly_connection_places{kind=\"certified\"}"), 127);
    let ended = wire::reaches(&dev, "mayfly_connections_ended_total{reason=\"full\"}", |n| n >= 100).await;
    assert!(ended <= 151, "{ended}");
    drop(held);
}

#[tokio::test]
async fn t95_a_stranger_has_a_bound_for_its_first_request_and_for_its_idleness() {
    let dev = dev("first_request_timeout = \"1s\"\nstranger_idle_timeout = \"2s\"");
    let mut said_nothing = tls(&dev, None).await;
    let mut half_a_preface = tls(&dev, None).await;
    half_a_preface.write_all(b"PRI * HTTP").await.unwrap();
    let (no_request, no_request_ends) = http2(tls(&dev, None).await).await;
    let mut certified = tls(&dev, Some(ORCHESTRATOR)).await;
    let (workload, workload_ends) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
    let (client, client_ends) = http2(tls(&dev, None).await).await;
    let (watching, watching_ends) = http2(tls(&dev, None).await).await;
    assert_eq!(call(&client, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
    let (answer, mut body) = watching.clone().send_request(post("mayfly.v1.Bundles/WatchBundle"), false).unwrap();
    body.send_data(head(0), true).unwrap();
    let mut watched = answer.await.unwrap().into_body();
    let part = watched.data().await.unwrap().unwrap();
    watched.flow_control().release_capacity(part.len()).unwrap();

    for stream in [&mut said_nothing, &mut half_a_preface, &mut certified] {
        assert!(closes(stream, SOON).await, "it may stay for ever");
    }
    assert!(tokio::time::timeout(SOON, no_request_ends).await.is_ok(), "preface and settings are no request");
    assert!(tokio::time::timeout(SOON, client_ends).await.is_ok(), "it may be idle for ever");
    // What is in use stays, and so does whoever has an identity.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!watching_ends.is_finished() && !workload_ends.is_finished());
    assert_eq!(call(&workload, "mayfly.v1.Identities/Whoami").await.0, Code::Ok);
    let ended = |reason| metric(&dev, &format!("mayfly_connections_ended_total{{reason=\"{reason}\"}}"));
    assert_eq!((ended("silent"), ended("idle")), (4, 1));
    drop(no_request);
}

#[tokio::test]
async fn t95_a_peer_for_whom_there_is_no_place_is_told_so() {
    let dev = dev("max_connections = 8\nmax_connections_per_identity = 3");
    let mut held = Vec::new();
    for _ in 0..3 {
        let (client, driver) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
        assert_eq!(call(&client, "mayfly.v1.Identities/Whoami").await.0, Code::Ok);
        held.push((client, driver));
    }
    let (client, ends) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
    let got = call(&client, "mayfly.v1.Identities/Whoami").await;
    assert_eq!(got, said(Code::ResourceExhausted, "CONNECTIONS_FULL"));
    assert!(tokio::time::timeout(SOON, ends).await.is_ok(), "it is told, and then closed");
    assert_eq!(metric(&dev, "mayfly_connections_refused_total{reason=\"identity\"}"), 1);
    held.pop();
    wire::reaches(&dev, "mayfly_connections{kind=\"certified\"}", |n| n == 2).await;
    let (client, _driver) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
    assert_eq!(call(&client, "mayfly.v1.Identities/Whoami").await.0, Code::Ok);
}

#[tokio::test]
async fn t95_silent_connections_to_the_metrics_leave_them_and_the_operators() {
    let dev = dev("");
    let held: Vec<_> = (0..200).map_while(|_| std::net::TcpStream::connect(dev.text("http")).ok()).collect();
    // The idlest give way.
    wire::reaches(&dev, "mayfly_connections{kind=\"http\"}", |n| n == 64).await;
    assert_eq!(dev.json("agents list")["agents"].as_array().unwrap().len(), 0);
    drop(held);
}

#[test]
fn t95_the_limit_on_open_files_is_raised_and_the_places_follow_it() {
    let limit = |soft: u32, hard: u32, line: &str| {
        let command = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec {BIN} {line}");
        let dir = tempfile::tempdir().unwrap();
        let config = mayfly::config::EXAMPLE.replace("/var/lib/mayfly", "home");
        std::fs::write(dir.path().join("mayfly.toml"), config).unwrap();
        let out = std::process::Command::new("sh").args(["-c", &command]).current_dir(dir.path()).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    // What `serve` may open is the hard limit, because it raises the soft one.
    let text = limit(1024, 4096, "config check mayfly.toml");
    assert!(text.contains("allows 2218 of the 16384 connections"), "{text}");
    let dev = dev("");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", dev.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(files.get(3), files.get(4), "the soft limit is the hard one");
}

#[tokio::test]
async fn t96_a_flood_of_control_frames_ends_its_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let dev = dev("");
    let floods: [(&str, &[u8]); 6] = [
        ("PING", &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("an answer to PING", &[0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("SETTINGS", &[0, 0, 0, 4, 0, 0, 0, 0, 0]),
        ("WINDOW_UPDATE", &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ("PRIORITY", &[0, 0, 5, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1]),
        ("a frame of an unknown type", &[0, 0, 0, 0x42, 0, 0, 0, 0, 0]),
    ];
    for (n, (name, frame)) in floods.iter().enumerate() {
        // Also of a peer with an identity.
        let identity = (n % 2 == 0).then_some(ORCHESTRATOR);
        let (mut reader, mut writer) = tokio::io::split(tls(&dev, identity).await);
        let mut sink = tokio::io::sink();
        let reading = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut sink).await });
        writer.write_all(PREFACE).await.unwrap();
        let many = frame.repeat(1000);
        let flood = async { while writer.write_all(&many).await.is_ok() && writer.flush().await.is_ok() {} };
        assert!(tokio::time::timeout(SOON, flood).await.is_ok(), "{name}: it may go on for ever");
        reading.abort();
    }
    assert_eq!(metric(&dev, "mayfly_connections_ended_total{reason=\"flood\"}"), 6);
    // A client that asks for something may send control frames with each request.
    let (client, mut connection) = h2::client::handshake(tls(&dev, None).await).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    for _ in 0..300 {
        pings.ping(h2::Ping::opaque()).await.unwrap();
        assert_eq!(call(&client, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
    }
}

#[tokio::test]
async fn t96_streams_of_strangers_that_never_read_are_few_and_end() {
    let dev = dev("stranger_unread_timeout = \"1s\"\nmax_connections = 512");
    let busy = said(Code::ResourceExhausted, "BUSY");
    // Two on a connection, eight in all.
    let mut held = Vec::new();
    for _ in 0..4 {
        let stream = tls(&dev, None).await;
        let (client, connection) = h2::client::Builder::new().initial_window_size(0).handshake::<_, Bytes>(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        for n in 0..3 {
            let mut ready = client.clone().ready().await.unwrap();
            let (answer, mut body) = ready.send_request(post("mayfly.v1.Bundles/WatchBundle"), false).unwrap();
            body.send_data(head(0), true).unwrap();
            if n == 2 {
                assert_eq!(status(answer).await, busy);
            } else {
                held.push(answer.await.unwrap());
            }
        }
        drop(driver);
    }
    let (client, _driver) = http2(tls(&dev, None).await).await;
    let (answer, mut body) = client.clone().send_request(post("mayfly.v1.Bundles/WatchBundle"), false).unwrap();
    body.send_data(head(0), true).unwrap();
    assert_eq!(status(answer).await, busy, "all strangers have eight");
    // A peer with an identity is not counted among them.
    let (workload, _driver) = http2(tls(&dev, Some(ORCHESTRATOR)).await).await;
    let (answer, mut body) = workload.clone().send_request(post("mayfly.v1.Bundles/WatchBundle"), false).unwrap();
    body.send_data(head(0), true).unwrap();
    assert!(answer.await.unwrap().into_body().data().await.unwrap().is_ok());
    // What nobody takes ends with its connection, and makes room.
    wire::reaches(&dev, "mayfly_connections_ended_total{reason=\"unread\"}", |n| n == 4).await;
    let begun = Instant::now();
    loop {
        let (client, _driver) = http2(tls(&dev, None).await).await;
        let (answer, mut body) = client.clone().send_request(post("mayfly.v1.Bundles/WatchBundle"), false).unwrap();
        body.send_data(head(0), true).unwrap();
        if answer.await.unwrap().headers().get("grpc-status").is_none() {
            break;
        }
        assert!(begun.elapsed() < SOON, "there is no room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn t96_a_strangers_connection_has_an_end_whatever_it_does() {
    let dev = dev("stranger_max_age = \"2s\"");
    let (client, ends) = http2(tls(&dev, None).await).await;
    let (answer, mut body) = client.clone().send_request(post("mayfly.v1.Bundles/WatchBundle"), false).unwrap();
    body.send_data(head(0), true).unwrap();
    let _watched = answer.await.unwrap();
    assert!(tokio::time::timeout(SOON, ends).await.is_ok(), "it may watch for ever");
    assert_eq!(metric(&dev, "mayfly_connections_ended_total{reason=\"old\"}"), 1);
}

/// A client certificate's resolver that keeps what the server asks for.
#[derive(Debug, Default)]
struct Hints(Mutex<Vec<usize>>);

impl rustls::client::ResolvesClientCert for Hints {
    fn resolve(&self, roots: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.0.lock().push(roots.len());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn t97_a_stranger_is_not_told_which_roots_are_trusted() {
    let dev = dev("");
    let mut client = wire::client(&dev, None);
    let hints = Arc::new(Hints::default());
    client.client_auth_cert_resolver = Arc::clone(&hints) as _;
    let (client, _driver) = http2(wire::try_tls(&dev, &Arc::new(client), [127, 0, 0, 1]).await.unwrap()).await;
    assert_eq!(call(&client, "mayfly.v1.Bundles/GetBundle").await.0, Code::Ok);
    assert_eq!(*hints.0.lock(), [0], "asked once, with no names");
}
