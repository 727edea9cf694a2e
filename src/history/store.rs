//! The entries on disk: append-only segments of JSON lines, which are dropped as a whole when they are too old or too many.
//!
//! A line is one entry. A line that a crash left incomplete is removed at the next start; it was not durable, so the journal still
//! has its record. A copy of the folder taken at any moment is a valid history, up to an incomplete line at its end.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::entry::Sealed;
use super::read::Reader;

/// Entries in one block of a segment, the unit that readers skip.
pub(super) const BLOCK: u64 = 256;
/// Bytes of a segment at which the next one begins, unless a smaller history asks for smaller ones.
const SEGMENT: u64 = 64 << 20;
/// Number of segments into which the retention time and the retention size are divided.
const PARTS: u64 = 16;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Microseconds for which an entry is kept. It may be kept longer, until its whole segment is dropped.
    pub time: u64,
    /// Most bytes of all entries. `None` means that only the disk bounds them.
    pub bytes: Option<u64>,
}

/// The position of 256 entries in a segment, and their times in Unix microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) earliest: u64,
    pub(super) latest: u64,
}

/// One file of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// Index of its first entry.
    pub(super) first: u64,
    /// Number of entries.
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) blocks: Vec<Block>,
}

impl Segment {
    fn add(&mut self, bytes: u64, at: u64) {
        if self.count.is_multiple_of(BLOCK) {
            self.blocks.push(Block { offset: self.bytes, earliest: at, latest: at });
        } else if let Some(block) = self.blocks.last_mut() {
            block.earliest = block.earliest.min(at);
            block.latest = block.latest.max(at);
        }
        self.count += 1;
        self.bytes += bytes;
    }

    fn latest(&self) -> u64 {
        self.blocks.iter().map(|block| block.latest).max().unwrap_or(0)
    }

    fn earliest(&self) -> u64 {
        self.blocks.iter().map(|block| block.earliest).min().unwrap_or(u64::MAX)
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}.jsonl", self.first))
    }
}

/// The segments, as readers see them: the last one is being written.
// Guards the list; held to change or to copy it.
pub(super) type Segments = Arc<RwLock<Vec<Arc<Segment>>>>;

/// The segments and the file that is written.
pub(super) struct Store {
    dir: PathBuf,
    keep: Keep,
    segments: Segments,
    file: File,
    head: u64,
}

/// Why entries are not durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Nothing was written, and the same may succeed later.
    #[error("{0}")]
    Full(String),
    /// It is unknown what is durable until the next start.
    #[error("{0}")]
    Broken(String),
}

impl Store {
    /// Opens the folder of segments, or makes it. An incomplete line at the end is removed.
    pub(super) fn open(dir: &Path, keep: Keep) -> Result<Store, String> {
        make(dir)?;
        let mut segments = list(dir)?;
        let mut last = match segments.pop() {
            Some(first) => scan(dir, first)?,
            None => (Segment::default(), 0),
        };
        let mut known = Vec::new();
        let mut end = None;
        for first in segments {
            let segment = closed(dir, first)?;
            if end.is_some_and(|end| end != segment.first) {
                return Err(format!("`{}`: entries before {} are missing", dir.display(), segment.first));
            }
            end = Some(segment.end());
            known.push(segment);
        }
        if end.is_some_and(|end| end != last.0.first) {
            return Err(format!("`{}`: entries before {} are missing", dir.display(), last.0.first));
        }
        // The last segment is empty, so the head is that of the one before.
        if last.0.count == 0
            && let Some(before) = known.last()
        {
            last.1 = scan(dir, before.first)?.1;
        }
        let file = append(&last.0.path(dir))?;
        file.set_len(last.0.bytes).and_then(|()| file.sync_all()).map_err(|e| format!("`{}`: {e}", dir.display()))?;
        known.push(last.0);
        let segments: Segments = Arc::new(RwLock::new(known.into_iter().map(Arc::new).collect()));
        Ok(Store { dir: dir.to_owned(), keep, segments, file, head: last.1 })
    }

