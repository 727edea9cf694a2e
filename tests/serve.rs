//! `mayfly serve`: a real configuration, joined over the wire, watched and drained.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::client::SendRequest;
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use support::BIN;

struct Serve {
    dir: tempfile::TempDir,
    child: Child,
    grpc: u16,
    http: u16,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn write_config(dir: &Path, grpc: u16, http: u16, more: &str) {
    let text = format!(
        r#"
trust_domain = "prod.example.org"
home = "{home}"
[server]
listen = "127.0.0.1:{grpc}"
names = ["localhost", "127.0.0.1"]
handshake_timeout = "1s"
{more}
[http]
listen = "127.0.0.1:{http}"
[log]
format = "json"
[[workloads]]
name = "orchestrator"
[[classes]]
name = "robot"
owner = "ops"
scopes = ["build:run"]
audiences = ["https://build.example"]
max_lease = "1h"
modes = ["autonomous"]
spawners = ["workload/orchestrator"]
"#,
        home = dir.join("home").display()
    );
    std::fs::write(dir.join("mayfly.toml"), text).unwrap();
}

impl Serve {
    fn start() -> Serve {
        Serve::with("")
    }

    /// `more` stands in the section `server`, and may begin others.
    fn with(more: &str) -> Serve {
        let dir = tempfile::tempdir().unwrap();
        let (grpc, http) = (free_port(), free_port());
        write_config(dir.path(), grpc, http, more);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(BIN)
            .args(["serve", "--config", "mayfly.toml"])
            .current_dir(dir.path())
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let serve = Serve { dir, child, grpc, http };
        for _ in 0..100 {
            if serve.get("/readyz").starts_with("HTTP/1.1 200") {
                return serve;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("not ready: {}", serve.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.http)) else { return String::new() };
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        let out = support::run_in(self.dir.path(), &format!("--home home {line}"));
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    }

    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, 0, "{line}: {err}");
        out
    }

    /// A connection over TLS, with the identity in a folder or with none.
    async fn tls(&self, identity: Option<&str>) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        for root in mayfly::folder::certificates(&self.dir.path().join("home/keys/root.pem")).unwrap() {
            roots.add(root).unwrap();
        }
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            Some(folder) => {
                let identity = mayfly::folder::identity(&self.dir.path().join(folder)).unwrap();
                builder.with_client_auth_cert(identity.chain, identity.key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.grpc)).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }
}

/// HTTP/2 by hand, and the task that ends with its connection.
async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (SendRequest<Bytes>, tokio::task::JoinHandle<()>) {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    (client.ready().await.unwrap(), connection)
}

fn post(method: &str) -> http::Request<()> {
    let uri = format!("https://localhost/{method}");
    http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(()).unwrap()
}

/// A gRPC message, as it stands in a body.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

