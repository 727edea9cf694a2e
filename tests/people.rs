//! People: users see and stop what acts for them, with a token of their own, and never what acts for anybody else.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use mayfly::caller::Role;
use mayfly::judge::access::{Action, roles};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::history_client::HistoryClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use serde_json::Value;
use support::{Dev, channel};
use tonic::Code;
use tonic_types::StatusExt;

/// Writes a token of a development user for an audience into a file.
fn sign_in(dev: &Dev, user: &str, audience: &str, file: &str) {
    let out = dev.run(&format!("token {user} --audience {audience}"));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    std::fs::write(dev.path(file), out.stdout).unwrap();
}

/// Tokens tell whole seconds: one that is issued after this is from after what happened before.
fn a_second_later() {
    std::thread::sleep(Duration::from_millis(1100));
}

/// Two users with an agent each, the first with a child; and a token of each of them.
fn dev() -> (Dev, String, String) {
    let dev = Dev::start();
    for user in ["demo", "guest"] {
        dev.token(user, &format!("{user}.jwt"));
        sign_in(&dev, user, "mayfly-dev-user", &format!("{user}.own"));
    }
    let id = |object: Value| object["agent_id"].as_str().unwrap().to_owned();
    let mine = id(dev.json("spawn --class researcher --user-token demo.jwt --out a"));
    dev.json("spawn --as a --class worker --out w");
    let other = id(dev.json("spawn --class researcher --user-token guest.jwt --out g"));
    (dev, mine, other)
}

fn count(object: &Value, list: &str) -> usize {
    object[list].as_array().unwrap().len()
}

#[test]
fn t160_users_see_and_stop_their_own_agents_and_nobody_elses() {
    let (dev, mine, other) = dev();
    let me = "--user-token demo.own";
    let agents = dev.json(&format!("my agents {me}"));
    assert_eq!(count(&agents, "agents"), 2, "the child of an agent acts for its user too");
    assert!(agents["agents"].as_array().unwrap().iter().all(|agent| agent["user"]["sub"] == "demo"));
    let delegations = dev.json(&format!("my delegations {me}"));
    assert_eq!(count(&delegations, "delegations"), 1);
    assert_eq!(delegations["delegations"][0]["user"]["sub"], "demo");
    let history = dev.json(&format!("my history {me} --since 1h"));
    let entries = history["entries"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["user"]["sub"] == "demo" && entry["peer"].is_null()), "{history}");
    let kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"delegation") && kinds.iter().filter(|kind| **kind == "admission").count() == 2, "{kinds:?}");
    // What a workload asked for in somebody else's name looks as if it did not exist, by id, by its beginning and by decision.
    let uuid = other.rsplit('/').next().unwrap();
    assert!(dev.fails(&format!("my stop {other} {me}"), 3).contains("AGENT_UNKNOWN"));
    assert!(dev.fails(&format!("my stop {} {me}", &uuid[..30]), 1).contains("none that you may see"));
    // Nothing is stopped if one of several is not theirs.
    dev.fails(&format!("my stop {mine} {other} {me}"), 3);
    assert_eq!(count(&dev.json(&format!("my agents {me}")), "agents"), 2);
    let foreign =
        dev.json("my delegations --user-token guest.own")["delegations"][0]["delegation_id"].as_str().unwrap().to_owned();
    assert!(dev.fails(&format!("my stop --delegation {foreign} {me}"), 3).contains("DELEGATION_UNKNOWN"));
    // One, by the beginning of its id, takes along what is below it; users see who stopped it and why when they did it themselves.
    let begin = &mine.rsplit('/').next().unwrap()[..30];
    let stopped = dev.json(&format!("my stop {begin} {me} --reason lost"));
    assert_eq!((count(&stopped, "stopped"), &stopped["stopped"][0]["agent_id"]), (1, &mine.as_str().into()));
    assert_eq!(dev.run("verify w/svid.pem --live").status.code(), Some(6));
    assert_eq!(count(&dev.json(&format!("my agents {me}")), "agents"), 0);
    assert_eq!(count(&dev.json(&format!("my agents --all {me}")), "agents"), 2);
    let revocations = dev.json(&format!("my history {me} --kind revocation"));
    assert_eq!((count(&revocations, "entries"), &revocations["entries"][0]["reason"]), (1, &"lost".into()));
    // The other user is as before.
    assert_eq!(count(&dev.json("my agents --user-token guest.own"), "agents"), 1);
    assert_eq!(dev.run("verify g/svid.pem --live").status.code(), Some(0));
    // Some: everything under a delegation. All: nothing new, until they reopen.
    dev.token("demo", "demo.jwt");
    let under = dev.json("spawn --class researcher --user-token demo.jwt --out b")["delegation_id"].as_str().unwrap().to_owned();
    dev.json(&format!("my stop --delegation {under} {me}"));
    assert_eq!(dev.run("verify b/svid.pem --live").status.code(), Some(6));
    assert_eq!(dev.json(&format!("my stop --all {me}"))["stopped"][0]["open_for_new"], false);
    a_second_later();
    dev.token("demo", "demo.jwt");
    assert!(dev.fails("spawn --class worker --user-token demo.jwt --out c", 3).contains("USER_CLOSED"));
    assert!(dev.fails("my agents", 2).contains("--user-token"));
}

