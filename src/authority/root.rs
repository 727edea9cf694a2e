//! The root: made here, or given in files. It certifies X.509 authorities and signs nothing else.

use std::path::PathBuf;

use mayfly_verify::{Bundle, TrustDomain, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AuthorityError, BACKDATE, key, pem, serial};
use crate::keys::keystore::{Keystore, read_private};
use crate::svid;

/// Lifetime of a root that is made here, in seconds: ten years.
const ROOT_LIFE: u64 = 3650 * 86_400;
/// Organizational unit of a development root, by which `serve` recognizes and refuses it.
const DEVELOPMENT: &str = "development only";
/// Most certificates between an authority and the corporate root.
const UPSTREAM: usize = 3;

/// A root that the operator brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFiles {
    /// PEM file of our CA certificate, followed by those above it unless it is self-signed. An attacker who controls it names
    /// every identity.
    pub certificate: PathBuf,
    /// PEM file of its key, mode 0600. An attacker who controls it names every identity.
    pub key: PathBuf,
}

impl RootFiles {
    /// Reads and checks the files as a start does, and writes nothing. `now` is in Unix seconds.
    pub fn check(&self, td: &TrustDomain, now: u64) -> Result<(), AuthorityError> {
        Given::read(td, self, now).map(drop)
    }
}

/// What root files hold.
struct Given {
    name: String,
    ours: CertificateDer<'static>,
    above: Vec<CertificateDer<'static>>,
    key: KeyPair,
    read: ReadCa,
}

impl Given {
    fn read(td: &TrustDomain, files: &RootFiles, now: u64) -> Result<Given, AuthorityError> {
        let name = files.certificate.display().to_string();
        let unusable = |e: &dyn std::fmt::Display| AuthorityError::unusable(&name, e);
        let text = std::fs::read(&files.certificate).map_err(|e| unusable(&e))?;
        let mut above = certificates(&name, &text)?.into_iter();
        let ours = above.next().ok_or_else(|| unusable(&"it holds no certificate"))?;
        let key_name = files.key.display().to_string();
        let key_text = read_private(&files.key)?.ok_or_else(|| AuthorityError::unusable(&key_name, "it does not exist"))?;
        let key = KeyPair::from_pem(from_its_key(&key_text)).map_err(|e| AuthorityError::unusable(&key_name, e))?;
        let read = read_ca(&name, &ours)?;
        // XC-1: a CA's SPIFFE ID is that of the trust domain.
        if read.uris.iter().any(|uri| *uri != format!("spiffe://{td}")) {
            return Err(unusable(&format!("its URI names are `{}`, and must be `spiffe://{td}` alone", read.uris.join(" "))));
        }
        if !read.signs {
            return Err(unusable(&"it lacks cA or keyCertSign"));
        }
        if read.path == Some(0) {
            return Err(unusable(&"its path length leaves no room for authorities below it"));
        }
        // T239: whatever would keep the bundle from being published keeps the issuer from starting, before anything is made.
        let published = Bundle::new(td.clone(), vec![ours.to_vec()], Vec::new(), 0, 0).to_json();
        published.map_err(|e| unusable(&e))?;
        // T33.
        if read.constrained {
            return Err(unusable(&"it has name constraints, which SPIFFE verifiers refuse"));
        }
        if read.key_id.is_none() {
            return Err(unusable(&"it has no subject key id"));
        }
        if now >= read.ends_at || now < read.begins_at {
            return Err(unusable(&"it is not valid now"));
        }
        if read.spki != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(unusable(&"it does not belong to the key"));
        }
        Ok(Given { above: above.collect(), name, ours, key, read })
    }
}

/// A PEM text from its first private key on: `openssl ecparam -genkey` writes the parameters of the curve before it.
fn from_its_key(text: &str) -> &str {
    let is_key = |at: &usize| {
        let first = text.get(*at..).and_then(|rest| rest.lines().next());
        first.is_some_and(|line| line.trim_end().ends_with("PRIVATE KEY-----"))
    };
    let at = text.match_indices("-----BEGIN ").map(|(at, _)| at).find(is_key).unwrap_or(0);
    text.get(at..).unwrap_or(text)
}

