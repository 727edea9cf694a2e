//! The commands of the README and of every page, with the real binary and exactly as they are written; then what each answers.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

#[path = "support/page.rs"]
mod page;

use page::Page;
use support::Dev;

#[test]
fn every_command_of_every_page_does_what_it_says() {
    let mut lines = 0;
    for file in page::files() {
        let page = Page::read(&file);
        lines += page.lines.len();
        page.run();
    }
    assert!(lines > 50, "commands are found: {lines}");
}

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --audience https://search.example --out";

#[test]
fn from_a_user_to_a_verified_ended_and_revoked_agent() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let agent = dev.json(&format!("{SPAWN} a1"));
    for field in [
        "agent_id",
        "parent_id",
        "root_id",
        "class",
        "delegation_id",
        "depth",
        "scopes",
        "lease_expires_at",
        "svid_expires_at",
        "revision",
    ] {
        assert!(!agent[field].is_null(), "{field}");
    }
    assert_eq!(agent["user"]["sub"], "demo");
    assert_eq!(agent["user"]["iss"], dev.endpoint["oidc"]);
    assert_eq!(agent["parent_id"], "spiffe://dev.mayfly.test/workload/orchestrator");

    let x509 = dev.json("verify a1/svid.pem");
    let jwt = dev.json("verify a1/svid.jwt --audience https://search.example");
    assert_eq!((x509["kind"].as_str(), jwt["kind"].as_str()), (Some("x509-svid"), Some("jwt-svid")));
    for (svid, name) in [(&x509, "x509"), (&jwt, "jwt")] {
        assert_eq!(svid["spiffe_id"], agent["agent_id"], "{name}");
        for field in ["agent_id", "parent_id", "root_id", "class", "delegation_id", "user", "depth", "scopes", "lease_expires_at"]
        {
            assert_eq!(svid["binding"][field], agent[field], "{name} {field}");
        }
    }
    // The standard's kind of "no": another audience, another bundle, a changed byte.
    assert!(dev.fails("verify a1/svid.jwt --audience https://mail.example", 4).contains("CREDENTIAL_AUDIENCE"));

    dev.json("mint --as a1 --audience https://mail.example --out mail.jwt");
    dev.json("verify mail.jwt --bundle a1/bundle.json --audience https://mail.example");
    assert!(dev.fails("mint --as a1 --audience https://evil.example", 3).contains("AUDIENCE_NOT_ALLOWED"));
    // T12, T21: an agent is no workload and no operator.
    assert!(dev.fails("spawn --as a1 --class worker --user-token demo.jwt --out a9", 3).contains("USER_TOKEN_OF_AGENT"));

    let tree = dev.json("agents tree");
    assert_eq!(tree["roots"][0]["agents"][0]["agent_id"], agent["agent_id"]);
    let id = agent["agent_id"].as_str().unwrap();
    assert_eq!(dev.json(&format!("agents show {id}"))["state"], "live");

    let first = dev.json("end --as a1");
    assert_eq!(first["agent_id"], agent["agent_id"]);
    assert!(dev.fails("mint --as a1 --audience https://mail.example", 3).contains("AGENT_ENDED"));
    assert_eq!(dev.json(&format!("end {id}"))["revision"], first["revision"], "an end is told again, not made again");

    dev.json(&format!("{SPAWN} a2"));
    let receipt = dev.json("revoke --user dev/demo");
    assert_eq!((receipt["agents_at_most"].as_u64(), receipt["open_for_new"].as_bool()), (Some(1), Some(false)));
    assert!(receipt["worst_case_seconds"].as_u64().unwrap() >= 900);
    assert!(dev.fails("mint --as a2 --audience https://mail.example", 3).contains("REVOKED"));
    assert!(dev.fails(&format!("{SPAWN} a3"), 3).contains("USER_CLOSED"));
    // Another user is untouched.
    dev.token("guest", "guest.jwt");
    dev.json("spawn --class worker --user-token guest.jwt --out g1");

    dev.json("reopen --user dev/demo");
    assert!(dev.fails(&format!("{SPAWN} a3"), 3).contains("DELEGATION_REVOKED"), "the old token recorded what was cut");
    dev.token("demo", "demo2.jwt");
    dev.json("spawn --class researcher --user-token demo2.jwt --out a4");
    assert!(dev.fails("mint --as a2 --audience https://mail.example", 3).contains("REVOKED"), "what was cut stays cut");
}

