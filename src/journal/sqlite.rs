//! The embedded journal: one append-only table in SQLite, WAL, `synchronous=FULL`, with the digest chain beside the records.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Row as SqlRow, Transaction, TransactionBehavior, params};

use super::chain::{self, Checked, Digest};
use super::reserve::{Reserve, has_no_room, is_full};
use super::{AppendError, Each, Journal, Space};

/// Marks the file as a Mayfly journal (`PRAGMA application_id`): "MayJ".
const APPLICATION: i32 = 0x4d61_794a;
/// Layout of the file (`PRAGMA user_version`).
const LAYOUT: i32 = 2;
/// The layout of earlier versions, without the chain.
const UNCHAINED: i32 = 1;
/// Rows that are chained at once when an earlier journal is adopted.
const ADOPT: i64 = 10_000;
/// Columns of a row, as `row` reads them.
const COLUMNS: &str = "revision, body, chain, prev, before";

/// A journal in one file.
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    // The last row.
    last: Checked,
    reserve: Option<Reserve>,
    // If the size is limited: the bytes that are reserved, and the limit.
    bound: Option<(u64, u64)>,
    page: u64,
    // Whether the next records may use the reserve.
    vital: bool,
    // Whether the last write found no room on the disk.
    refused: bool,
}

/// Size of the reserve for revocations, ends and authorities, in bytes; at most an eighth of a journal whose size is limited.
const RESERVE: u64 = 8 << 20;
/// An error of SQLite when a write fails, also by a quota (`SQLITE_IOERR_WRITE`).
const IOERR_WRITE: i32 = 778;

