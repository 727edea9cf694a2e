//! Printing: one object for programs, lines for people.

use std::io::Write;

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::{Common, Failure, Output};

/// Prints one line to stdout; a reader that has gone is no failure.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(1, e.to_string())),
        _ => Ok(()),
    }
}

/// Prints an object as JSON, or its text.
pub(super) fn either(common: &Common, object: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match common.output {
        Output::Json => line(&serde_json::to_string_pretty(object).map_err(|e| e.to_string())?),
        Output::Text => line(&text()),
    }
}

/// RFC 3339 of unix seconds.
pub(super) fn time(seconds: u64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(0));
    at.ok().and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok()).unwrap_or_default()
}

pub(super) fn stamp(at: Option<&prost_types::Timestamp>) -> String {
    time(at.and_then(|t| u64::try_from(t.seconds).ok()).unwrap_or(0))
}

/// An agent, with the names that every command uses.
pub(super) fn agent(agent: &v1::Agent) -> Value {
    json!({
        "agent_id": agent.agent_id,
        "parent_id": agent.parent_id,
        "root_id": agent.root_id,
        "class": agent.class,
        "mode": if agent.mode() == v1::Mode::Autonomous { "autonomous" } else { "delegated" },
        "delegation_id": Some(&agent.delegation_id).filter(|d| !d.is_empty()),
        "user": agent.user.as_ref().map(|u| json!({ "iss": u.iss, "sub": u.sub })),
        "depth": agent.depth,
        "scopes": agent.scopes,
        "audiences": agent.audiences,
        "admitted_at": stamp(agent.admitted_at.as_ref()),
        "lease_expires_at": stamp(agent.lease_expires_at.as_ref()),
        "svid_expires_at": stamp(agent.svid_expires_at.as_ref()),
        "revision": agent.revision,
        "state": state(agent),
    })
}

pub(super) fn state(agent: &v1::Agent) -> &'static str {
    match agent.state() {
        v1::AgentState::Live => "live",
        v1::AgentState::Expired => "expired",
        v1::AgentState::Ended => "ended",
        v1::AgentState::Cut => "revoked",
        v1::AgentState::Orphaned => "orphaned",
        v1::AgentState::Unspecified => "unknown",
    }
}

pub(super) fn user(agent: &v1::Agent) -> &str {
    agent.user.as_ref().map_or("nobody", |u| u.sub.as_str())
}
