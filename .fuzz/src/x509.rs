//! A root that signs whatever is to be signed.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use mayfly_verify::{BindingOid, Bundle};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair, KeyUsagePurpose as Ku,
    SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{NOW, bindings, td};

// ecdsa-with-SHA256.
const ALGORITHM: &[u8] = &[0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

pub struct Ca {
    root: Vec<u8>,
    key: EcdsaKeyPair,
    issuer: rcgen::Issuer<'static, KeyPair>,
}

impl Default for Ca {
    fn default() -> Ca {
        let key = KeyPair::generate().unwrap();
        let params = params("spiffe://td", true);
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let ours = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key.serialize_der()).unwrap();
        Ca { root, key: ours, issuer: rcgen::Issuer::new(params, key) }
    }
}

impl Ca {
    pub fn bundle(&self) -> Bundle {
        Bundle::new(td(), vec![self.root.clone()], vec![], 1, 1)
    }

    /// The certificate whose to-be-signed part this is.
    pub fn sign(&self, tbs: &[u8]) -> CertificateDer<'static> {
        let signature = self.key.sign(&SystemRandom::new(), tbs).unwrap();
        let bits = tlv(3, &[&[0], signature.as_ref()].concat());
        tlv(0x30, &[tbs, ALGORITHM, &bits].concat()).into()
    }

    /// To-be-signed parts of certificates that hold: agents, a workload, and a CA.
    pub fn leaves(&self) -> Vec<Vec<u8>> {
        let agent = "spiffe://td/agent/worker/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
        let bound = |der: Vec<u8>| {
            let mut leaf = params(agent, false);
            leaf.custom_extensions = vec![CustomExtension::from_oid_content(BindingOid::default().arcs(), der)];
            leaf
        };
        // What is largest as a claim is larger than an extension may be.
        let ders = bindings().into_iter().filter_map(|binding| binding.to_der().ok());
        let mut all: Vec<CertificateParams> = ders.map(bound).collect();
        all.extend([params("spiffe://td/workload/w", false), params("spiffe://td", true)]);
        let tbs = |params: &CertificateParams| {
            let der = params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().to_vec();
            X509Certificate::from_der(&der).unwrap().1.tbs_certificate.as_ref().to_vec()
        };
        all.iter().map(tbs).collect()
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match length {
        [0, short @ ..=0x7f] => vec![tag, short],
        [0, one] => vec![tag, 0x81, one],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

fn params(id: &str, ca: bool) -> CertificateParams {
    let at = |seconds: u64| time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.key_usages = vec![if ca { Ku::KeyCertSign } else { Ku::DigitalSignature }];
    params.extended_key_usages = if ca { vec![] } else { vec![Eku::ServerAuth, Eku::ClientAuth] };
    params.serial_number = Some(vec![0x42; 16].into());
    (params.not_before, params.not_after) = (at(NOW - 10), at(NOW + 800));
    params
}