impl Sqlite {
    /// Opens the file, or makes it; `max_bytes` bounds its size.
    pub fn open(path: &Path, max_bytes: Option<u64>) -> Result<Sqlite, String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", path.display());
        let mut connection = Connection::open(path).map_err(text)?;
        connection.busy_timeout(std::time::Duration::ZERO).map_err(text)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(text)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(text)?;
        // There is one process with one connection, so the file is locked for all others.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(text)?;
        let pragma = |connection: &Connection, name: &str| {
            connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map_err(text)
        };
        match (pragma(&connection, "application_id")?, pragma(&connection, "user_version")?) {
            (0, 0) => {
                connection
                    .execute_batch(&format!(
                        "BEGIN; CREATE TABLE record (revision INTEGER PRIMARY KEY, body BLOB NOT NULL, chain BLOB, prev INTEGER,
                         before BLOB) STRICT;
                         PRAGMA application_id={APPLICATION}; PRAGMA user_version={LAYOUT}; COMMIT;"
                    ))
                    .map_err(text)?;
            }
            (application, layout) if application == i64::from(APPLICATION) && layout == i64::from(LAYOUT) => {}
            (application, layout) if application == i64::from(APPLICATION) && layout == i64::from(UNCHAINED) => {
                adopt(&mut connection).map_err(text)?;
            }
            (application, layout) if application == i64::from(APPLICATION) => {
                return Err(format!("{}: layout {layout} is unknown to this version", path.display()));
            }
            _ => return Err(format!("{}: this is no Mayfly journal", path.display())),
        }
        let page = pragma(&connection, "page_size")?.max(1);
        if let Some(bytes) = max_bytes {
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page;
            connection.pragma_update(None, "max_page_count", pages).map_err(text)?;
        }
        let last = last(&connection).map_err(text)?;
        let (path, page) = (path.to_owned(), u64::try_from(page).unwrap_or(1));
        let bound = max_bytes.map(|most| (RESERVE.min(most / 8), most));
        Ok(Sqlite { connection, path, last, reserve: None, bound, page, vital: false, refused: false })
    }

    /// Opens the journal of an issuer, with a reserve beside it. If the disk is full, a part of the reserve is given up for the
    /// start.
    pub fn open_reserved(path: &Path, max_bytes: Option<u64>) -> Result<Sqlite, String> {
        let mut name = path.as_os_str().to_owned();
        name.push(".reserve");
        let size = max_bytes.map_or(RESERVE, |most| RESERVE.min(most / 8));
        let mut reserve = match Reserve::open(Path::new(&name), size) {
            Ok(reserve) => Some(reserve),
            // The disk was full before there was a reserve, so the journal runs without one.
            Err(error) if is_full(&error) => None,
            Err(error) => return Err(format!("{}: {error}", Path::new(&name).display())),
        };
        keep_private(path)?;
        let mut opened = Sqlite::open(path, max_bytes);
        while opened.is_err() && has_no_room(path) && reserve.as_mut().is_some_and(Reserve::give) {
            opened = Sqlite::open(path, max_bytes);
        }
        let journal = opened?;
        Ok(Sqlite { reserve, ..journal })
    }

    /// Bytes that the records occupy, without free space inside the file.
    fn used(&self) -> rusqlite::Result<u64> {
        let pragma = |name: &str| self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
        Ok(u64::try_from(pages).unwrap_or(0).saturating_mul(self.page))
    }

    /// Why there is no room for records that may not use the reserve, if there is none.
    fn lacks_room(&mut self, records: &[Vec<u8>]) -> Option<String> {
        self.refused = self.refused && has_no_room(&self.path);
        if self.refused {
            return Some("the disk, or this user's part of it, is full".into());
        }
        if let Some(reserve) = &mut self.reserve {
            reserve.fill();
            if !reserve.is_whole() {
                return Some("what is left of the disk is kept for revocations, ends and authorities".into());
            }
        }
        let (kept, most) = self.bound?;
        // An estimate: the record itself, some bytes for its row, and a few pages by which the B-tree may grow.
        let needed = records.iter().map(|record| record.len() as u64 + 128).sum::<u64>() + 8 * self.page;
        let used = self.used().ok()?;
        let full = used.saturating_add(needed) > most - kept;
        full.then(|| {
            format!("the records take {used} bytes of {most}, and {kept} are kept for revocations, ends and authorities")
        })
    }

    fn failed(&mut self, e: &rusqlite::Error) -> AppendError {
        let extended = e.sqlite_error().map(|e| e.extended_code);
        match e.sqlite_error_code() {
            // T73: SQLite rolls the transaction back, and the file stays intact.
            Some(ErrorCode::DiskFull) => AppendError::Full(e.to_string()),
            // T213: a quota is not a broken disk. The transaction was not committed, so it has no effect.
            Some(_) if extended == Some(IOERR_WRITE) && has_no_room(&self.path) => AppendError::Full("there is no room".into()),
            // The revision is the primary key, so another process has appended a record with it.
            Some(ErrorCode::ConstraintViolation) => match last(&self.connection) {
                Ok(last) => {
                    self.last = last;
                    AppendError::Behind
                }
                Err(e) => AppendError::Fatal(e.to_string()),
            },
            // T72: after any other error, such as an I/O error or a failed fsync, it is unknown what is durable.
            _ => AppendError::Fatal(e.to_string()),
        }
    }

    /// Makes a journal in a new file that only this user can read. Fails if the file exists; a link is not followed.
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
        let mut last = self.last;
        for (revision, body) in rows {
            insert(&transaction, &mut last, *revision, body).map_err(text)?;
        }
        transaction.commit().map_err(text)?;
        self.last = last;
        Ok(())
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
        let below = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            // The first remaining row has no row before it, so it keeps the digest of its predecessor.
            transaction.execute(
                "UPDATE record SET prev = 0, before = coalesce(before, (SELECT chain FROM record p WHERE p.revision = record.revision - 1))
                 WHERE revision = (SELECT min(revision) FROM record WHERE revision >= ?1)",
                [revision],
            )?;
            transaction.execute("DELETE FROM record WHERE revision < ?1", [revision])?;
            transaction.commit()
        };
        below(&mut self.connection).map_err(|e| e.to_string())
    }

    fn try_append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut chained = self.last;
        for (revision, record) in (first..).zip(records) {
            insert(&transaction, &mut chained, revision, record)?;
        }
        for revision in drop {
            remove(&transaction, i64::try_from(*revision).unwrap_or(i64::MAX))?;
        }
        transaction.commit()?;
        self.last = chained;
        Ok(())
    }
}