#[test]
fn a_second_start_is_refused_and_a_restart_continues() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let agent = dev.json(&format!("{SPAWN} a1"));
    assert!(dev.fails("dev", 1).contains("in use"), "T74");
    let before = dev.endpoint.clone();
    let dev = Dev::start_in(dev.kill());
    assert_eq!(dev.endpoint, before, "ports are chosen once");
    let id = agent["agent_id"].as_str().unwrap();
    assert_eq!(dev.json(&format!("agents show {id}"))["revision"], agent["revision"]);
    // The agent goes on with the identity it had.
    dev.json("mint --as a1 --audience https://mail.example");
    dev.json("revoke --agent dummy --reason x".replace("dummy", id).as_str());
    assert!(dev.fails("mint --as a1 --audience https://mail.example", 3).contains("REVOKED"));
    let dev = Dev::start_in(dev.kill());
    assert!(dev.fails("mint --as a1 --audience https://mail.example", 3).contains("REVOKED"), "T71: a revocation survives");
}

#[test]
fn t04_a_workload_joins_once_and_renews() {
    let dev = Dev::start();
    let made = dev.json("join orchestrator");
    std::fs::write(dev.path("ticket"), made["token"].as_str().unwrap()).unwrap();
    let got = dev.json("redeem --ticket-file ticket --out w1");
    assert_eq!(got["spiffe_id"], "spiffe://dev.mayfly.test/workload/orchestrator");
    assert!(dev.fails("redeem --ticket-file ticket --out w2", 3).contains("TICKET_REFUSED"));
    let serial = |dir: &str| dev.json(&format!("verify {dir}/svid.pem"))["serial"].clone();
    let before = serial("w1");
    dev.json("renew --as w1");
    assert_ne!(serial("w1"), before);
    dev.token("guest", "guest.jwt");
    dev.json("spawn --as w1 --class worker --user-token guest.jwt --out g1");
    assert!(dev.fails("join nobody", 3).contains("WORKLOAD_UNKNOWN"));
    assert!(dev.fails("redeem --ticket-file guest.jwt --out w3", 1).contains("not a ticket"));
}

#[test]
fn asking_for_more_is_denied_with_its_reason() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let more = "spawn --class worker --user-token demo.jwt --scope mail:send --scope search:read --out b1";
    assert!(dev.fails(more, 3).contains("EXCEEDS_AUTHORITY"));
    let clipped = dev.json(&format!("{more} --clip"));
    assert_eq!(clipped["scopes"], serde_json::json!(["search:read"]));
    assert_eq!(clipped["clipped"], serde_json::json!(["scope:mail:send"]));
    assert!(dev.fails("spawn --class nope --user-token demo.jwt --out b2", 3).contains("CLASS_UNKNOWN"));
    assert!(dev.fails("spawn --class researcher --autonomous --out b3", 3).contains("MODE_NOT_ALLOWED"));
    std::fs::write(dev.path("bad.jwt"), "a.b.c").unwrap();
    assert!(dev.fails("spawn --class researcher --user-token bad.jwt --out b4", 3).contains("USER_TOKEN_MALFORMED"));
    // The process is alive after all of it.
    assert_eq!(dev.json("agents list")["agents"].as_array().unwrap().len(), 1);
}

#[test]
fn a_backup_restored_begins_a_new_life() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.json(&format!("{SPAWN} a1"));
    dev.json("revoke --user dev/guest");
    let copy = dev.json("backup --out copy.db");
    assert!(copy["bytes"].as_u64().unwrap() > 0);
    assert!(dev.fails("backup --out copy.db", 1).contains("exists already"), "a copy is never written over");
    // Without a place for it, it stays below the home, for its user alone; one that was moved has left nothing there.
    let kept = dev.json("backup")["path"].as_str().unwrap().to_owned();
    let below = dev.path(".mayfly/backups").canonicalize().unwrap();
    assert_eq!(std::path::Path::new(&kept).parent(), Some(below.as_path()));
    let mode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777;
    assert_eq!((mode(&below), mode(kept.as_ref()), mode(&dev.path("copy.db"))), (0o700, 0o600, 0o600));
    assert_eq!(std::fs::read_dir(&below).unwrap().count(), 1);
    let later = dev.json(&format!("{SPAWN} a2"));
    // The writer tells the head once a second; let it.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let dir = dev.kill();

    // An older journal put in its place is refused.
    for name in ["journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(".mayfly").join(name));
    }
    let stash = dir.path().join("stash.db");
    std::fs::rename(dir.path().join(".mayfly/journal.db"), &stash).unwrap();
    std::fs::copy(dir.path().join("copy.db"), dir.path().join(".mayfly/journal.db")).unwrap();
    let refused = support::run_in(dir.path(), "dev");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("older copy"), "{refused:?}");

    let restored = support::run_in(dir.path(), "backup restore copy.db --yes -o json");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let restored: serde_json::Value = serde_json::from_slice(&restored.stdout).unwrap();
    assert!(restored["revision"].as_u64() > later["revision"].as_u64(), "revisions never go back");

    let dev = Dev::start_in(dir);
    assert!(dev.fails("mint --as a1 --audience https://mail.example", 3).contains("REVOKED"));
    assert!(dev.fails("mint --as a2 --audience https://mail.example", 3).contains("REVOKED"));
    dev.token("guest", "guest.jwt");
    assert!(dev.fails("spawn --class worker --user-token guest.jwt --out g1", 3).contains("USER_CLOSED"), "closed stays closed");
    dev.token("demo", "demo2.jwt");
    dev.json("spawn --class researcher --user-token demo2.jwt --out a3");
}