/// The CA that signs X.509 authorities.
pub(super) struct Root {
    // The self-signed certificate in our bundle.
    anchor: CertificateDer<'static>,
    upstream: Vec<CertificateDer<'static>>,
    key_id: Vec<u8>,
    // DER.
    subject: Vec<u8>,
    // DER.
    spki: Vec<u8>,
    // Unix seconds.
    ends_at: u64,
    issuer: Issuer<'static, KeyPair>,
}

impl Root {
    /// Opens the root in `files`, or the one in the keystore, which is made if it is missing. `now` is in Unix seconds.
    pub(super) fn open(
        keystore: &Keystore,
        td: &TrustDomain,
        files: Option<&RootFiles>,
        development: bool,
        now: u64,
    ) -> Result<Root, AuthorityError> {
        match files {
            Some(_) if development => Err(AuthorityError::WrongKind("a real one, and this issuer is for development")),
            Some(files) => Root::given(keystore, td, files, now),
            None => Root::own(keystore, td, development, now),
        }
    }

    /// The root in the keystore, which is made if it is missing.
    fn own(keystore: &Keystore, td: &TrustDomain, development: bool, now: u64) -> Result<Root, AuthorityError> {
        const NAME: &str = "root.pem";
        let key = key(keystore, "root.key")?;
        let root = match keystore.read(NAME)? {
            Some(text) => one_certificate(NAME, text.as_bytes())?,
            None => {
                let unit = development.then_some(DEVELOPMENT);
                let params = ca(td, "Mayfly root", unit, now, now + ROOT_LIFE, BasicConstraints::Unconstrained);
                let params = params.map_err(|e| AuthorityError::unusable(NAME, e))?;
                let made = params.self_signed(&key).map_err(|e| AuthorityError::unusable(NAME, e))?.der().clone();
                keystore.write(NAME, pem("CERTIFICATE", &made).as_bytes())?;
                made
            }
        };
        let read = read_ca(NAME, &root)?;
        let id = format!("spiffe://{td}");
        if read.uris != [id.as_str()] {
            return Err(AuthorityError::unusable(NAME, format!("it is the root of `{}`", read.uris.join(" "))));
        }
        match (read.development, development) {
            (true, false) => return Err(AuthorityError::WrongKind("for development only")),
            (false, true) => return Err(AuthorityError::WrongKind("not for development")),
            _ => {}
        }
        Root::of(NAME, root.clone(), &root, vec![], key)
    }

