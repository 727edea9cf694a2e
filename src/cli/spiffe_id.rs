//! The SPIFFE ID in a certificate.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The first URI among the subject alternative names, without `spiffe://`; `None` if the certificate (DER) has no such URI.
pub(super) fn of_certificate(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })?;
    Some(uri.strip_prefix("spiffe://")?.to_owned())
}