/// Makes a journal readable by its owner alone, whatever the permissions of its folder are (T238). A missing file is made with this
/// mode; if there is no room for it, opening it fails later.
fn keep_private(path: &Path) -> Result<(), String> {
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    drop(options.write(true).create_new(true).open(path));
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let wide = |m: &std::fs::Metadata| m.is_file() && m.permissions().mode() & 0o077 != 0;
        if std::fs::symlink_metadata(&name).is_ok_and(|m| wide(&m)) {
            std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o600))
                .map_err(|e| format!("{}: others may read it, and that cannot be changed: {e}", Path::new(&name).display()))?;
        }
    }
    Ok(())
}

/// The last row, without a check of it.
fn last(connection: &Connection) -> rusqlite::Result<Checked> {
    let select = "SELECT revision, chain FROM record ORDER BY revision DESC LIMIT 1";
    let found = connection.query_row(select, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).optional()?;
    Ok(found.map_or_else(Checked::default, |(revision, chain)| Checked {
        revision: u64::try_from(revision).unwrap_or(0),
        // A digest of the wrong length fails when the row is checked.
        chain: chain.try_into().unwrap_or(chain::BEGIN),
    }))
}

/// Adds a row after the last one.
fn insert(transaction: &Transaction<'_>, last: &mut Checked, revision: u64, body: &[u8]) -> rusqlite::Result<()> {
    let digest = chain::link(&last.chain, revision, body);
    let before = (revision != last.revision + 1).then_some(last.chain);
    let [number, prev] = [revision, last.revision].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let sql = "INSERT INTO record (revision, body, chain, prev, before) VALUES (?1, ?2, ?3, ?4, ?5)";
    transaction.prepare_cached(sql)?.execute(params![number, body, digest, prev, before])?;
    *last = Checked { revision, chain: digest };
    Ok(())
}

/// Drops a row, and updates the next one, which names it.
fn remove(transaction: &Transaction<'_>, revision: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE record SET prev = gone.prev, before = CASE WHEN record.revision = gone.revision + 1 THEN gone.chain
               ELSE record.before END FROM (SELECT revision, prev, chain FROM record WHERE revision = ?1) AS gone
               WHERE record.revision = (SELECT min(revision) FROM record WHERE revision > ?1)";
    transaction.prepare_cached(sql)?.execute([revision])?;
    transaction.prepare_cached("DELETE FROM record WHERE revision = ?1")?.execute([revision])?;
    Ok(())
}

/// Adds the chain to a journal of an earlier version, whose present rows are trusted.
fn adopt(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(
        "ALTER TABLE record ADD COLUMN chain BLOB; ALTER TABLE record ADD COLUMN prev INTEGER;
         ALTER TABLE record ADD COLUMN before BLOB;",
    )?;
    let mut last = Checked::default();
    loop {
        let after = i64::try_from(last.revision).unwrap_or(i64::MAX);
        let mut select =
            transaction.prepare_cached("SELECT revision, body FROM record WHERE revision > ?1 ORDER BY revision LIMIT ?2")?;
        let rows = select.query_map([after, ADOPT], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
        if rows.is_empty() {
            break;
        }
        let mut update =
            transaction.prepare_cached("UPDATE record SET chain = ?2, prev = ?3, before = ?4 WHERE revision = ?1")?;
        for (number, body) in rows {
            let revision = u64::try_from(number).unwrap_or(0);
            let digest = chain::link(&last.chain, revision, &body);
            let before = (revision != last.revision + 1).then_some(last.chain);
            update.execute(params![number, digest, i64::try_from(last.revision).unwrap_or(i64::MAX), before])?;
            last = Checked { revision, chain: digest };
        }
    }
    transaction.execute_batch(&format!("PRAGMA user_version={LAYOUT}"))?;
    transaction.commit()
}

/// A row of [`COLUMNS`], checked after those before it.
fn row<'a>(row: &'a SqlRow<'_>, checked: &mut Checked) -> Result<(u64, &'a [u8]), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let revision = u64::try_from(row.get::<_, i64>(0).map_err(|e| text(&e))?).map_err(|e| text(&e))?;
    let damaged = |e: &dyn std::fmt::Display| format!("the journal is damaged: the row of revision {revision} was changed ({e})");
    let body = row.get_ref(1).map_err(|e| text(&e))?.as_blob().map_err(|e| damaged(&e))?;
    let chain = row.get_ref(2).map_err(|e| text(&e))?.as_blob().map_err(|e| damaged(&e))?;
    let prev = u64::try_from(row.get::<_, i64>(3).map_err(|e| damaged(&e))?).map_err(|e| damaged(&e))?;
    let before = row.get_ref(4).map_err(|e| text(&e))?.as_blob_or_null().map_err(|e| damaged(&e))?;
    checked.next(&chain::Row { revision, body, chain, prev, before }).map_err(|e| e.to_string())?;
    Ok((revision, body))
}

