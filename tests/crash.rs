//! `kill -9` at any moment: what was answered is there, the rest is absent or complete, nothing is given twice.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::{HashMap, HashSet};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use mayfly_agent::api::v1::operations_client::OperationsClient;
use mayfly_agent::api::v1::revocations_client::RevocationsClient;
use mayfly_agent::channel::connect_unix;
use support::Dev;
use tokio::task::JoinSet;
use tonic::transport::Channel;

fn request(token: &str, id: &str, csr: Vec<u8>) -> v1::SpawnRequest {
    v1::SpawnRequest {
        request_id: id.to_owned(),
        class: "worker".into(),
        csr,
        user_token: token.to_owned(),
        jwt_audience: "https://search.example".into(),
        ..Default::default()
    }
}

async fn spawn_all(channel: &Channel, token: &str, csrs: &[Vec<u8>], round: usize) -> JoinSet<Option<v1::SpawnResponse>> {
    let mut calls = JoinSet::new();
    for (n, csr) in csrs.iter().enumerate() {
        let (mut client, request) =
            (IdentitiesClient::new(channel.clone()), request(token, &format!("r{round}-{n}"), csr.clone()));
        calls.spawn(async move { client.spawn(request).await.ok().map(tonic::Response::into_inner) });
    }
    calls
}

async fn rounds(rounds: usize, spawns: usize) {
    let mut dev = Dev::start();
    let (mut serials, mut revisions): (HashSet<Vec<u8>>, HashMap<u64, String>) = Default::default();
    let mut answered_ids = HashSet::new();
    let (mut answered, mut unanswered) = (0, 0);
    for round in 0..rounds {
        dev.token("demo", "demo.jwt");
        let token = std::fs::read_to_string(dev.path("demo.jwt")).unwrap().trim().to_owned();
        let csrs: Vec<Vec<u8>> = (0..spawns).map(|_| mayfly::folder::Key::new().unwrap().csr).collect();
        let channel = support::channel(&dev, Some(support::ORCHESTRATOR)).await;
        let mut calls = spawn_all(&channel, &token, &csrs, round).await;
        // Somewhere in the middle, another place each round.
        let stop_after = spawns * (round % 10 + 1) / 12;
        let mut got = Vec::new();
        while got.len() < stop_after {
            match calls.join_next().await {
                Some(answer) => got.extend(answer.unwrap()),
                None => break,
            }
        }
        let dir = dev.kill();
        while let Some(answer) = calls.join_next().await {
            match answer.unwrap() {
                Some(answer) => got.push(answer),
                None => unanswered += 1,
            }
        }
        answered += got.len();
        dev = Dev::start_in(dir);
        let listed = dev.json("agents list");
        let known: HashMap<String, serde_json::Value> = listed["agents"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| (a["agent_id"].as_str().unwrap().to_owned(), a.clone()))
            .collect();
        for answer in &got {
            let agent = answer.agent.as_ref().unwrap();
            let found = known.get(&agent.agent_id).expect("T71: what was answered is listed");
            assert_eq!(found["revision"].as_u64(), Some(answer.revision));
            let leaf = &answer.svid.as_ref().unwrap().certificates[0];
            let (_, cert) = x509_parser::parse_x509_certificate(leaf).unwrap();
            assert!(serials.insert(cert.raw_serial().to_vec()), "a serial was given twice");
            assert!(answered_ids.insert(agent.agent_id.clone()), "an id was given twice");
        }
        for (id, agent) in &known {
            for field in ["class", "delegation_id", "user", "scopes", "lease_expires_at", "svid_expires_at", "parent_id"] {
                assert!(!agent[field].is_null(), "{id} is incomplete: {field}");
            }
            let revision = agent["revision"].as_u64().unwrap();
            let before = revisions.insert(revision, id.clone());
            assert!(before.is_none_or(|before| before == *id), "revision {revision} was given twice");
        }
        // A retry after the crash is the same agent where it was recorded, and a new one where it was not.
        if let Some(lost) = got.first() {
            let n = csrs.iter().enumerate().map(|(n, _)| n);
            let channel = support::channel(&dev, Some(support::ORCHESTRATOR)).await;
            let mut again = spawn_all(&channel, &token, &csrs, round).await;
            let mut ids = HashSet::new();
            while let Some(answer) = again.join_next().await {
                ids.insert(answer.unwrap().expect("a retry is answered").agent.unwrap().agent_id);
            }
            assert_eq!(ids.len(), n.count(), "one agent for each request");
            assert!(ids.contains(&lost.agent.as_ref().unwrap().agent_id), "a retry is the same record");
        }
    }
    eprintln!("{rounds} rounds of {spawns}: {answered} answered, {unanswered} unanswered, {} known ids", answered_ids.len());
}

