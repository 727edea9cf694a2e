//! The template of an X.509-SVID (clauses XL-1 to XL-13).

use mayfly_verify::{Binding, BindingOid, TrustDomain, issuer_id, workload_id};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use time::OffsetDateTime;

use crate::csr::PublicKey;
use crate::denial::Fault;
use crate::judge::{Admission, Certification};
use crate::ledger::Recorded;

/// A certificate that may be signed, with what must come out.
pub struct Unsigned {
    pub(crate) params: CertificateParams,
    pub(crate) spki: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What the signed certificate must say.
pub(crate) struct Expected {
    pub(crate) id: String,
    pub(crate) key: [u8; 32],
    pub(crate) serial: Vec<u8>,
    pub(crate) begins_at: u64,
    pub(crate) ends_at: u64,
    pub(crate) binding: Option<Binding>,
}

/// An agent's certificate.
pub fn agent(admission: &Recorded<Admission>, key: &PublicKey, oid: &BindingOid) -> Result<Unsigned, Fault> {
    let certificate = admission.certificate().ok_or_else(|| Fault::new("svid", "no certificate was recorded"))?;
    if key.digest() != certificate.key {
        return Err(Fault::new("svid", "the key is not the one that was recorded"));
    }
    let binding = admission.binding();
    let der = binding.to_der().map_err(|e| Fault::new("svid", e))?;
    let expected = Expected {
        id: admission.id().to_string(),
        key: certificate.key,
        serial: certificate.serial.to_vec(),
        begins_at: certificate.begins_at,
        ends_at: certificate.ends_at,
        binding: Some(binding.as_ref().clone()),
    };
    let mut params = leaf(&expected, &[])?;
    // XL-10: not critical, so that verifiers which do not know it accept the certificate.
    params.custom_extensions = vec![CustomExtension::from_oid_content(oid.arcs(), der)];
    Ok(Unsigned { params, spki: key.spki().to_vec(), expected })
}

/// A workload's certificate.
pub fn workload(permit: &Recorded<Certification>, key: &PublicKey, td: &TrustDomain) -> Result<Unsigned, Fault> {
    let certificate = permit.certificate();
    if key.digest() != certificate.key {
        return Err(Fault::new("svid", "the key is not the one that was recorded"));
    }
    let expected = Expected {
        id: workload_id(td, permit.workload()),
        key: certificate.key,
        serial: certificate.serial.to_vec(),
        begins_at: certificate.begins_at,
        ends_at: certificate.ends_at,
        binding: None,
    };
    Ok(Unsigned { params: leaf(&expected, &[])?, spki: key.spki().to_vec(), expected })
}

/// The issuer's own server certificate, with the names that stock clients check.
pub(crate) fn server(
    td: &TrustDomain,
    names: &[SanType],
    spki: &[u8],
    serial: Vec<u8>,
    begins_at: u64,
    ends_at: u64,
) -> Result<Unsigned, Fault> {
    let key = mayfly_verify::sha256(spki);
    let expected = Expected { id: issuer_id(td), key, serial, begins_at, ends_at, binding: None };
    Ok(Unsigned { params: leaf(&expected, names)?, spki: spki.to_vec(), expected })
}

// T30: every default that a library would choose for us is set here.
fn leaf(expected: &Expected, names: &[SanType]) -> Result<CertificateParams, Fault> {
    let mut params = CertificateParams::default();
    let uri = expected.id.as_str().try_into().map_err(|e| Fault::new("svid", e))?;
    params.subject_alt_names = std::iter::once(SanType::URI(uri)).chain(names.iter().cloned()).collect();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(expected.serial.clone().into());
    params.not_before = time_of(expected.begins_at)?;
    params.not_after = time_of(expected.ends_at)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

pub(crate) fn time_of(seconds: u64) -> Result<OffsetDateTime, Fault> {
    let signed = i64::try_from(seconds).map_err(|e| Fault::new("svid", e))?;
    OffsetDateTime::from_unix_timestamp(signed).map_err(|e| Fault::new("svid", e))
}
