//! The SPIFFE ID and expiry in our own certificate. Certificates of others are verified elsewhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_verify::{SpiffeId, parse_spiffe_id};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) ends_at: SystemTime,
}

impl Leaf {
    /// `None` if this is not exactly one certificate, or if it has not exactly one URI, a SPIFFE ID with a path (XL-1, XL-2).
    pub(crate) fn read(der: &[u8]) -> Option<Leaf> {
        let (left, cert) = X509Certificate::from_der(der).ok()?;
        let names = cert.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None, []) = (uris.next(), uris.next(), left) else { return None };
        let id = parse_spiffe_id(uri).ok().filter(|id| !id.path().is_empty())?;
        let seconds = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
        Some(Leaf { id, ends_at: UNIX_EPOCH + Duration::from_secs(seconds) })
    }
}
