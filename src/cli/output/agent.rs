//! How an agent is printed.

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::table::Style;
use super::{optional_timestamp, timestamp};

/// An agent, with the field names that every command uses.
pub(in crate::cli) fn object(agent: &v1::Agent) -> Value {
    json!({
        "agent_id": agent.agent_id,
        "parent_id": agent.parent_id,
        "root_id": agent.root_id,
        "class": agent.class,
        "mode": if agent.mode() == v1::Mode::Autonomous { "autonomous" } else { "delegated" },
        "delegation_id": Some(&agent.delegation_id).filter(|d| !d.is_empty()),
        "user": agent.user.as_ref().map(|u| json!({ "iss": u.iss, "sub": u.sub })),
        "user_name": agent.user.as_ref().map(super::user::name),
        "depth": agent.depth,
        "scopes": agent.scopes,
        "audiences": agent.audiences,
        "admitted_at": timestamp(agent.admitted_at.as_ref()),
        "lease_expires_at": timestamp(agent.lease_expires_at.as_ref()),
        "svid_expires_at": optional_timestamp(agent.svid_expires_at.as_ref()),
        "keyless": agent.keyless,
        "revision": agent.revision,
        "state": state(agent),
        "over_at": optional_timestamp(agent.over_at.as_ref()),
        "over_by": Some(&agent.over_by).filter(|by| !by.is_empty()),
        "over_reason": Some(&agent.over_reason).filter(|reason| !reason.is_empty()),
    })
}

/// Since when, by whom and why an agent may not act any more, to end a sentence with; empty if nothing is known of that.
pub(in crate::cli) fn over(agent: &v1::Agent) -> String {
    let mut said = agent.over_at.as_ref().map(|at| format!(" since {}", timestamp(Some(at)))).unwrap_or_default();
    if !agent.over_by.is_empty() {
        said.push_str(&format!(", by {}", agent.over_by));
    }
    if !agent.over_reason.is_empty() {
        said.push_str(&format!(": {}", agent.over_reason));
    }
    said
}

/// The heads of the columns of [`row`].
pub(in crate::cli) const HEAD: [&str; 4] = ["AGENT", "STATE", "FOR", "CERTIFICATE UNTIL"];

/// A row of a table: id, state, user and the end of the certificate.
pub(in crate::cli) fn row(agent: &v1::Agent, style: Style) -> Vec<String> {
    let until = if agent.keyless { "without a key".to_owned() } else { style.time(agent.svid_expires_at.as_ref()) };
    vec![style.id(&agent.agent_id), state(agent).to_owned(), user(agent), until]
}

/// The table of some agents, or `none`.
pub(in crate::cli) fn table(agents: &[v1::Agent], none: &str) -> Vec<String> {
    let style = Style::of_stdout();
    style.table(none, &HEAD, agents.iter().map(|agent| row(agent, style)).collect())
}

/// The agent's user as `--user` takes it; `nobody` if it acts for nobody.
pub(in crate::cli) fn user(agent: &v1::Agent) -> String {
    agent.user.as_ref().map_or_else(|| "nobody".to_owned(), super::user::name)
}

/// The word for its state.
pub(in crate::cli) fn state(agent: &v1::Agent) -> &'static str {
    match agent.state() {
        v1::AgentState::Live => "live",
        v1::AgentState::Expired => "expired",
        v1::AgentState::Ended => "ended",
        v1::AgentState::Cut => "revoked",
        v1::AgentState::Orphaned => "orphaned",
        v1::AgentState::Unspecified => "unknown",
    }
}
