//! The home: the folder that holds all state of one issuer process at a time. Other commands find the issuer through it.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mayfly_verify::TrustDomain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

use crate::authority::Authority;
use crate::clock::SECOND;
use crate::journal::Journal as _;
use crate::journal::chain::Digest;
use crate::journal::sqlite::Sqlite;
use crate::keys::keystore::write_private;
use crate::ledger::{Head, Watermark};
use crate::process::sparing::Sparing;
use crate::state::State;

/// A home that this process holds.
pub struct Home {
    /// The folder.
    pub dir: PathBuf,
    // The lock of the home, which the system releases when the process ends.
    _lock: File,
}

/// The addresses of a running issuer, for the other commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its trust domain.
    pub trust_domain: String,
    /// `host:port` of gRPC.
    pub grpc: String,
    /// `host:port` of metrics and health.
    pub http: String,
    /// The operator socket.
    pub socket: PathBuf,
    /// URL of the SPIFFE bundle endpoint, if there is one.
    #[serde(default)]
    pub bundle: Option<String>,
    /// The `iss` of tokens, where relying parties find its documents; `None` if the HTTPS listener is not served.
    #[serde(default)]
    pub https_issuer: Option<String>,
    /// `host:port` of the HTTPS listener.
    #[serde(default)]
    pub https: Option<String>,
    /// PEM of the CA that the HTTPS listener's certificate is verified with; `None` if the operator brought a certificate.
    #[serde(default)]
    pub https_ca: Option<PathBuf>,
    /// Issuer URL of the development provider.
    pub oidc: Option<String>,
    /// PEM of its CA.
    pub oidc_ca: Option<PathBuf>,
    /// Configured names of issuers, and their URLs.
    pub issuers: BTreeMap<String, String>,
}

impl Home {
    /// Opens the folder, or makes it with mode 0700; a second process is refused (T74).
    pub fn open(dir: &Path) -> Result<Home, String> {
        let text = |e: &dyn std::fmt::Display| format!("`{}`: {e}", dir.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| text(&e))?;
        let dir = fs::canonicalize(dir).map_err(|e| text(&e))?;
        narrow(&dir)?;
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"));
        let lock = lock.map_err(|e| text(&e))?;
        match lock.try_lock() {
            Ok(()) => {
                ignored(&dir).map_err(|e| text(&e))?;
                Ok(Home { dir, _lock: lock })
            }
            Err(TryLockError::WouldBlock) => {
                Err(format!("`{}` is in use by a running issuer: stop it first, or give another --home", dir.display()))
            }
            Err(TryLockError::Error(e)) => Err(text(&e)),
        }
    }

    /// The journal's file.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.db")
    }

    /// The folder for copies of the journal. It is made when the first copy is.
    pub fn backups(&self) -> PathBuf {
        self.dir.join("backups")
    }

    /// Writes the addresses of the issuer into the home, for the other commands.
    pub fn announce(&self, endpoint: &Endpoint) -> Result<(), String> {
        let json = serde_json::to_vec_pretty(endpoint).map_err(|e| e.to_string())?;
        write_private(&self.dir.join("endpoint.json"), &json).map_err(|e| e.to_string())
    }
}

/// Removes write permissions of others, who could replace the journal (T238). Others may list the folder: its files are unreadable
/// to them, and the operator socket checks uids.
fn narrow(dir: &Path) -> Result<(), String> {
    let mode = fs::metadata(dir).map_err(|e| format!("`{}`: {e}", dir.display()))?.permissions().mode() & 0o7777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode & !0o022)).map_err(|e| {
        format!(
            "`{}` has mode {mode:o}, so others can replace what is in it: run `chmod go-w` on it as its owner ({e})",
            dir.display()
        )
    })?;
    tracing::warn!(home = %dir.display(), was = format!("{mode:o}"), "others could write to the home: from now on they cannot");
    Ok(())
}