/// One call from its first byte to its last; its status.
async fn whole(client: &SendRequest<Bytes>, method: &str) -> Code {
    let mut client = client.clone().ready().await.unwrap();
    let (answer, mut body) = client.send_request(post(method), false).unwrap();
    body.send_data(framed(&[]), true).unwrap();
    let answer = answer.await.unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status.code();
    }
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let _ = body.flow_control().release_capacity(data.unwrap().len());
    }
    Status::from_header_map(&body.trailers().await.unwrap().unwrap()).unwrap().code()
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_workload_joins_spawns_and_the_metrics_tell() {
    let serve = Serve::start();
    std::fs::write(serve.dir.path().join("ticket"), serve.ok("join orchestrator")).unwrap();
    serve.ok("redeem --ticket-file ticket --out w");
    // Without --as there is no development workload to act as.
    assert_eq!(serve.run("spawn --class robot --autonomous --out r0").0, 1);
    let agent: serde_json::Value =
        serde_json::from_str(&serve.ok("spawn --as w --class robot --autonomous --out r1 -o json")).unwrap();
    assert_eq!((&agent["mode"], &agent["user"]), (&"autonomous".into(), &serde_json::Value::Null));
    serve.ok("verify r1/svid.pem");
    serve.ok("mint --as r1 --audience https://build.example --out r1.jwt");
    assert_eq!(serve.run("mint --as r1 --audience https://other.example").0, 3);
    let server = format!("mint --as r1 --audience https://build.example --server 127.0.0.1:{}", serve.grpc);
    serve.ok(&server);

    let metrics = serve.get("/metrics");
    for line in [
        "mayfly_requests_total{method=\"Identities/Spawn\",outcome=\"ok\"} 1",
        "mayfly_requests_total{method=\"Identities/MintJwt\",outcome=\"denied\"} 1",
        "mayfly_denials_total{reason=\"AUDIENCE_NOT_ALLOWED\"} 1",
        "mayfly_journal_commit_seconds_bucket",
        "mayfly_journal_sync_seconds_bucket",
        "mayfly_request_seconds_bucket",
        "mayfly_agents_known 1",
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
    // One sync for each commit, and within it.
    let figure = |name: &str| -> f64 {
        let line = metrics.lines().find(|l| l.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let (syncs, commits) = (figure("mayfly_journal_sync_seconds_count"), figure("mayfly_journal_commit_seconds_count"));
    assert!(syncs >= 5.0 && (syncs - commits).abs() < 0.5, "{syncs} syncs, {commits} commits");
    let (sync, commit) = (figure("mayfly_journal_sync_seconds_sum"), figure("mayfly_journal_commit_seconds_sum"));
    assert!(0.0 < sync && sync < commit, "{sync} s of {commit} s");
    // Labels come from fixed sets: nobody is named.
    assert!(!metrics.contains("spiffe://") && !metrics.contains(agent["agent_id"].as_str().unwrap()));
    assert!(serve.log().lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()), "{}", serve.log());
    for pem in ["w/key.pem", "home/keys/root.key"] {
        let key = std::fs::read_to_string(serve.dir.path().join(pem)).unwrap();
        assert!(!serve.log().contains(key.lines().nth(1).unwrap()));
    }
}

#[test]
fn t39_a_handshake_that_never_ends_is_cut_and_others_are_served() {
    let serve = Serve::start();
    let mut slow = TcpStream::connect(("127.0.0.1", serve.grpc)).unwrap();
    slow.write_all(&[0x16]).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let started = Instant::now();
    let mut byte = [0u8; 1];
    assert_eq!(slow.read(&mut byte).unwrap_or(0), 0, "closed by the server");
    assert!(started.elapsed() < Duration::from_secs(8));
    // T63: garbage at accept ends nothing.
    for _ in 0..50 {
        let mut garbage = TcpStream::connect(("127.0.0.1", serve.grpc)).unwrap();
        let _ = garbage.write_all(b"GET / HTTP/1.1\r\n\r\n");
    }
    std::fs::write(serve.dir.path().join("ticket"), serve.ok("join orchestrator")).unwrap();
    serve.ok("redeem --ticket-file ticket --out w");
    assert!(serve.get("/metrics").contains("mayfly_connections_refused_total{reason=\"slow\"} 1"));
}

#[test]
fn a_term_signal_drains_and_a_restart_knows_everybody() {
    let mut serve = Serve::start();
    std::fs::write(serve.dir.path().join("ticket"), serve.ok("join orchestrator")).unwrap();
    serve.ok("redeem --ticket-file ticket --out w");
    let pid = serve.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(serve.child.wait().unwrap().code(), Some(0), "{}", serve.log());
    assert!(serve.log().contains("stopped"));
    assert_eq!(serve.run("spawn --as w --class robot --autonomous --out r1").0, 5, "nobody answers");
    let again = Command::new(BIN)
        .args(["serve", "--config", "mayfly.toml"])
        .current_dir(serve.dir.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    serve.child = again;
    for _ in 0..100 {
        if serve.get("/readyz").starts_with("HTTP/1.1 200") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    serve.ok("spawn --as w --class robot --autonomous --out r1");
}

#[test]
fn serve_and_dev_never_share_a_home_and_bad_configurations_are_told_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dev = support::Dev::start_in(dir);
    write_config(dev.dir.path(), free_port(), free_port(), "");
    let text = std::fs::read_to_string(dev.path("mayfly.toml")).unwrap().replace("/home\"", "/.mayfly\"");
    std::fs::write(dev.path("mayfly.toml"), &text).unwrap();
    let dir = dev.kill();
    let out = support::run_in(dir.path(), "serve --config mayfly.toml");
    assert!(String::from_utf8_lossy(&out.stderr).contains("development home"), "{out:?}");

    std::fs::write(dir.path().join("bad.toml"), text.replace("owner = \"ops\"", "ownr = \"ops\"").replace("prod.", "PROD."))
        .unwrap();
    let out = support::run_in(dir.path(), "config check bad.toml");
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    for part in ["trust_domain", "owner", "ownr", "3 faults"] {
        assert!(err.contains(part), "{part} not in {err}");
    }
    assert!(support::run_in(dir.path(), "config check mayfly.toml").status.success());
}

#[test]
fn t95_silent_connections_keep_nobody_out_and_one_that_gives_way_is_counted() {
    let serve = Serve::with("max_connections = 4");
    // They say nothing. There is room for 32 handshakes from one address; the oldest give way.
    let held: Vec<_> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", serve.grpc)).unwrap()).collect();
    let mut first = held.first().unwrap();
    first.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0, "closed at once");
    let ticket = serve.ok("join orchestrator");
    std::fs::write(serve.dir.path().join("ticket"), ticket).unwrap();
    serve.ok("redeem --ticket-file ticket --out w1");
    let metrics = serve.get("/metrics");
    let full = metrics.lines().find_map(|l| l.strip_prefix("mayfly_connections_refused_total{reason=\"full\"} "));
    assert!(full.is_some_and(|n| n.parse::<u64>().unwrap() >= 8), "{metrics}");
}

#[test]
fn an_answer_that_takes_too_long_is_told_so() {
    // A provider that accepts and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let more = format!(
        "request_timeout = \"1s\"\n[[issuers]]\nname = \"corp\"\nissuer = \"{url}\"\n[[issuers.audiences]]\n\
         audience = \"agents\"\nworkloads = [\"orchestrator\"]"
    );
    let serve = Serve::with(&more);
    let ticket = serve.ok("join orchestrator");
    std::fs::write(serve.dir.path().join("ticket"), ticket).unwrap();
    serve.ok("redeem --ticket-file ticket --out w1");
    let part = |json: &str| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"iss":"{url}","sub":"x","aud":"agents","iat":{now},"exp":{}}}"#, now + 300);
    let header = part(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#);
    std::fs::write(serve.dir.path().join("t.jwt"), format!("{header}.{}.{}", part(&claims), part(&"s".repeat(64)))).unwrap();
    let started = Instant::now();
    let (code, _, text) = serve.run("spawn --as w1 --class robot --user-token t.jwt --out a1");
    assert!(code != 0 && text.contains("DEADLINE"), "{code} {text}");
    assert!(started.elapsed() < Duration::from_secs(4));
    serve.ok("spawn --as w1 --class robot --autonomous --out a2");
}

