//! Reads entries while the writer appends. Blocks outside of the wanted times are skipped.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::entry::Sealed;
use super::store::{BLOCK, Segment, Segments, closed, list};

/// Reads the entries of a store. Clones read the same.
#[derive(Clone)]
pub struct Reader {
    dir: PathBuf,
    segments: Segments,
}

/// The first entry and the times to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Index of the first entry.
    pub from: u64,
    /// Unix microseconds, this one included.
    pub since: u64,
    /// Unix microseconds, this one not included.
    pub until: u64,
}

impl Default for Range {
    fn default() -> Range {
        Range { from: 0, since: 0, until: u64::MAX }
    }
}

impl Reader {
    pub(super) fn new(dir: PathBuf, segments: Segments) -> Reader {
        Reader { dir, segments }
    }

    /// Reads a copy of a folder that nobody writes.
    pub fn offline(dir: &Path) -> Result<Reader, String> {
        let segments: Result<Vec<_>, _> = list(dir)?.into_iter().map(|first| closed(dir, first).map(Arc::new)).collect();
        Ok(Reader::new(dir.to_owned(), Arc::new(RwLock::new(segments?))))
    }

    /// The indexes of the entries that are kept: of the first, and after the last.
    pub fn places(&self) -> (u64, u64) {
        let segments = self.segments.read();
        (segments.first().map_or(0, |first| first.first), segments.last().map_or(0, |last| last.end()))
    }

    /// Gives entries in order until `each` breaks. Entries of skipped blocks are not given; one outside the times may be. Blocks:
    /// not for async code.
    pub fn each(&self, range: Range, mut each: impl FnMut(u64, &Sealed) -> ControlFlow<()>) -> Result<(), String> {
        let segments: Vec<Arc<Segment>> = self.segments.read().clone();
        for segment in segments.iter().filter(|segment| segment.end() > range.from) {
            let mut file: Option<File> = None;
            for (n, block) in (0u64..).zip(&segment.blocks) {
                let first = segment.first + n * BLOCK;
                let end = segment.blocks.get(usize::try_from(n + 1).unwrap_or(usize::MAX)).map_or(segment.bytes, |b| b.offset);
                if first + BLOCK <= range.from || block.latest < range.since || block.earliest >= range.until {
                    continue;
                }
                let file = match &mut file {
                    Some(file) => file,
                    None => match File::open(segment.path(&self.dir)) {
                        Ok(opened) => file.insert(opened),
                        // The segment was dropped in the meantime, because it is too old.
                        Err(e) if e.kind() == ErrorKind::NotFound => break,
                        Err(e) => return Err(self.failed(segment, &e)),
                    },
                };
                let mut bytes = vec![0; usize::try_from(end - block.offset).unwrap_or(0)];
                file.seek(SeekFrom::Start(block.offset)).map_err(|e| self.failed(segment, &e))?;
                file.read_exact(&mut bytes).map_err(|e| self.failed(segment, &e))?;
                for (index, line) in (first..).zip(bytes.split_inclusive(|b| *b == b'\n')) {
                    let damaged = |e| format!("entry {index} is damaged: {e}");
                    if index >= range.from && each(index, &Sealed::read(line).map_err(damaged)?).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// One entry. `None` if it is not there, or not any more.
    pub fn one(&self, index: u64) -> Result<Option<Sealed>, String> {
        let mut found = None;
        self.each(Range { from: index, ..Range::default() }, |at, sealed| {
            found = (at == index).then(|| sealed.clone());
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    fn failed(&self, segment: &Segment, error: &std::io::Error) -> String {
        format!("`{}`: {error}", segment.path(&self.dir).display())
    }
}
