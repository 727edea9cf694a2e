//! A journal without room, one that hangs, and a log that nobody reads: what must not wait is recorded, verifiers are not told that all is
//! well, and readiness is true.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mayfly::journal::record::{Record, TicketMade, record::Body};
use mayfly::journal::sqlite::Sqlite;
use mayfly::journal::{AppendError, Journal as _};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::channel::connect_unix;
use mayfly_agent::revocation::{Freshness, follow};
use mayfly_verify::TrustDomain;
use mayfly_verify::feed::FeedKey;
use prost::Message as _;
use support::faults::Faults;
use support::{BIN, Dev};

fn get(dev: &Dev, path: &str) -> String {
    let mut stream = TcpStream::connect(dev.text("http")).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn record(n: u64) -> Vec<u8> {
    let body = Body::TicketMade(TicketMade { hash: vec![7; 1000], ..TicketMade::default() });
    Record { at: n, operator: "test".into(), body: Some(body) }.encode_to_vec()
}

#[test]
fn t213_what_fills_a_journal_leaves_room_for_what_must_not_wait_and_dropped_rows_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let most = 1_000_000;
    let mut journal = Sqlite::open_reserved(&dir.path().join("journal.db"), Some(most)).unwrap();
    let mut last = 0;
    let full = |journal: &mut Sqlite, last: &mut u64| {
        while let Ok(()) = journal.append(*last + 1, &[record(*last + 1)], &[]) {
            *last += 1;
        }
        journal.append(*last + 1, &[record(*last + 1)], &[]).unwrap_err()
    };
    assert!(matches!(full(&mut journal, &mut last), AppendError::Full(_)));
    assert!(last > 500 && journal.tend().is_short);
    // The reserve is an eighth.
    journal.may_use_reserve(true);
    let before = last;
    assert!(matches!(full(&mut journal, &mut last), AppendError::Full(_)));
    assert!(last - before > 50, "{} records", last - before);
    journal.may_use_reserve(false);
    // Also after a restart, and rows that go make room for it and then for everybody.
    drop(journal);
    let mut journal = Sqlite::open_reserved(&dir.path().join("journal.db"), Some(most)).unwrap();
    assert!(matches!(journal.append(last + 1, &[record(last + 1)], &[]), Err(AppendError::Full(_))));
    let gone: Vec<u64> = (1..=300).collect();
    journal.append(last + 1, &[], &gone).unwrap();
    journal.append(last + 1, &[record(last + 1)], &[]).unwrap();
    assert!(!journal.tend().is_short);
    let mut rows = 0;
    journal
        .replay(&mut |_, _| {
            rows += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, last + 1 - 300);
}

#[test]
fn t213_who_fills_the_journal_cannot_keep_anybody_from_revoking() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), "[journal]\nmax_bytes = 300_000\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    let victim = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    // Batches that are smaller and smaller, until no single spawn finds room.
    let said = [64, 8, 1].map(|count| {
        for n in 0..60 {
            let line = format!("spawn --class worker --user-token demo.jwt --count {count} --ticket --out t{count}-{n} -o json");
            let batch = dev.run(&line);
            if !batch.status.success() {
                return String::from_utf8_lossy(&[batch.stdout, batch.stderr].concat()).into_owned();
            }
        }
        "all were admitted".to_owned()
    });
    assert!(said.iter().all(|said| said.contains("JOURNAL_FULL")), "{said:?}");
    // The record of a token is smaller, so some find room that a spawn does not.
    let minted = (0..60).map(|_| dev.run("mint --as a2 --audience https://search.example"));
    let denied = { minted }.find(|out| !out.status.success()).unwrap();
    assert!(String::from_utf8_lossy(&denied.stderr).contains("JOURNAL_FULL"), "{denied:?}");
    until("it is not ready", || get(&dev, "/readyz?verbose").contains("[-] journal: there is room for revocations"));
    assert!(get(&dev, "/readyz").contains(" 503 "));
    // All of these are recorded.
    dev.json(&format!("revoke --agent {}", victim["agent_id"].as_str().unwrap()));
    dev.json("revoke --user dev/guest");
    assert_eq!(dev.run("end --as a2").status.code(), Some(0));
    dev.json("authority rotate jwt");
    let metrics = get(&dev, "/metrics");
    assert!(metrics.contains("mayfly_journal_full_total") && metrics.contains("mayfly_journal_reserve_bytes"), "{metrics}");
    // Across a restart; and a larger bound makes room.
    let dir = dev.kill();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    assert!(dev.fails("spawn --class researcher --user-token demo.jwt --out b1", 3).contains("JOURNAL_FULL"));
    dev.json("revoke --class researcher");
    let dir = dev.kill();
    std::fs::write(dir.path().join("more.toml"), "[journal]\nmax_bytes = 9_000_000\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.json("spawn --class worker --user-token demo.jwt --out c1");
    until("it is ready again", || get(&dev, "/readyz").contains(" 200 "));
}

/// Runs a test of this file alone once more, in a namespace where a small file system of its own is mounted. `None` where that is not
/// allowed; inside, the folder of that file system.
fn on_a_small_disk(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("MAYFLY_SMALL_DISK") {
        return Some(PathBuf::from(dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=40m none \"$0\"";
    let script = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["-Urm", "sh", "-c", &format!("{mount} && {then}")]).arg(dir.path()).stdin(Stdio::null());
        command
    };
    if !script("exit 0").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return None;
    }
    let mut again = script("MAYFLY_SMALL_DISK=\"$0\" exec \"$@\"");
    again.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]);
    assert!(again.status().unwrap().success(), "in the namespace");
    None
}

