//! An entry as it is sent, and as the JSON object that `mayfly history -o json` prints and collectors get.

use mayfly_agent::api::v1;
use prost_types::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::entry::Draft;
use crate::clock::SECOND;

/// An entry with everything that is known of it.
pub fn message(entry: Draft) -> v1::HistoryEntry {
    let Draft { leaf, opening } = entry;
    let nanos = i32::try_from(leaf.at % SECOND * 1000).unwrap_or(0);
    v1::HistoryEntry {
        index: leaf.index,
        at: Some(Timestamp { nanos, ..timestamp(leaf.at / SECOND) }),
        revision: leaf.revision,
        decision_id: leaf.decision_id,
        kind: leaf.kind.as_str().into(),
        outcome: leaf.outcome.as_str().into(),
        reason_code: leaf.reason_code,
        caller: opening.caller,
        peer: opening.peer,
        method: opening.method,
        request_id: opening.request_id,
        user: opening.user.map(|user| v1::User { iss: user.iss, sub: user.sub, name: String::new() }),
        delegation_id: opening.delegation_id,
        agent_id: leaf.agent_id,
        class: leaf.class,
        root_id: leaf.root_id,
        chain: opening.chain,
        asked: opening.asked,
        scopes: opening.scopes,
        audiences: opening.audiences,
        ends_at: (opening.ends_at > 0).then(|| timestamp(opening.ends_at)),
        key: leaf.key,
        serial: leaf.serial,
        target: opening.target,
        reason: opening.reason,
        count: leaf.count,
        late: opening.late,
    }
}

/// An entry, with the field names that every command uses. What is not known, or not for the caller, is null.
pub fn object(entry: &v1::HistoryEntry) -> Value {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let number = |n: u64| Some(n).filter(|n| *n > 0);
    json!({
        "index": entry.index,
        "at": time(entry.at.as_ref()),
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
        "user_name": entry.user.as_ref().and_then(|u| text(&u.name)),
        "delegation_id": text(&entry.delegation_id),
        "agent_id": text(&entry.agent_id),
        "class": text(&entry.class),
        "root_id": text(&entry.root_id),
        "chain": entry.chain,
        "asked": entry.asked,
        "scopes": entry.scopes,
        "audiences": entry.audiences,
        "ends_at": time(entry.ends_at.as_ref()),
        "key": text(&entry.key),
        "serial": text(&entry.serial),
        "target": text(&entry.target),
        "reason": text(&entry.reason),
        "count": number(entry.count),
        "late": entry.late,
    })
}

fn timestamp(seconds: u64) -> Timestamp {
    Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

/// RFC 3339 with microseconds where there are any. `None` if there is no time, or no date has it.
fn time(at: Option<&Timestamp>) -> Option<String> {
    let at = at?;
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.format(&Rfc3339).ok()
}
