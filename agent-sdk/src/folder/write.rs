//! Writes an identity into its folder, so that key, certificate and bundles switch together.
//!
//! The files of one certificate lie in a folder of their own inside it, `..<random>`. `..data` is a link to that folder, and
//! `svid.pem`, `key.pem` and the others are links through `..data`. The switch is one rename of `..data`. A process that is killed
//! at any moment leaves the identity of before or the new one, and nothing in between. Kubernetes mounts its secrets in this way.
//!
//! Only the holder of the folder's lock writes, so several programs can keep one folder.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{DATA, FolderError};
use crate::random;

/// The file that is locked. It is empty.
const LOCK: &str = ".lock";
/// Between two attempts to lock.
const PAUSE: Duration = Duration::from_millis(10);
/// Names of the files of an identity. The certificate comes last, for readers of folders that earlier releases wrote.
pub(super) const NAMES: [&str; 5] = ["key.pem", "bundle.pem", "bundle.json", "issuer", "svid.pem"];

/// What a folder gets.
pub struct Files<'a> {
    /// The key, PKCS#8 in DER.
    pub key: &'a [u8],
    /// The certificates in DER, leaf first.
    pub chain: &'a [Vec<u8>],
    /// The roots of the bundle in DER.
    pub roots: &'a [Vec<u8>],
    /// The bundle as a SPIFFE bundle document.
    pub bundle_json: &'a [u8],
    /// `host:port` of the issuer. `None` leaves what the folder says.
    pub issuer: Option<&'a str>,
}

/// A folder that nobody else writes to. The lock ends with this, or with the process.
#[derive(Debug)]
pub struct Locked {
    dir: PathBuf,
    _lock: File,
}

