//! How an entry is printed.

use mayfly_agent::api::v1;

use super::table::Style;
use super::user::{self, Names};
use crate::cli::output;
pub(in crate::cli) use crate::history::line::object;

/// The names of the columns.
const HEAD: [&str; 6] = ["AT", "KIND", "OUTCOME", "DECISION", "CALLER", "ABOUT"];

/// The table of some entries, or `none`.
pub(in crate::cli) fn table(entries: &[v1::HistoryEntry], names: Names, none: &str) -> Vec<String> {
    let names = names.and(entries.iter().filter_map(|entry| entry.user.as_ref()));
    let row = |entry: &v1::HistoryEntry| {
        let Cells { outcome, caller, about } = cells(entry, &names);
        vec![output::timestamp(entry.at.as_ref()), entry.kind.clone(), outcome, entry.decision_id.clone(), caller, about]
    };
    Style::of_stdout().table(none, &HEAD, entries.iter().map(row).collect())
}

/// One line, for entries that are printed one by one.
pub(in crate::cli) fn line(entry: &v1::HistoryEntry, names: &Names) -> String {
    let Cells { outcome, caller, about } = cells(entry, names);
    let at = output::timestamp(entry.at.as_ref());
    format!("{at:<20}  {:<13}  {outcome:<20}  {:<12}  {caller:<24}  {about}", entry.kind, entry.decision_id)
}

struct Cells {
    outcome: String,
    caller: String,
    about: String,
}

fn cells(entry: &v1::HistoryEntry, names: &Names) -> Cells {
    let outcome = if entry.reason_code.is_empty() { &entry.outcome } else { &entry.reason_code };
    let mut about: Vec<String> = Vec::new();
    let mut add = |what: String| about.extend(Some(what).filter(|what| !what.is_empty()));
    add(short(if entry.agent_id.is_empty() { &entry.root_id } else { &entry.agent_id }).to_owned());
    let target = names.target(&entry.target);
    // A revocation of the user names them already.
    if let Some(user) = entry.user.as_ref().filter(|_| target == entry.target) {
        add(format!("for {}", user::name(user)));
    }
    add(short(&target).to_owned());
    add(entry.reason.clone());
    let count = if entry.count > 0 { format!("{} x ", entry.count) } else { String::new() };
    Cells { outcome: outcome.clone(), caller: names.person(short(&entry.caller)), about: format!("{count}{}", about.join(", ")) }
}

/// A SPIFFE ID without its trust domain.
fn short(id: &str) -> &str {
    id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map_or(id, |(_, path)| path)
}
