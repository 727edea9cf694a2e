//! An identity in a folder: `svid.pem`, `key.pem` (0600), `bundle.pem`, `bundle.json`.

use std::path::Path;

use mayfly_agent::api::v1;
use mayfly_agent::channel::Identity;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::authority::keystore::write_private;
use crate::authority::pem;

/// A fresh key with its certification request.
pub struct Key {
    pem: Zeroizing<String>,
    /// PKCS#10, DER.
    pub csr: Vec<u8>,
}

impl Key {
    /// Makes a P-256 key. Nothing but its public half leaves this process.
    pub fn new() -> Result<Key, String> {
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(|e| e.to_string())?;
        Ok(Key { pem: Zeroizing::new(key.serialize_pem()), csr: csr.der().to_vec() })
    }
}

/// Writes an identity. The certificate comes last: who sees it finds the rest in place.
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

/// Reads the certificates of a PEM file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let parsed = ::pem::parse_many(text).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let certs: Vec<_> =
        parsed.into_iter().filter(|p| p.tag() == "CERTIFICATE").map(|p| CertificateDer::from(p.into_contents())).collect();
    if certs.is_empty() { Err(format!("`{}` holds no certificate", path.display())) } else { Ok(certs) }
}

/// Reads an identity to connect with.
pub fn identity(dir: &Path) -> Result<Identity, String> {
    let path = dir.join("key.pem");
    let text = Zeroizing::new(std::fs::read(&path).map_err(|e| format!("`{}`: {e}", path.display()))?);
    let parsed = ::pem::parse(&*text).map_err(|e| format!("`{}`: {e}", path.display()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(parsed.into_contents()));
    Ok(Identity { chain: certificates(&dir.join("svid.pem"))?, key })
}
