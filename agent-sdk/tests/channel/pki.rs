//! A root, an intermediate, and leaves of any shape.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) struct Pki {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) intermediate: CertificateDer<'static>,
    root_params: CertificateParams,
    root_key: KeyPair,
    signer: Issuer<'static, KeyPair>,
}

pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    key: KeyPair,
}

impl Leaf {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::build(|_| (), |_| ())
    }

    pub(crate) fn ending(not_after: time::OffsetDateTime) -> Self {
        Self::build(|p| p.not_after = not_after, |_| ())
    }

    pub(crate) fn with_intermediate(change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::build(|_| (), change)
    }

    fn build(root: impl FnOnce(&mut CertificateParams), intermediate: impl FnOnce(&mut CertificateParams)) -> Self {
        let root_key = KeyPair::generate().unwrap();
        let mut root_params = ca("root");
        root(&mut root_params);
        let root = root_params.self_signed(&root_key).unwrap().der().clone();
        let key = KeyPair::generate().unwrap();
        let mut params = ca("intermediate");
        intermediate(&mut params);
        let intermediate = params.signed_by(&key, &Issuer::from_params(&root_params, &root_key)).unwrap().der().clone();
        Self { root, intermediate, root_params, root_key, signer: Issuer::new(params, key) }
    }

    pub(crate) fn leaf(&self, ids: &[&str]) -> Leaf {
        self.issue(ids, |_| ())
    }

    /// A leaf of the SVID profile, but for `change`.
    pub(crate) fn issue(&self, ids: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params("leaf");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // Names as stock gRPC clients check them: never a reason to trust or to distrust.
        params.subject_alt_names = vec![SanType::DnsName("elsewhere.test".try_into().unwrap())];
        params.subject_alt_names.extend(ids.iter().map(|id| SanType::URI((*id).try_into().unwrap())));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf { der: params.signed_by(&key, &self.signer).unwrap().der().clone(), key }
    }

    /// Leaf, intermediate, root.
    pub(crate) fn full_chain(&self, leaf: &Leaf) -> Vec<CertificateDer<'static>> {
        vec![leaf.der.clone(), self.intermediate.clone(), self.root.clone()]
    }

    /// Leaf, intermediate.
    pub(crate) fn short_chain(&self, leaf: &Leaf) -> Vec<CertificateDer<'static>> {
        vec![leaf.der.clone(), self.intermediate.clone()]
    }

    /// Our root's names and key, under the signature of another root of the same name.
    pub(crate) fn root_signed_by(&self, other: &Self) -> CertificateDer<'static> {
        let issuer = Issuer::from_params(&other.root_params, &other.root_key);
        self.root_params.signed_by(&self.root_key, &issuer).unwrap().der().clone()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2090, 1, 1);
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