/// Kills the issuer when a revocation has just been acknowledged, over and over. Whoever was cut is dead after the restart, at the
/// issuer and in what it tells verifiers; whoever was not is served.
async fn revocations(rounds: usize) {
    const EACH: usize = 20;
    let mut dev = Dev::start();
    let mut cut: Vec<(String, u64)> = Vec::new();
    let mut waiting: Vec<String> = Vec::new();
    for round in 0..rounds {
        if waiting.is_empty() {
            dev.token("demo", "demo.jwt");
            let token = dev.file("demo.jwt");
            let csrs: Vec<Vec<u8>> = (0..EACH).map(|_| mayfly::folder::Key::new().unwrap().csr).collect();
            let channel = support::channel(&dev, Some(support::ORCHESTRATOR)).await;
            let mut calls = spawn_all(&channel, &token, &csrs, round).await;
            while let Some(answer) = calls.join_next().await {
                waiting.push(answer.unwrap().unwrap().agent.unwrap().agent_id);
            }
        }
        let agent = waiting.pop().unwrap();
        let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
        let target = Some(v1::Target { target: Some(v1::target::Target::Agent(agent.clone())) });
        let revoke = v1::RevokeRequest { target, ..Default::default() };
        let receipt = OperationsClient::new(operator).revoke(revoke).await.unwrap().into_inner();
        // ORDER: nothing between the acknowledgement and the kill.
        dev = Dev::start_in(dev.kill());
        cut.push((agent, receipt.revision));
        let operator = connect_unix(&dev.path(".mayfly/operator.sock")).await.unwrap();
        let told = cuts_told(operator.clone()).await;
        let mut inspection = InspectionClient::new(operator);
        // The last of them one by one; the feed says all of them.
        for (agent, _) in cut.iter().rev().take(3) {
            let got = inspection
                .get_agent(v1::GetAgentRequest { agent: agent.clone(), ..Default::default() })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(got.agent.unwrap().state(), v1::AgentState::Cut, "T71: round {round}, an acknowledged cut is lost");
        }
        for (agent, _) in &cut {
            let id = mayfly_verify::AgentId::parse(agent).unwrap();
            let subject = mayfly_verify::Target::Agent(id.uuid).unsalted();
            assert!(told.contains(subject.0.as_slice()), "T71: round {round}, verifiers are not told of {agent}");
        }
        if let Some(agent) = waiting.last() {
            let got = inspection
                .get_agent(v1::GetAgentRequest { agent: agent.clone(), ..Default::default() })
                .await
                .unwrap()
                .into_inner();
            assert_eq!(got.agent.unwrap().state(), v1::AgentState::Live);
        }
    }
    assert!(cut.is_sorted_by(|(_, a), (_, b)| a < b), "revisions only grow");
    eprintln!("{rounds} times killed after an acknowledged revocation: none was lost");
}

/// The subjects of a first snapshot.
async fn cuts_told(channel: Channel) -> HashSet<Vec<u8>> {
    let request = v1::WatchCutsRequest::default();
    let mut feed = RevocationsClient::new(channel).watch_cuts(request).await.unwrap().into_inner();
    let mut subjects = HashSet::new();
    loop {
        let message = feed.message().await.unwrap().unwrap();
        subjects.extend(message.cuts.into_iter().map(|cut| cut.subject));
        if message.heartbeat.is_some() {
            return subjects;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t71_an_acknowledged_revocation_survives_kill_9() {
    revocations(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a thousand restarts; cargo test --release --test crash -- --ignored --nocapture"]
async fn t71_an_acknowledged_revocation_survives_kill_9_a_thousand_times() {
    revocations(1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t71_an_answered_agent_survives_kill_9() {
    rounds(2, 200).await;
}

/// `cargo test --release --test crash -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 50 rounds of 1,000 spawns, 83 s in release when it was last run"]
async fn t71_an_answered_agent_survives_kill_9_fifty_times() {
    rounds(50, 1000).await;
}
