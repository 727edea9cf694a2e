//! An X.509 authority: an intermediate below the root, which signs X.509-SVIDs.

use std::sync::Arc;

use mayfly_verify::{BindingOid, TrustDomain, inspect_x509};
use rcgen::{BasicConstraints, KeyPair};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::root::{Root, ca, read_ca};
use super::{AuthorityError, Signed, key_name};
use crate::denial::Fault;
use crate::keys::keystore::Keystore;
use crate::keys::{LocalKey, Signer};
use crate::state::authority::{Kind, Slot};
use crate::svid;

/// An intermediate with its key.
pub struct X509Authority {
    id: Arc<str>,
    key_id: Vec<u8>,
    ends_at: u64,
    certificate: CertificateDer<'static>,
    above: Arc<[CertificateDer<'static>]>,
    template: svid::x509::Template,
    signer: Box<dyn Signer>,
}

impl X509Authority {
    /// Makes a key, lets the root certify it, and stores the key. `ends_at` and `now` are in Unix seconds.
    pub(super) fn make(
        keystore: &Keystore,
        td: &TrustDomain,
        root: &Root,
        ends_at: u64,
        now: u64,
    ) -> Result<X509Authority, AuthorityError> {
        let unusable = |e: &dyn std::fmt::Display| AuthorityError::unusable("a new authority", e);
        let key = KeyPair::generate().map_err(|e| unusable(&e))?;
        let pem = Zeroizing::new(key.serialize_pem());
        // T33: without name constraints, because verifiers refuse URI constraints altogether.
        let path = BasicConstraints::Constrained(0);
        let ends_at = ends_at.min(root.ends_at());
        let params = ca(td, "Mayfly issuing", None, now, ends_at, path).map_err(|e| unusable(&e))?;
        let certificate = params.signed_by(&key, root.issuer()).map_err(|e| unusable(&e))?.der().clone();
        let made = X509Authority::of("a new authority", certificate, &key, root)?;
        keystore.write(&key_name(Kind::X509, &made.id), pem.as_bytes())?;
        Ok(made)
    }

    /// Loads the key of a recorded authority. Fails if it is missing or does not belong to the recorded certificate.
    pub(super) fn load(keystore: &Keystore, root: &Root, slot: &Slot) -> Result<X509Authority, AuthorityError> {
        let name = key_name(Kind::X509, &slot.id);
        let text = keystore.read(&name)?.ok_or_else(|| AuthorityError::unusable(&name, "it is not in the keystore"))?;
        let key = KeyPair::from_pem(&text).map_err(|e| AuthorityError::unusable(&name, e))?;
        let loaded = X509Authority::of(&name, CertificateDer::from(slot.public.clone()), &key, root)?;
        if loaded.id != slot.id || loaded.ends_at != slot.ends_at {
            return Err(AuthorityError::unusable(&name, "it is not the authority that was recorded"));
        }
        Ok(loaded)
    }

    fn of(name: &str, certificate: CertificateDer<'static>, key: &KeyPair, root: &Root) -> Result<X509Authority, AuthorityError> {
        let read = read_ca(name, &certificate)?;
        // T46: a certificate of another key or another root is refused.
        if read.spki != rcgen::PublicKeyData::subject_public_key_info(key) {
            return Err(AuthorityError::unusable(name, "the certificate does not belong to the key"));
        }
        if read.authority_key_id.as_deref() != Some(root.key_id()) || read.issuer != root.subject() {
            return Err(AuthorityError::unusable(name, "it was certified by another root"));
        }
        let key_id = read.key_id.ok_or_else(|| AuthorityError::unusable(name, "the certificate has no key id"))?;
        let signer = LocalKey::from_pkcs8(key.serialized_der()).map_err(|e| AuthorityError::unusable(name, e))?;
        let template = svid::x509::Template::new(&read.subject, &key_id);
        let above = std::iter::once(certificate.clone()).chain(root.upstream().iter().cloned()).collect();
        Ok(X509Authority {
            id: hex::encode(&key_id).into(),
            key_id,
            ends_at: read.ends_at,
            certificate,
            above,
            template,
            signer: Box::new(signer),
        })
    }

    /// Its subject key id in hex.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The slot to record. Its times are set when it is recorded.
    pub(super) fn slot(&self) -> Slot {
        Slot::new(Kind::X509, Arc::clone(&self.id), self.certificate.to_vec(), self.ends_at)
    }

    /// Signs a certificate, then parses it and compares it with what was to be signed. Fails if they differ.
    pub(super) fn sign(&self, unsigned: &svid::x509::Unsigned, td: &TrustDomain, oid: &BindingOid) -> Result<Signed, Fault> {
        let fault = |what: &dyn std::fmt::Display| Fault::new("sign x509", what);
        let to_be_signed = self.template.to_be_signed(unsigned)?;
        let leaf = CertificateDer::from(svid::x509::signed(&to_be_signed, &self.signer.sign(&to_be_signed)?));
        let expected = &unsigned.expected;
        let svid = inspect_x509(&leaf, td, oid).map_err(|e| fault(&e))?;
        let same = svid.id.to_string() == expected.id
            && svid.key == expected.key
            && svid.serial == expected.serial
            && svid.subject == expected.subject
            && (svid.not_before, svid.not_after) == (expected.begins_at, expected.ends_at)
            && svid.binding.as_ref() == expected.binding.as_deref()
            && svid.authority == self.key_id
            // XL-13, T17.
            && svid.not_after <= self.ends_at;
        if same {
            Ok(Signed { leaf, above: Arc::clone(&self.above) })
        } else {
            Err(fault(&"the certificate is not what was to be signed"))
        }
    }

    /// Signs a CRL. Fails if the certificate lacks cRLSign.
    pub(super) fn sign_crl(&self, crl: &rcgen::CertificateRevocationListParams) -> Result<Vec<u8>, rcgen::Error> {
        super::crl::sign(crl, &self.certificate, &*self.signer)
    }
}
