//! Backup: a copy of the journal in the folder for backups, below the home and nowhere else (T91). Nothing is recorded.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Issuer;
use crate::denial::{Denial, Fault, No};

/// Most bytes of a copy's name.
const NAME: usize = 128;

/// A copy that was made.
pub struct Copied {
    /// The journal's head when the copy was begun.
    pub revision: u64,
    /// Size of the copy.
    pub bytes: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// Copies the journal as of now to a new file of this name.
pub async fn backup(issuer: &Issuer, name: &str) -> Result<Copied, No> {
    if !is_plain(name) {
        let message = "give a plain file name of at most 128 bytes, without `/` and with no dot at its beginning";
        return Err(Denial::malformed("PATH_UNUSABLE", message).into());
    }
    let (ledger, dir, path) = (issuer.ledger.clone(), issuer.backups.clone(), issuer.backups.join(name));
    let copied = tokio::task::spawn_blocking(move || {
        make(&dir).map_err(|e| Fault::new("backup", format!("`{}`: {e}", dir.display())))?;
        if path.symlink_metadata().is_ok() {
            return Err(No::from(Denial::malformed("PATH_UNUSABLE", "there is a copy of this name already: give another")));
        }
        let (revision, bytes) = ledger.backup(&path)?;
        Ok(Copied { revision, bytes, path })
    });
    copied.await.map_err(|e| Fault::new("backup", e))?
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME && !name.starts_with('.') && !name.contains('/') && !name.chars().any(char::is_control)
}

/// Makes the folder if there is none. Only this process's user may have access to it.
fn make(dir: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.to_string()),
        _ => {}
    }
    let of = std::fs::symlink_metadata(dir).map_err(|e| e.to_string())?;
    if !of.is_dir() || of.mode() & 0o077 != 0 {
        return Err("it is not a folder of mode 0700".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t91_the_name_of_a_copy_leads_nowhere_else() {
        assert!(["journal.db", "2026-11-27T07:00:00Z", "a b", "ü", &"x".repeat(128)].into_iter().all(is_plain));
        let bad = ["", ".", "..", ".ssh", "/etc/x", "a/b", "../x", "a\0b", "a\nb", "\u{9b}x", &"x".repeat(129)];
        assert!(!bad.into_iter().any(is_plain));
    }
}
