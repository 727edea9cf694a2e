//! The identity as PEM files, for programs that cannot use a socket.
//!
//! The files of each renewal are in a folder of their own, `..data` is a link to the newest of these folders, and the names that
//! programs open are links through `..data`, as in a volume of Kubernetes. So key and certificate change in one step, and a program
//! that opens `..data` first reads a pair that matches, whenever it reads.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use mayfly_agent::identity::Current;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::bundles;
use super::folder::{Folder, Owner, unguessable};
use crate::authority::pem;

const KEY: &str = "svid_key.pem";
/// Files without a secret that are always there: the chain, the roots, and the roots of all trust domains.
const PLAIN: [&str; 3] = ["svid.pem", "bundle.pem", "bundle_map.json"];
/// The link to the newest of the folders.
const NEWEST: &str = "..data";
/// The prefix of the names of these folders; 24 hexadecimal digits follow.
const MOMENT: &str = "..";
/// Before and after the name of a foreign trust domain in the name of its file.
const FEDERATED: (&str, &str) = ("federated.", ".pem");
/// Longest name of a file on usual systems, minus the suffix while it is written.
const LONGEST: usize = 229;

/// `svid.pem`, `svid_key.pem`, `bundle.pem`, `bundle_map.json` and the roots of each foreign trust domain, all replaced in one step.
pub struct Files {
    dir: PathBuf,
    owner: Option<Owner>,
    /// The contents that were written last, except the key, so that a command is not told to reload unchanged files. The lock
    /// guards only these.
    last: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Files {
    /// Files in `dir`, for `owner` if that is another user. [`Folder::open`] says which folders are accepted.
    pub fn new(dir: &Path, owner: Option<Owner>) -> Files {
        Files { dir: dir.to_owned(), owner, last: Mutex::default() }
    }

    /// Writes all files if any of them has changed, and returns whether one has.
    pub fn write(&self, current: &Current) -> Result<bool, String> {
        let next = contents(current);
        if *self.last.lock() == next {
            return Ok(false);
        }
        // Opened again each time: the folder may have been removed meanwhile.
        let folder = Folder::open(&self.dir, self.owner)?;
        let key = current.expose_pkcs8().map_err(|e| e.to_string())?;
        let key = Zeroizing::new(pem("PRIVATE KEY", &key));
        self.replace(&folder, &next, key.as_bytes()).map_err(|e| format!("`{}`: {e}", self.dir.display()))?;
        *self.last.lock() = next;
        Ok(true)
    }

    fn replace(&self, folder: &Folder, next: &BTreeMap<String, Vec<u8>>, key: &[u8]) -> io::Result<()> {
        let before = folder.target(NEWEST);
        let moment = format!("{MOMENT}{}", unguessable()?);
        let made = folder.create(OsStr::new(&moment))?;
        let filled = (|| {
            made.write(KEY, key, self.owner)?;
            for (name, content) in next {
                made.write(name, content, self.owner)?;
            }
            if let Some(owner) = self.owner {
                // ORDER: after all files are written, because until then nobody else can put anything into the folder.
                made.give_all(owner)?;
            }
            folder.link(NEWEST, &moment)
        })();
        if filled.is_err() {
            let _ = remove(folder, &moment);
        }
        filled?;
        for name in next.keys().map(String::as_str).chain([KEY]) {
            folder.link(name, &format!("{NEWEST}/{name}"))?;
        }
        // The previous folder stays, for a program that is reading it. Names of trust domains that are no longer trusted are
        // removed.
        for entry in folder.names()? {
            let Some(name) = entry.to_str() else { continue };
            if is_moment(name) && name != moment && before.as_deref() != Some(name) {
                if let Err(e) = remove(folder, name) {
                    tracing::warn!(folder = name, "an old folder of files stays: {e}");
                }
            } else if is_federated(name) && !next.contains_key(name) {
                folder.remove(&entry)?;
            }
        }
        Ok(())
    }
}

/// Removes the folder of one renewal with the files that were written into it. It may belong to another user, whose own files there
/// stay.
fn remove(folder: &Folder, moment: &str) -> io::Result<()> {
    let old = folder.within(OsStr::new(moment))?;
    for entry in old.names()? {
        let ours = |name: &str| {
            // A run that was killed may leave a file under its temporary name.
            let name = name.strip_prefix('.').and_then(|draft| draft.rsplit_once('.')).map_or(name, |(name, _)| name);
            PLAIN.contains(&name) || name == KEY || is_federated(name)
        };
        if entry.to_str().is_some_and(ours) {
            old.remove(&entry)?;
        }
    }
    folder.remove_folder(OsStr::new(moment))
}

fn contents(current: &Current) -> BTreeMap<String, Vec<u8>> {
    let pems = |ders: &mut dyn Iterator<Item = &[u8]>| ders.map(|der| pem("CERTIFICATE", der)).collect::<String>().into_bytes();
    let plain = [
        pems(&mut current.chain().iter().map(|der| der.as_ref())),
        pems(&mut current.bundle().x509_authorities.iter().map(Vec::as_slice)),
        bundles::map(current),
    ];
    let mut files: BTreeMap<_, _> = PLAIN.into_iter().map(str::to_owned).zip(plain).collect();
    for one in bundles::foreign(current) {
        let name = format!("{}{}{}", FEDERATED.0, one.trust_domain(), FEDERATED.1);
        let roots = one.bundle().x509_authorities();
        if name.len() > LONGEST {
            tracing::warn!(trust_domain = %one.trust_domain(), "its name is too long for a file: its roots are in bundle_map.json alone");
        } else if !roots.is_empty() {
            files.insert(name, pems(&mut roots.iter().map(Vec::as_slice)));
        }
    }
    files
}

fn is_federated(name: &str) -> bool {
    name.strip_prefix(FEDERATED.0).is_some_and(|rest| rest.ends_with(FEDERATED.1))
}

fn is_moment(name: &str) -> bool {
    name.strip_prefix(MOMENT).is_some_and(|rest| rest.len() == 24 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}
