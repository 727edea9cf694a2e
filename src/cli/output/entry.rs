//! How an entry is printed.

use mayfly_agent::api::v1;
use serde_json::{Value, json};

use crate::cli::output;

/// An entry, with the field names that every command uses. Fields that are unknown or hidden from the caller are null.
pub(in crate::cli) fn object(entry: &v1::HistoryEntry) -> Value {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let number = |n: u64| Some(n).filter(|n| *n > 0);
    json!({
        "index": entry.index,
        "at": output::precise_timestamp(entry.at.as_ref()),
        "revision": number(entry.revision),
        "decision_id": entry.decision_id,
        "kind": entry.kind,
        "outcome": entry.outcome,
        "reason_code": text(&entry.reason_code),
        "caller": text(&entry.caller),
        "peer": text(&entry.peer),
        "method": text(&entry.method),
        "request_id": text(&entry.request_id),
        "user": entry.user.as_ref().map(|u| json!({ "iss": u.iss, "sub": u.sub })),
        "delegation_id": text(&entry.delegation_id),
        "agent_id": text(&entry.agent_id),
        "class": text(&entry.class),
        "root_id": text(&entry.root_id),
        "chain": entry.chain,
        "asked": entry.asked,
        "scopes": entry.scopes,
        "audiences": entry.audiences,
        "ends_at": output::optional_timestamp(entry.ends_at.as_ref()),
        "key": text(&entry.key),
        "serial": text(&entry.serial),
        "target": text(&entry.target),
        "reason": text(&entry.reason),
        "count": number(entry.count),
        "late": entry.late,
    })
}

/// The names of the columns of [`line`].
pub(in crate::cli) fn header() -> String {
    format!("{:<20} {:<13} {:<20} {:<12} {:<24} ABOUT", "AT", "KIND", "OUTCOME", "DECISION", "CALLER")
}

/// One line: time, kind, outcome, decision, caller and subject.
pub(in crate::cli) fn line(entry: &v1::HistoryEntry) -> String {
    let outcome = if entry.reason_code.is_empty() { &entry.outcome } else { &entry.reason_code };
    let mut about: Vec<String> = Vec::new();
    let mut add = |what: &str, prefix: &str| {
        if !what.is_empty() {
            about.push(format!("{prefix}{}", short(what)));
        }
    };
    add(if entry.agent_id.is_empty() { &entry.root_id } else { &entry.agent_id }, "");
    add(entry.user.as_ref().map_or("", |user| user.sub.as_str()), "for ");
    add(&entry.target, "");
    add(&entry.reason, "");
    let (at, caller) = (output::timestamp(entry.at.as_ref()), short(&entry.caller));
    let count = if entry.count > 0 { format!("{} x ", entry.count) } else { String::new() };
    let about = about.join(", ");
    format!("{at:<20} {:<13} {outcome:<20} {:<12} {caller:<24} {count}{about}", entry.kind, entry.decision_id)
}

/// A SPIFFE ID without its trust domain.
fn short(id: &str) -> &str {
    id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or(id, |(_, path)| path)
}
