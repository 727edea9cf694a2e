//! Certificate revocation lists (RFC 5280 5), for verifiers that read no feed: one for each CA that a chain may contain.

use std::sync::Arc;

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, PublicKeyData, RevocationReason as Why, RevokedCertParams,
    SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authority, BACKDATE};
use crate::denial::Fault;
use crate::keys::Signer;
use crate::state::authority::{Authorities, Kind, Status};
use crate::svid;

/// The list of one CA.
#[derive(Clone, Debug)]
pub struct Crl {
    /// Subject key id of the CA, in hex.
    pub issuer: Arc<str>,
    /// The list, DER.
    pub der: Vec<u8>,
}

/// When a list was made, and when it expires, in Unix seconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When it was made.
    pub made_at: u64,
    /// Verifiers refuse the list from then on, and with it every certificate of its CA.
    pub expires_at: u64,
}

impl Authority {
    /// Signs the list of the root and of each authority whose certificates may be valid. `serials` are those of refused certificates;
    /// serial numbers are random, so each list has all of them. `number` never goes back. Fails if a key is not there.
    ///
    /// A tainted authority has no list of its own: the root's says that it is revoked.
    pub fn crls(&self, authorities: &Authorities, serials: &[[u8; 16]], span: Span, number: u64) -> Result<Vec<Crl>, Fault> {
        let fault = |e: &dyn std::fmt::Display| Fault::new("crl", e);
        let tainted = authorities.of(Kind::X509).filter(|slot| slot.status == Status::Tainted);
        let tainted = tainted.map(|slot| serial_in(&slot.public).map_err(|e| fault(&e))).collect::<Result<Vec<_>, _>>()?;
        let params = |key_id: &[u8], revoked: &mut dyn Iterator<Item = (&[u8], Why)>| {
            Ok::<_, Fault>(CertificateRevocationListParams {
                // The list begins a little earlier, for verifiers whose clocks are behind.
                this_update: svid::time_of(span.made_at.saturating_sub(BACKDATE))?,
                next_update: svid::time_of(span.expires_at)?,
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: None,
                revoked_certs: revoked
                    .map(|(serial, reason)| {
                        Ok::<_, Fault>(RevokedCertParams {
                            serial_number: SerialNumber::from_slice(serial),
                            revocation_time: svid::time_of(span.made_at.saturating_sub(BACKDATE))?,
                            reason_code: Some(reason),
                            invalidity_date: None,
                        })
                    })
                    .collect::<Result<_, _>>()?,
                key_identifier_method: KeyIdMethod::PreSpecified(key_id.to_vec()),
            })
        };
        let of_root = params(self.root.key_id(), &mut tainted.iter().map(|s| (s.as_slice(), Why::CaCompromise)))?;
        let of_root = of_root.signed_by(self.root.issuer()).map_err(|e| fault(&e))?;
        let mut crls = vec![Crl { issuer: hex::encode(self.root.key_id()).into(), der: of_root.der().to_vec() }];
        // The root's list covers the authorities; each authority's own list covers its certificates.
        for slot in authorities.of(Kind::X509).filter(|slot| slot.status != Status::Tainted) {
            let known = self.x509.read().get(&slot.id).cloned();
            let authority = known.ok_or_else(|| fault(&format!("no key of authority `{}`", slot.id)))?;
            let listed = &mut serials.iter().map(|s| (s.as_slice(), Why::PrivilegeWithdrawn));
            let crl = params(&slot.key_id(), listed)?;
            crls.push(Crl { issuer: Arc::clone(&slot.id), der: authority.sign_crl(&crl).map_err(|e| fault(&e))? });
        }
        Ok(crls)
    }
}

/// Signs a list with the key of a CA.
pub(super) fn sign(
    crl: &CertificateRevocationListParams,
    certificate: &CertificateDer<'_>,
    signer: &dyn Signer,
) -> Result<Vec<u8>, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_der(certificate, Port(signer))?;
    Ok(crl.signed_by(&issuer)?.der().to_vec())
}

/// Adapts a signer to rcgen's trait.
struct Port<'a>(&'a dyn Signer);

impl PublicKeyData for Port<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Port<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        let mut der = Vec::new();
        svid::der::put_signature(&mut der, &signature);
        Ok(der)
    }
}

fn serial_in(certificate: &[u8]) -> Result<Vec<u8>, String> {
    let (_, read) = X509Certificate::from_der(certificate).map_err(|e| e.to_string())?;
    Ok(read.raw_serial().to_vec())
}
