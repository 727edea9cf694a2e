//! A backup: a consistent copy of the journal, read piece by piece between commits, so that requests do not wait for it.

use std::path::{Path, PathBuf};

use super::Ledger;
use crate::denial::Fault;
use crate::journal::sqlite::Sqlite;

/// Rows that are read under the writer's lock at once.
const PIECE: usize = 1000;

impl Ledger {
    /// Copies the journal as of now to a new file. Returns the copy's head and its size in bytes. Blocks.
    pub fn backup(&self, to: &Path) -> Result<(u64, u64), Fault> {
        if to.exists() {
            return Err(Fault::new("backup", format!("`{}` exists already", to.display())));
        }
        // A copy gets its name when it is complete, so that an interrupted one is never taken for a backup.
        let partial = named(to, &format!(".{}.partial", uuid::Uuid::now_v7()));
        let mut copy = Sqlite::create(&partial).map_err(|e| Fault::new("backup", e))?;
        let partial = Partial(partial);
        // INVARIANT: no row is dropped while the copy is made. Otherwise the copy might hold the row of a revocation and lack
        // that of the reopening after it.
        let _keeps = Keeps::begin(self);
        let head = self.read(|state| state.revision);
        let mut next = 0;
        while next <= head {
            let mut rows = self.rows(next, PIECE)?;
            let more = rows.len() == PIECE;
            rows.retain(|(revision, _)| *revision <= head);
            let Some((last, _)) = rows.last() else { break };
            next = last + 1;
            copy.put(&rows).map_err(|e| Fault::new("backup", e))?;
            if !more {
                break;
            }
        }
        let bytes = copy.close().map_err(|e| Fault::new("backup", e))?;
        // A hard link never replaces a file that was made in the meantime.
        std::fs::hard_link(&partial.0, to).map_err(|e| Fault::new("backup", e))?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Fault::new("backup", e))?;
        Ok((head, bytes))
    }
}

/// A file that is removed when it is dropped, with what SQLite writes beside it.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = std::fs::remove_file(named(&self.0, suffix));
        }
    }
}

fn named(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Keeps the journal's rows as long as it exists.
struct Keeps<'a>(&'a Ledger);

impl Keeps<'_> {
    fn begin(ledger: &Ledger) -> Keeps<'_> {
        ledger.0.writer.lock().backup_begins();
        Keeps(ledger)
    }
}

impl Drop for Keeps<'_> {
    fn drop(&mut self) {
        self.0.0.writer.lock().backup_ends();
    }
}
