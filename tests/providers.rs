//! An issuer of users that can no longer be trusted is revoked in one step, with everything that its users ever allowed.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::Dev;

/// A token counts if it is from a later second than the revocation or the reopening before it.
fn a_second_later() {
    std::thread::sleep(Duration::from_millis(1100));
}

fn sign_in(dev: &Dev, file: &str) {
    let out = dev.run("token demo --audience mayfly-dev-user");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::write(dev.path(file), out.stdout).unwrap();
}

fn issuers(dev: &Dev) -> Vec<Value> {
    let cuts = dev.json("cuts list");
    cuts["cuts"].as_array().unwrap().iter().filter(|cut| cut["target"] == "issuer").cloned().collect()
}

#[test]
fn t225_an_issuer_of_users_is_revoked_and_reopened_with_all_of_its_users() {
    let (mut dev, mut ids) = (Dev::start(), Vec::new());
    for user in ["demo", "guest"] {
        dev.token(user, &format!("{user}.jwt"));
        let agent = dev.json(&format!("spawn --class researcher --user-token {user}.jwt --out {user}"));
        ids.push(agent["agent_id"].as_str().unwrap().to_owned());
    }
    sign_in(&dev, "own.jwt");
    assert_eq!(dev.json("my agents --user-token own.jwt")["agents"].as_array().unwrap().len(), 1);

    // A name that nobody configured is a typing error, and so is a URL: nothing is revoked.
    for name in ["corp", "https://idp.example"] {
        assert!(dev.fails(&format!("revoke --issuer {name}"), 3).contains("USER_ISSUER_UNKNOWN"), "{name}");
        assert!(dev.fails(&format!("reopen --issuer {name}"), 3).contains("USER_ISSUER_"), "{name}");
    }
    assert!(dev.fails("reopen --issuer dev", 3).contains("USER_ISSUER_NOT_CLOSED"));
    // Nobody but an operator does it.
    assert!(dev.fails("revoke --issuer dev --as demo", 3).contains("ROLE_NOT_ALLOWED"));
    assert!(dev.fails("revoke --issuer dev --as orchestrator", 3).contains("ROLE_NOT_ALLOWED"));
    assert!(dev.fails("revoke --issuer dev --user-token own.jwt", 3).contains("ROLE_NOT_ALLOWED"));
    assert_eq!(issuers(&dev), Vec::<Value>::new());

    // Before: who would end. Then all of them do, at the issuer and at verifiers.
    let dry = dev.json("revoke --issuer dev --dry-run");
    assert_eq!((&dry["agents"], dry["by_user"].as_array().unwrap().len()), (&2.into(), 2), "{dry}");
    let receipt = dev.json("revoke --issuer dev --reason INC-9");
    assert_eq!((&receipt["agents"], &receipt["open_for_new"]), (&2.into(), &false.into()), "{receipt}");
    for user in ["demo", "guest"] {
        assert_eq!(dev.run(&format!("verify {user}/svid.pem --live")).status.code(), Some(6), "{user}");
        assert!(dev.fails(&format!("whoami --as {user}"), 3).contains("AGENT_REVOKED"), "{user}");
    }
    let cut = &issuers(&dev)[0];
    assert_eq!((&cut["name"], &cut["reason"], &cut["closed"]), (&dev.text("oidc").into(), &"INC-9".into(), &true.into()));
    let explained = dev.json(&format!("explain {}", ids[0]));
    assert!(explained["checks"].to_string().contains("the issuer of users"), "{explained}");

    // What it signs from now on proves nobody, to nobody.
    a_second_later();
    dev.token("demo", "fresh.jwt");
    sign_in(&dev, "fresh.own");
    for token in ["demo.jwt", "fresh.jwt"] {
        assert!(dev.fails(&format!("spawn --class researcher --user-token {token} --out x"), 3).contains("USER_ISSUER_CLOSED"));
    }
    for line in ["my agents", "my stop --all", "my reopen"] {
        assert!(dev.fails(&format!("{line} --user-token fresh.own"), 3).contains("USER_ISSUER_CLOSED"), "{line}");
    }
    let dry = dev.run("explain -o json -- spawn --class researcher --user-token fresh.jwt").stdout;
    let dry: Value = serde_json::from_slice(&dry).unwrap();
    assert_eq!((&dry["outcome"], &dry["reason"]), (&"denied".into(), &"USER_ISSUER_CLOSED".into()));
    assert!(dry["flip"].to_string().contains("reopen"), "{dry}");
    assert_eq!(dev.json("revoke --issuer dev")["revision"], receipt["revision"], "it is closed already");

    // The same after the journal was replayed; one user alone cannot be opened in it.
    dev = Dev::start_in(dev.kill());
    dev.token("demo", "later.jwt");
    assert!(dev.fails("spawn --class researcher --user-token later.jwt --out x", 3).contains("USER_ISSUER_CLOSED"));
    assert_eq!(dev.run("verify demo/svid.pem --live").status.code(), Some(6));

    // Reopened: only what is signed from now on counts, and what was revoked stays so.
    dev.json("reopen --issuer dev");
    for token in ["demo.jwt", "later.jwt"] {
        let said = dev.fails(&format!("spawn --class researcher --user-token {token} --out x"), 3);
        assert!(said.contains("DELEGATION_REVOKED") || said.contains("USER_TOKEN_TOO_EARLY"), "{token}: {said}");
    }
    dev.token("demo", "anew.jwt");
    dev.json("spawn --class researcher --user-token anew.jwt --out anew");
    assert_eq!(dev.run("verify anew/svid.pem --live").status.code(), Some(0));
    assert_eq!(dev.run("verify demo/svid.pem --live").status.code(), Some(6));

    // With --allow-new everything so far is dead, and the next token counts at once.
    assert_eq!(dev.json("revoke --issuer dev --allow-new")["open_for_new"], true);
    assert_eq!(dev.run("verify anew/svid.pem --live").status.code(), Some(6));
    a_second_later();
    dev.token("demo", "anew.jwt");
    dev.json("spawn --class researcher --user-token anew.jwt --out last");
    assert_eq!(dev.run("verify last/svid.pem --live").status.code(), Some(0));
}