impl Locked {
    /// Locks a folder for writing, and makes it if it is missing. `None` if another process has it.
    pub fn now(dir: &Path) -> Result<Option<Locked>, FolderError> {
        let failed = |e| FolderError::Io(dir.to_owned(), e);
        // The mode is set whatever the umask says: anybody who can write to the folder can put another identity into it.
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed)?;
        let lock = open_lock(dir).map_err(|e| FolderError::Io(dir.join(LOCK), e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Locked { dir: dir.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(failed(e)),
        }
    }

    /// The same, waiting for at most `patience` in this thread.
    pub fn within(dir: &Path, patience: Duration) -> Result<Locked, FolderError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(locked) = Locked::now(dir)? {
                return Ok(locked);
            }
            if Instant::now() >= until {
                return Err(FolderError::Busy(dir.to_owned(), patience));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The same in a task.
    pub async fn soon(dir: &Path, patience: Duration) -> Result<Locked, FolderError> {
        let until = Instant::now() + patience;
        loop {
            if let Some(locked) = Locked::now(dir)? {
                return Ok(locked);
            }
            if Instant::now() >= until {
                return Err(FolderError::Busy(dir.to_owned(), patience));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Replaces the identity in the folder, as a whole or not at all. It is durable on return.
    pub fn write(&self, files: &Files<'_>) -> Result<(), FolderError> {
        self.replace(files).map_err(|e| FolderError::Io(self.dir.clone(), e))
    }

    fn replace(&self, files: &Files<'_>) -> io::Result<()> {
        let pems = |ders: &[Vec<u8>]| ders.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>();
        let key = zeroize::Zeroizing::new(pem("PRIVATE KEY", files.key));
        let (bundle, chain) = (pems(files.roots), pems(files.chain));
        let issuer = match files.issuer {
            Some(issuer) => Some(issuer.as_bytes().to_vec()),
            None => self.known("issuer")?,
        };
        self.adopt()?;
        let mut content = vec![
            ("key.pem", key.as_bytes()),
            ("bundle.pem", bundle.as_bytes()),
            ("bundle.json", files.bundle_json),
            ("svid.pem", chain.as_bytes()),
        ];
        content.extend(issuer.as_ref().map(|issuer| ("issuer", issuer.as_slice())));
        let fresh = self.generation(&content)?;
        // ORDER: the links are made before the switch, so that every name follows it. In a new folder they lead nowhere until then.
        for (name, _) in &content {
            self.link(name)?;
        }
        self.switch(&fresh)?;
        self.tidy(&fresh);
        Ok(())
    }

    /// What a file of the folder holds now. `None` if it is missing.
    fn known(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.dir.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Converts a folder that an earlier release wrote file by file into one whose files switch together. Readers find the same
    /// identity at every moment.
    fn adopt(&self) -> io::Result<()> {
        if fs::symlink_metadata(self.dir.join(DATA)).is_ok() {
            return Ok(());
        }
        let mut content = Vec::new();
        for name in NAMES {
            content.extend(self.known(name)?.map(|bytes| (name, zeroize::Zeroizing::new(bytes))));
        }
        if content.is_empty() {
            return Ok(());
        }
        let content: Vec<(&str, &[u8])> = content.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        let same = self.generation(&content)?;
        self.switch(&same)?;
        content.iter().try_for_each(|(name, _)| self.link(name))
    }

    /// Writes files into a new folder inside this one. Returns its name.
    fn generation(&self, content: &[(&str, &[u8])]) -> io::Result<String> {
        let name = fresh_name("..")?;
        let dir = self.dir.join(&name);
        DirBuilder::new().mode(0o700).create(&dir)?;
        for (file, bytes) in content {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(file))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        File::open(&dir)?.sync_all()?;
        Ok(name)
    }

    /// Makes a name lead through `..data`, if it does not.
    fn link(&self, name: &str) -> io::Result<()> {
        let (path, target) = (self.dir.join(name), Path::new(DATA).join(name));
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(());
        }
        self.replace_by_link(&target, &path)
    }

    /// Durable from here.
    fn switch(&self, generation: &str) -> io::Result<()> {
        self.replace_by_link(Path::new(generation), &self.dir.join(DATA))?;
        File::open(&self.dir)?.sync_all()
    }

    fn replace_by_link(&self, target: &Path, path: &Path) -> io::Result<()> {
        let draft = self.dir.join(fresh_name(".link.")?);
        symlink(target, &draft)?;
        fs::rename(&draft, path).inspect_err(|_| drop(fs::remove_file(&draft)))
    }

    /// Removes what earlier writers left. A failure costs space only, and the next writer tries again.
    fn tidy(&self, current: &str) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if name.starts_with(".link.") {
                let _ = fs::remove_file(path);
            } else if name.starts_with("..") && name != DATA && name != current {
                let _ = fs::remove_dir_all(path);
            }
        }
    }
}

/// Keeps writers away from a folder while its identity is read and shown to the issuer. `None` if that cannot be had in time, or
/// if the folder can only be read.
pub fn reading(dir: &Path, patience: Duration) -> Option<impl Sized + use<>> {
    let lock = open_lock(dir).ok()?;
    let until = Instant::now() + patience;
    while lock.try_lock_shared().is_err() {
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
    Some(lock)
}

fn open_lock(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join(LOCK))
}

fn fresh_name(prefix: &str) -> io::Result<String> {
    let random: [u8; 8] = random::bytes().map_err(|_| io::Error::other("no random name could be made"))?;
    Ok(format!("{prefix}{:016x}", u64::from_be_bytes(random)))
}

/// RFC 7468: base64 in lines of 64.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let body = zeroize::Zeroizing::new(BASE64_STANDARD.encode(der));
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::folder::{identity, issuer, roots};
    use crate::tls::CurrentIdentity;

    fn pair() -> (Vec<u8>, Vec<Vec<u8>>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        (key.serialize_der(), vec![certificate.der().to_vec()])
    }

    fn put(dir: &Path, issuer: Option<&str>) {
        let (key, chain) = pair();
        let files = Files { key: &key, chain: &chain, roots: &chain, bundle_json: b"{}", issuer };
        Locked::within(dir, Duration::from_secs(10)).unwrap().write(&files).unwrap();
    }

    fn fits(dir: &Path) -> bool {
        CurrentIdentity::new(identity(dir).unwrap()).is_ok()
    }

    #[test]
    fn t153_a_reader_never_finds_a_key_with_anothers_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a1");
        put(&path, Some("issuer.internal:8443"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3).map(|_| scope.spawn(|| (0..30).for_each(|_| put(&path, None)))).collect();
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut looks = 0;
                        while !done.load(Ordering::Relaxed) || looks == 0 {
                            assert!(fits(&path) && roots(&path).is_ok());
                            looks += 1;
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        assert_eq!(issuer(&path).as_deref(), Some("issuer.internal:8443"), "whoever renews leaves the address");
        // Others find plain names, which only the owner may read, and nothing of earlier certificates is left.
        let text = fs::read_to_string(path.join("key.pem")).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert_eq!(fs::metadata(path.join("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = fs::read_dir(&path).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().starts_with(".."));
        assert_eq!(kept.count(), 2, "`..data` and the folder of the current certificate");
    }

    #[test]
    fn t153_a_writer_that_is_killed_at_any_step_leaves_a_pair_that_fits() {
        // What a writer has done when it is killed, for each of its steps; from a folder of this release and of an earlier one.
        for earlier in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (key, chain) = pair();
            let path = dir.path().join("a1");
            put(&path, None);
            if earlier {
                let files = NAMES.map(|name| (name, fs::read(path.join(name)).ok()));
                fs::remove_dir_all(&path).unwrap();
                fs::create_dir(&path).unwrap();
                for (name, bytes) in files.into_iter().filter_map(|(name, bytes)| Some((name, bytes?))) {
                    fs::write(path.join(name), bytes).unwrap();
                    fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o600)).unwrap();
                }
            }
            let (was, locked) = (identity(&path).unwrap().chain, Locked::now(&path).unwrap().unwrap());
            locked.adopt().unwrap();
            assert!(fits(&path) && identity(&path).unwrap().chain == was, "what is adopted stays the same");
            let pem_key = pem("PRIVATE KEY", &key);
            let half = locked.generation(&[("key.pem", pem_key.as_bytes())]).unwrap();
            assert!(fits(&path) && identity(&path).unwrap().chain == was, "half of the files are written to `{half}`");
            symlink("..nowhere", path.join(".link.0000")).unwrap();
            assert!(fits(&path) && identity(&path).unwrap().chain == was, "the link is made and not renamed");
            drop(locked);
            let files = Files { key: &key, chain: &chain, roots: &chain, bundle_json: b"{}", issuer: None };
            Locked::now(&path).unwrap().unwrap().write(&files).unwrap();
            assert!(fits(&path) && identity(&path).unwrap().chain != was && !path.join(half).exists());
            assert!(fs::symlink_metadata(path.join(".link.0000")).is_err());
        }
    }

    #[test]
    fn t153_one_writes_at_a_time_and_the_lock_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = Locked::now(dir.path()).unwrap().unwrap();
        assert!(Locked::now(dir.path()).unwrap().is_none());
        let busy = Locked::within(dir.path(), Duration::from_millis(30)).unwrap_err();
        assert!(busy.to_string().contains("another program"), "{busy}");
        assert!(reading(dir.path(), Duration::from_millis(30)).is_none());
        drop(first);
        let (one, two) = (reading(dir.path(), Duration::ZERO), reading(dir.path(), Duration::ZERO));
        assert!(one.is_some() && two.is_some() && Locked::now(dir.path()).unwrap().is_none());
        drop((one, two));
        assert!(Locked::now(dir.path()).unwrap().is_some());
    }
}
