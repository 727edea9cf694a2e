//! What ends a workload ends the operator that it is: each role against everything that may befall it, by every method, on the
//! connection from before and on a new one (T89).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "support/raw.rs"]
mod raw;
mod support;

use std::time::Duration;

use mayfly::caller::Role;
use mayfly::judge::access;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::history_client::HistoryClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::channel::with_user_token;
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

const PEOPLE: &str = "[auditor]\nworkloads = [\"clerk\"]\n[[workloads]]\nname = \"clerk\"\n[[operators]]\nissuer = \"dev\"\naudience = \"ops\"\n\
                      claims = { sub = \"demo\" }\n[[operators]]\nissuer = \"dev\"\naudience = \"ops\"\nrole = \"auditor\"\nclaims = { sub = \"guest\" }\n";

/// A token of a development user for an audience.
fn token(dev: &Dev, user: &str, audience: &str) -> String {
    String::from_utf8(dev.run(&format!("token {user} --audience {audience}")).stdout).unwrap().trim().to_owned()
}

/// The code and the reason of the answer to an empty message with a person's token.
async fn call_with(channel: &Channel, method: &str, token: &str) -> (Code, String) {
    match raw::call_with(channel, method, token).await {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t240_auditors_read_everything_and_change_nothing_and_people_are_what_their_claims_make_them() {
    let dev = start(tempfile::tempdir().unwrap(), PEOPLE);
    join(&dev, "clerk");
    dev.token("demo", "demo.jwt");
    let agent = dev.json("spawn --class worker --user-token demo.jwt --out a")["agent_id"].as_str().unwrap().to_owned();
    let stranger = channel(&dev, None).await;
    let (operator, auditor, user) =
        (token(&dev, "demo", "ops"), token(&dev, "guest", "ops"), token(&dev, "guest", "mayfly-dev-user"));
    // Every method, by each who reads: an auditor by token, one by certificate, and an operator by token.
    let clerk = channel(&dev, Some("clerk")).await;
    let local = ["Operations/Backup", "Operations/Reload", "Operations/CompareConfiguration"];
    for (method, roles) in support::table() {
        let (code, reason) = call_with(&stranger, method, &auditor).await;
        assert_eq!(reason == "ROLE_NOT_ALLOWED", !roles.contains(&Role::Auditor), "{method} as auditor: {code:?} {reason}");
        let (code, reason) = call_with(&stranger, method, &operator).await;
        let may = roles.contains(&Role::Operator) && !local.contains(&method);
        assert_eq!(reason == "ROLE_NOT_ALLOWED", !may, "{method} as operator: {code:?} {reason}");
        let (code, reason) = call(&clerk, method).await;
        let may = roles.contains(&Role::Auditor) || roles.contains(&Role::Workload);
        assert_eq!(reason == "ROLE_NOT_ALLOWED", !may, "{method} as a workload that audits: {code:?} {reason}");
        // T241, T242: one caller for one request, and one use for one audience.
        assert_eq!(call_with(&clerk, method, &operator).await.1, "TWO_CALLERS", "{method}");
        assert_eq!(call_with(&stranger, method, &user).await.1, "USER_TOKEN_AUDIENCE", "{method}");
    }
    assert_eq!(
        access::TABLE.iter().filter(|(_, roles)| roles.contains(&Role::Auditor)).count(),
        16,
        "what auditors may is listed"
    );
    // What an auditor sees is somebody else's, and is whole.
    let mut history = HistoryClient::new(with_user_token(stranger.clone(), &auditor).unwrap());
    let all = history.list_entries(v1::ListEntriesRequest::default()).await.unwrap().into_inner().entries;
    let spawned = all.iter().find(|entry| entry.kind == "admission").unwrap();
    assert!(spawned.agent_id == agent && !spawned.peer.is_empty() && spawned.user.as_ref().unwrap().sub == "demo", "{spawned:?}");
    let mut inspection = InspectionClient::new(with_user_token(stranger.clone(), &auditor).unwrap());
    assert_eq!(inspection.list_agents(v1::ListAgentsRequest::default()).await.unwrap().into_inner().agents.len(), 1);
    // What an operator does is theirs by name, in the record and in the history, and no look goes unseen.
    let mut operations = OperationsClient::new(with_user_token(stranger.clone(), &operator).unwrap());
    let target = v1::Target { target: Some(v1::target::Target::Class("worker".into())) };
    operations.revoke(v1::RevokeRequest { target: Some(target), reason: "INC-9".into(), ..Default::default() }).await.unwrap();
    let entries = dev.json("history --since 1h");
    let by = |kind: &str, caller: &str| {
        entries["entries"].as_array().unwrap().iter().any(|entry| entry["kind"] == kind && entry["caller"] == caller)
    };
    assert!(by("revocation", "user:dev/demo") && by("look", "user:dev/guest") && by("denial", "user:dev/guest"), "{entries:#}");
    assert_eq!(dev.json("cuts list")["cuts"][0]["by"], "user:dev/demo");
    // Nobody is made anything by a token of somebody else's claims, one that is no token, or two.
    dev.json("reopen --class worker");
    assert_eq!(call_with(&stranger, "Revocations/ListCuts", "x.y.z").await.1, "USER_TOKEN_MALFORMED");
    assert_eq!(
        raw::call_with_two(&stranger, "Revocations/ListCuts", &operator, &auditor).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t240_what_ends_a_user_their_provider_or_their_assignment_ends_the_operator_by_every_method() {
    let dev = start(tempfile::tempdir().unwrap(), PEOPLE);
    let stranger = channel(&dev, None).await;
    for (fault, ends, opens, expected) in [
        ("the user", "revoke --user dev/demo", Some("reopen --user dev/demo"), "USER_CLOSED"),
        ("the provider", "revoke --issuer dev", Some("reopen --issuer dev"), "USER_ISSUER_CLOSED"),
        ("everything before", "revoke --before now", None, "USER_TOKEN_TOO_EARLY"),
    ] {
        let operator = token(&dev, "demo", "ops");
        assert_eq!(call_with(&stranger, "Revocations/ListCuts", &operator).await.0, Code::Ok, "{fault}: before");
        // Who follows the feed hears no more of it.
        let mut feed = RevocationsClient::new(with_user_token(stranger.clone(), &operator).unwrap());
        let mut feed = feed.watch_cuts(v1::WatchCutsRequest::default()).await.unwrap().into_inner();
        dev.json(ends);
        for (method, _) in support::table() {
            assert_eq!(call_with(&stranger, method, &operator).await.1, expected, "{fault}: {method}");
        }
        let end = async {
            loop {
                if let Err(status) = feed.message().await.map(|message| message.unwrap()) {
                    return status.code();
                }
            }
        };
        let end = tokio::time::timeout(Duration::from_secs(20), end).await.unwrap();
        assert_eq!(end, Code::Unauthenticated, "{fault}");
        if let Some(opens) = opens {
            dev.json(opens);
            assert_eq!(
                call_with(&stranger, "Revocations/ListCuts", &operator).await.1,
                "USER_TOKEN_TOO_EARLY",
                "{fault}: reopened"
            );
        }
        std::thread::sleep(Duration::from_millis(1100));
    }
    let operator = token(&dev, "demo", "ops");
    let auditor = token(&dev, "guest", "ops");
    assert_eq!(call_with(&stranger, "Revocations/ListCuts", &operator).await.0, Code::Ok);
    // Another claim, by a reload: the same token makes nobody of them, and an operator becomes an auditor.
    std::fs::write(dev.path("more.toml"), PEOPLE.replace("\"demo\"", "\"nobody\"")).unwrap();
    dev.json("reload");
    for (method, _) in support::table() {
        assert_eq!(call_with(&stranger, method, &operator).await.1, "OPERATOR_UNMATCHED", "{method}");
    }
    assert_eq!(call_with(&stranger, "Revocations/ListCuts", &auditor).await.0, Code::Ok);
    // No assignment at all: the audience is nobody's.
    std::fs::write(dev.path("more.toml"), "").unwrap();
    dev.json("reload");
    for token in [&operator, &auditor] {
        assert_eq!(call_with(&stranger, "Revocations/ListCuts", token).await.1, "USER_TOKEN_AUDIENCE");
    }
}

#[test]
fn t240_a_uid_that_audits_reads_over_the_socket_and_changes_nothing() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let uid = dir.path().metadata().unwrap().uid();
    let dev = start(dir, &format!("[operator]\nuids = [{}]\n[auditor]\nuids = [{uid}]\n", uid + 1));
    dev.json("agents list");
    dev.json("history");
    for line in ["revoke --class worker", "reopen --class worker", "join orchestrator", "authority rotate x509", "reload"] {
        assert!(dev.fails(line, 3).contains("ROLE_NOT_ALLOWED"), "{line}");
    }
    let looks = dev.json("history --kind look");
    assert_eq!(looks["entries"][0]["caller"], format!("uid:{uid}"));
}
