//! `mayfly extend` and the SDK: an agent lives on by a fresh token of its user.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use mayfly_agent::identity::Identity;
use support::Dev;

#[test]
fn t163_a_folder_lives_on_by_a_fresh_token_and_verifiers_and_a_restarted_issuer_know() {
    let dev = Dev::start();
    for user in ["demo", "guest"] {
        dev.token(user, &format!("{user}.jwt"));
    }
    let first = dev.json("spawn --class researcher --user-token demo.jwt --lease 120 --out a1");
    let fresh = dev.run("token demo").stdout;
    std::fs::write(dev.path("fresh.jwt"), fresh).unwrap();
    assert!(dev.fails("extend --as a1 --user-token guest.jwt", 3).contains("USER_DIFFERS"));
    std::fs::write(dev.path("me.jwt"), dev.run("token demo --audience mayfly-dev-user").stdout).unwrap();
    assert!(dev.fails("extend --as a1 --user-token me.jwt", 3).contains("USER_TOKEN_AUDIENCE"));
    let extended = dev.json("extend --as a1 --user-token fresh.jwt");
    assert!(extended["lease_expires_at"].as_str() > first["lease_expires_at"].as_str(), "{extended}");
    // The certificate lasts longer than the first lease, a verifier follows, and the history says so once.
    let shown = dev.json("verify a1/svid.pem --live");
    assert!(shown["expires_at"].as_str() > first["lease_expires_at"].as_str(), "{shown}");
    assert_eq!(shown["binding"]["lease_expires_at"], extended["lease_expires_at"]);
    dev.json("extend --as a1 --user-token fresh.jwt");
    let entries = dev.json("history --kind extension");
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1, "{entries}");
    assert_eq!((&entries["entries"][0]["agent_id"], &entries["entries"][0]["user"]["sub"]), (&first["agent_id"], &"demo".into()));
    let dev = Dev::start_in(dev.kill());
    let id = first["agent_id"].as_str().unwrap();
    assert_eq!(dev.json(&format!("agents show {id}"))["lease_expires_at"], extended["lease_expires_at"]);
    // What its first token allowed still ends it.
    dev.json(&format!("revoke --delegation {}", first["delegation_id"].as_str().unwrap()));
    assert_eq!(dev.run("verify a1/svid.pem --live").status.code(), Some(6));
    assert!(dev.fails("extend --as a1 --user-token fresh.jwt", 3).contains("AGENT_REVOKED"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t164_the_sdk_goes_on_renewing_after_the_end_that_it_knew() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    // Its first certificate lasts as long as its lease, so without the extension it would never be renewed.
    dev.json("spawn --class researcher --user-token demo.jwt --lease 120 --out a1");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let me = Identity::keep(&dev.path("a1"), None, Duration::from_secs(10)).await.unwrap();
    let (first, mut changed) = (me.current().expires_at(), me.changed());
    assert!(me.extend("not.a.token", None).await.is_err());
    assert!(me.over().borrow().is_none(), "a refused extension ends nothing");
    let agent = me.extend(&dev.file("demo.jwt"), Some(Duration::from_secs(3600))).await.unwrap();
    let renewed = async {
        loop {
            if me.current().expires_at() > first {
                return;
            }
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.unwrap();
    let known = me.current().agent().unwrap().lease_expires_at;
    assert_eq!(known, agent.lease_expires_at);
    // The folder has it too.
    assert_eq!(dev.run("verify a1/svid.pem --live").status.code(), Some(0));
}
