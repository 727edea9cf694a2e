//! The mark of a development home.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::process;

/// A development home stays one, and a real one never becomes one.
pub(super) fn check(dir: &Path, development: bool) -> Result<(), String> {
    let mark = dir.join("DEVELOPMENT");
    match (mark.exists(), development) {
        (true, false) => Err(format!("`{}` is a development home: `serve` needs one of its own", dir.display())),
        (false, true) if dir.join("keys").exists() => Err(format!("`{}` is not a development home", dir.display())),
        (false, true) => {
            std::fs::write(&mark, "Made by `mayfly dev`. Nothing here is for production.\n").map_err(|e| e.to_string())
        }
        _ => Ok(()),
    }
}

/// The uid of this process. On systems without `getuid`: the home was made by this process or by one of the same uid.
pub(super) fn own_uid(home: &Path) -> u32 {
    process::uid().unwrap_or_else(|| std::fs::metadata(home).map_or(0, |m| m.uid()))
}
