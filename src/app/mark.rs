//! The mark of a development home.

use std::path::Path;

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
