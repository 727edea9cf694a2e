//! How a delegation from the history is printed.

use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use crate::cli::output;

/// Whether it has ended by this machine's clock.
pub(in crate::cli) fn has_ended(entry: &v1::HistoryEntry) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    entry.ends_at.as_ref().is_some_and(|ends| u64::try_from(ends.seconds).unwrap_or(0) <= now)
}

/// A delegation, with what was revoked of it.
pub(in crate::cli) fn object(entry: &v1::HistoryEntry, revocations: &[v1::HistoryEntry]) -> Value {
    // A revocation of this delegation, or of its user after the delegation was made.
    let hits = |r: &&v1::HistoryEntry| {
        let whole_user = r.target.starts_with("user ") && r.user == entry.user && r.revision > entry.revision;
        whole_user || r.target == format!("delegation {}", entry.delegation_id)
    };
    let revoked = |r: &v1::HistoryEntry| {
        json!({
            "at": output::precise_timestamp(r.at.as_ref()),
            "by": r.caller,
            "reason": r.reason,
            "target": r.target,
            "decision_id": r.decision_id,
        })
    };
    json!({
        "delegation_id": entry.delegation_id,
        "user": entry.user.as_ref().map(|u| json!({ "iss": u.iss, "sub": u.sub })),
        "root_id": entry.root_id,
        "recorded_at": output::precise_timestamp(entry.at.as_ref()),
        "ends_at": output::optional_timestamp(entry.ends_at.as_ref()),
        "has_ended": has_ended(entry),
        // An empty list means that the delegation has no ceiling of its own; class and audience limit it.
        "scopes": Some(&entry.scopes).filter(|scopes| !scopes.is_empty()),
        "token": entry.target.strip_prefix("token "),
        "peer": Some(&entry.peer).filter(|peer| !peer.is_empty()),
        "decision_id": entry.decision_id,
        "revocations": revocations.iter().filter(hits).map(revoked).collect::<Vec<_>>(),
    })
}

/// One line.
pub(in crate::cli) fn line(entry: &v1::HistoryEntry) -> String {
    let user = entry.user.as_ref().map_or("nobody", |user| user.sub.as_str());
    let scopes = if entry.scopes.is_empty() { "what the class allows".to_owned() } else { entry.scopes.join(" ") };
    let (from, until) = (output::timestamp(entry.at.as_ref()), output::timestamp(entry.ends_at.as_ref()));
    format!("{}  {user} lets {} do {scopes}, {from} until {until}", entry.delegation_id, entry.root_id)
}
