//! How a delegation from the history is printed.

use std::time::{SystemTime, UNIX_EPOCH};

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use super::table::Style;
use super::user;
use crate::cli::output;

/// Whether it has ended by this machine's clock.
pub(in crate::cli) fn has_ended(entry: &v1::HistoryEntry) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    entry.ends_at.as_ref().is_some_and(|ends| u64::try_from(ends.seconds).unwrap_or(0) <= now)
}

/// A delegation, with what was revoked of it.
pub(in crate::cli) fn object(entry: &v1::HistoryEntry, revocations: &[v1::HistoryEntry]) -> Value {
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
        "user_name": entry.user.as_ref().map(user::name),
        "root_id": entry.root_id,
        "recorded_at": output::precise_timestamp(entry.at.as_ref()),
        "ends_at": output::optional_timestamp(entry.ends_at.as_ref()),
        "has_ended": has_ended(entry),
        // An empty list means that the delegation has no ceiling of its own; class and audience limit it.
        "scopes": Some(&entry.scopes).filter(|scopes| !scopes.is_empty()),
        "token": entry.target.strip_prefix("token "),
        "peer": Some(&entry.peer).filter(|peer| !peer.is_empty()),
        "decision_id": entry.decision_id,
        "revocations": revocations.iter().filter(|revocation| hits(entry, revocation)).map(revoked).collect::<Vec<_>>(),
    })
}

/// The table of some delegations, or `none`.
pub(in crate::cli) fn table(delegations: &[&v1::HistoryEntry], revocations: &[v1::HistoryEntry], none: &str) -> Vec<String> {
    let style = Style::of_stdout();
    let row = |entry: &&v1::HistoryEntry| {
        let state = match (has_ended(entry), revocations.iter().any(|revocation| hits(entry, revocation))) {
            (_, true) => "revoked",
            (true, false) => "ended",
            (false, false) => "open",
        };
        let scopes = if entry.scopes.is_empty() { "what the class allows".to_owned() } else { entry.scopes.join(" ") };
        let user = entry.user.as_ref().map_or_else(|| "nobody".to_owned(), user::name);
        let (from, until) = (style.time(entry.at.as_ref()), style.time(entry.ends_at.as_ref()));
        vec![entry.delegation_id.clone(), state.to_owned(), user, style.id(&entry.root_id), from, until, scopes]
    };
    let head = ["DELEGATION", "STATE", "USER", "WORKLOAD", "SINCE", "UNTIL", "ALLOWS"];
    style.table(none, &head, delegations.iter().map(row).collect())
}

/// Whether something was revoked that this delegation relies on: itself, or its user after it was made.
fn hits(entry: &v1::HistoryEntry, revocation: &v1::HistoryEntry) -> bool {
    let whole_user =
        revocation.target.starts_with("user ") && revocation.user == entry.user && revocation.revision > entry.revision;
    whole_user || revocation.target == format!("delegation {}", entry.delegation_id)
}
