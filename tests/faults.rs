//! The real journal under real faults: a disk that is full, a sync that fails, keys that others could read.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::Dev;
use support::faults::Faults;

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out";

fn ids(dev: &Dev) -> Vec<String> {
    let list = dev.json("agents list --all");
    list["agents"].as_array().unwrap().iter().map(|a| a["agent_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn t72_a_failed_sync_stops_the_process_and_loses_nothing() {
    let faults = Faults::new();
    let mut dev = faults.start(tempfile::tempdir().unwrap());
    dev.token("demo", "demo.jwt");
    let mut answered = HashSet::new();
    for n in 0..5 {
        answered.insert(dev.json(&format!("{SPAWN} a{n}"))["agent_id"].as_str().unwrap().to_owned());
    }
    faults.set("sync", true);
    let out = dev.run(&format!("{SPAWN} lost"));
    assert!(!out.status.success() && !dev.path("lost/svid.pem").exists(), "nothing was answered");
    assert_eq!(dev.wait(), Some(74), "EX_IOERR: what is on the disk is unknown");
    faults.set("sync", false);

    let dev = faults.start(dev.kill());
    let listed = ids(&dev);
    assert_eq!(listed.iter().collect::<HashSet<_>>().len(), listed.len(), "no id twice");
    assert!(answered.iter().all(|id| listed.contains(id)));
    // The one that was not answered is whole or absent.
    assert!(listed.len() <= 6, "{listed:?}");
    dev.json("mint --as a4 --audience https://search.example");
    dev.json(&format!("{SPAWN} a9"));
}

#[test]
fn t73_a_full_disk_is_told_and_recovered_from() {
    let faults = Faults::new();
    let dev = faults.start(tempfile::tempdir().unwrap());
    dev.token("demo", "demo.jwt");
    dev.json(&format!("{SPAWN} a1"));
    for round in 0..3 {
        faults.set("full", true);
        for _ in 0..3 {
            assert!(dev.fails(&format!("{SPAWN} full"), 3).contains("JOURNAL_FULL"));
        }
        assert!(dev.fails("revoke --user dev/guest", 3).contains("JOURNAL_FULL"), "no receipt for what is not recorded");
        assert_eq!(ids(&dev).len(), 1 + round, "reads go on, and nothing of what was refused is there");
        faults.set("full", false);
        dev.json(&format!("{SPAWN} b{round}"));
    }
    let before = ids(&dev);
    let dev = faults.start(dev.kill());
    assert_eq!(ids(&dev), before, "the log is intact");
}

#[test]
fn t27_keys_that_others_could_touch_are_refused() {
    let dev = Dev::start();
    let keys = dev.path(".mayfly/keys");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&keys), 0o700);
    for file in std::fs::read_dir(&keys).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let dir = dev.kill();
    let keys = dir.path().join(".mayfly/keys");
    let mut files = std::fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path());
    let key = files.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("jwt-")).unwrap();
    let set = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let refused = |what: &str| {
        let out = support::run_in(dir.path(), "dev");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(1) && text.contains(what), "{what}: {text}");
    };
    set(&keys, 0o777);
    refused("keys");
    set(&keys, 0o700);
    set(&key, 0o644);
    refused("jwt-");
    set(&key, 0o600);
    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    refused("jwt-");
    std::fs::remove_file(&key).unwrap();
    std::fs::rename(&elsewhere, &key).unwrap();
    drop(Dev::start_in(dir));
}

#[test]
fn t238_a_home_that_others_could_write_to_is_narrowed_and_nobody_else_reads_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (home, mode) = (dir.path().join(".mayfly"), |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777);
    let set = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::create_dir(&home).unwrap();
    set(&home, 0o777);
    let mut dir = Dev::start_in(dir).kill();
    for wide in [false, true] {
        if wide {
            set(&home, 0o775);
            set(&home.join("journal.db"), 0o644);
            set(&home.join("journal.db-wal"), 0o666);
            dir = Dev::start_in(dir).kill();
        }
        assert_eq!(mode(&home), 0o755, "others may look for the socket of operators, and no more");
        for file in ["journal.db", "journal.db-wal", "lock", "endpoint.json", "heartbeat.json"] {
            assert_eq!(mode(&home.join(file)), 0o600, "{file}, {wide}");
        }
    }
}
