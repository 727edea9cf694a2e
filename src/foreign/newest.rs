//! A foreign bundle as it was read: for one trust domain, never older than the one before, stored with the name it is for.

use std::io::ErrorKind;
use std::path::Path;

use mayfly_verify::{Bundle, BundleError, TrustDomain, parse_spiffe_id};
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::fetch::{FetchError, read as read_file};

/// The newest bundle of a foreign trust domain.
pub struct Newest {
    bundle: Bundle,
    document: Value,
    text: Vec<u8>,
    generation: u64,
}

/// Why a document does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// No bundle document, or one with too many keys.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// FC-6: what it holds is of another trust domain.
    #[error("the bundle of `{of}` holds an authority of `{found}`: bundles are never merged, and each stands under its own name")]
    OtherDomain { of: TrustDomain, found: String },
    /// FC-5: it is from before the one we have.
    #[error("its sequence is {got}, and {known} is known: remove the stored bundle if its publisher began anew")]
    Older { got: u64, known: u64 },
    /// The store holds something else.
    #[error("`{0}` is no stored bundle of `{1}`")]
    NotStored(String, TrustDomain),
    /// The store cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Newest {
    /// What a verifier needs.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The document, as it is handed on: what its publisher says, without white space.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Moves when the content does; what was proved under another is proved again.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Reads a document; none when it says what is known already.
    pub(super) fn after(known: Option<&Newest>, of: &TrustDomain, text: &[u8]) -> Result<Option<Newest>, Refused> {
        let bundle = Bundle::from_json(of.clone(), text)?;
        check_authorities(&bundle, of)?;
        let document: Value = serde_json::from_slice(text).map_err(|e| BundleError::Malformed(e.to_string()))?;
        match known.map(|known| (known, known.bundle.sequence())) {
            // FC-5: compared by sequence. One that stays the same may still bring other keys.
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

    /// As it is stored: a bundle map of one, so that the file says whose it is (Bundle 5.1).
    pub(super) fn to_store(&self, of: &TrustDomain) -> String {
        json!({ "trust_domains": { of.as_str(): self.document } }).to_string()
    }
}

/// Reads what was stored; none when nothing was.
pub(super) fn load(of: &TrustDomain, path: &Path) -> Result<Option<Newest>, Refused> {
    let text = match read_file(path) {
        Ok(text) => text,
        Err(FetchError::File(_, e)) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Refused::Unreadable(e.to_string())),
    };
    let other = || Refused::NotStored(path.display().to_string(), of.clone());
    let mut map: Value = serde_json::from_slice(&text).map_err(|_| other())?;
    let domains = map.get_mut("trust_domains").and_then(Value::as_object_mut).filter(|d| d.len() == 1).ok_or_else(other)?;
    let document = domains.remove(of.as_str()).ok_or_else(other)?;
    Newest::after(None, of, document.to_string().as_bytes())
}

// A signing certificate may name its trust domain (X509-SVID 4.1): then it is the one that was configured.
fn check_authorities(bundle: &Bundle, of: &TrustDomain) -> Result<(), Refused> {
    // What does not parse is no anchor for anybody.
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