#[test]
fn t305_who_was_closed_after_the_copy_stays_closed_or_the_restore_says_that_it_cannot_know() {
    let dev = Dev::start();
    dev.json("backup --out copy.db");
    dev.json("revoke --user dev/guest");
    let restore = |dir: &std::path::Path, more: &str| {
        let out = support::run_in(dir, &format!("backup restore copy.db --yes -o json {more}"));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    let dir = dev.kill();
    let restored = restore(dir.path(), "");
    assert_eq!(restored["closed_since"], serde_json::json!([{ "kind": "user", "name": "dev/guest" }]), "{restored}");
    assert_eq!(restored["closed_since_unknown"], serde_json::Value::Null);
    let dev = Dev::start_in(dir);
    dev.token("guest", "guest.jwt");
    assert!(dev.fails("spawn --class worker --user-token guest.jwt --out g1", 3).contains("USER_CLOSED"));

    // Nobody can know it any more.
    let dir = dev.kill();
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(".mayfly").join(name));
    }
    let restored = restore(dir.path(), "--closed");
    assert!(restored["closed_since_unknown"].as_str().unwrap().contains("gone"), "{restored}");
    let dev = Dev::start_in(dir);
    dev.token("demo", "demo.jwt");
    assert!(dev.fails("spawn --class worker --user-token demo.jwt --out w1", 3).contains("CLASS_CLOSED"));
    dev.json("reopen --class worker");
    dev.json("spawn --class worker --user-token demo.jwt --out w1");
}

#[test]
fn t210_a_restore_asks_keeps_the_journal_from_before_and_makes_no_other_root() {
    let dev = Dev::start();
    dev.json("backup --out copy.db");
    dev.token("demo", "demo.jwt");
    dev.json(&format!("{SPAWN} a1"));
    let dir = dev.kill();
    let home = dir.path().join(".mayfly");
    let read = |name: &str| std::fs::read(home.join(name)).ok();
    let before = (read("journal.db").unwrap(), read("journal.db-wal"));
    let restore = |more: &str| support::run_in(dir.path(), &format!("backup restore {more} -o json"));
    let refused = |more: &str, code: i32, part: &str| {
        let out = restore(more);
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(code) && told.contains(part), "{more}: {told}");
        assert_eq!((read("journal.db").unwrap(), read("journal.db-wal")), before, "{more}: nothing was changed");
    };
    // Nobody can be asked here.
    refused("copy.db", 2, "--yes");
    refused("nothing.db --yes", 1, "nothing.db");
    std::fs::rename(home.join("keys"), home.join("away")).unwrap();
    refused("copy.db --yes", 1, "--new-root");
    assert!(!home.join("keys").exists(), "no key was made");
    std::fs::rename(home.join("away"), home.join("keys")).unwrap();
    let restored = restore("copy.db --yes");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    let restored: serde_json::Value = serde_json::from_slice(&restored.stdout).unwrap();
    let kept = restored["kept"].as_str().unwrap();
    assert_eq!((std::fs::read(kept).unwrap(), std::fs::read(format!("{kept}-wal")).ok()), before, "whole, beside the new one");
    assert_ne!(read("journal.db").unwrap(), before.0);
    let dev = Dev::start_in(dir);
    assert!(dev.fails("whoami --as a1", 3).contains("REVOKED"));
}
