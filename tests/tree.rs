//! The tree, with the real binary: children, batches, tickets, renewal.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use serde_json::Value;
use support::Dev;

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out";

fn dev() -> Dev {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev
}

/// Runs a command that prints one JSON object a line.
fn lines(dev: &Dev, line: &str) -> Vec<Value> {
    let out = dev.run(&format!("{line} -o json"));
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
}

#[test]
fn an_agent_spawns_children_for_its_own_user() {
    let dev = dev();
    let parent = dev.json(&format!("{SPAWN} a1"));
    let child = dev.json("spawn --as a1 --class worker --out w1");
    assert_eq!(child["parent_id"], parent["agent_id"]);
    assert_eq!((&child["root_id"], &child["user"]), (&parent["root_id"], &parent["user"]));
    assert_eq!((&child["delegation_id"], child["depth"].as_u64()), (&parent["delegation_id"], Some(2)));
    // What the child's own credential says, read by nobody but the verifier.
    let binding = dev.json("verify w1/svid.pem")["binding"].clone();
    assert_eq!((&binding["parent_id"], &binding["agent_id"]), (&parent["agent_id"], &child["agent_id"]));
    assert!(dev.fails("spawn --as a1 --class worker --user-token demo.jwt --out w2", 3).contains("USER_TOKEN_OF_AGENT"));
    assert!(dev.fails("spawn --as a1 --class worker --autonomous --out w2", 3).contains("MODE_NOT_ALLOWED"));
    assert!(dev.fails("spawn --as a1 --class worker --scope mail:send --out w2", 3).contains("EXCEEDS_AUTHORITY"));
    assert!(dev.fails("spawn --as w1 --class worker --out w2", 3).contains("SPAWNER_NOT_ALLOWED"));

    let tree = dev.json("agents tree");
    assert_eq!(tree["roots"][0]["agents"][0]["agents"][0]["agent_id"], child["agent_id"]);
    // T13: a parent may end its descendants, a sibling's agents are not there.
    dev.json(&format!("{SPAWN} a2"));
    let id = child["agent_id"].as_str().unwrap();
    assert!(dev.fails(&format!("end --as a2 {id}"), 3).contains("AGENT_UNKNOWN"));
    dev.json("mint --as w1 --audience https://search.example --out w.jwt");
    dev.json("end --as a1");
    assert!(dev.fails("mint --as w1 --audience https://search.example", 3).contains("AGENT_ORPHANED"));
    assert_eq!(dev.json(&format!("agents show {id}"))["state"], "orphaned");
}

#[test]
fn a_batch_is_one_commit_and_each_has_its_answer() {
    let dev = dev();
    let parent = dev.json(&format!("{SPAWN} a1"));
    let many = lines(&dev, "spawn --as a1 --class worker --count 100 --out many");
    assert_eq!(many.len(), 100);
    let mut revisions: Vec<u64> = many.iter().map(|a| a["revision"].as_u64().unwrap()).collect();
    revisions.sort_unstable();
    let (first, last) = (revisions[0], revisions[99]);
    assert_eq!(last - first, 99, "one after the other, nothing in between");
    assert!(many.iter().all(|a| a["parent_id"] == parent["agent_id"]));
    for n in ["0001", "0100"] {
        dev.json(&format!("verify many/{n}/svid.pem"));
        dev.json(&format!("mint --as many/{n} --audience https://search.example"));
    }
    let receipt = dev.json(&format!("revoke --agent {}", parent["agent_id"].as_str().unwrap()));
    assert_eq!(receipt["agents_at_most"], 101);
    assert!(dev.fails("mint --as many/0050 --audience https://search.example", 3).contains("REVOKED"));
}

