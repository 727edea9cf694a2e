//! The digest chain over all records: each record's digest covers the one before it, so that one digest stands for everything before.
//!
//! Rows are dropped one by one when they no longer matter. A row whose predecessor was dropped keeps the predecessor's digest, and
//! every row names the remaining row before it. So each row can be checked by itself, a changed bit is found in its row, and a row
//! that is missing without having been dropped is noticed at the next row.

use aws_lc_rs::digest::{Context, SHA256};

/// The digest of a record and of everything before it.
pub type Digest = [u8; 32];

/// The first value of the chain.
pub const BEGIN: Digest = [0; 32];

/// The digest of a record, after that of the record before it.
pub fn link(before: &Digest, revision: u64, body: &[u8]) -> Digest {
    let mut hash = Context::new(&SHA256);
    hash.update(before);
    hash.update(&revision.to_be_bytes());
    hash.update(body);
    let mut digest = BEGIN;
    digest.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// A row of the journal as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its revision.
    pub revision: u64,
    /// Its record.
    pub body: &'a [u8],
    /// The digest of its record.
    pub chain: &'a [u8],
    /// Revision of the preceding row; 0 if this row is the first.
    pub prev: u64,
    /// The digest of the preceding record, if the row of that record was deleted from the journal.
    pub before: Option<&'a [u8]>,
}

/// Why a journal is damaged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal is damaged: {what}. Nothing was changed. Use `mayfly backup restore` with the last backup, which revokes what came \
     after it; the damaged file is worth keeping"
)]
pub struct Damage {
    what: String,
}

/// Checks the chain row by row.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// Revision of the last row; 0 before the first.
    pub revision: u64,
    /// Its digest.
    pub chain: Digest,
}

impl Default for Checked {
    fn default() -> Checked {
        Checked { revision: 0, chain: BEGIN }
    }
}

impl Checked {
    /// Checks the next row.
    pub fn next(&mut self, row: &Row<'_>) -> Result<(), Damage> {
        let damage = |what: String| Damage { what };
        if row.prev != self.revision {
            return Err(damage(match row.prev > self.revision && row.prev < row.revision {
                true => format!("the row of revision {} is missing", row.prev),
                false => format!("the row of revision {} does not follow the one of revision {}", row.revision, self.revision),
            }));
        }
        let follows = row.revision == self.revision + 1;
        let before: &[u8] = match row.before {
            Some(before) if follows && before != self.chain => {
                return Err(damage(format!("the row of revision {} was changed", row.revision)));
            }
            Some(before) => before,
            None if follows => &self.chain,
            None => return Err(damage(format!("a row before revision {} is missing", row.revision))),
        };
        let before = before.try_into().map_err(|_| damage(format!("the row of revision {} was changed", row.revision)))?;
        let chain = link(before, row.revision, row.body);
        if chain != *row.chain {
            return Err(damage(format!("the row of revision {} was changed", row.revision)));
        }
        *self = Checked { revision: row.revision, chain };
        Ok(())
    }
}
