//! The embedded journal: one append-only table in SQLite, WAL, `synchronous=FULL`.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use super::{AppendError, Each, Journal};

/// Marks the file as a Mayfly journal (`PRAGMA application_id`): "MayJ".
const APPLICATION: i32 = 0x4d61_794a;
/// Layout of the file (`PRAGMA user_version`).
const LAYOUT: i32 = 1;

/// A journal in one file.
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
}

impl Sqlite {
    /// Opens the file, or makes it; `max_bytes` bounds its size.
    pub fn open(path: &Path, max_bytes: Option<u64>) -> Result<Sqlite, String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", path.display());
        let connection = Connection::open(path).map_err(text)?;
        connection.busy_timeout(std::time::Duration::ZERO).map_err(text)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(text)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(text)?;
        // One process, one connection: nobody else may even read the WAL's index.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(text)?;
        let pragma = |name| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map_err(text);
        match (pragma("application_id")?, pragma("user_version")?) {
            (0, 0) => {
                connection
                    .execute_batch(&format!(
                        "BEGIN; CREATE TABLE record (revision INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
                         PRAGMA application_id={APPLICATION}; PRAGMA user_version={LAYOUT}; COMMIT;"
                    ))
                    .map_err(text)?;
            }
            (application, layout) if application == i64::from(APPLICATION) && layout == i64::from(LAYOUT) => {}
            (application, layout) if application == i64::from(APPLICATION) => {
                return Err(format!("{}: layout {layout} is unknown to this version", path.display()));
            }
            _ => return Err(format!("{}: this is no Mayfly journal", path.display())),
        }
        if let Some(bytes) = max_bytes {
            let page = pragma("page_size")?.max(1);
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page;
            connection.pragma_update(None, "max_page_count", pages).map_err(text)?;
        }
        Ok(Sqlite { connection, path: path.to_owned() })
    }

    /// Makes a journal in a file that nobody made before us, readable by us alone; a link is not followed.
    pub fn create(path: &Path) -> Result<Sqlite, String> {
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.write(true).create_new(true).open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Sqlite::open(path, None)
    }

    /// Adds rows of another journal, each under its own revision.
    pub fn put(&mut self, rows: &[(u64, Vec<u8>)]) -> Result<(), String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        let transaction = self.connection.unchecked_transaction().map_err(text)?;
        for (revision, body) in rows {
            let revision = i64::try_from(*revision).map_err(|e| e.to_string())?;
            let mut insert = transaction.prepare_cached("INSERT INTO record (revision, body) VALUES (?1, ?2)").map_err(text)?;
            insert.execute(params![revision, body]).map_err(text)?;
        }
        transaction.commit().map_err(text)
    }

    /// Ends the journal as one durable file without a write-ahead log beside it, and returns its size in bytes.
    pub fn close(self) -> Result<u64, String> {
        let path = self.path;
        let text = |e: rusqlite::Error| format!("{}: {e}", path.display());
        self.connection.pragma_update(None, "journal_mode", "DELETE").map_err(text)?;
        self.connection.close().map_err(|(_, e)| text(e))?;
        let file = std::fs::File::open(&path).map_err(|e| e.to_string())?;
        file.sync_all().map_err(|e| e.to_string())?;
        Ok(file.metadata().map_err(|e| e.to_string())?.len())
    }

    /// Deletes every record below `revision`.
    pub fn drop_below(&mut self, revision: u64) -> Result<(), String> {
        let revision = i64::try_from(revision).map_err(|e| e.to_string())?;
        self.connection.execute("DELETE FROM record WHERE revision < ?1", [revision]).map(drop).map_err(|e| e.to_string())
    }

    fn try_append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO record (revision, body) VALUES (?1, ?2)")?;
            for (revision, record) in (first..).zip(records) {
                insert.execute(params![i64::try_from(revision).unwrap_or(i64::MAX), record])?;
            }
            let mut delete = transaction.prepare_cached("DELETE FROM record WHERE revision = ?1")?;
            for revision in drop {
                delete.execute([i64::try_from(*revision).unwrap_or(i64::MAX)])?;
            }
        }
        transaction.commit()
    }
}

impl Journal for Sqlite {
    fn replay(&mut self, each: Each<'_>) -> Result<(), String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        let mut select = self.connection.prepare("SELECT revision, body FROM record ORDER BY revision").map_err(text)?;
        let mut rows = select.query([]).map_err(text)?;
        while let Some(row) = rows.next().map_err(text)? {
            let revision = u64::try_from(row.get::<_, i64>(0).map_err(text)?).map_err(|e| e.to_string())?;
            let body = row.get_ref(1).map_err(text)?.as_blob().map_err(|e| e.to_string())?;
            each(revision, body)?;
        }
        Ok(())
    }

    fn append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> Result<(), AppendError> {
        self.try_append(first, records, drop).map_err(|e| match e.sqlite_error_code() {
            // T73: SQLite rolls the transaction back and stays whole.
            Some(ErrorCode::DiskFull) => AppendError::Full(e.to_string()),
            // The revision is the primary key: somebody else has appended under it.
            Some(ErrorCode::ConstraintViolation) => AppendError::Behind,
            // T72: everything else, an I/O error or a failed fsync above all, leaves us not knowing.
            _ => AppendError::Fatal(e.to_string()),
        })
    }

    fn read(&mut self, from: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        let from = i64::try_from(from).map_err(|e| e.to_string())?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let select = "SELECT revision, body FROM record WHERE revision >= ?1 ORDER BY revision LIMIT ?2";
        let mut select = self.connection.prepare_cached(select).map_err(text)?;
        let mut rows = select.query([from, most]).map_err(text)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(text)? {
            let revision = u64::try_from(row.get::<_, i64>(0).map_err(text)?).map_err(|e| e.to_string())?;
            found.push((revision, row.get(1).map_err(text)?));
        }
        Ok(found)
    }
}
