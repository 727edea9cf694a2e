//! `mayfly serve`: a real configuration, joined over the wire, watched and drained.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
        "mayfly_request_seconds_bucket",
        "mayfly_agents_known 1",
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
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
fn connections_over_the_limit_are_refused_and_counted() {
    let serve = Serve::with("max_connections = 4");
    // They say nothing: each holds its place until its handshake is over time.
    let held: Vec<_> = (0..4).map(|_| TcpStream::connect(("127.0.0.1", serve.grpc)).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(100));
    let mut over = TcpStream::connect(("127.0.0.1", serve.grpc)).unwrap();
    over.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    assert_eq!(over.read(&mut [0; 1]).unwrap(), 0, "closed at once");
    assert!(serve.get("/metrics").contains("mayfly_connections_refused_total{reason=\"full\"} 1"));
    drop(held);
    std::thread::sleep(Duration::from_millis(1200));
    let ticket = serve.ok("join orchestrator");
    std::fs::write(serve.dir.path().join("ticket"), ticket).unwrap();
    serve.ok("redeem --ticket-file ticket --out w1");
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
