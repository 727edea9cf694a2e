//! An X.509-SVID before it is signed (clauses XL-1 to XL-13), from a template that is encoded once for each authority.

use std::sync::Arc;

use mayfly_verify::{Binding, BindingOid, TrustDomain, issuer_id, workload_id};

use super::der::{self, OCTETS, SEQUENCE, SET_OF_BITS};
use super::dn;
use crate::csr::PublicKey;
use crate::denial::Fault;
use crate::judge::{Admission, Certification};
use crate::ledger::Recorded;

/// A certificate that may be signed, with the expected result.
pub struct Unsigned {
    names: Vec<Name>,
    spki: Vec<u8>,
    // OID and value of an extension that is not critical.
    extension: Option<(Vec<u64>, Vec<u8>)>,
    pub(crate) expected: Expected,
}

/// A name of the issuer's own server, beside its SPIFFE ID.
pub(crate) enum Name {
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(std::net::IpAddr),
}

/// The content that the signed certificate must have.
pub(crate) struct Expected {
    pub(crate) id: String,
    pub(crate) key: [u8; 32],
    pub(crate) serial: Vec<u8>,
    pub(crate) begins_at: u64,
    pub(crate) ends_at: u64,
    pub(crate) binding: Option<Arc<Binding>>,
    /// A DER `Name`.
    pub(crate) subject: Vec<u8>,
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
        binding: Some(Arc::clone(binding)),
        subject: dn::name(admission.subject()),
    };
    // XL-10: not critical, so that verifiers which do not know the extension accept the certificate.
    let extension = Some((oid.arcs().to_vec(), der));
    Ok(Unsigned { names: Vec::new(), spki: key.spki().to_vec(), extension, expected })
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
        subject: dn::name(None),
    };
    Ok(Unsigned { names: Vec::new(), spki: key.spki().to_vec(), extension: None, expected })
}

/// The issuer's own server certificate, with the names that stock clients check.
pub(crate) fn server(td: &TrustDomain, names: Vec<Name>, spki: &[u8], serial: Vec<u8>, begins_at: u64, ends_at: u64) -> Unsigned {
    let key = mayfly_verify::sha256(spki);
    let expected = Expected { id: issuer_id(td), key, serial, begins_at, ends_at, binding: None, subject: dn::name(None) };
    Unsigned { names, spki: spki.to_vec(), extension: None, expected }
}

/// The parts that all certificates of one authority have in common, encoded once.
pub(crate) struct Template {
    // The algorithm of the signature, then the authority's subject.
    issuer: Vec<u8>,
    authority_key_id: Vec<u8>,
    // Key usage and extended key usage.
    usages: Vec<u8>,
    basic_constraints: Vec<u8>,
}

/// ecdsa-with-SHA256 (RFC 5758 3.2).
const ECDSA_WITH_SHA256: [u64; 7] = [1, 2, 840, 10045, 4, 3, 2];
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];
const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];
const SUBJECT_KEY_ID: [u64; 4] = [2, 5, 29, 14];
const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
const AUTHORITY_KEY_ID: [u64; 4] = [2, 5, 29, 35];
const SERVER_AUTH: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 1];
/// The DER of a name without attributes.
const EMPTY: [u8; 2] = [SEQUENCE, 0];
const CLIENT_AUTH: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 2];

impl Template {
    /// The template of an authority, by its subject (a DER `Name`) and its key id.
    pub(crate) fn new(subject: &[u8], key_id: &[u8]) -> Template {
        let mut issuer = Vec::new();
        put_algorithm(&mut issuer);
        issuer.extend_from_slice(subject);
        let mut authority_key_id = Vec::new();
        put_extension(&mut authority_key_id, &AUTHORITY_KEY_ID, false, |out| {
            der::put(out, SEQUENCE, |out| der::put(out, 0x80, |out| out.extend_from_slice(key_id)));
        });
        let mut usages = Vec::new();
        // digitalSignature is bit 0; seven bits of the byte are unused.
        put_extension(&mut usages, &KEY_USAGE, true, |out| der::put(out, SET_OF_BITS, |out| out.extend([7, 0x80])));
        put_extension(&mut usages, &EXTENDED_KEY_USAGE, false, |out| {
            der::put(out, SEQUENCE, |out| {
                der::put_oid(out, &SERVER_AUTH);
                der::put_oid(out, &CLIENT_AUTH);
            });
        });
        let mut basic_constraints = Vec::new();
        // cA is false by default, and DER leaves defaults out.
        put_extension(&mut basic_constraints, &BASIC_CONSTRAINTS, true, |out| der::put(out, SEQUENCE, |_| {}));
        Template { issuer, authority_key_id, usages, basic_constraints }
    }

