//! Proofs: the entries of a decision, and a C2SP tlog-proof of each.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::History;
use super::entry::{Draft, Sealed};
use super::query::{self, Filter};
use super::read::Reader;
use super::tiles::Folder;
use super::tree;

/// Most entries of one decision. A revocation of a workload has the most, because it also revokes the workload's keys.
const MOST: usize = 1000;

/// The entries of a decision that may be seen. A decision of several records is found by the revision of each of them, though it is named
/// by that of the first.
pub fn decision(history: &History, id: &str, sees: impl Fn(&Draft) -> bool) -> Result<Vec<(Draft, Sealed)>, String> {
    let reader = history.reader();
    let named = |id: &str| id.strip_prefix('r').and_then(|revision| revision.parse::<u64>().ok());
    let id = named(id).map_or(Ok(None), |revision| name_of(reader, revision))?.unwrap_or_else(|| id.to_owned());
    let revision = named(&id);
    // Records are in the order of their revisions, so the first entry is found by binary search. Any other decision was made after
    // the start in its name, less a minute of skew.
    let mut from = revision.map_or(Ok(0), |revision| first_of(reader, revision))?;
    let start = id.strip_prefix('d').and_then(|rest| u64::from_str_radix(rest.split('-').next()?, 16).ok());
    let since = start.map_or(0, |start| start.saturating_sub(60_000).saturating_mul(1000));
    let filter = Filter { decision: id, since, ..Filter::default() };
    loop {
        let page = query::page(reader, &filter, from, MOST, &sees)?;
        match page.next {
            Some(next) if page.entries.is_empty() && revision.is_none() => from = next,
            _ => return Ok(page.entries),
        }
    }
}

/// The name of the decision that a record of this revision belongs to. `None` if there is no entry of the record.
fn name_of(reader: &Reader, revision: u64) -> Result<Option<String>, String> {
    let Some(sealed) = reader.one(first_of(reader, revision)?)? else { return Ok(None) };
    let leaf = sealed.open()?.leaf;
    Ok(Some(leaf.decision_id).filter(|_| leaf.revision == revision))
}

/// The first entry at which the history holds a revision.
fn first_of(reader: &Reader, revision: u64) -> Result<u64, String> {
    let (mut from, mut to) = reader.places();
    while from < to {
        let middle = from + (to - from) / 2;
        match reader.one(middle)? {
            Some(sealed) if sealed.head < revision => from = middle + 1,
            _ => to = middle,
        }
    }
    Ok(from)
}

/// A tlog-proof of an entry: its index, the inclusion proof, and the last signed checkpoint. `None` if that does not cover the
/// entry yet.
pub fn of(history: &History, index: u64) -> Result<Option<String>, String> {
    from(history.folder(), history.verifier(), index)
}

/// The same, from a folder.
pub fn from(folder: &Folder, verifier: &super::note::Verifier, index: u64) -> Result<Option<String>, String> {
    let Some(note) = folder.checkpoint()? else { return Ok(None) };
    let checkpoint = verifier.open(&note)?;
    if index >= checkpoint.size {
        return Ok(None);
    }
    let path = tree::inclusion(folder, index, checkpoint.size)?;
    let path: String = path.iter().map(|hash| format!("{}\n", BASE64.encode(hash))).collect();
    Ok(Some(format!("c2sp.org/tlog-proof@v1\nindex {index}\n{path}\n{note}")))
}
