//! Files that people name: read them, and write secrets so that only their owner can read them.

use std::io::Read;
use std::path::Path;

use super::exit::Failure;
use crate::keys::keystore::write_private;

/// At most this many bytes are read from stdin.
const STDIN_LIMIT: u64 = 1 << 20;

/// Reads a file, or stdin if the path is `-`.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    if path != "-" {
        return Ok(std::fs::read_to_string(path).map_err(|e| format!("`{}`: {e}", path.display()))?);
    }
    let mut text = String::new();
    std::io::stdin().take(STDIN_LIMIT).read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Refuses a folder for a new identity that holds one already, or a ticket for another, unless `force`. `ticket` is the file that is
/// redeemed for the new one: it may lie there.
pub(super) fn vacant(dir: &Path, ticket: Option<&Path>, force: bool) -> Result<(), Failure> {
    let redeemed = ticket.and_then(|file| file.canonicalize().ok());
    let there = |name: &&str| {
        let file = dir.join(name);
        file.symlink_metadata().is_ok() && (redeemed.is_none() || file.canonicalize().ok() != redeemed)
    };
    let taken = ["svid.pem", "key.pem", "ticket"].into_iter().find(there);
    match taken.filter(|_| !force) {
        Some(name) => {
            let shown = dir.display();
            Err(Failure::usage(format!(
                "there is a `{name}` in `{shown}` already: give another folder, or replace it with --force"
            )))
        }
        None => Ok(()),
    }
}

/// Writes a file that only its owner can read.
pub(super) fn write_secret(path: &Path, content: &[u8]) -> Result<(), Failure> {
    Ok(write_private(path, content).map_err(|e| e.to_string())?)
}