#[tokio::test]
async fn the_bound_of_a_request_begins_with_its_headers() {
    let serve = Serve::with("request_timeout = \"1s\"");
    let unix = tokio::net::UnixStream::connect(serve.dir.path().join("home/operator.sock")).await.unwrap();
    for (client, _connection) in [http2(serve.tls(None).await).await, http2(unix).await] {
        let mut ready = client.clone().ready().await.unwrap();
        let started = Instant::now();
        // Headers and half a message; the rest never comes.
        let (answer, mut body) = ready.send_request(post("mayfly.v1.Bundles/GetBundle"), false).unwrap();
        body.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false).unwrap();
        assert_eq!(whole(&client, "mayfly.v1.Bundles/GetBundle").await, Code::Ok, "others go on beside it");
        let answer = tokio::time::timeout(Duration::from_secs(4), answer).await.expect("held for ever").unwrap();
        assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&started.elapsed()), "{:?}", started.elapsed());
        assert_eq!((answer.status().as_u16(), &answer.headers()["content-type"]), (200, &"application/grpc".parse().unwrap()));
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(
            (status.code(), status.get_details_error_info().unwrap().reason.as_str()),
            (Code::DeadlineExceeded, "DEADLINE")
        );
        assert_eq!(whole(&client, "mayfly.v1.Bundles/GetBundle").await, Code::Ok, "and after it");
    }
    let metrics = serve.get("/metrics");
    for line in [
        "mayfly_requests_total{method=\"Bundles/GetBundle\",outcome=\"ok\"} 4",
        "mayfly_requests_total{method=\"Bundles/GetBundle\",outcome=\"denied\"} 2",
        "mayfly_request_seconds_count{method=\"Bundles/GetBundle\",outcome=\"denied\"} 2",
        "mayfly_denials_total{reason=\"DEADLINE\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_may_last() {
    let serve = Serve::with("request_timeout = \"1s\"\nreflection = true");
    let (client, _connection) = http2(serve.tls(None).await).await;
    let mut open = Vec::new();
    for method in ["grpc.health.v1.Health/Watch", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"] {
        let mut ready = client.clone().ready().await.unwrap();
        let (answer, mut body) = ready.send_request(post(method), false).unwrap();
        // A watch has one request; a reader of reflection keeps asking.
        let ask: &[u8] = if method.contains("Health") { &[] } else { &[0x3a, 0x00] };
        body.send_data(framed(ask), method.contains("Health")).unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(900), answer).await.expect(method).unwrap();
        assert_eq!(answer.headers().get("grpc-status"), None, "{method} goes on");
        let mut answers = answer.into_body();
        assert!(answers.data().await.unwrap().is_ok(), "{method}: the first message");
        open.push((method, answers, body));
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for (method, answers, _) in &mut open {
        let more = tokio::time::timeout(Duration::from_millis(50), answers.data()).await;
        assert!(more.is_err(), "{method} has ended: {more:?}");
    }
}