/// Uses up a file system to the last byte.
fn fill(dir: &Path) {
    let mut file = File::create(dir.join("filler")).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn t213_a_disk_that_others_fill_has_room_for_revocations_and_recovers_by_itself() {
    let Some(disk) = on_a_small_disk("t213_a_disk_that_others_fill_has_room_for_revocations_and_recovers_by_itself") else {
        return;
    };
    // What the command line writes is elsewhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let out = |name: &str| elsewhere.path().join(name).display().to_string();
    let dev = Dev::start_in(tempfile::tempdir_in(&disk).unwrap());
    std::fs::write(out("demo.jwt"), dev.run("token demo").stdout).unwrap();
    let spawn = |name: &str| format!("spawn --class researcher --user-token {} --out {}", out("demo.jwt"), out(name));
    let agents: Vec<_> = (0..30).map(|n| dev.json(&spawn(&format!("a{n}")))["agent_id"].as_str().unwrap().to_owned()).collect();
    fill(&disk);
    // What the journal's files have taken already may last for some.
    let refused = (0..300).any(|n| {
        let one = dev.run(&spawn(&format!("f{n}")));
        let full = String::from_utf8_lossy(&one.stderr).contains("JOURNAL_FULL");
        assert!(one.status.success() || full, "{}", String::from_utf8_lossy(&one.stderr));
        full
    });
    assert!(refused, "the disk is full");
    until("it is not ready", || get(&dev, "/readyz?verbose").contains("[-] journal: there is room for revocations"));
    for agent in &agents[..20] {
        dev.json(&format!("revoke --agent {agent}"));
    }
    fill(&disk);
    for agent in &agents[20..] {
        dev.json(&format!("revoke --agent {agent}"));
    }
    assert!(dev.fails(&spawn("g"), 3).contains("JOURNAL_FULL"), "what a revocation got is for nobody else");
    // A restart of a full disk, too.
    let dev = Dev::start_in(dev.kill());
    let listed = dev.json("agents list --all");
    let revoked = |id: &String| {
        let rows = listed["agents"].as_array().unwrap();
        rows.iter().any(|row| row["agent_id"] == **id && row["state"] != "live")
    };
    assert!(agents.iter().all(revoked), "{listed}");
    dev.json("revoke --user dev/guest");
    // Without a restart, and without a hand.
    std::fs::remove_file(disk.join("filler")).unwrap();
    until("it is ready again", || get(&dev, "/readyz").contains(" 200 "));
    dev.json(&spawn("h"));
}

#[test]
fn t213_a_quota_is_no_broken_disk() {
    let faults = Faults::new();
    let dev = faults.start(tempfile::tempdir().unwrap());
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    faults.set("quota", true);
    for _ in 0..2 {
        assert!(dev.fails("spawn --class researcher --user-token demo.jwt --out x", 3).contains("JOURNAL_FULL"));
        assert!(dev.fails("revoke --user dev/guest", 3).contains("JOURNAL_FULL"));
    }
    until("it is not ready", || get(&dev, "/readyz").contains(" 503 "));
    faults.set("quota", false);
    // Without a restart, and without a hand.
    dev.json("revoke --user dev/guest");
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    until("it is ready again", || get(&dev, "/readyz").contains(" 200 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t212_while_a_commit_hangs_verifiers_are_told_nothing_new_and_it_is_not_ready() {
    let faults = Faults::new();
    let dev = faults.start(tempfile::tempdir().unwrap());
    dev.token("demo", "demo.jwt");
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let operator = connect_unix(Path::new(&dev.text("socket"))).await.unwrap();
    let got = BundlesClient::new(operator.clone()).get_bundle(v1::GetBundleRequest {}).await.unwrap().into_inner();
    let key = FeedKey::from_point(&got.bundle.unwrap().feed_key).unwrap();
    let feed = follow(operator, key, TrustDomain::new("dev.mayfly.test").unwrap(), Freshness::Strict(Duration::from_secs(3)));
    let live = feed.live().clone();
    let fresh = || live.fresh(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    until("the feed is fresh", || fresh().is_ok());
    faults.set("hang", true);
    let mut revoking = Command::new(BIN)
        .args(["revoke", "--agent", agent["agent_id"].as_str().unwrap()])
        .current_dir(dev.dir.path())
        .env_remove("MAYFLY_HOME")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Heartbeats still arrive, and vouch for nothing.
    until("verifiers go stale", || fresh().is_err());
    until("it is not ready", || get(&dev, "/readyz?verbose").contains("[-] journal: a commit has not returned"));
    faults.set("hang", false);
    until("verifiers are fresh again", || fresh().is_ok());
    until("it is ready again", || get(&dev, "/readyz").contains(" 200 "));
    revoking.wait().unwrap();
}

#[test]
fn t215_a_log_that_nobody_reads_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(BIN)
        .args(["dev", "-o", "json"])
        .current_dir(dir.path())
        .env_remove("MAYFLY_HOME")
        .env("MAYFLY_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let run = |line: &str| {
        let out = support::run_in(dir.path(), line);
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    std::fs::write(dir.path().join("demo.jwt"), run("token demo")).unwrap();
    // Of each there are some lines; the pipe takes 64 KiB.
    for n in 0..12 {
        run(&format!("spawn --class researcher --user-token demo.jwt --out a{n}"));
    }
    // Whoever could have read it is gone.
    drop(child.stderr.take());
    run("spawn --class researcher --user-token demo.jwt --out b");
    run("revoke --user dev/guest");
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut stream = TcpStream::connect(told["http"].as_str().unwrap()).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let dropped = text.lines().find_map(|line| line.strip_prefix("mayfly_log_lines_dropped_total ")).unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 0, "{dropped}");
    child.kill().unwrap();
    child.wait().unwrap();
}
