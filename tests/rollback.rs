//! A home that is put back to an older copy as a whole, journal and watermark: a witness and every follower notice.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{BIN, Dev};

struct Relay {
    child: Child,
    metrics: String,
}

impl Relay {
    fn start(dir: &Path) -> Relay {
        let mut child = Command::new(BIN)
            .args(["relay", "--as", "relay", "--metrics", "127.0.0.1:0", "-o", "json"])
            .current_dir(dir)
            .env_remove("MAYFLY_HOME")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let told: Value = serde_json::from_str(&text).unwrap();
        Relay { child, metrics: told["metrics"].as_str().unwrap().to_owned() }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for an answer.
    fn until(&self, path: &str, what: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let text = self.get(path);
            if what(&text) {
                return text;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{path}: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn head(answer: &str) -> u64 {
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str::<Value>(body).ok().and_then(|told| told["head"].as_u64()).unwrap_or(0)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn configure(dir: &Path, witness: &str) {
    let text = format!("[[workloads]]\nname = \"relay\"\n[journal]\nwitnesses = [\"{witness}\"]\n");
    std::fs::write(dir.join("more.toml"), text).unwrap();
}

#[test]
fn t200_t201_a_home_that_is_put_back_is_refused_by_its_witness_and_by_who_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    // A first start has no witness yet: one that has seen nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody: SocketAddr = silent.local_addr().unwrap();
    drop(silent);
    configure(dir.path(), &nobody.to_string());
    let alone = support::run_in(dir.path(), "dev --config more.toml");
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(alone.status.code() == Some(1) && said.contains("--without-witnesses"), "{said}");
    let dev = Dev::start_args(dir, &["--config", "more.toml", "--without-witnesses"], &[]);
    dev.token("demo", "demo.jwt");
    std::fs::write(dev.path("ticket"), dev.run("join relay").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out relay");
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let relay = Relay::start(dev.dir.path());
    configure(dev.dir.path(), &relay.metrics);

    // The copy; then a revocation, which the relay sees.
    let dir = dev.kill();
    copy(&dir.path().join(".mayfly"), &dir.path().join("before"));
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    let revoked = dev.json(&format!("revoke --agent {}", agent["agent_id"].as_str().unwrap()))["revision"].as_u64().unwrap();
    relay.until("/heartbeat", |answer| answer.contains(" 200 ") && head(answer) >= revoked);
    relay.until("/readyz", |answer| answer.contains(" 200 "));

    // Put back.
    let dir = dev.kill();
    std::fs::rename(dir.path().join(".mayfly"), dir.path().join("after")).unwrap();
    copy(&dir.path().join("before"), &dir.path().join(".mayfly"));
    let refused = support::run_in(dir.path(), "dev --config more.toml");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&relay.metrics) && said.contains("an older copy") && said.contains("backup restore"), "{said}");
    assert!(relay.until("/heartbeat", |_| true).contains(" 200 "));

    // Whoever starts it all the same is found out by those who followed it, however far it goes on.
    let dev = Dev::start_args(dir, &["--config", "more.toml", "--without-witnesses"], &[]);
    for n in 0..6 {
        dev.json(&format!("spawn --class researcher --user-token demo.jwt --out b{n}"));
    }
    let unready = relay.until("/readyz", |answer| answer.contains("fork"));
    assert!(unready.contains(" 503 "), "{unready}");
    // For good: also when the true home is back.
    let dir = dev.kill();
    std::fs::rename(dir.path().join(".mayfly"), dir.path().join("forked")).unwrap();
    std::fs::rename(dir.path().join("after"), dir.path().join(".mayfly")).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(relay.get("/readyz").contains("fork"));
    // A relay that is started again believes the true one.
    drop(relay);
    let relay = Relay::start(dev.dir.path());
    relay.until("/readyz", |answer| answer.contains(" 200 "));
}

/// Whoever calls while the issuer starts hears at once that it is not there yet, and can try again.
#[test]
fn t306_a_start_that_waits_refuses_connections_and_leaves_none_hanging() {
    let dev = Dev::start();
    let places: Value = serde_json::from_slice(&std::fs::read(dev.path(".mayfly/endpoint.json")).unwrap()).unwrap();
    let dir = dev.kill();
    // The start waits for a witness that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    configure(dir.path(), &silent.local_addr().unwrap().to_string());
    let child = Command::new(BIN)
        .args(["dev", "--config", "more.toml"])
        .current_dir(dir.path())
        .env_remove("MAYFLY_HOME")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    let asked = silent.accept();
    let port = |name: &str| -> u16 {
        let address = places[name].as_str().unwrap().trim_end_matches('/');
        address.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let heard =
        ["grpc", "bundle", "https"].map(|name| (name, TcpStream::connect(("127.0.0.1", port(name))).map_err(|e| e.kind())));
    let probed = TcpStream::connect(("127.0.0.1", port("http")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(asked.is_ok() && probed.is_ok(), "{probed:?}");
    for (name, heard) in heard {
        assert_eq!(heard.unwrap_err(), std::io::ErrorKind::ConnectionRefused, "{name}");
    }
}