    /// The root in files: our own root, or our CA that a corporate root certified.
    ///
    /// The bundle must not contain a corporate root. For a CA below one we therefore publish a self-signed certificate for the
    /// same key, the twin, so that relying parties trust our CA and no other CA of the corporate PKI. A root without a SPIFFE ID
    /// gets a twin with the SPIFFE ID of the trust domain (XC-1).
    fn given(keystore: &Keystore, td: &TrustDomain, files: &RootFiles, now: u64) -> Result<Root, AuthorityError> {
        const TWIN: &str = "root-twin.pem";
        let Given { name, ours, above, key, read } = Given::read(td, files, now)?;
        let unusable = |e: &dyn std::fmt::Display| AuthorityError::unusable(&name, e);
        if read.self_signed && !read.uris.is_empty() {
            return Root::of(&name, ours.clone(), &ours, vec![], key);
        }
        let twin = match keystore.read(TWIN)? {
            Some(text) => Some(one_certificate(TWIN, text.as_bytes())?),
            None => None,
        };
        let fits = |twin: &CertificateDer<'_>| {
            read_ca(TWIN, twin).is_ok_and(|t| t.spki == read.spki && t.key_id == read.key_id && t.ends_at == read.ends_at)
        };
        let twin = match twin.filter(fits) {
            Some(known) => known,
            None => {
                let made = twin_of(td, &ours, &read, &key).map_err(|e| unusable(&e))?;
                keystore.write(TWIN, pem("CERTIFICATE", &made).as_bytes())?;
                made
            }
        };
        // Verifiers that trust the corporate root have it, so it is left out of chains.
        let above = above.into_iter().filter(|c| read_ca(&name, c).is_ok_and(|c| !c.self_signed));
        let upstream: Vec<_> = std::iter::once(ours.clone()).filter(|_| !read.self_signed).chain(above).collect();
        if upstream.len() > UPSTREAM {
            return Err(unusable(&format!(
                "at most {UPSTREAM} certificates may stand between an authority and the corporate root"
            )));
        }
        Root::of(&name, twin, &ours, upstream, key)
    }

    /// Checks that `signing` belongs to `key`, and keeps both.
    fn of(
        name: &str,
        anchor: CertificateDer<'static>,
        signing: &CertificateDer<'_>,
        upstream: Vec<CertificateDer<'static>>,
        key: KeyPair,
    ) -> Result<Root, AuthorityError> {
        let read = read_ca(name, signing)?;
        if read.spki != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(AuthorityError::unusable(name, "it does not belong to the key beside it"));
        }
        let key_id = read.key_id.ok_or_else(|| AuthorityError::unusable(name, "it has no subject key id"))?;
        let issuer = Issuer::from_ca_cert_der(signing, key).map_err(|e| AuthorityError::unusable(name, e))?;
        Ok(Root { anchor, upstream, key_id, subject: read.subject, spki: read.spki, ends_at: read.ends_at, issuer })
    }

    /// The self-signed certificate in our bundle.
    pub(super) fn anchor(&self) -> &CertificateDer<'static> {
        &self.anchor
    }

    /// The certificates that each chain has above the authority, for verifiers that trust a corporate root. It is empty for a
    /// root of our own.
    pub(super) fn upstream(&self) -> &[CertificateDer<'static>] {
        &self.upstream
    }

    /// Subject key id.
    pub(super) fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// Subject, DER.
    pub(super) fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// When the signing certificate expires, in Unix seconds.
    pub(super) fn ends_at(&self) -> u64 {
        self.ends_at
    }

    /// Name and key for signing authorities.
    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub(super) fn pin(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

/// The template of a CA certificate. Its common name is `name` and a random suffix, its organizational unit is `unit`. `now` and
/// `ends_at` are in Unix seconds.
// XC-1, XC-3, XC-4: the SPIFFE ID of the trust domain, cA and keyCertSign. The cRLSign is for CRLs.
pub(super) fn ca(
    td: &TrustDomain,
    name: &str,
    unit: Option<&str>,
    now: u64,
    ends_at: u64,
    path: BasicConstraints,
) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://{td}");
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(|e: rcgen::Error| e.to_string())?)];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Mayfly");
    if let Some(unit) = unit {
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    }
    // X.520 allows 64 characters, so only the URI has the trust domain. The suffix keeps names apart: verifiers would try two CAs
    // of one name for each other.
    let serial = serial().map_err(|e| e.to_string())?;
    params.distinguished_name.push(DnType::CommonName, format!("{name} {}", hex::encode(serial.get(..4).unwrap_or_default())));
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = svid::time_of(now.saturating_sub(BACKDATE)).map_err(|e| e.to_string())?;
    params.not_after = svid::time_of(ends_at).map_err(|e| e.to_string())?;
    params.is_ca = IsCa::Ca(path);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Makes a self-signed certificate with the subject, key and key id of `ours`, so that a chain below one verifies below the
