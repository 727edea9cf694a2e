//! `mayfly replay`.

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::decisions_client::DecisionsClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::{FAILURE, Failure};
use super::global::Global;
use super::output;
use super::when::When;

/// Decide again what was admitted, issued and denied, each on the state of its time, by the policies of then and the rules and build of today (operator)
///
/// Exits 0 if every answer is the same, and 1 if one differs.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    acting: Acting,
    /// From a time on: RFC 3339, or how long ago, such as 1h
    #[arg(long, value_name = "WHEN", default_value = "1h")]
    since: When,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    let channel = connect::as_identity_or_operator(global, &args.acting).await?;
    let request = v1::ReplayRequest { since: Some(args.since.timestamp()), candidate: None };
    let got = DecisionsClient::new(channel).replay(request).await?.into_inner();
    let difference = |d: &v1::ReplayDifference| json!({ "revision": d.revision, "at": output::timestamp(d.at.as_ref()), "action": d.action, "agent_id": d.agent_id, "class": d.class, "then": d.then, "now": d.now });
    let object = json!({
        "decided": got.decided,
        "equal": got.decided.saturating_sub(got.different),
        "different": got.different,
        "differences": got.differences.iter().map(difference).collect::<Vec<_>>(),
        "not_replayed": got.not_replayed,
        "configured_otherwise": got.configured_otherwise,
        "denied": got.denied,
        "tokens": got.tokens,
        "policies_lost": got.policies_lost,
        "revision": got.revision,
    });
    output::print(global.output, &object, || {
        let mut lines = vec![format!(
            "{} decisions decided again: {} equal, {} different",
            got.decided,
            got.decided.saturating_sub(got.different),
            got.different
        )];
        for d in &got.differences {
            let whose = if d.agent_id.is_empty() { format!("a denied spawn of class {}", d.class) } else { d.agent_id.clone() };
            lines.push(format!("r{} {} {whose}", d.revision, d.action));
            lines.push(format!("  then {}", d.then));
            lines.push(format!("  now  {}", d.now));
        }
        if got.not_replayed > 0 {
            lines.push(format!("{} denials were not decided again", got.not_replayed));
        }
        lines
    })?;
    match got.different {
        0 => Ok(()),
        different => Err(Failure::new(FAILURE, format!("{different} decisions have another answer today"))),
    }
}