#[tokio::test]
async fn no_connection_outlives_the_certificate_of_its_peer() {
    let serve = Serve::with("drain_timeout = \"1s\"");
    std::fs::write(serve.dir.path().join("ticket"), serve.ok("join orchestrator")).unwrap();
    serve.ok("redeem --ticket-file ticket --out w");
    serve.ok("spawn --as w --class robot --autonomous --lease 4 --out short");
    let chain = mayfly::folder::identity(&serve.dir.path().join("short")).unwrap().chain;
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let end = u64::try_from(leaf.validity().not_after.timestamp()).unwrap();
    let end = std::time::UNIX_EPOCH + Duration::from_secs(end);
    // One says nothing, one never says its preface, one waits for an answer that goes on for ever.
    let (idle, idle_ends) = http2(serve.tls(Some("short")).await).await;
    let mut silent = serve.tls(Some("short")).await;
    let (busy, busy_ends) = http2(serve.tls(Some("short")).await).await;
    let (answer, mut body) = busy.clone().send_request(post("grpc.health.v1.Health/Watch"), false).unwrap();
    body.send_data(framed(&[]), true).unwrap();
    let mut watch = answer.await.unwrap().into_body();
    watch.data().await.unwrap().unwrap();
    // Those of others stay.
    let (stranger, _stranger) = http2(serve.tls(None).await).await;
    let (workload, _workload) = http2(serve.tls(Some("w")).await).await;

    let left = || end.duration_since(std::time::SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left().saturating_sub(Duration::from_millis(300))).await;
    assert!(!idle_ends.is_finished() && !busy_ends.is_finished(), "not before its time");
    assert_eq!(whole(&idle, "mayfly.v1.Bundles/GetBundle").await, Code::Ok);
    tokio::time::timeout(left() + Duration::from_millis(900), idle_ends).await.expect("idle, it stands").unwrap();
    let said = tokio::time::timeout(Duration::from_millis(200), tokio::io::AsyncReadExt::read(&mut silent, &mut [0; 1])).await;
    assert!(matches!(said, Ok(Ok(0) | Err(_))), "silent, it stands: {said:?}");
    // What is open may go on for as long as a stop would wait; nothing new begins once the peer has heard of it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!busy_ends.is_finished(), "what is in flight is cut off");
    let begun = match busy.ready().await.and_then(|mut busy| busy.send_request(post("mayfly.v1.Bundles/GetBundle"), true)) {
        Ok((answer, _)) => answer.await.map(|_| ()),
        Err(e) => Err(e),
    };
    assert!(begun.as_ref().is_err_and(h2::Error::is_go_away), "a new request begins: {begun:?}");
    assert!(!busy_ends.is_finished(), "told at once, not by the end");
    tokio::time::timeout(Duration::from_secs(2), busy_ends).await.expect("busy, it stands").unwrap();
    for other in [&stranger, &workload] {
        assert_eq!(whole(other, "mayfly.v1.Bundles/GetBundle").await, Code::Ok);
    }
}