#[test]
fn a_ticket_is_redeemed_with_a_key_that_never_leaves() {
    let dev = dev();
    dev.json("spawn --class researcher --user-token demo.jwt --ticket --out t1");
    let files: Vec<_> = std::fs::read_dir(dev.path("t1")).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["ticket"], "and nothing else");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dev.path("t1/ticket")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let agent = dev.json("redeem --ticket-file t1/ticket --out t1");
    assert_eq!((agent["class"].as_str(), agent["user"]["sub"].as_str()), (Some("researcher"), Some("demo")));
    assert!(dev.fails("redeem --ticket-file t1/ticket --out t2", 3).contains("TICKET_REFUSED"), "T04");
    dev.json("verify t1/svid.pem");
    dev.json("mint --as t1 --audience https://search.example");
    // A ticket ends with its parent.
    dev.json("spawn --as t1 --class worker --ticket --out t3");
    dev.json("end --as t1");
    assert!(dev.fails("redeem --ticket-file t3/ticket --out t3", 3).contains("TICKET_REFUSED"));
    let tickets = lines(&dev, "spawn --class researcher --user-token demo.jwt --ticket --count 3 --out many");
    assert_eq!(tickets.len(), 3);
    dev.json("redeem --ticket-file many/0002/ticket --out many/0002");
}

#[test]
fn t15_a_stolen_certificate_ends_the_agent() {
    let dev = dev();
    let agent = dev.json(&format!("{SPAWN} t1"));
    let copy = |to: &str| {
        std::fs::create_dir(dev.path(to)).unwrap();
        for file in ["svid.pem", "key.pem", "bundle.pem", "bundle.json"] {
            std::fs::copy(dev.path("t1").join(file), dev.path(to).join(file)).unwrap();
        }
    };
    copy("stolen");
    let renewed = dev.json("renew --as t1");
    assert_eq!((&renewed["agent_id"], &renewed["lease_expires_at"]), (&agent["agent_id"], &agent["lease_expires_at"]));
    assert_ne!(dev.json("verify t1/svid.pem")["serial"], dev.json("verify stolen/svid.pem")["serial"]);
    // Until the new one is used the old one counts; then it is a thief's.
    dev.json("mint --as stolen --audience https://search.example");
    dev.json("mint --as t1 --audience https://search.example");
    assert!(dev.fails("renew --as stolen", 3).contains("CREDENTIAL_REUSED"));
    assert!(dev.fails("mint --as t1 --audience https://search.example", 3).contains("REVOKED"));
    let id = agent["agent_id"].as_str().unwrap();
    assert_eq!(dev.json(&format!("agents show {id}"))["state"], "revoked");
    // It says so, and the process goes on.
    dev.json(&format!("{SPAWN} t2"));
    if dev.path("t2/svid.pem").metadata().is_err() {
        panic!("no identity");
    }
}

#[test]
fn a_delegation_that_was_recorded_is_a_proof_for_the_workload_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[workloads]]\nname = \"other\"\n[[classes]]\nname = \"helper\"\nowner = \"t\"\nscopes = [\"search:read\"]\n\
                audiences = [\"https://search.example\"]\nmodes = [\"delegated\"]\n\
                spawners = [\"workload/orchestrator\", \"workload/other\"]\n";
    std::fs::write(dir.path().join("more.toml"), more).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    std::fs::write(dev.path("ticket"), dev.run("join other").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out other");
    let first = dev.json("spawn --class helper --user-token demo.jwt --out a");
    let id = first["delegation_id"].as_str().unwrap().to_owned();
    let again = dev.json(&format!("spawn --class helper --delegation {id} --out b"));
    assert_eq!((&again["delegation_id"], &again["user"]), (&first["delegation_id"], &first["user"]));
    let run = dev.run(&format!("run --class helper --delegation {id} -- true"));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // T13: an id is no secret and proves nothing: another workload, a child, and one that nobody recorded.
    let refused = |line: &str, code| assert!(dev.fails(line, 3).contains(code), "{line}");
    refused(&format!("spawn --as other --class helper --delegation {id} --out x"), "DELEGATION_UNKNOWN");
    refused(&format!("spawn --class helper --delegation {} --out x", "0".repeat(64)), "DELEGATION_UNKNOWN");
    assert!(dev.fails(&format!("spawn --as a --class helper --delegation {id} --out x"), 3).contains("USER_TOKEN"));
    assert!(dev.fails("spawn --class helper --delegation abc --out x", 1).contains("DELEGATION_MALFORMED"));
    dev.fails(&format!("spawn --class helper --user-token demo.jwt --delegation {id} --out x"), 2);
    dev.json(&format!("revoke --delegation {id}"));
    refused(&format!("spawn --class helper --delegation {id} --out x"), "DELEGATION_REVOKED");
}
