//! The newest bundle of a foreign trust domain: never older than the one before, and stored together with its trust domain.

use std::io::ErrorKind;
use std::path::Path;

use mayfly_verify::{Bundle, BundleError, TrustDomain, parse_spiffe_id};
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::document::{DocumentError, read};

/// The newest bundle of a foreign trust domain.
pub struct Newest {
    bundle: Bundle,
    document: Value,
    text: Vec<u8>,
    generation: u64,
}

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a bundle document, or has too many keys.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// FC-6: it holds an authority of another trust domain.
    #[error(
        "the bundle of `{of}` holds an authority of `{found}`; each bundle may hold only the authorities of its own trust domain"
    )]
    OtherDomain { of: TrustDomain, found: String },
    /// FC-5: it is older than the known one.
    #[error("bundle sequence went back ({got} < {known}); if the publisher reset it on purpose, delete the stored bundle")]
    Older { got: u64, known: u64 },
    /// The stored file is not the bundle of this trust domain.
    #[error("`{0}` is not a stored bundle of `{1}`")]
    NotStored(String, TrustDomain),
    /// The stored file cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Newest {
    /// The bundle, parsed for a verifier.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The publisher's bundle document, written again without white space. Agents get this text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Changes with the content. Whatever was verified under another generation is verified again.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Reads a document. Returns `None` if its content is that of the known one.
    pub fn after(known: Option<&Newest>, of: &TrustDomain, text: &[u8]) -> Result<Option<Newest>, Refused> {
        let bundle = Bundle::from_json(of.clone(), text)?;
        check_authorities(&bundle, of)?;
        let document: Value = serde_json::from_slice(text).map_err(|e| BundleError::Malformed(e.to_string()))?;
        match known.map(|known| (known, known.bundle.sequence())) {
            // FC-5: the sequences are compared. A document with the same sequence may still bring other keys.
            Some((_, sequence)) if bundle.sequence() < sequence => {
                Err(Refused::Older { got: bundle.sequence(), known: sequence })
            }
            Some((known, _)) if known.document == document => Ok(None),
            known => {
                let (text, generation) = (document.to_string().into(), known.map_or(1, |(known, _)| known.generation + 1));
                Ok(Some(Newest { bundle, document, text, generation }))
            }
        }
    }

    /// The form in which it is stored: a bundle map with one entry, so that the file names its trust domain (Bundle 5.1).
    pub(super) fn to_store(&self, of: &TrustDomain) -> String {
        json!({ "trust_domains": { of.as_str(): self.document } }).to_string()
    }
}

/// Reads the stored bundle, or returns `None` if there is none.
pub(super) fn load(of: &TrustDomain, path: &Path) -> Result<Option<Newest>, Refused> {
    let text = match read(path) {
        Ok(text) => text,
        Err(DocumentError::File(_, e)) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Refused::Unreadable(e.to_string())),
    };
    let other = || Refused::NotStored(path.display().to_string(), of.clone());
    let mut map: Value = serde_json::from_slice(&text).map_err(|_| other())?;
    let domains = map.get_mut("trust_domains").and_then(Value::as_object_mut).filter(|d| d.len() == 1).ok_or_else(other)?;
    let document = domains.remove(of.as_str()).ok_or_else(other)?;
    Newest::after(None, of, document.to_string().as_bytes())
}

// A signing certificate may name its trust domain (X509-SVID 4.1). Then that must be the configured one.
fn check_authorities(bundle: &Bundle, of: &TrustDomain) -> Result<(), Refused> {
    // A certificate that cannot be parsed is no anchor for any verifier, so its names do not matter.
    for (_, cert) in bundle.x509_authorities().iter().filter_map(|der| X509Certificate::from_der(der).ok()) {
        let names = cert.subject_alternative_name().ok().flatten().map(|ext| ext.value.general_names.as_slice());
        for name in names.unwrap_or_default() {
            let GeneralName::URI(uri) = name else { continue };
            if uri.starts_with("spiffe:") && !parse_spiffe_id(uri).is_ok_and(|id| id.trust_domain() == of) {
                let found = uri.chars().take(256).flat_map(char::escape_default).collect();
                return Err(Refused::OtherDomain { of: of.clone(), found });
            }
        }
    }
    Ok(())
}