impl Journal for Sqlite {
    fn replay(&mut self, each: Each<'_>) -> Result<(), String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        let mut select = self.connection.prepare(&format!("SELECT {COLUMNS} FROM record ORDER BY revision")).map_err(text)?;
        let mut rows = select.query([]).map_err(text)?;
        let mut checked = Checked::default();
        while let Some(next) = rows.next().map_err(text)? {
            let (revision, body) = row(next, &mut checked).map_err(|e| format!("{}: {e}", self.path.display()))?;
            each(revision, body)?;
        }
        Ok(())
    }

    fn append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> Result<(), AppendError> {
        if !self.vital
            && !records.is_empty()
            && let Some(why) = self.lacks_room(records)
        {
            return Err(AppendError::Full(why));
        }
        loop {
            let appended = self.try_append(first, records, drop).map_err(|e| self.failed(&e));
            self.refused = matches!(appended, Err(AppendError::Full(_)));
            match appended {
                Err(AppendError::Full(_)) if self.vital && self.reserve.as_mut().is_some_and(Reserve::give) => {}
                done => return done,
            }
        }
    }

    fn may_use_reserve(&mut self, may: bool) {
        self.vital = may;
    }

    fn tend(&mut self) -> Space {
        let is_short = self.lacks_room(&[]).is_some();
        let (free, left) = self.reserve.as_ref().map(|reserve| (reserve.free(), reserve.left())).unzip();
        let used = self.used().ok();
        let bounded = self.bound.zip(used).map(|((kept, most), used)| kept.min(most.saturating_sub(used)));
        Space { used, free: free.flatten(), reserve: bounded.or(left), is_short }
    }

    fn read(&mut self, from: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, String> {
        let text = |e: rusqlite::Error| format!("{}: {e}", self.path.display());
        let from = i64::try_from(from).map_err(|e| e.to_string())?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let checked = "SELECT revision, chain FROM record WHERE revision < ?1 ORDER BY revision DESC LIMIT 1";
        let checked = self.connection.prepare_cached(checked).map_err(text)?.query_row([from], |row| {
            Ok(Checked { revision: u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), chain: row.get(1)? })
        });
        let mut checked = checked.optional().map_err(text)?.unwrap_or_default();
        let select = format!("SELECT {COLUMNS} FROM record WHERE revision >= ?1 ORDER BY revision LIMIT ?2");
        let mut select = self.connection.prepare_cached(&select).map_err(text)?;
        let mut rows = select.query([from, most]).map_err(text)?;
        let mut found = Vec::new();
        while let Some(next) = rows.next().map_err(text)? {
            let (revision, body) = row(next, &mut checked).map_err(|e| format!("{}: {e}", self.path.display()))?;
            found.push((revision, body.to_vec()));
        }
        Ok(found)
    }

    fn head(&self) -> Option<(u64, Digest)> {
        Some((self.last.revision, self.last.chain))
    }

    fn chain_at(&self, revision: u64) -> Result<Option<Digest>, String> {
        let revision = i64::try_from(revision).map_err(|e| e.to_string())?;
        let select = "SELECT coalesce((SELECT chain FROM record WHERE revision = ?1),
                                      (SELECT before FROM record WHERE revision = ?1 + 1))";
        self.connection.query_row(select, [revision], |row| row.get::<_, Option<Digest>>(0)).map_err(|e| e.to_string())
    }
}
