//! One entry as a line of JSON, with the names and forms of `mayfly history -o json`.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::history::entry::Draft;

/// The line, without a line feed.
pub(super) fn object(entry: &Draft) -> String {
    let (leaf, opening) = (&entry.leaf, &entry.opening);
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let number = |n: u64| Some(n).filter(|n| *n > 0);
    let object = json!({
        "index": leaf.index,
        "at": time(leaf.at),
        "revision": number(leaf.revision),
        "decision_id": leaf.decision_id,
        "kind": leaf.kind.as_str(),
        "outcome": leaf.outcome.as_str(),
        "reason_code": text(&leaf.reason_code),
        "caller": text(&opening.caller),
        "peer": text(&opening.peer),
        "method": text(&opening.method),
        "request_id": text(&opening.request_id),
        "user": opening.user.as_ref().map(|user| json!({ "iss": user.iss, "sub": user.sub })),
        "delegation_id": text(&opening.delegation_id),
        "agent_id": text(&leaf.agent_id),
        "class": text(&leaf.class),
        "root_id": text(&leaf.root_id),
        "chain": opening.chain,
        "asked": opening.asked,
        "scopes": opening.scopes,
        "audiences": opening.audiences,
        "ends_at": number(opening.ends_at).and_then(|seconds| time(seconds.saturating_mul(1_000_000))),
        "key": text(&leaf.key),
        "serial": text(&leaf.serial),
        "target": text(&opening.target),
        "reason": text(&opening.reason),
        "count": number(leaf.count),
        "late": opening.late,
    });
    object.to_string()
}

/// A line without the fields that others can make long; `shortened` says so.
pub(super) fn shortened(line: &str) -> String {
    let mut object: Value = serde_json::from_str(line).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        for long in ["chain", "asked", "scopes", "audiences", "reason", "request_id"] {
            fields.remove(long);
        }
        fields.insert("shortened".to_owned(), true.into());
    }
    object.to_string()
}

/// Unix microseconds as RFC 3339. `None` if no date has so many.
fn time(micros: u64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok())
}