#[test]
fn t160_a_token_from_before_the_users_revocation_shows_and_reopens_nothing() {
    let (dev, ..) = dev();
    let old = "--user-token demo.own";
    dev.json(&format!("my stop --all {old}"));
    // Whoever stole it learns nothing, and opens nothing again; another look at the stop is the same stop.
    for line in ["my agents", "my history", "my delegations", "my reopen"] {
        assert!(dev.fails(&format!("{line} {old}"), 3).contains("USER_TOKEN_TOO_EARLY"), "{line}");
    }
    dev.json(&format!("my stop --all {old}"));
    a_second_later();
    sign_in(&dev, "demo", "mayfly-dev-user", "fresh.own");
    assert_eq!(count(&dev.json("my agents --all --user-token fresh.own"), "agents"), 2);
    dev.json("my reopen --user-token fresh.own");
    assert!(dev.fails("my reopen --user-token fresh.own", 3).contains("USER_TOKEN_TOO_EARLY"), "from before the reopening");
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class worker --user-token demo.jwt --out c");
    sign_in(&dev, "demo", "mayfly-dev-user", "fresh.own");
    assert!(dev.fails("my reopen --user-token fresh.own", 3).contains("USER_NOT_CLOSED"));
}

#[test]
fn t161_what_an_operator_closed_no_user_opens_whoever_closed_first() {
    let (mut dev, ..) = dev();
    dev.json("revoke --user dev/demo --reason INC-7");
    dev.json("my stop --all --user-token guest.own");
    let overruled = dev.json("revoke --user dev/guest --reason INC-8");
    a_second_later();
    for user in ["demo", "guest"] {
        sign_in(&dev, user, "mayfly-dev-user", "fresh.own");
        assert!(dev.fails("my reopen --user-token fresh.own", 3).contains("USER_CLOSED_BY_OPERATOR"), "{user}");
        // A stop of their own does not make it theirs.
        dev.json("my stop --all --user-token fresh.own");
        assert!(dev.fails("my reopen --user-token fresh.own", 3).contains("USER_CLOSED_BY_OPERATOR"), "{user}");
    }
    let again = dev.json("revoke --user dev/guest --reason INC-9");
    assert_eq!(again["revision"], overruled["revision"], "an operator's own is not made twice");
    // The same after the journal was replayed.
    dev = Dev::start_in(dev.kill());
    sign_in(&dev, "guest", "mayfly-dev-user", "fresh.own");
    assert!(dev.fails("my reopen --user-token fresh.own", 3).contains("USER_CLOSED_BY_OPERATOR"));
    dev.json("reopen --user dev/guest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t160_each_token_is_good_for_what_its_audience_says_and_beside_no_certificate() {
    let (dev, mine, other) = dev();
    sign_in(&dev, "demo", "mayfly-dev-revoke", "revoke.own");
    let (own, revoke, agents) = (dev.file("demo.own"), dev.file("revoke.own"), dev.file("demo.jwt"));
    let stranger = channel(&dev, None).await;
    let said = |status: tonic::Status| {
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        (status.code(), reason)
    };
    let list = |token: &str| v1::ListAgentsRequest { user_token: token.into(), ..Default::default() };
    let get = |agent: &str, token: &str| v1::GetAgentRequest { agent: agent.into(), user_token: token.into() };
    let entries = |token: &str| v1::ListEntriesRequest { user_token: token.into(), ..Default::default() };
    let reopen =
        |token: &str, target: v1::reopen_request::Target| v1::ReopenRequest { target: Some(target), user_token: token.into() };
    let class = || v1::reopen_request::Target::Class("worker".into());
    // A token for agents is none for the user; one that revokes shows nothing.
    for (token, expected) in [(&agents, "USER_TOKEN_AUDIENCE"), (&revoke, "ROLE_NOT_ALLOWED")] {
        let expected = (Code::PermissionDenied, expected.to_owned());
        let mut inspection = InspectionClient::new(stranger.clone());
        assert_eq!(said(inspection.list_agents(list(token)).await.unwrap_err()), expected);
        assert_eq!(said(inspection.get_agent(get(&mine, token)).await.unwrap_err()), expected);
        assert_eq!(said(HistoryClient::new(stranger.clone()).list_entries(entries(token)).await.unwrap_err()), expected);
        assert_eq!(said(OperationsClient::new(stranger.clone()).reopen(reopen(token, class())).await.unwrap_err()), expected);
    }
    // One of the user's own: theirs, and no operator's.
    let mut inspection = InspectionClient::new(stranger.clone());
    assert_eq!(inspection.get_agent(get(&mine, &own)).await.unwrap().into_inner().agent.unwrap().agent_id, mine);
    let unknown = (Code::NotFound, "AGENT_UNKNOWN".to_owned());
    assert_eq!(said(inspection.get_agent(get(&other, &own)).await.unwrap_err()), unknown);
    dev.json("revoke --class worker");
    let refused = said(OperationsClient::new(stranger.clone()).reopen(reopen(&own, class())).await.unwrap_err());
    assert_eq!(refused, (Code::PermissionDenied, "ROLE_NOT_ALLOWED".to_owned()));
    // A certificate and a token are two callers, whoever they are.
    let agent = channel(&dev, Some("a")).await;
    let two = said(InspectionClient::new(agent).list_agents(list(&own)).await.unwrap_err());
    assert_eq!(two, (Code::InvalidArgument, "TWO_CALLERS".to_owned()));
    // The table says which methods a user has; a page token of one user is none of another.
    let users: Vec<_> =
        support::table().into_iter().filter(|(_, roles)| roles.contains(&Role::User)).map(|(name, _)| name).collect();
    let expected = [
        "Operations/Revoke",
        "Operations/Reopen",
        "Inspection/ListAgents",
        "Inspection/GetAgent",
        "History/ListEntries",
        "History/GetDecision",
    ];
    for name in expected {
        assert!(users.contains(&name), "{name}: {users:?}");
    }
    assert!(!roles(Action::Spawn).contains(&Role::User) && roles(Action::Revoke).contains(&Role::Revoker));
    let page = v1::ListAgentsRequest { page_size: 1, all: true, ..list(&own) };
    let page = InspectionClient::new(stranger.clone()).list_agents(page).await.unwrap().into_inner();
    assert!(!page.next_page_token.is_empty());
    let stolen = v1::ListAgentsRequest { page_token: page.next_page_token, ..list(&dev.file("guest.own")) };
    let refused = said(InspectionClient::new(stranger).list_agents(stolen).await.unwrap_err());
    assert_eq!(refused, (Code::InvalidArgument, "PAGE_TOKEN".to_owned()));
}