    /// A reader, which can be used while this writes.
    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.dir.clone(), Arc::clone(&self.segments))
    }

    /// The index of the next entry.
    pub(super) fn next(&self) -> u64 {
        self.segments.read().last().map_or(0, |last| last.end())
    }

    /// The journal's revision up to which every record is held.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Index of the first entry that is kept.
    pub(super) fn minimum(&self) -> u64 {
        self.segments.read().first().map_or(0, |first| first.first)
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.bytes).sum()
    }

    /// Makes entries durable, each with its time: all of them or none.
    pub(super) fn append(&mut self, entries: &[(u64, Sealed)]) -> Result<(), StoreError> {
        let Some((at, newest)) = entries.last() else { return Ok(()) };
        self.turn(*at).map_err(StoreError::Full)?;
        let mut segment = self.last();
        let (before, mut bytes) = (segment.bytes, Vec::new());
        for (at, entry) in entries {
            let start = bytes.len();
            entry.line(&mut bytes);
            segment.add(u64::try_from(bytes.len() - start).unwrap_or(0), *at);
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // A part that was written is removed again. If that fails, the next start does it.
            let cut = self.file.set_len(before);
            return Err(match cut {
                Ok(()) => StoreError::Full(error.to_string()),
                Err(cut) => StoreError::Broken(cut.to_string()),
            });
        }
        // As for the journal: after a failed fsync it is unknown what is on the disk.
        self.file.sync_data().map_err(|e| StoreError::Broken(e.to_string()))?;
        self.head = newest.head;
        self.replace(segment);
        Ok(())
    }

    /// Drops the oldest segments if all of their entries are too old at `now` (Unix microseconds), or if there are too many. Only
    /// segments of the first `durable` entries are dropped: the tiles of later ones may have to be rebuilt.
    pub(super) fn expire(&mut self, now: u64, durable: u64) -> Result<(), String> {
        self.turn(now)?;
        loop {
            let bytes = self.bytes();
            let oldest = {
                let segments = self.segments.read();
                let [oldest, _, ..] = segments.as_slice() else { return Ok(()) };
                Arc::clone(oldest)
            };
            let old = oldest.latest().saturating_add(self.keep.time) <= now;
            let many = self.keep.bytes.is_some_and(|most| bytes > most);
            if !(old || many) || oldest.end() > durable {
                return Ok(());
            }
            // ORDER: removed from the list first, so that a reader never finds a segment there whose file is gone.
            self.segments.write().remove(0);
            for path in [oldest.path(&self.dir), index(&self.dir, oldest.first)] {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(format!("`{}`: {e}", path.display())),
                    _ => {}
                }
            }
            tracing::info!(first = oldest.first, entries = oldest.count, "a segment of the history was dropped");
        }
    }

    /// Begins the next segment if the last one is large or old enough.
    fn turn(&mut self, now: u64) -> Result<(), String> {
        let last = self.last();
        let large = self.keep.bytes.map_or(SEGMENT, |most| (most / PARTS).clamp(1, SEGMENT));
        let old = last.earliest().saturating_add(self.keep.time / PARTS) <= now;
        if last.count == 0 || !(last.bytes >= large || old) {
            return Ok(());
        }
        let text = serde_json::to_vec(&last).map_err(|e| e.to_string())?;
        crate::keys::keystore::write_private(&index(&self.dir, last.first), &text).map_err(|e| e.to_string())?;
        let next = Segment { first: last.end(), ..Segment::default() };
        self.file = append(&next.path(&self.dir))?;
        sync(&self.dir)?;
        self.segments.write().push(Arc::new(next));
        Ok(())
    }

    fn last(&self) -> Segment {
        self.segments.read().last().map(|last| Segment::clone(last)).unwrap_or_default()
    }

    fn replace(&self, segment: Segment) {
        if let Some(last) = self.segments.write().last_mut() {
            *last = Arc::new(segment);
        }
    }
}

/// The journal's revision up to which the segments in a folder hold every record; 0 if there are none.
pub fn head_of(dir: &Path) -> Result<u64, String> {
    if !dir.is_dir() {
        return Ok(0);
    }
    for first in list(dir)?.into_iter().rev() {
        let (segment, head) = scan(dir, first)?;
        if segment.count > 0 {
            return Ok(head);
        }
    }
    Ok(0)
}

/// First entries of the segments in a folder, in order.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, String> {
    let text = |e: std::io::Error| format!("`{}`: {e}", dir.display());
    let mut firsts = Vec::new();
    for entry in fs::read_dir(dir).map_err(text)? {
        let name = entry.map_err(text)?.file_name();
        if let Some(first) = name.to_str().and_then(|name| name.strip_suffix(".jsonl")) {
            firsts.push(first.parse().map_err(|_| format!("`{}`: `{first}.jsonl` is no segment", dir.display()))?);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Opens a segment that is complete: by its index file, which can be rebuilt, or by reading it.
pub(super) fn closed(dir: &Path, first: u64) -> Result<Segment, String> {
    let read = fs::read(index(dir, first)).ok().and_then(|text| serde_json::from_slice::<Segment>(&text).ok());
    let size = fs::metadata(Segment { first, ..Segment::default() }.path(dir)).map(|m| m.len());
    match read {
        Some(segment) if segment.first == first && size.as_ref().is_ok_and(|size| *size == segment.bytes) => Ok(segment),
        _ => Ok(scan(dir, first)?.0),
    }
}

/// Reads a segment up to its last complete line, and the head in its last entry.
fn scan(dir: &Path, first: u64) -> Result<(Segment, u64), String> {
    let mut segment = Segment { first, ..Segment::default() };
    let path = segment.path(dir);
    let bytes = fs::read(&path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let mut head = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
        let damaged = |e: String| format!("`{}`: entry {} is damaged: {e}", path.display(), first + segment.count);
        let sealed = Sealed::read(line).map_err(damaged)?;
        let at = sealed.open().map_err(damaged)?.leaf.at;
        head = sealed.head;
        segment.add(u64::try_from(line.len()).unwrap_or(0), at);
    }
    Ok((segment, head))
}

fn index(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.index"))
}

fn append(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    file.map_err(|e| format!("`{}`: {e}", path.display()))
}

fn sync(dir: &Path) -> Result<(), String> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| format!("`{}`: {e}", dir.display()))
}

/// Makes a folder with those above it, readable by our user alone, durably.
pub(super) fn make(dir: &Path) -> Result<(), String> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make(above)?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(format!("`{}`: {e}", dir.display())),
        _ => sync(above),
    }
}

#[cfg(test)]
mod tests;