#[tokio::test]
async fn a_stop_waits_for_what_is_open_and_for_nothing_else() {
    for (watching, least, most) in [(false, 0, 2), (true, 2, 4)] {
        let mut serve = Serve::with("drain_timeout = \"2s\"");
        let (client, _connection) = http2(serve.tls(None).await).await;
        let (answer, mut body) = client.clone().send_request(post("grpc.health.v1.Health/Watch"), false).unwrap();
        body.send_data(framed(&[]), true).unwrap();
        let watch = answer.await.unwrap().into_body();
        // A stream of which nothing is held is reset.
        let watch = watching.then_some((watch, body));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        assert!(Command::new("kill").args(["-TERM", &serve.child.id().to_string()]).status().unwrap().success());
        while serve.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = started.elapsed();
        assert!((Duration::from_secs(least)..Duration::from_secs(most)).contains(&took), "watching: {watching}, {took:?}");
        assert_eq!(serve.log().contains("did not end in time"), watching);
        drop(watch);
    }
}

/// Nothing looks into a process that holds keys: no other process of its user, and no core.
#[test]
fn the_memory_of_an_issuer_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    // As another user where that can be had: root looks into everything.
    let user = if root { 65534 } else { std::fs::metadata("/proc/self").unwrap().uid() };
    let as_user = |program: &str| {
        let mut command = Command::new(program);
        command.current_dir(dir.path());
        if root {
            command.uid(user).gid(user);
        }
        command
    };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    write_config(dir.path(), free_port(), free_port(), "");
    // Where that user can reach it.
    let mayfly = dir.path().join("mayfly").display().to_string();
    std::fs::copy(BIN, &mayfly).unwrap();
    let reads = |pid: u32, file: &str| {
        let read = as_user("cat").arg(format!("/proc/{pid}/{file}")).stdout(Stdio::null()).stderr(Stdio::null()).status();
        read.unwrap().success()
    };
    let mut ours = as_user("sleep").arg("60").spawn().unwrap();
    assert!(reads(ours.id(), "environ"), "another process of this user can be looked into");
    let _ = (ours.kill(), ours.wait());
    for line in ["serve --config mayfly.toml", "dev --home dev"] {
        let mut child = as_user(&mayfly).args(line.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let home = if line.starts_with("serve") { "home" } else { "dev" };
        let started = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            dir.path().join(home).join("endpoint.json").exists()
        });
        let looked = [reads(child.id(), "environ"), reads(child.id(), "maps")];
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap_or_default();
        // Operators are told by uid: it is that of the process still, whoever its files in /proc belong to.
        let operator = as_user(&mayfly).args(["--home", home, "cuts", "list"]).stdout(Stdio::null()).status().unwrap();
        let _ = (child.kill(), child.wait());
        assert!(started, "{line}");
        assert_eq!(looked, [false, false], "{line}");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{line}: {core}");
        assert!(operator.success(), "{line}");
    }
}

#[test]
fn memory_is_locked_where_it_may_be_and_a_refusal_is_said_once() {
    let serve = Serve::start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", serve.child.id())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim() != "0 kB";
    let refused = serve.log().lines().filter(|line| line.contains("the memory is not locked")).count();
    assert_eq!(refused, usize::from(!locked), "{}", serve.log());
}

/// What clients on gRPC's C core send over a Unix socket: its path as the authority, which is none by RFC 3986.
#[test]
fn the_operator_socket_answers_clients_that_call_it_by_its_path() {
    let serve = Serve::start();
    let path = serve.dir.path().join("home/operator.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let literal = |name: &[u8], value: &str| {
        let length = u8::try_from(value.len()).unwrap();
        assert!(length < 127, "in one byte");
        [name, &[length], value.as_bytes()].concat()
    };
    // POST and http of the static table; the rest as literals: `:authority` is 1, `:path` 4, `content-type` 31, and `te` spelled out.
    let block = [
        &[0x83, 0x86][..],
        &literal(&[0x01], &path.display().to_string().replace('/', "%2F")),
        &literal(&[0x04], "/mayfly.v1.Operations/Reopen"),
        &literal(&[0x0f, 31 - 15], "application/grpc"),
        &literal(&[0x00, 2, b't', b'e'], "trailers"),
    ];
    let request = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 0x4, 1, &block.concat()),
        frame(0, 0x1, 1, &[0; 5]),
    ];
    stream.write_all(&request.concat()).unwrap();
    let answered = loop {
        let mut header = [0; 9];
        stream.read_exact(&mut header).unwrap();
        let length = header[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        match (header[3], header[8]) {
            (1, 1) => break true,
            (3, 1) | (7, 0) => break false,
            _ => {}
        }
    };
    assert!(answered, "the stream was reset");
}
