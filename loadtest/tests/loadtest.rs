//! What the load tester counts is what the issuer's metrics count, and its reports hold what they promise.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{binary, loadtest};

/// A `mayfly dev` from beside the load tester; ends with the test.
struct Dev {
    child: Child,
    dir: tempfile::TempDir,
    http: String,
}

impl Dev {
    fn start() -> Dev {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary());
        command.args(["dev", "-o", "json"]).current_dir(dir.path()).env_remove("MAYFLY_HOME");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint: Value = serde_json::from_str(&line).unwrap();
        Dev { child, dir, http: endpoint["http"].as_str().unwrap().to_owned() }
    }

    /// `mayfly_requests_total` by method and outcome.
    fn requests(&self) -> BTreeMap<(String, String), u64> {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let row = |line: &str| {
            let (labels, count) = line.strip_prefix("mayfly_requests_total{")?.rsplit_once("} ")?;
            let label = |name: &str| labels.split(&format!("{name}=\"")).nth(1)?.split('"').next().map(str::to_owned);
            Some(((label("method")?, label("outcome")?), count.parse().unwrap()))
        };
        text.lines().filter_map(row).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn metrics_and_load_tester_agree_to_the_one() {
    let dev = Dev::start();
    for scenario in ["spawn", "batch", "keyless", "jwt", "exchange", "redeem", "renew", "mixed", "burst"] {
        let before = dev.requests();
        let report = loadtest(scenario, dev.dir.path(), &["--home", ".mayfly"]);
        let after = dev.requests();
        assert_eq!(report["errors"], 0, "{scenario}: {report:#}");
        let mut counted = BTreeMap::new();
        for call in report["calls"].as_array().unwrap() {
            let text = |name: &str| call[name].as_str().unwrap().to_owned();
            counted.insert((text("method"), text("outcome")), call["here"].as_u64().unwrap());
            assert_eq!(call["here"], call["metrics"], "{scenario}: {call}");
        }
        let served: BTreeMap<_, _> = after
            .into_iter()
            .map(|(name, count)| (name.clone(), count - before.get(&name).copied().unwrap_or(0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(counted, served, "{scenario}: what we counted, and what the issuer did");
        assert!(counted.values().sum::<u64>() > 2, "{scenario} called nothing");
    }
}

#[test]
fn a_report_holds_what_it_promises() {
    let dir = tempfile::tempdir().unwrap();
    let report = loadtest("spawn", dir.path(), &["--rate", "50"]);
    assert_eq!(report["scenario"], "spawn");
    for name in ["achieved_per_second", "server_cpu_us_per_op", "floor_ratio", "server_rss_bytes", "live_agents", "revision"] {
        assert!(report[name].as_f64().unwrap() > 0.0, "{name}: {report:#}");
    }
    for (group, names) in
        [("latency_ms", &["p50", "p90", "p99", "p999", "max"][..]), ("floor_us", &["csr_verify", "x509_sign", "jwt_sign", "rpc"])]
    {
        for name in names {
            assert!(report[group][name].as_f64().unwrap() > 0.0, "{group}.{name}: {report:#}");
        }
    }
    // At a fixed rate as many are made as that says: 50 a second, for three rounds of half a second.
    assert_eq!((report["done"].as_u64(), report["errors"].as_u64()), (Some(75), Some(0)), "{report:#}");
    let page = std::fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(page.matches("<svg").count() >= 2 && page.ends_with("</html>\n"), "{page}");
    // Self-contained: it fetches nothing.
    for outside in ["http://", "https://", "<script", "src=", "@import"] {
        assert!(!page.contains(outside), "the page holds `{outside}`");
    }
}
