//! The entries of the history as a collector gets them.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{BIN, Dev, run_in};

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out";

fn start(dir: tempfile::TempDir, on_failure: &str) -> Dev {
    let file = dir.path().join("log/audit.jsonl");
    std::fs::create_dir_all(dir.path().join("log")).unwrap();
    let text = format!("[audit]\nfile = \"{}\"\non_failure = \"{on_failure}\"\n", file.display());
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    Dev::start_args(dir, &["--config", "more.toml"], &[])
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn t166_a_collector_gets_each_entry_in_order_across_rotation_and_restarts() {
    let dev = start(tempfile::tempdir().unwrap(), "count");
    dev.token("demo", "demo.jwt");
    let agent = dev.json(&format!("{SPAWN} a1"));
    let file = dev.path("log/audit.jsonl");
    until("the admission", || lines(&file).iter().any(|line| line["agent_id"] == agent["agent_id"]));
    // The same names and values as everywhere. The look itself is an entry, so the lines are read before it.
    let before = lines(&file);
    let history = dev.json("history");
    for line in before {
        let entry = history["entries"].as_array().unwrap().iter().find(|entry| entry["index"] == line["index"]).unwrap();
        assert_eq!(*entry, line);
    }
    // Renamed away: what comes after is in a new file.
    std::fs::rename(&file, dev.path("log/old.jsonl")).unwrap();
    dev.json(&format!("{SPAWN} a2"));
    until("a new file", || !lines(&file).is_empty());
    // A kill at any moment loses nothing.
    let dev = Dev::start_args(dev.kill(), &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    let last = dev.json(&format!("{SPAWN} a3"));
    until("the last admission", || lines(&file).iter().any(|line| line["agent_id"] == last["agent_id"]));
    // At least once: one that was written before the kill and not noted yet comes again, and none comes early.
    let mut next = 0;
    for line in [dev.path("log/old.jsonl"), file].iter().flat_map(|file| lines(file)) {
        let index = line["index"].as_u64().unwrap();
        assert!(index <= next, "{index} after {next}");
        next = next.max(index + 1);
    }
}

#[test]
fn t166_nothing_waits_for_a_collector_unless_nothing_may_be_issued_without_it() {
    for (on_failure, code) in [("count", None), ("refuse", Some("AUDIT_UNWRITABLE"))] {
        let dev = start(tempfile::tempdir().unwrap(), on_failure);
        dev.token("demo", "demo.jwt");
        let first = dev.json(&format!("{SPAWN} a1"));
        let file = dev.path("log/audit.jsonl");
        until("the admission", || lines(&file).iter().any(|line| line["agent_id"] == first["agent_id"]));
        std::fs::rename(dev.path("log"), dev.path("gone")).unwrap();
        let second = match code {
            Some(code) => {
                until("a refusal", || {
                    let out = dev.run(&format!("{SPAWN} a2 --force"));
                    String::from_utf8_lossy(&out.stderr).contains(code)
                });
                // Whoever must be stopped is.
                dev.json(&format!("revoke --agent {}", first["agent_id"].as_str().unwrap()));
                None
            }
            None => Some(dev.json(&format!("{SPAWN} a2"))),
        };
        std::fs::create_dir(dev.path("log")).unwrap();
        until("that it goes on", || dev.run(&format!("{SPAWN} a3 --force")).status.success());
        until("what happened meanwhile", || {
            let lines = lines(&file);
            match &second {
                Some(second) => lines.iter().any(|line| line["agent_id"] == second["agent_id"]),
                None => lines.iter().any(|line| line["kind"] == "revocation"),
            }
        });
    }
}

#[test]
fn t166_a_pipe_that_nobody_reads_holds_up_no_revocation_and_no_stop() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), "[audit]\nstdout = true\non_failure = \"refuse\"\n").unwrap();
    let mut child = Command::new(BIN)
        .args(["dev", "-o", "json", "--config", "more.toml"])
        .current_dir(dir.path())
        .env_remove("MAYFLY_HOME")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Where the issuer is, among the first entries; then nobody reads any more.
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"grpc\":") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the issuer has ended");
    }
    let run = |line: &str| run_in(dir.path(), line);
    std::fs::write(dir.path().join("demo.jwt"), run("token demo").stdout).unwrap();
    // More than a pipe holds.
    let batch = run("spawn --class researcher --user-token demo.jwt --count 300 --out many");
    assert!(batch.status.success(), "{}", String::from_utf8_lossy(&batch.stderr));
    until("a refusal", || {
        let spawned = run("spawn --class researcher --user-token demo.jwt --out a1 --force");
        String::from_utf8_lossy(&spawned.stderr).contains("AUDIT_UNWRITABLE")
    });
    let revoked = run("revoke --class researcher");
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(30) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the stop waits for whoever does not read");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
