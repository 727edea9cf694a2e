//! `mayfly governance`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::decisions_client::DecisionsClient;
use serde_json::{Value, json};

use super::connect::{self, Acting};
use super::exit::Failure;
use super::global::Global;
use super::output;
use super::when::When;

/// Report entries without an owner, policies that are due for review, scopes that nobody was given, approvals that can still be used, and
/// agents that used nothing (operator)
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// Read the history from a time on: RFC 3339, or how long ago
    #[arg(long, value_name = "WHEN", default_value = "30d")]
    since: When,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let request = v1::GovernRequest { since: Some(args.since.timestamp()) };
    let got = DecisionsClient::new(channel).govern(request).await?.into_inner();
    let place = |source: &v1::Source| json!({ "where": source.r#where, "owner": source.owner });
    let places = |sources: &[v1::Source]| sources.iter().map(place).collect::<Vec<Value>>();
    let unused = |unused: &v1::UnusedCeiling| {
        let source = unused.source.clone().unwrap_or_default();
        json!({ "class": unused.class, "scopes": unused.scopes, "audiences": unused.audiences, "where": source.r#where, "owner": source.owner })
    };
    let review = |review: &v1::DueReview| {
        let source = review.source.clone().unwrap_or_default();
        json!({ "policy": review.policy, "review": review.review, "where": source.r#where, "owner": source.owner })
    };
    let object = json!({
        "unowned": places(&got.unowned),
        "closed_owners": places(&got.closed_owners),
        "unused": got.unused.iter().map(unused).collect::<Vec<_>>(),
        "reviews": got.reviews.iter().map(review).collect::<Vec<_>>(),
        "approvals": got.approvals.iter().map(output::approval::object).collect::<Vec<_>>(),
        "idle_agents": got.idle_agents,
        "admissions": got.admissions,
        "since": output::timestamp(got.since.as_ref()),
        "complete": got.complete,
        "revision": got.revision,
    });
    output::print(global.output, &object, || {
        let mut lines = vec![format!("{} admissions since {}", got.admissions, output::timestamp(got.since.as_ref()))];
        lines.extend(got.unowned.iter().map(|source| format!("no owner is named: {}", source.r#where)));
        lines
            .extend(got.closed_owners.iter().map(|source| format!("the owner is closed: {} [{}]", source.r#where, source.owner)));
        for unused in &got.unused {
            let source = unused.source.clone().unwrap_or_default();
            let what = unused.scopes.iter().chain(&unused.audiences).cloned().collect::<Vec<_>>().join(" ");
            lines.push(format!("no agent of class {} was given {what} [{}; {}]", unused.class, source.r#where, source.owner));
        }
        for review in &got.reviews {
            let source = review.source.clone().unwrap_or_default();
            let when = if review.review.is_empty() {
                "names no date of review".to_owned()
            } else {
                format!("was due for review on {}", review.review)
            };
            lines.push(format!("policy {} {when} [{}; {}]", review.policy, source.r#where, source.owner));
        }
        lines.extend(got.approvals.iter().map(|approval| format!("can still be used: {}", output::approval::line(approval))));
        lines.extend(got.idle_agents.iter().map(|agent| format!("used nothing: {agent}")));
        if !got.complete {
            lines.push("the history is longer than one report reads: give a later --since".to_owned());
        }
        lines
    })
}
