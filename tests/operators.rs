//! What ends a workload ends the operator that it is: each role against everything that may befall it, by every method, on the
//! connection from before and on a new one (T89).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "support/raw.rs"]
mod raw;
mod support;

use mayfly::caller::Role;
use mayfly::judge::access;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use support::{Dev, channel};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

const OPERATORS: &str = "[operator]\nworkloads = [\"desk\", \"rival\"]\n";
const WORKLOADS: &str = "[[workloads]]\nname = \"desk\"\n[[workloads]]\nname = \"rival\"\n[[workloads]]\nname = \"other\"\n";

/// The code and the reason of the answer to an empty message.
async fn call(channel: &Channel, method: &str) -> (Code, String) {
    match raw::call(channel, method, Vec::new()).await {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default()),
    }
}

fn join(dev: &Dev, name: &str) {
    std::fs::write(dev.path("ticket"), dev.run(&format!("join {name}")).stdout).unwrap();
    dev.json(&format!("redeem --ticket-file ticket --out {name} --force"));
}

fn start(dir: tempfile::TempDir, config: &str) -> Dev {
    std::fs::write(dir.path().join("more.toml"), config).unwrap();
    Dev::start_args(dir, &["--config", "more.toml"], &[])
}

fn key_of(dev: &Dev, dir: &str) -> String {
    let chain = mayfly::folder::certificates(&dev.path(&format!("{dir}/svid.pem"))).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    hex::encode(mayfly_verify::sha256(leaf.public_key().raw))
}

/// Nothing at all is served to somebody who is nobody any more. A connection from before may have been ended already.
async fn is_nobody(dev: &Dev, name: &str, before: Option<&Channel>, what: &str) {
    let fresh = channel(dev, Some(name)).await;
    for (method, _) in support::table() {
        let (code, reason) = call(&fresh, method).await;
        let refused = code == Code::Unauthenticated || reason == "WORKLOAD_CLOSED";
        assert!(refused, "{what}: {method} as {name} on a new connection: {code:?} {reason}");
        if let Some(before) = before {
            let (code, reason) = call(before, method).await;
            let refused = matches!(code, Code::Unauthenticated | Code::Unavailable) || reason == "WORKLOAD_CLOSED";
            assert!(refused, "{what}: {method} as {name} on the connection from before: {code:?} {reason}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t89_what_ends_a_workload_ends_the_operator_by_every_method() {
    let mut dev = start(tempfile::tempdir().unwrap(), &format!("{OPERATORS}{WORKLOADS}"));
    for fault in ["its own revocation", "its key", "the authority that signed"] {
        for name in ["desk", "other"] {
            join(&dev, name);
            let before = channel(&dev, Some(name)).await;
            let serves = if name == "desk" { Code::Ok } else { Code::PermissionDenied };
            assert_eq!(call(&before, "Revocations/ListCuts").await.0, serves, "{fault}: {name} before");
            match fault {
                "its own revocation" => drop(dev.json(&format!("revoke --root {name}"))),
                "its key" => drop(dev.json(&format!("revoke --key {}", key_of(&dev, name)))),
                _ => {
                    let all = dev.json("authority list");
                    let active = |a: &&serde_json::Value| a["kind"] == "x509" && a["status"] == "active";
                    let id = all["authorities"].as_array().unwrap().iter().find(active).unwrap()["id"].clone();
                    dev.json("authority rotate x509 --now");
                    dev.json(&format!("revoke --authority {}", id.as_str().unwrap()));
                }
            }
            is_nobody(&dev, name, Some(&before), fault).await;
            // A verifier hears of it too.
            assert!(dev.run(&format!("verify {name}/svid.pem --live")).status.code() == Some(6), "{fault}: {name} at a verifier");
            if fault == "its own revocation" {
                dev.json(&format!("reopen --root {name}"));
                is_nobody(&dev, name, None, "reopened: the stolen identity").await;
            }
        }
    }

    // A revoked operator's join token, made before, lets nobody in; another operator goes on.
    join(&dev, "rival");
    join(&dev, "desk");
    std::fs::write(dev.path("late"), dev.run("join desk").stdout).unwrap();
    // It makes tokens for others too, to come back by; those of another operator stay.
    for (by, file) in [("desk", "other-late"), ("rival", "other-fine")] {
        let request = v1::CreateJoinTokenRequest { workload: "other".into(), ttl_seconds: 60 };
        let got = OperationsClient::new(channel(&dev, Some(by)).await).create_join_token(request).await.unwrap().into_inner();
        std::fs::write(dev.path(file), got.token).unwrap();
    }
    dev.json("revoke --as rival --root desk");
    dev.fails("redeem --ticket-file other-late --out late", 3);
    dev.json("redeem --ticket-file other-fine --out other --force");
    dev.fails("redeem --ticket-file late --out late", 3);
    dev.json("reopen --as rival --root desk");
    dev.fails("redeem --ticket-file late --out late", 3);
    join(&dev, "desk");
    dev.json("cuts list --as desk");

    // Taken off the list of operators: a workload as any other.
    dev = start(dev.kill(), &format!("[operator]\nworkloads = []\n{WORKLOADS}"));
    let desk = channel(&dev, Some("desk")).await;
    for (method, roles) in support::table() {
        let (code, reason) = call(&desk, method).await;
        let denied = code == Code::PermissionDenied && reason == "ROLE_NOT_ALLOWED";
        assert_eq!(denied, !roles.contains(&Role::Workload), "no longer an operator: {method}: {code:?} {reason}");
    }
    assert!(access::roles(access::Action::Reopen).contains(&Role::Operator));
    // Taken off the list of workloads: nobody.
    dev = start(dev.kill(), "");
    is_nobody(&dev, "rival", None, "no longer configured").await;

    // Of another life of the journal.
    dev = start(dev.kill(), &format!("{OPERATORS}{WORKLOADS}"));
    dev.json("cuts list --as desk");
    let copy = dev.path("copy.db");
    dev.json(&format!("backup --out {}", copy.display()));
    let dir = dev.kill();
    let restored = support::run_in(dir.path(), &format!("backup restore {} --yes", copy.display()));
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    dev = start(dir, &format!("{OPERATORS}{WORKLOADS}"));
    is_nobody(&dev, "desk", None, "restored").await;
    assert_eq!(dev.run("verify desk/svid.pem --live").status.code(), Some(6), "a verifier refuses it too");
}

#[test]
fn t106_a_revoking_token_from_before_the_users_revocation_revokes_nothing_once_they_are_open_again() {
    let dev = Dev::start();
    std::fs::write(dev.path("own.jwt"), dev.run("token demo --audience mayfly-dev-revoke").stdout).unwrap();
    let revoke = "revoke --user-token own.jwt --user dev/demo";
    let first = dev.json(revoke)["revision"].clone();
    assert_eq!(dev.json(revoke)["revision"], first, "while the user is closed, a repeated request gets the same answer");
    dev.json("reopen --user dev/demo");
    assert!(dev.fails(revoke, 3).contains("USER_TOKEN_TOO_EARLY"));
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class worker --user-token demo.jwt --out a");
    std::fs::write(dev.path("own.jwt"), dev.run("token demo --audience mayfly-dev-revoke").stdout).unwrap();
    dev.json(revoke);
}
