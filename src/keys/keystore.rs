//! The folder of private keys: one file for each key, readable by its owner alone (T27).

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a file of keys cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// Other users may read or change it. The fields are the path, its mode, and the widest mode that is allowed.
    #[error("`{0}` has mode {1:o}: run `chmod {2:o} {0}`, and replace the keys if others could read them")]
    TooOpen(PathBuf, u32, u32),
    /// It is a link, or not a file or folder as expected.
    #[error("`{0}` is not a plain {1}: keys are never read through links")]
    NotPlain(PathBuf, &'static str),
    /// The operating system reports an error.
    #[error("`{0}`: {1}")]
    Io(PathBuf, std::io::Error),
}

/// A folder of keys.
#[derive(Clone, Debug)]
pub struct Keystore(PathBuf);

impl Keystore {
    /// Opens the folder, or makes it with mode 0700. Fails if `dir` is a link, or if other users have access to it.
    pub fn open(dir: &Path) -> Result<Keystore, KeystoreError> {
        let io = |e| KeystoreError::Io(dir.to_owned(), e);
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            // The umask may have narrowed the mode, so it is set once more.
            Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(io)?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io(e)),
        }
        let metadata = fs::symlink_metadata(dir).map_err(io)?;
        if !metadata.is_dir() {
            return Err(KeystoreError::NotPlain(dir.to_owned(), "folder"));
        }
        narrow(dir, &metadata, 0o700)?;
        Ok(Keystore(dir.to_owned()))
    }

    /// Reads a file of the store. Returns `None` if it does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, KeystoreError> {
        read_private(&self.0.join(name))
    }

    /// Names of the files that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>, KeystoreError> {
        let io = |e| KeystoreError::Io(self.0.clone(), e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Deletes a file. A file that does not exist is not an error.
    pub fn remove(&self, name: &str) -> Result<(), KeystoreError> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(KeystoreError::Io(path, e)),
            _ => Ok(()),
        }
    }

    /// Writes a file of the store as a whole or not at all, with mode 0600.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), KeystoreError> {
        write_private(&self.0.join(name), content)
    }
}

/// Reads a file that only its owner may read. Returns `None` if it does not exist. Fails if it is a link, or if other users have
/// access to it.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<String>>, KeystoreError> {
    let io = |e| KeystoreError::Io(path.to_owned(), e);
    let looked_at = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    if !looked_at.is_file() {
        return Err(KeystoreError::NotPlain(path.to_owned(), "file"));
    }
    let mut file = fs::File::open(path).map_err(io)?;
    let opened = file.metadata().map_err(io)?;
    // The file that was opened must be the one that was checked.
    if (opened.dev(), opened.ino()) != (looked_at.dev(), looked_at.ino()) {
        return Err(KeystoreError::NotPlain(path.to_owned(), "file"));
    }
    narrow(path, &opened, 0o600)?;
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(io)?;
    Ok(Some(text))
}

/// Writes a file that only its owner may read, as a whole or not at all. It is durable on return.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), KeystoreError> {
    replace(path, content, true)
}

/// The same, but a power loss may lose the file or leave it empty. A crash of the process does not.
pub fn write_unsynced(path: &Path, content: &[u8]) -> Result<(), KeystoreError> {
    replace(path, content, false)
}

fn replace(path: &Path, content: &[u8], durably: bool) -> Result<(), KeystoreError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = dir.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(content)?;
        if durably {
            file.sync_all()?;
        }
        fs::rename(&fresh, path)?;
        if durably { fs::File::open(dir)?.sync_all() } else { Ok(()) }
    })();
    written.map_err(|e| {
        let _ = fs::remove_file(&fresh);
        KeystoreError::Io(path.to_owned(), e)
    })
}

/// Checks that a mode is not wider than `most`.
fn narrow(path: &Path, metadata: &fs::Metadata, most: u32) -> Result<(), KeystoreError> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & !most == 0 { Ok(()) } else { Err(KeystoreError::TooOpen(path.to_owned(), mode, most)) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t27_keys_are_narrow_and_never_read_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let store = Keystore::open(&dir.path().join("keys")).unwrap();
        store.write("a.key", b"secret").unwrap();
        let file = dir.path().join("keys/a.key");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(store.read("a.key").unwrap().unwrap().as_str(), "secret");
        assert!(store.read("b.key").unwrap().is_none());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(store.read("a.key"), Err(KeystoreError::TooOpen(_, 0o644, 0o600))));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, dir.path().join("keys/link.key")).unwrap();
        assert!(matches!(store.read("link.key"), Err(KeystoreError::NotPlain(..))));
        fs::set_permissions(dir.path().join("keys"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Keystore::open(&dir.path().join("keys")), Err(KeystoreError::TooOpen(_, 0o777, 0o700))));
    }
}