    /// The part of a certificate that is signed (TBSCertificate, RFC 5280 4.1).
    pub(crate) fn to_be_signed(&self, unsigned: &Unsigned) -> Result<Vec<u8>, Fault> {
        let Unsigned { names, spki, extension, expected } = unsigned;
        let mut validity = Vec::with_capacity(40);
        der::put_time(&mut validity, expected.begins_at)?;
        der::put_time(&mut validity, expected.ends_at)?;
        let mut out = Vec::with_capacity(1024);
        der::put(&mut out, SEQUENCE, |out| {
            // Version 3.
            der::put(out, 0xa0, |out| der::put_integer(out, &[2]));
            der::put_integer(out, &expected.serial);
            out.extend_from_slice(&self.issuer);
            der::put(out, SEQUENCE, |out| out.extend_from_slice(&validity));
            // XL-3: the SPIFFE ID is in the subject alternative name, which is critical if there is no subject.
            out.extend_from_slice(&expected.subject);
            out.extend_from_slice(spki);
            der::put(out, 0xa3, |out| {
                der::put(out, SEQUENCE, |out| {
                    out.extend_from_slice(&self.authority_key_id);
                    put_extension(out, &SUBJECT_ALT_NAME, expected.subject == EMPTY, |out| {
                        der::put(out, SEQUENCE, |out| {
                            der::put(out, 0x86, |out| out.extend_from_slice(expected.id.as_bytes()));
                            names.iter().for_each(|name| put_name(out, name));
                        });
                    });
                    out.extend_from_slice(&self.usages);
                    put_extension(out, &SUBJECT_KEY_ID, false, |out| {
                        // The first 160 bits of the SHA-256 of the public key.
                        der::put(out, OCTETS, |out| out.extend(expected.key.iter().take(20)));
                    });
                    out.extend_from_slice(&self.basic_constraints);
                    if let Some((oid, value)) = extension {
                        put_extension(out, oid, false, |out| out.extend_from_slice(value));
                    }
                });
            });
        });
        Ok(out)
    }
}

/// Assembles a certificate from its signed part and the signature.
pub(crate) fn signed(to_be_signed: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(to_be_signed.len() + 128);
    der::put(&mut out, SEQUENCE, |out| {
        out.extend_from_slice(to_be_signed);
        put_algorithm(out);
        der::put(out, SET_OF_BITS, |out| {
            out.push(0);
            der::put_signature(out, signature);
        });
    });
    out
}

fn put_algorithm(out: &mut Vec<u8>) {
    der::put(out, SEQUENCE, |out| der::put_oid(out, &ECDSA_WITH_SHA256));
}

fn put_extension(out: &mut Vec<u8>, oid: &[u64], critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
    der::put(out, SEQUENCE, |out| {
        der::put_oid(out, oid);
        if critical {
            out.extend([0x01, 1, 0xff]);
        }
        der::put(out, OCTETS, value);
    });
}

fn put_name(out: &mut Vec<u8>, name: &Name) {
    match name {
        Name::Dns(name) => der::put(out, 0x82, |out| out.extend_from_slice(name.as_bytes())),
        Name::Ip(std::net::IpAddr::V4(ip)) => der::put(out, 0x87, |out| out.extend(ip.octets())),
        Name::Ip(std::net::IpAddr::V6(ip)) => der::put(out, 0x87, |out| out.extend(ip.octets())),
    }
}

#[cfg(test)]
mod tests;
