//! An identity in a folder: `svid.pem`, `key.pem` (0600), `bundle.pem`, `bundle.json`. The SDK reads it; this file writes it.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use mayfly_agent::api::v1;
use mayfly_agent::channel::Identity;
use mayfly_agent::folder::certificates_from_pem;
use mayfly_agent::folder::write::Files;
pub use mayfly_agent::folder::write::{Locked, reading};
use mayfly_agent::identity;
use mayfly_agent::validity::{self, Validity};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// A fresh key with its certificate signing request.
pub struct Key {
    pkcs8: Zeroizing<Vec<u8>>,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
}

impl Key {
    /// Makes a P-256 key. Nothing but its public half leaves this process.
    pub fn new() -> Result<Key, String> {
        let key = identity::Key::new().map_err(|e| e.to_string())?;
        let csr = key.csr().map_err(|e| e.to_string())?;
        let pkcs8 = key.expose_pkcs8().map_err(|e| e.to_string())?;
        Ok(Key { pkcs8, csr })
    }
}

/// How long to wait for another program that writes the same folder.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes an identity: key, certificate and bundles switch together. `issuer` is `host:port`; `None` leaves what the folder says.
pub fn write(dir: &Path, key: &Key, svid: &v1::X509Svid, bundle: &v1::Bundle, issuer: Option<&str>) -> Result<(), String> {
    let locked = Locked::within(dir, PATIENCE).map_err(|e| e.to_string())?;
    write_locked(&locked, key, svid, bundle, issuer)
}

/// The same under a lock that is held already.
pub fn write_locked(
    locked: &Locked,
    key: &Key,
    svid: &v1::X509Svid,
    bundle: &v1::Bundle,
    issuer: Option<&str>,
) -> Result<(), String> {
    let files = Files {
        key: &key.pkcs8,
        chain: &svid.certificates,
        roots: &bundle.x509_authorities,
        bundle_json: &bundle.spiffe_json,
        issuer,
    };
    locked.write(&files).map_err(|e| e.to_string())
}

/// Reads the certificates of a PEM file, or of a pipe; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    certificates_from_pem(&text).map_err(|e| format!("`{}`: {e}", path.display()))
}

/// Reads an identity to connect with. A key that others may read is refused.
pub fn identity(dir: &Path) -> Result<Identity, String> {
    mayfly_agent::folder::identity(dir).map_err(|e| e.to_string())
}

/// Reads the roots of the bundle.
pub fn roots(dir: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    mayfly_agent::folder::roots(dir).map_err(|e| e.to_string())
}

/// Where the issuer of the identity was when the folder was written, as `host:port`. `None` if the folder does not say.
pub fn issuer(dir: &Path) -> Option<String> {
    mayfly_agent::folder::issuer(dir)
}

/// From when and until when the certificate in a folder is valid.
///
/// A certificate begins before it was made, because clocks differ. Half of its life is counted from when it was written. Otherwise
/// a certificate that lasts for seconds would always be due.
pub fn validity(dir: &Path) -> Result<Validity, String> {
    let identity = identity(dir)?;
    let file = dir.join("svid.pem");
    let validity = identity.chain.first().and_then(|leaf| Validity::of(leaf));
    let validity = validity.ok_or_else(|| format!("`{}` holds no certificate", file.display()))?;
    let written = file.metadata().and_then(|metadata| metadata.modified()).ok();
    let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    let plausible = written > validity.begins_at && written < validity.ends_at && written <= validity::now();
    Ok(if plausible { Validity { begins_at: written, ..validity } } else { validity })
}
