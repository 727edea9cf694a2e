//! The folder of certificate revocation lists: `crl.pem` with all of them, and one file for each CA. Each file is replaced as a
//! whole, and only if its content is new.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

/// The file with every list.
const ALL: &str = "crl.pem";
/// The ending of a file that is being written. There is one writer, so one name is enough, and a file that a crash left there is
/// replaced.
const FRESH: &str = ".new";

/// Why lists are not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// The issuer sent no list, or one that cannot be read or has expired. The files stay as they are.
    #[error("the issuer's lists cannot be used: {0}")]
    Unusable(&'static str),
    /// A file cannot be read or written. The previous file stays.
    #[error("`{path}`: {1}", path = .0.display())]
    Io(PathBuf, std::io::Error),
    /// Another process holds the folder's lock.
    #[error("another guard keeps the lists in `{path}`: give each a folder of its own", path = .0.display())]
    Taken(PathBuf),
}

impl ListError {
    /// Label of the counter of failures.
    pub(super) fn what(&self) -> &'static str {
        match self {
            ListError::Unusable(_) => "fetch",
            ListError::Io(..) | ListError::Taken(_) => "write",
        }
    }
}

/// One list: the key id of its CA in hex, and its DER.
pub(super) struct List {
    pub(super) issuer: String,
    pub(super) der: Vec<u8>,
}

/// The state of the folder after a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// Whether any file has changed.
    pub(super) changed: bool,
    /// When the first of the lists expires, in Unix seconds.
    pub(super) expires_at: u64,
}

/// The content of one list that matters to a server.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    /// The DER of the issuer's name.
    issuer: Vec<u8>,
    /// The extension that identifies the issuer's key, because after a rotation two keys have the same issuer name.
    key: Vec<u8>,
    /// Serials of the certificates.
    serials: BTreeSet<Vec<u8>>,
}

/// The locked folder. Nobody else writes its lists until this is dropped.
pub(super) struct Lists {
    dir: PathBuf,
    // Held for its lock, which is released when the process ends.
    _lock: File,
}

impl Lists {
    /// Opens the folder, or makes it. Servers of other users may read it, because the lists are public.
    pub(super) fn open(dir: &Path) -> Result<Lists, ListError> {
        let io = |e| ListError::Io(dir.to_owned(), e);
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(io)?;
        // The folder itself is locked, because a lock file could be removed.
        let lock = File::open(dir).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Lists { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ListError::Taken(dir.to_owned())),
            Err(TryLockError::Error(e)) => Err(io(e)),
        }
    }

    /// The file with every list.
    pub(super) fn all(&self) -> PathBuf {
        self.dir.join(ALL)
    }

    /// Writes the lists if their content differs from the files, or if they expire later and half of the files' life has passed.
    /// `now` is in Unix seconds.
    pub(super) fn write(&self, lists: &[List], now: u64) -> Result<Written, ListError> {
        if lists.is_empty() {
            return Err(ListError::Unusable("there is none"));
        }
        let ders: Vec<&[u8]> = lists.iter().map(|list| list.der.as_slice()).collect();
        let (said, (_, expires_at)) = read(&ders).ok_or(ListError::Unusable("one is no CRL"))?;
        if expires_at <= now {
            return Err(ListError::Unusable("one has expired, or the clock of this machine is wrong"));
        }
        // The key id becomes the name of a file.
        if !lists.iter().all(|list| is_key_id(&list.issuer)) {
            return Err(ListError::Unusable("the key id of a CA is not hex"));
        }
        if let Some((_, (from, until))) = self.there().filter(|(there, _)| *there == said)
            && (now < from + until.saturating_sub(from) / 2 || expires_at <= until)
            && lists.iter().all(|list| self.of(&list.issuer).exists())
        {
            return Ok(Written { changed: false, expires_at: until });
        }
        for list in lists {
            self.replace(&self.of(&list.issuer), &pem(&list.der))?;
        }
        // ORDER: last, because the next write is compared with this file.
        self.replace(&self.all(), &lists.iter().map(|list| pem(&list.der)).collect::<String>())?;
        self.sweep(lists);
        Ok(Written { changed: true, expires_at })
    }

    fn of(&self, issuer: &str) -> PathBuf {
        self.dir.join(format!("{issuer}.pem"))
    }

    fn there(&self) -> Option<(BTreeSet<Said>, (u64, u64))> {
        let pems = ::pem::parse_many(fs::read(self.all()).ok()?).ok()?;
        read(&pems.iter().map(::pem::Pem::contents).collect::<Vec<_>>())
    }

    fn replace(&self, path: &Path, text: &str) -> Result<(), ListError> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(FRESH);
        let fresh = PathBuf::from(fresh);
        let written = (|| {
            match fs::remove_file(&fresh) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            // A link at this path is not followed.
            let mut file = File::options().write(true).create_new(true).open(&fresh)?;
            // The mode does not depend on the umask, because PostgreSQL reads the file as another user.
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        })();
        written.map_err(|e| {
            let _ = fs::remove_file(&fresh);
            ListError::Io(path.to_owned(), e)
        })
    }

    /// Removes the files of CAs that have no list any more. One that stays does no harm, and expires.
    fn sweep(&self, lists: &[List]) {
        let names = fs::read_dir(&self.dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
        for name in names.filter_map(|name| name.into_string().ok()) {
            let Some(id) = name.strip_suffix(".pem").filter(|id| is_key_id(id)) else { continue };
            if lists.iter().all(|list| list.issuer != id)
                && let Err(error) = fs::remove_file(self.dir.join(&name))
            {
                tracing::warn!(%error, name, "a list that nobody keeps any more cannot be removed");
            }
        }
    }
}

