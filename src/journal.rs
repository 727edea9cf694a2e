//! Room 5: the journal. The records, the trait of a store for them, and the store in SQLite. Durable from here.

pub mod chain;
pub mod reserve;
pub mod sqlite;

/// The records, generated from `proto/mayfly/journal/v1/journal.proto`.
#[expect(missing_docs, clippy::module_inception, reason = "generated; the proto file documents them")]
pub mod record {
    include!(concat!(env!("OUT_DIR"), "/mayfly.journal.v1.rs"));
}

use prost::Message;
use record::Record;

/// Stores records in one order. The ledger is its only user in this process. Other processes may append to the same journal if the
/// implementation allows that; [`AppendError::Behind`] reports it.
pub trait Journal: Send {
    /// Passes every record to `each`, in order of revision.
    fn replay(&mut self, each: Each<'_>) -> Result<(), String>;

    /// Makes records durable under consecutive revisions from `first` on, and drops the rows in `drop`: all of it or nothing.
    fn append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> Result<(), AppendError>;

    /// At most `most` records from a revision on, in order, each with its revision. Fewer than `most` means that there are no
    /// more. This is how a backup is copied piece by piece, and how a ledger that is behind catches up.
    fn read(&mut self, from: u64, most: usize) -> Result<Vec<(u64, Vec<u8>)>, String>;

    /// The last revision and the digest of the chain there. `None` if this journal keeps no chain.
    fn head(&self) -> Option<(u64, chain::Digest)> {
        None
    }

    /// Says whether the records of the next calls may use the reserve. While any of it is in use, other records find no room.
    fn may_use_reserve(&mut self, _: bool) {}

    /// Refills the reserve if there is room, and returns how much room there is.
    fn tend(&mut self) -> Space {
        Space::default()
    }

    /// The digest of the chain at a revision. `None` if this journal keeps no chain, or if the digest is no longer known.
    fn chain_at(&self, _: u64) -> Result<Option<chain::Digest>, String> {
        Ok(None)
    }
}

/// The room of a journal, in bytes. `None` if it is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What its records take.
    pub used: Option<u64>,
    /// Free space on its disk.
    pub free: Option<u64>,
    /// The part of the reserve that is left.
    pub reserve: Option<u64>,
    /// Whether records other than revocations, ends and authorities find no room.
    pub is_short: bool,
}

/// Takes a revision and its record.
pub type Each<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), String>;

/// Why records are not durable.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// There is no room. Nothing was written, and the journal is intact.
    #[error("the disk is full: {0}")]
    Full(String),
    /// The journal holds records at `first` or after it that this ledger has not applied. Nothing was written: read them, apply
    /// them, judge again.
    #[error("the journal has records that were not applied yet")]
    Behind,
    /// It is unknown what is durable. The process must stop, and replay the journal at its next start.
    #[error("the journal failed: {0}")]
    Fatal(String),
}

/// Reads one record, and refuses fields that this version does not know.
pub fn decode(bytes: &[u8]) -> Result<Record, String> {
    let record = Record::decode(bytes).map_err(|e| e.to_string())?;
    // prost drops unknown fields, so a record with unknown fields encodes to fewer bytes than it had.
    if record.encoded_len() != bytes.len() || record.body.is_none() {
        return Err("the record holds fields that this version does not know: use the version that wrote it".into());
    }
    Ok(record)
}
