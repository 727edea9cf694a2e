//! An identity in a folder, as `mayfly spawn --out DIR` writes it: `svid.pem`, `key.pem` and `bundle.pem`.
//!
//! [`mod@write`] says how key and certificate switch together.
//!
//! A key that anybody but its owner may read is refused: whoever read it can act as this identity.

pub mod write;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::tls::Identity;

/// Largest file that is read, in bytes.
const MAX: u64 = 1 << 20;
/// The link to the folder with the files of the current certificate.
const DATA: &str = "..data";
/// How often a reader looks again because the files were switched while it read.
const LOOKS: usize = 16;
/// Permissions that `key.pem` may have: the owner's.
const OWNER: u32 = 0o700;
/// Permissions that the other files may have: any.
const ANY: u32 = 0o777;

/// Why a folder holds no usable identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The operating system refused to open or read the file.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, #[source] io::Error),
    /// It is a directory, a pipe or a device, or it is too large.
    #[error("`{}` is no file of at most {MAX} bytes", .0.display())]
    NotAFile(PathBuf),
    /// The permissions of `key.pem` let others read or change it.
    #[error("`{}` has mode {:o}, so others may know the private key: run `chmod 600 {}`", .0.display(), .1, .0.display())]
    TooWide(PathBuf, u32),
    /// Another program holds the folder's lock.
    #[error("`{}` is in use by another program that renews it, for {:?} already: see what it waits for", .0.display(), .1)]
    Busy(PathBuf, Duration),
    /// The certificates or the key cannot be read as PEM.
    #[error("`{}`: {}", .0.display(), .1)]
    Pem(PathBuf, PemError),
}

/// Why a text holds no certificates, or no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is no certificate in it.
    #[error("there is no certificate in PEM form")]
    NoCertificate,
    /// It is damaged.
    #[error("cannot be read: {0}")]
    Damaged(String),
    /// There is no PKCS#8 key in it.
    #[error("there is no PKCS#8 key in PEM form: {0}")]
    NoKey(String),
}

/// Reads `svid.pem` and `key.pem`, which belong together also while the folder is being renewed.
pub fn identity(dir: &Path) -> Result<Identity, FolderError> {
    settled(dir, |base| {
        let path = dir.join("key.pem");
        let key = key_from_pem(&read(base, "key.pem", dir, OWNER)?).map_err(|e| FolderError::Pem(path, e))?;
        Ok(Identity { chain: certificates(base, "svid.pem", dir)?, key: key.into() })
    })
}

/// Reads `bundle.pem`: the roots of the trust domain.
pub fn roots(dir: &Path) -> Result<Vec<CertificateDer<'static>>, FolderError> {
    settled(dir, |base| certificates(base, "bundle.pem", dir))
}

/// Reads `issuer`: where the issuer of this identity was when it was written, as `host:port`. `None` if the folder does not say.
pub fn issuer(dir: &Path) -> Option<String> {
    let text = settled(dir, |base| read(base, "issuer", dir, ANY)).ok()?;
    let address = std::str::from_utf8(&text).ok()?.trim().to_owned();
    (!address.is_empty()).then_some(address)
}

/// Reads files of one certificate. Whoever renews the folder may remove them meanwhile; then those of the next one are read.
fn settled<T>(dir: &Path, read: impl Fn(&Path) -> Result<T, FolderError>) -> Result<T, FolderError> {
    let base = || fs::read_link(dir.join(DATA)).map_or_else(|_| dir.to_owned(), |generation| dir.join(generation));
    let mut now = base();
    for _ in 0..LOOKS {
        let found = read(&now);
        let next = base();
        match found {
            Err(FolderError::Io(_, e)) if e.kind() == io::ErrorKind::NotFound && next != now => now = next,
            found => return found,
        }
    }
    read(&now)
}

/// Reads the certificates in a text, in their order; at least one.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(all) if all.is_empty() => Err(PemError::NoCertificate),
        Ok(all) => Ok(all),
        Err(e) => Err(PemError::Damaged(e.to_string())),
    }
}

/// Reads the PKCS#8 key in a text.
pub fn key_from_pem(pem: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, PemError> {
    PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|e| PemError::NoKey(e.to_string()))
}

fn certificates(base: &Path, name: &str, dir: &Path) -> Result<Vec<CertificateDer<'static>>, FolderError> {
    certificates_from_pem(&read(base, name, dir, ANY)?).map_err(|e| FolderError::Pem(dir.join(name), e))
}

/// Reads a file of `base` whose permissions are within `allowed`. Errors name it as people do, in `dir`.
fn read(base: &Path, name: &str, dir: &Path, allowed: u32) -> Result<Zeroizing<Vec<u8>>, FolderError> {
    let (path, shown) = (&base.join(name), &dir.join(name));
    let failed = |e: io::Error| FolderError::Io(shown.clone(), e);
    // ORDER: before it is opened. Opening a pipe waits for a writer.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(FolderError::NotAFile(shown.clone()));
    }
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, so that the file that was judged is the file that is read.
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & !allowed != 0 {
        return Err(FolderError::TooWide(shown.clone(), mode));
    }
    if !metadata.is_file() || metadata.len() > MAX {
        return Err(FolderError::NotAFile(shown.clone()));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs::{self, Permissions};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn t27_a_key_that_others_may_read_is_refused() {
        let (dir, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let path = dir.path().join("key.pem");
        let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
        fs::write(dir.path().join("svid.pem"), certificate).unwrap();
        let told = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            identity(dir.path()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(identity(dir.path()).err().unwrap().to_string().contains("key.pem"), "there is none");
        fs::write(&path, key.serialize_pem()).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644] {
            let told = told(mode);
            assert!(told.contains(&format!("key.pem` has mode {mode:o}")) && told.contains("run `chmod 600 "), "{told}");
        }
        assert_eq!((told(0o600), told(0o400)), (String::new(), String::new()));
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'x'; usize::try_from(MAX).unwrap() + 1]).unwrap();
        assert!(told(0o600).contains("is no file of at most"));
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(told(0o600).contains("is no file of at most"), "a pipe");
    }
}
