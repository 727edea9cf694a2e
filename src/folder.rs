//! An identity in a folder: `svid.pem`, `key.pem` (0600), `bundle.pem`, `bundle.json`. The SDK reads it; this file writes it.

use std::path::Path;

use mayfly_agent::api::v1;
use mayfly_agent::channel::Identity;
use mayfly_agent::folder::certificates_from_pem;
use mayfly_agent::identity;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::authority::pem;
use crate::keys::keystore::write_private;

/// A fresh key with its certificate signing request.
pub struct Key {
    pem: Zeroizing<String>,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
}

impl Key {
    /// Makes a P-256 key. Nothing but its public half leaves this process.
    pub fn new() -> Result<Key, String> {
        let key = identity::Key::new().map_err(|e| e.to_string())?;
        let csr = key.csr().map_err(|e| e.to_string())?;
        let pkcs8 = key.expose_pkcs8().map_err(|e| e.to_string())?;
        Ok(Key { pem: Zeroizing::new(pem("PRIVATE KEY", &pkcs8)), csr })
    }
}

/// Writes an identity. The certificate is written last: a reader who finds it finds the other files in place.
pub fn write(dir: &Path, key: &Key, svid: &v1::X509Svid, bundle: &v1::Bundle) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| format!("`{}`: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(|e| text(&e))?;
    let pems = |ders: &[Vec<u8>]| ders.iter().map(|der| pem("CERTIFICATE", der)).collect::<String>();
    let put = |name: &str, content: &[u8]| write_private(&dir.join(name), content).map_err(|e| e.to_string());
    put("key.pem", key.pem.as_bytes())?;
    put("bundle.pem", pems(&bundle.x509_authorities).as_bytes())?;
    put("bundle.json", &bundle.spiffe_json)?;
    put("svid.pem", pems(&svid.certificates).as_bytes())
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