/// Writes a `.gitignore`, so that a home inside a repository is not committed with its keys.
fn ignored(dir: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    match options.write(true).create_new(true).mode(0o600).open(dir.join(".gitignore")) {
        Ok(mut file) => std::io::Write::write_all(&mut file, b"*\n"),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// Reads the addresses of the issuer of a home.
pub fn endpoint(home: &Path) -> Result<Endpoint, String> {
    let path = home.join("endpoint.json");
    let text = fs::read(&path).map_err(|_| {
        format!(
            "there is no issuer in `{}`: start one with `mayfly dev`, or say where it is with --home or $MAYFLY_HOME",
            home.display()
        )
    })?;
    serde_json::from_slice(&text).map_err(|e| format!("`{}`: {e}", path.display()))
}

/// The last head that this issuer signed, kept outside the journal.
#[derive(Serialize, Deserialize)]
struct Beat {
    trust_domain: String,
    incarnation: Uuid,
    head: u64,
    as_of: u64,
    // Hex. Earlier versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    signature: String,
}

impl Beat {
    fn message(&self) -> Vec<u8> {
        let rest = format!("{}\n{}\n{}\n{}", self.trust_domain, self.incarnation, self.head, self.as_of);
        match &self.chain {
            Some(chain) => format!("mayfly heartbeat v2\n{rest}\n{chain}").into_bytes(),
            None => format!("mayfly heartbeat v1\n{rest}").into_bytes(),
        }
    }
}

/// The content of the last watermark.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The incarnation of the journal.
    pub incarnation: Uuid,
    /// The journal's head.
    pub head: u64,
    /// When it was written, in Unix microseconds.
    pub as_of: u64,
    /// The digest of the journal's chain at the head; `None` if an earlier version wrote it.
    pub chain: Option<Digest>,
}

impl Mark {
    /// Refuses a journal that is not the one that this issuer has signed, or an older copy of it.
    pub fn check(&self, journal: &Sqlite, state: &State) -> Result<(), String> {
        if state.incarnation != self.incarnation || state.revision < self.head {
            return Err(format!(
                "the journal is at revision {} and this issuer has signed up to {}: somebody put an older copy in its place. Use \
                 `mayfly backup restore`, which revokes what came after it",
                state.revision, self.head
            ));
        }
        match (self.chain, journal.chain_at(self.head)?) {
            (Some(signed), Some(is)) if signed != is => Err(format!(
                "fork: what the journal says up to revision {} is not what this issuer has signed. Somebody put another journal in its \
                 place. Use `mayfly backup restore`, which revokes what was issued before",
                self.head
            )),
            _ => Ok(()),
        }
    }
}

/// Longest time between two writes of the watermark even if the head has not changed, in microseconds, because it also says until
/// when this issuer has run.
const AGE: u64 = 60 * SECOND;

/// Writes and reads the watermark, `heartbeat.json`.
pub struct Beats {
    /// `heartbeat.json` in the home.
    pub path: PathBuf,
    /// Signs it.
    pub authority: Arc<Authority>,
    /// The trust domain of this issuer.
    pub trust_domain: TrustDomain,
    /// The last watermark that was written: incarnation, head and time (Unix microseconds).
    pub last: Option<(Uuid, u64, u64)>,
}

impl Beats {
    /// The last watermark of this home; `None` if there is none. Fails if it cannot be read, or if this issuer did not sign it.
    pub fn read(&self) -> Result<Option<Mark>, String> {
        let bad = |what: &str| format!("`{}` {what}", self.path.display());
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                return Err(bad(&format!(
                    "cannot be read ({e}): it holds the last revision that this issuer has signed, without which an older journal \
                     would not be noticed. Make it readable, or use `mayfly backup restore`"
                )));
            }
        };
        let beat: Beat = serde_json::from_slice(&text).map_err(|e| bad(&e.to_string()))?;
        let signature = hex::decode(&beat.signature).map_err(|e| bad(&e.to_string()))?;
        let chain = beat.chain.as_ref().map(|chain| {
            let bytes = hex::decode(chain).map_err(|e| bad(&e.to_string()))?;
            Digest::try_from(bytes).map_err(|_| bad("holds a digest of another length"))
        });
        let chain = chain.transpose()?;
        if beat.trust_domain != self.trust_domain.as_str() || !self.authority.is_heartbeat(&beat.message(), &signature) {
            return Err(bad("was not signed by this issuer"));
        }
        Ok(Some(Mark { incarnation: beat.incarnation, head: beat.head, as_of: beat.as_of, chain }))
    }
}

impl Watermark for Beats {
    fn write(&mut self, head: Head, now: u64) {
        let Head { incarnation, revision: head, chain } = head;
        if self.last.is_some_and(|(i, h, at)| (i, h) == (incarnation, head) && now.saturating_sub(at) < AGE) {
            return;
        }
        let trust_domain = self.trust_domain.to_string();
        let mut beat =
            Beat { trust_domain, incarnation, head, as_of: now, chain: chain.map(hex::encode), signature: String::new() };
        let written = self.authority.sign_heartbeat(&beat.message()).map_err(|e| e.to_string()).and_then(|signature| {
            beat.signature = hex::encode(signature);
            let json = serde_json::to_vec(&beat).map_err(|e| e.to_string())?;
            write_private(&self.path, &json).map_err(|e| e.to_string())
        });
        match written {
            Ok(()) => self.last = Some((incarnation, head, now)),
            Err(cause) => {
                metrics::counter!("mayfly_heartbeat_failures_total", "what" => "file").increment(1);
                static WARNING: Sparing = Sparing::new();
                if let Some(left_out) = WARNING.next(Instant::now()) {
                    tracing::warn!(%cause, left_out, "cannot write the heartbeat");
                }
            }
        }
    }
}
