//! An orchestrator with sub-agents: one agent acts for a user, and its children each do a part of the work.
//!
//! While `mayfly dev` runs, and after `mayfly token demo > demo.jwt`:
//!
//! ```text
//! MAYFLY_JOIN_TOKEN=$(mayfly join orchestrator) cargo run --example orchestrator -- demo.jwt
//! ```
#![expect(clippy::print_stdout, reason = "an example")]

use std::time::Duration;

use mayfly_agent::api::v1::SpawnRequest;
use mayfly_agent::identity::Identity;
use mayfly_agent::ticket::Ticket;
use tokio::task::JoinSet;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let token_file = std::env::args().nth(1).ok_or("say which file holds the user's token")?;
    let user_token = std::fs::read_to_string(token_file)?.trim().to_owned();
    // The workload joins once, and renews its certificate from then on.
    let ticket = Ticket::parse(std::env::var("MAYFLY_JOIN_TOKEN")?.trim())?;
    let workload = Identity::redeem(&ticket, Duration::from_secs(5)).await?;

    // An agent for this user, with no more scopes than the work needs.
    let request = SpawnRequest {
        class: "researcher".into(),
        user_token,
        scopes: vec!["files:read".into(), "search:read".into()],
        ..Default::default()
    };
    let lead = workload.spawn_child(request).await?;
    println!("{} leads", lead.current().spiffe_id());

    let mut parts = JoinSet::new();
    for part in 1..=3 {
        // A child acts for the same user, and has no more scopes than its parent.
        let request = SpawnRequest { class: "worker".into(), scopes: vec!["search:read".into()], ..Default::default() };
        let worker = lead.spawn_child(request).await?;
        parts.spawn(async move {
            let done = tokio::select! {
                done = work(&worker, part) => done,
                // Revoking the user, the lead or this agent ends the work.
                over = worker.ended() => return Err(over.into()),
            };
            worker.end().await?;
            done
        });
    }
    while let Some(part) = parts.join_next().await {
        println!("{}", part??);
    }
    // Children that still live end with it.
    lead.end().await?;
    Ok(())
}

async fn work(worker: &Identity, part: u32) -> Result<String, Error> {
    let token = worker.jwt("https://search.example").await?;
    Ok(format!("part {part} by {}: a token of {} bytes for the search", token.spiffe_id, token.token.len()))
}
