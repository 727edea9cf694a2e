//! Room 5: durable from here. The records, and the SQLite journal that keeps them.

pub mod sqlite;

/// The records, generated from `proto/mayfly/journal/v1/journal.proto`.
#[expect(missing_docs, clippy::module_inception, reason = "generated; the proto file documents them")]
pub mod record {
    include!(concat!(env!("OUT_DIR"), "/mayfly.journal.v1.rs"));
}

use prost::Message;
use record::Record;

/// Reads one record, and refuses what this version does not know.
pub fn decode(bytes: &[u8]) -> Result<Record, String> {
    let record = Record::decode(bytes).map_err(|e| e.to_string())?;
    // prost drops unknown fields; a record that comes back shorter held some.
    if record.encoded_len() != bytes.len() || record.body.is_none() {
        return Err("the record holds fields that this version does not know: use the version that wrote it".into());
    }
    Ok(record)
}