/// other.
fn twin_of(td: &TrustDomain, ours: &CertificateDer<'_>, read: &ReadCa, key: &KeyPair) -> Result<CertificateDer<'static>, String> {
    let mut params = ca(td, "", None, read.begins_at + BACKDATE, read.ends_at, BasicConstraints::Unconstrained)?;
    params.distinguished_name = subject_of(ours)?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(read.key_id.clone().unwrap_or_default());
    let twin = params.self_signed(key).map_err(|e| e.to_string())?.der().clone();
    let same = read_ca("the twin", &twin).is_ok_and(|twin| twin.subject == read.subject);
    if same {
        Ok(twin)
    } else {
        Err("its subject cannot be reproduced: use single-valued RDNs, and each attribute only once".to_owned())
    }
}

/// The subject of a certificate, for a template.
fn subject_of(der: &CertificateDer<'_>) -> Result<DistinguishedName, String> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    let mut name = DistinguishedName::new();
    for attribute in cert.subject().iter_attributes() {
        let oid: Vec<u64> = attribute.attr_type().iter().ok_or("an attribute of its subject is unreadable")?.collect();
        let text = attribute.as_str().map_err(|e| e.to_string())?;
        let value = match attribute.attr_value().header.tag() {
            Tag::PrintableString => DnValue::PrintableString(text.try_into().map_err(|e: rcgen::Error| e.to_string())?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|e: rcgen::Error| e.to_string())?),
            _ => DnValue::Utf8String(text.to_owned()),
        };
        name.push(DnType::CustomDnType(oid), value);
    }
    Ok(name)
}

/// The parts of a CA certificate that are checked here.
pub(super) struct ReadCa {
    /// DER.
    pub(super) subject: Vec<u8>,
    /// DER.
    pub(super) issuer: Vec<u8>,
    /// Its URI names.
    pub(super) uris: Vec<String>,
    /// Whether it is marked as a development root.
    pub(super) development: bool,
    pub(super) self_signed: bool,
    /// Whether it has cA and keyCertSign.
    pub(super) signs: bool,
    /// Whether it has name constraints.
    pub(super) constrained: bool,
    /// Path length. `None` means that it is not limited.
    pub(super) path: Option<u32>,
    pub(super) key_id: Option<Vec<u8>>,
    pub(super) authority_key_id: Option<Vec<u8>>,
    /// DER.
    pub(super) spki: Vec<u8>,
    /// Unix seconds.
    pub(super) begins_at: u64,
    /// Unix seconds.
    pub(super) ends_at: u64,
}

/// Reads a CA certificate in DER. `name` names it in errors.
pub(super) fn read_ca(name: &str, der: &[u8]) -> Result<ReadCa, AuthorityError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| AuthorityError::unusable(name, e))?;
    // rcgen panics on an empty set.
    if cert.subject().iter_rdn().any(|rdn| rdn.iter().next().is_none()) {
        return Err(AuthorityError::unusable(name, "its subject holds an empty set"));
    }
    let mut read = ReadCa {
        subject: cert.subject().as_raw().to_vec(),
        issuer: cert.issuer().as_raw().to_vec(),
        uris: Vec::new(),
        development: cert.subject().iter_organizational_unit().any(|ou| ou.as_str().is_ok_and(|ou| ou == DEVELOPMENT)),
        self_signed: cert.subject().as_raw() == cert.issuer().as_raw() && cert.verify_signature(None).is_ok(),
        signs: cert.is_ca() && matches!(cert.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign()),
        constrained: false,
        path: None,
        key_id: None,
        authority_key_id: None,
        spki: cert.public_key().raw.to_vec(),
        begins_at: u64::try_from(cert.validity().not_before.timestamp()).unwrap_or(0),
        ends_at: u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0),
    };
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => {
                let uri = |n: &GeneralName<'_>| if let GeneralName::URI(uri) = n { Some((*uri).to_owned()) } else { None };
                read.uris.extend(san.general_names.iter().filter_map(uri));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => read.key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(aki) => {
                read.authority_key_id = aki.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::BasicConstraints(bc) => read.path = bc.path_len_constraint,
            ParsedExtension::NameConstraints(_) => read.constrained = true,
            _ => {}
        }
    }
    Ok(read)
}

/// Every certificate in a PEM text; other PEM blocks are skipped.
fn certificates(name: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let parsed = ::pem::parse_many(text).map_err(|e| AuthorityError::unusable(name, e))?;
    Ok(parsed.into_iter().filter(|p| p.tag() == "CERTIFICATE").map(|p| CertificateDer::from(p.into_contents())).collect())
}

/// The first certificate in a PEM text.
fn one_certificate(name: &str, text: &[u8]) -> Result<CertificateDer<'static>, AuthorityError> {
    certificates(name, text)?.into_iter().next().ok_or_else(|| AuthorityError::unusable(name, "it holds no certificate"))
}
