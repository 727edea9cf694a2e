//! How an entry is printed.

use mayfly_agent::api::v1;

use crate::cli::output;
pub(in crate::cli) use crate::history::line::object;

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
