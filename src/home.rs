//! The home: the folder that holds all state, for one process at a time, and where other commands find the issuer.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mayfly_verify::TrustDomain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

use crate::authority::Authority;
use crate::keys::keystore::write_private;
use crate::ledger::Watermark;

/// A home that this process holds.
pub struct Home {
    /// The folder.
    pub dir: PathBuf,
    // Held as long as the process lives; the system releases it when the process ends.
    _lock: File,
}

/// Where a running issuer is, for the other commands.
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
    /// URL of the SPIFFE bundle endpoint, where there is one.
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
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(|e| text(&e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Home { dir, _lock: lock }),
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

    /// Writes down where the issuer is, for the other commands.
    pub fn announce(&self, endpoint: &Endpoint) -> Result<(), String> {
        let json = serde_json::to_vec_pretty(endpoint).map_err(|e| e.to_string())?;
        write_private(&self.dir.join("endpoint.json"), &json).map_err(|e| e.to_string())
    }
}

/// Where the issuer of a home is.
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
    signature: String,
}

impl Beat {
    fn message(&self) -> Vec<u8> {
        format!("mayfly heartbeat v1\n{}\n{}\n{}\n{}", self.trust_domain, self.incarnation, self.head, self.as_of).into_bytes()
    }
}

/// Writes and reads the watermark, `heartbeat.json`.
pub struct Beats {
    /// `heartbeat.json` in the home.
    pub path: PathBuf,
    /// Signs it.
    pub authority: Arc<Authority>,
    /// The trust domain of this issuer.
    pub trust_domain: TrustDomain,
    /// The last watermark that was written: incarnation and head.
    pub last: Option<(Uuid, u64)>,
}

impl Beats {
    /// The last watermark of this home: incarnation and head. A watermark that this issuer did not sign is refused.
    pub fn read(&self) -> Result<Option<(Uuid, u64)>, String> {
        let Ok(text) = fs::read(&self.path) else { return Ok(None) };
        let bad = |what: &str| format!("`{}` {what}", self.path.display());
        let beat: Beat = serde_json::from_slice(&text).map_err(|e| bad(&e.to_string()))?;
        let signature = hex::decode(&beat.signature).map_err(|e| bad(&e.to_string()))?;
        if beat.trust_domain != self.trust_domain.as_str() || !self.authority.is_heartbeat(&beat.message(), &signature) {
            return Err(bad("was not signed by this issuer"));
        }
        Ok(Some((beat.incarnation, beat.head)))
    }
}

impl Watermark for Beats {
    fn write(&mut self, incarnation: Uuid, head: u64, now: u64) {
        if self.last == Some((incarnation, head)) {
            return;
        }
        let trust_domain = self.trust_domain.to_string();
        let mut beat = Beat { trust_domain, incarnation, head, as_of: now, signature: String::new() };
        let written = self.authority.sign_heartbeat(&beat.message()).map_err(|e| e.to_string()).and_then(|signature| {
            beat.signature = hex::encode(signature);
            let json = serde_json::to_vec(&beat).map_err(|e| e.to_string())?;
            write_private(&self.path, &json).map_err(|e| e.to_string())
        });
        match written {
            Ok(()) => self.last = Some((incarnation, head)),
            Err(cause) => tracing::warn!(%cause, "cannot write the heartbeat"),
        }
    }
}
