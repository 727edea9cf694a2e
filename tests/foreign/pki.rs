//! A foreign trust domain: its root, its bundle document, and leaves of any name.

use std::path::Path;

use mayfly_verify::{Bundle, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) struct Pki {
    pub(crate) root: CertificateDer<'static>,
    signer: Issuer<'static, KeyPair>,
}

pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Pki {
    /// A root that names its trust domain, as SPIRE's does.
    pub(crate) fn of(td: &str) -> Pki {
        Pki::with(Some(&format!("spiffe://{td}")))
    }

    /// A root that names nobody.
    pub(crate) fn nameless() -> Pki {
        Pki::with(None)
    }

    fn with(uri: Option<&str>) -> Pki {
        let mut params = CertificateParams::default();
        let key = KeyPair::generate().unwrap();
        // Names of their own: a verifier finds the one root that signed.
        params.distinguished_name.push(DnType::CommonName, hex::encode(&key.public_key_raw()[..8]));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = uri.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let root = params.self_signed(&key).unwrap().der().clone();
        Pki { root, signer: Issuer::new(params, key) }
    }

    /// The issuer's own X.509 authority, as somebody would have it who can read its home.
    pub(crate) fn stolen(home: &Path) -> Pki {
        let names = std::fs::read_dir(home.join("keys")).unwrap().map(|entry| entry.unwrap().path());
        let file = names.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("x509-")).unwrap();
        let key = KeyPair::from_pem(&std::fs::read_to_string(file).unwrap()).unwrap();
        let der = mayfly::folder::certificates(&home.join("workloads/orchestrator/svid.pem")).unwrap().remove(1);
        let signer = Issuer::from_ca_cert_der(&der, key).unwrap();
        Pki { root: der, signer }
    }

    pub(crate) fn svid(&self, id: &str) -> Leaf {
        self.leaf(SanType::URI(id.try_into().unwrap()), |_| ())
    }

    /// One that lasts so many seconds.
    pub(crate) fn short(&self, id: &str, seconds: i64) -> Leaf {
        let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        self.leaf(SanType::URI(id.try_into().unwrap()), |params| params.not_after = end)
    }

    /// A certificate of a web server on this machine.
    pub(crate) fn web(&self, name: &str) -> Leaf {
        let ip = name.parse().map(SanType::IpAddress);
        self.leaf(ip.unwrap_or_else(|_| SanType::DnsName(name.try_into().unwrap())), |_| ())
    }

    fn leaf(&self, name: SanType, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
        params.subject_alt_names = vec![name];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.signer).unwrap().der().clone();
        Leaf { chain: vec![der, self.root.clone()], key }
    }
}

impl Leaf {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// Writes it as `mayfly` reads an identity.
    pub(crate) fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("svid.pem"), pem(&self.chain)).unwrap();
        mayfly::keys::keystore::write_private(&dir.join("key.pem"), self.key.serialize_pem().as_bytes()).unwrap();
    }
}

pub(crate) fn pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|c| pem::encode(&pem::Pem::new("CERTIFICATE", c.to_vec()))).collect()
}

/// A bundle document. Its publisher wants to be asked every ten seconds.
pub(crate) fn document(roots: &[&Pki], sequence: u64) -> String {
    let roots = roots.iter().map(|pki| pki.root.to_vec()).collect();
    Bundle::new(TrustDomain::new("any").unwrap(), roots, vec![], sequence, 10).to_json().unwrap().to_string()
}
