//! A bundle document as bytes: read from this machine, with a size limit for every source.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest document, in bytes.
const MAX_DOCUMENT: u64 = 512 * 1024;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    /// The operating system refused to open or read the file.
    #[error("`{0}`: {1}")]
    File(PathBuf, std::io::Error),
    /// The path names a directory, a pipe or a device.
    #[error("`{0}` is not a plain file")]
    NotPlain(PathBuf),
    /// The document is longer than any publisher needs.
    #[error("the document has more than {MAX_DOCUMENT} bytes")]
    TooLarge,
}

/// Reads a document from this machine.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DocumentError> {
    let io = |e| DocumentError::File(path.to_owned(), e);
    // A link is accepted. A pipe is not, because it may never end.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(DocumentError::NotPlain(path.to_owned()));
    }
    let mut text = Vec::new();
    std::fs::File::open(path).map_err(io)?.take(MAX_DOCUMENT + 1).read_to_end(&mut text).map_err(io)?;
    bounded(text)
}

/// Refuses a document that is too large.
pub(super) fn bounded(text: Vec<u8>) -> Result<Vec<u8>, DocumentError> {
    let fits = u64::try_from(text.len()).is_ok_and(|len| len <= MAX_DOCUMENT);
    if fits { Ok(text) } else { Err(DocumentError::TooLarge) }
}
