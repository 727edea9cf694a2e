//! `kill -9` at any moment: what was answered is there, the rest is absent or complete, nothing is given twice.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::collections::{HashMap, HashSet};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
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
