//! The identity as PEM files, for programs that cannot use a socket.

use std::path::{Path, PathBuf};

use mayfly_agent::identity::Current;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::folder::{Folder, Owner};
use crate::authority::pem;

/// `svid.pem`, `svid_key.pem` and `bundle.pem` in a folder. Each file is replaced as a whole.
pub struct Files {
    dir: PathBuf,
    owner: Option<Owner>,
    /// The contents written last, so that a command is not told to reload unchanged files. The lock guards these alone.
    last: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
}

impl Files {
    /// Writes to this folder, which is created if needed, for `owner` if that is another user.
    pub fn new(dir: &Path, owner: Option<Owner>) -> Files {
        Files { dir: dir.to_owned(), owner, last: Mutex::default() }
    }

    /// Writes what has changed, and returns whether anything has. The certificate is written last: its reader finds the key.
    pub fn write(&self, current: &Current) -> Result<bool, String> {
        let pems = |ders: &mut dyn Iterator<Item = &[u8]>| ders.map(|der| pem("CERTIFICATE", der)).collect::<String>();
        let svid = pems(&mut current.chain().iter().map(|der| der.as_ref())).into_bytes();
        let bundle = pems(&mut current.bundle().x509_authorities.iter().map(Vec::as_slice)).into_bytes();
        let next = (svid, bundle);
        let last = self.last.lock().clone();
        if last.as_ref() == Some(&next) {
            return Ok(false);
        }
        // Opened again each time: the folder may have been removed meanwhile.
        let folder = Folder::open(&self.dir, self.owner)?;
        if last.as_ref().is_none_or(|last| last.1 != next.1) {
            self.put(&folder, "bundle.pem", &next.1)?;
        }
        if last.as_ref().is_none_or(|last| last.0 != next.0) {
            let key = current.expose_pkcs8().map_err(|e| e.to_string())?;
            let key = Zeroizing::new(pem("PRIVATE KEY", &key));
            self.put(&folder, "svid_key.pem", key.as_bytes())?;
            self.put(&folder, "svid.pem", &next.0)?;
        }
        *self.last.lock() = Some(next);
        Ok(true)
    }

    fn put(&self, folder: &Folder, name: &str, content: &[u8]) -> Result<(), String> {
        folder.write(name, content, self.owner).map_err(|e| format!("`{}`: {e}", self.dir.join(name).display()))
    }
}
