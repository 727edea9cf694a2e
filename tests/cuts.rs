//! Every target of a revocation, with the real binary: the lines of the shell, and who may (T12, T13).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use support::{Dev, ORCHESTRATOR};

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out";

#[test]
fn t82_every_target_can_be_revoked_from_the_shell() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let mint = |dir: &str| dev.run(&format!("mint --as {dir} --audience https://search.example")).status.code();
    for (n, (flag, closed)) in
        [("--root orchestrator", "WORKLOAD_CLOSED"), ("--class researcher", "CLASS_CLOSED")].into_iter().enumerate()
    {
        dev.json(&format!("{SPAWN} a{n}"));
        let receipt = dev.json(&format!("revoke {flag} --reason drill"));
        assert_eq!((receipt["agents_at_most"].as_u64() >= Some(1), &receipt["open_for_new"]), (true, &false.into()), "{flag}");
        assert_eq!(mint(&format!("a{n}")), Some(3), "{flag}");
        assert!(dev.fails(&format!("{SPAWN} x"), 3).contains(closed));
        dev.json(&format!("reopen {flag}"));
        dev.json(&format!("{SPAWN} b{n}"));
        assert_eq!((mint(&format!("a{n}")), mint(&format!("b{n}"))), (Some(3), Some(0)), "{flag}");
        let receipt = dev.json(&format!("revoke {flag} --allow-new"));
        assert_eq!(receipt["open_for_new"], true);
    }
    let agent = dev.json(&format!("{SPAWN} c"));
    let line = format!("revoke --delegation {}", agent["delegation_id"].as_str().unwrap());
    assert_eq!(dev.json(&line)["revision"], dev.json(&line)["revision"], "once is enough");
    assert_eq!(mint("c"), Some(3));
    assert!(dev.fails(&format!("{SPAWN} x"), 3).contains("DELEGATION_REVOKED"));
    let key = mayfly_verify::sha256(b"a key");
    let line = format!("revoke --key {}", hex::encode(key));
    assert_eq!(dev.json(&line)["revision"], dev.json(&line)["revision"]);
    assert!(dev.fails("revoke --key abc", 1).contains("KEY_MALFORMED"));
    assert!(dev.fails("revoke --class nobody", 3).contains("CLASS_UNKNOWN"));
    dev.fails("revoke --class worker --user dev/demo", 2);
}

#[test]
fn t12_t13_who_may_revoke_what() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let ids: Vec<String> = ["a", "b"].map(|d| dev.json(&format!("{SPAWN} {d}"))["agent_id"].as_str().unwrap().to_owned()).into();
    let child = dev.json("spawn --as a --class worker --out w")["agent_id"].as_str().unwrap().to_owned();
    assert!(dev.fails(&format!("revoke --as b --agent {child}"), 3).contains("AGENT_UNKNOWN"));
    assert!(dev.fails("revoke --as a --class worker", 3).contains("ROLE_NOT_ALLOWED"));
    assert!(dev.fails(&format!("revoke --as {ORCHESTRATOR} --user dev/demo"), 3).contains("ROLE_NOT_ALLOWED"));
    dev.json(&format!("revoke --as a --agent {child}"));
    dev.json(&format!("revoke --as b --agent {}", ids[1]));
    dev.json(&format!("revoke --as {ORCHESTRATOR} --agent {}", ids[0]));
    for id in [&ids[0], &ids[1], &child] {
        assert_eq!(dev.json(&format!("agents show {id}"))["state"], "revoked");
    }
}