/// A SHA-1 or longer, in hex.
fn is_key_id(text: &str) -> bool {
    (40..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The content of lists, and the time in which all of them are valid, in Unix seconds. `None` if one cannot be read, or if there is
/// none.
fn read(ders: &[&[u8]]) -> Option<(BTreeSet<Said>, (u64, u64))> {
    let (mut said, mut span) = (BTreeSet::new(), (0, u64::MAX));
    for der in ders {
        let (_, crl) = CertificateRevocationList::from_der(der).ok().filter(|(left, _)| left.is_empty())?;
        let serials = crl.iter_revoked_certificates().map(|one| one.raw_serial().to_vec()).collect();
        let key = crl.extensions().iter().find(|one| one.oid == OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER);
        let key = key.map(|one| one.value.to_vec()).unwrap_or_default();
        said.insert(Said { issuer: crl.issuer().as_raw().to_vec(), key, serials });
        let until = crl.next_update().and_then(|at| u64::try_from(at.timestamp()).ok())?;
        let from = u64::try_from(crl.last_update().timestamp()).ok()?;
        span = (span.0.max(from), span.1.min(until));
    }
    (!said.is_empty()).then_some((said, span))
}

fn pem(der: &[u8]) -> String {
    ::pem::encode_config(&::pem::Pem::new("X509 CRL", der), ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF))
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
        KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    /// 2030-01-01, the beginning of the lists below.
    const START: u64 = 1_893_456_000;
    const DAY: u64 = 86_400;

    /// A list of the CA with this id. Its key is the same in each call.
    pub(in super::super) fn list(id: &str, serials: &[u64], until: i32) -> List {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2030, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let crl = CertificateRevocationListParams {
            this_update: date_time_ymd(2030, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(id.as_bytes().to_vec()),
        };
        let der = crl.signed_by(&Issuer::new(params, KeyPair::generate().unwrap())).unwrap().der().to_vec();
        List { issuer: id.repeat(40), der }
    }

    fn names(lists: &Lists) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&lists.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn of(id: &str) -> String {
        format!("{}.pem", id.repeat(40))
    }

    #[test]
    fn t205_lists_are_written_when_they_say_something_new_and_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let lists = Lists::open(&dir.path().join("crl")).unwrap();
        let write = |new: &[List], now: u64| lists.write(new, now).unwrap().changed;
        assert!(write(&[list("a", &[1], 2031)], START));
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(lists.all()).unwrap());
        let first = inode();
        assert!(!write(&[list("a", &[1], 2032)], START + DAY), "another signature over the same");
        assert_eq!(inode(), first);
        assert!(!write(&[list("a", &[1], 2031)], START + 200 * DAY), "what counts no longer than what is there");
        assert!(write(&[list("a", &[1], 2032)], START + 200 * DAY), "half of its life has passed");
        assert!(write(&[list("a", &[1, 2], 2031)], START + DAY));
        // Another key of the same name, after a rotation.
        assert!(write(&[list("a", &[1, 2], 2031), list("b", &[1, 2], 2031)], START + DAY));
        assert!(write(&[list("b", &[], 2031), list("c", &[7], 2031)], START + DAY));
        assert_eq!(names(&lists), [of("b"), of("c"), ALL.to_owned()]);
        assert_eq!(::pem::parse_many(fs::read(lists.all()).unwrap()).unwrap().len(), 2);
        assert_eq!(fs::metadata(lists.all()).unwrap().permissions().mode() & 0o777, 0o644);
        // A file that is gone or damaged is written anew.
        fs::remove_file(lists.dir.join(of("b"))).unwrap();
        assert!(write(&[list("b", &[], 2031), list("c", &[7], 2031)], START + DAY));
        fs::write(lists.all(), "damaged").unwrap();
        assert!(write(&[list("b", &[], 2031), list("c", &[7], 2031)], START + DAY));
    }

    #[test]
    fn t205_what_is_no_list_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let lists = Lists::open(dir.path()).unwrap();
        lists.write(&[list("a", &[1], 2031)], START).unwrap();
        let before = fs::read(lists.all()).unwrap();
        let broken = List { issuer: "a".repeat(40), der: vec![0x30, 0] };
        let elsewhere = List { issuer: format!("../{}", "a".repeat(40)), ..list("a", &[], 2031) };
        for bad in [vec![], vec![broken], vec![elsewhere]] {
            assert_eq!(lists.write(&bad, START).unwrap_err().what(), "fetch");
        }
        assert!(lists.write(&[list("a", &[], 2031)], START + 400 * DAY).is_err(), "expired");
        assert_eq!(fs::read(lists.all()).unwrap(), before);
    }

    #[test]
    fn t205_a_file_that_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let lists = Lists::open(dir.path()).unwrap();
        lists.write(&[list("a", &[1], 2031)], START).unwrap();
        let before = fs::read(lists.all()).unwrap();
        let obstacle = lists.dir.join(format!("{ALL}{FRESH}"));
        fs::create_dir(&obstacle).unwrap();
        let failed = lists.write(&[list("a", &[1, 2], 2031)], START).unwrap_err();
        assert!(failed.what() == "write" && failed.to_string().contains(ALL), "{failed}");
        assert_eq!(fs::read(lists.all()).unwrap(), before);
        assert_eq!(names(&lists), [of("a"), ALL.to_owned(), format!("{ALL}{FRESH}")], "nothing that is half written");
        fs::remove_dir(&obstacle).unwrap();
        // A leftover of a crash is replaced, and a link is not followed.
        let target = dir.path().join("target");
        fs::write(&target, "mine").unwrap();
        std::os::unix::fs::symlink(&target, &obstacle).unwrap();
        assert!(lists.write(&[list("a", &[1, 2], 2031)], START).unwrap().changed);
        assert_eq!(fs::read_to_string(target).unwrap(), "mine");
        assert!(!obstacle.exists());
    }

    #[test]
    fn t205_a_folder_has_one_guard() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lists::open(dir.path()).unwrap();
        assert!(matches!(Lists::open(dir.path()), Err(ListError::Taken(_))));
        drop(first);
        assert!(Lists::open(dir.path()).is_ok());
    }
}
