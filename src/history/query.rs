//! Queries: by time, user, agent, class, root, kind and reason. A query reads a bounded number of entries, and the next one
//! continues where it stopped.

use std::ops::ControlFlow;

use super::entry::{Draft, Kind, Sealed};
use super::read::{Range, Reader};

/// Most entries that one query reads.
const LOOKED_AT: usize = 100_000;

/// The filter of a query. An empty field admits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Unix microseconds, this one included.
    pub since: u64,
    /// Unix microseconds, this one not included. 0 means no end.
    pub until: u64,
    /// Issuer URL and subject of the user.
    pub user: Option<(String, String)>,
    /// The end of an agent's SPIFFE ID: its UUID.
    pub agent: String,
    /// A class.
    pub class: String,
    /// SPIFFE ID of a root workload.
    pub root: String,
    /// Kinds. Empty admits all kinds but `passage`, a record of the time by which an idle issuer drops ended things.
    pub kinds: Vec<Kind>,
    /// A reason code, or a part of a reason.
    pub reason: String,
    /// A decision.
    pub decision: String,
}

impl Filter {
    /// Whether an entry matches.
    pub fn admits(&self, entry: &Draft) -> bool {
        let (leaf, opening) = (&entry.leaf, &entry.opening);
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        leaf.at >= self.since
            && (self.until == 0 || leaf.at < self.until)
            && (if self.kinds.is_empty() {
                leaf.kind != Kind::Passage || !self.decision.is_empty()
            } else {
                self.kinds.contains(&leaf.kind)
            })
            && is(&self.class, &leaf.class)
            && is(&self.root, &leaf.root_id)
            && is(&self.decision, &leaf.decision_id)
            && (self.agent.is_empty() || leaf.agent_id.rsplit('/').next() == Some(&self.agent))
            && self.user.as_ref().is_none_or(|(iss, sub)| opening.user.as_ref().is_some_and(|u| u.iss == *iss && u.sub == *sub))
            && (self.reason.is_empty() || leaf.reason_code == self.reason || opening.reason.contains(&self.reason))
    }
}

/// A page of entries in order.
#[derive(Debug, Default)]
pub struct Page {
    /// Each with its bytes.
    pub entries: Vec<(Draft, Sealed)>,
    /// The index from which the next query continues. `None` if there are no more entries now.
    pub next: Option<u64>,
    /// The index after the last entry of the history.
    pub end: u64,
}

/// At most `most` entries that match and may be seen, from an index on. Blocks: not for async code.
pub fn page(reader: &Reader, filter: &Filter, from: u64, most: usize, sees: impl Fn(&Draft) -> bool) -> Result<Page, String> {
    let (_, end) = reader.places();
    let mut page = Page { end, ..Page::default() };
    let until = if filter.until == 0 { u64::MAX } else { filter.until };
    let (mut looked_at, mut failed) = (0, None);
    reader.each(Range { from, since: filter.since, until }, |index, sealed| {
        if index >= end {
            return ControlFlow::Break(());
        }
        // A full page has a next one only if an entry follows that may be seen.
        let next = if looked_at == LOOKED_AT { Some(index) } else { None };
        if next.is_some() {
            page.next = next;
            return ControlFlow::Break(());
        }
        looked_at += 1;
        let entry = match sealed.open() {
            Ok(entry) => entry,
            Err(e) => {
                failed = Some(format!("entry {index} is damaged: {e}"));
                return ControlFlow::Break(());
            }
        };
        if filter.admits(&entry) && sees(&entry) {
            if page.entries.len() == most {
                page.next = Some(index);
                return ControlFlow::Break(());
            }
            page.entries.push((entry, sealed.clone()));
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(page), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::entry::Outcome;

    #[test]
    fn the_passage_of_time_is_told_to_who_asks_for_it() {
        let mut entry = Draft::new(Kind::Passage, 1, Outcome::Recorded);
        entry.leaf.decision_id = "r7".into();
        let asks = |kinds: &[Kind], decision: &str| {
            Filter { kinds: kinds.to_vec(), decision: decision.into(), ..Filter::default() }.admits(&entry)
        };
        assert!(!asks(&[], "") && !asks(&[Kind::Opened], ""));
        assert!(asks(&[Kind::Passage], "") && asks(&[], "r7") && asks(&[Kind::Gap, Kind::Passage], ""));
    }
}
