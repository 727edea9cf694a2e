//! Room 6: who signs. Root and intermediate for certificates, one key for tokens, one for heartbeats.

pub mod keystore;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{BindingOid, Bundle, JwtAuthority, TrustDomain, inspect_x509, sha256};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::denial::Fault;
use crate::svid;
use keystore::{Keystore, KeystoreError};

/// Seconds a root lasts: ten years.
const ROOT_LIFE: u64 = 3650 * 86_400;
/// Seconds an intermediate lasts; it is made anew at a start with less than a third left.
const INTERMEDIATE_LIFE: u64 = 90 * 86_400;
/// Seconds the server's own certificate lasts.
const SERVER_LIFE: u64 = 7 * 86_400;
/// Seconds by which certificates begin in the past, for clocks that are behind.
const BACKDATE: u64 = 60;
/// What a development root is called, so that `serve` refuses it.
const DEVELOPMENT: &str = "development only";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The keystore refused.
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    /// A file of the keystore holds something else, or a certificate does not belong to its key.
    #[error("`{0}` in the keystore cannot be used: {1}")]
    Unusable(&'static str, String),
    /// A root for development under `serve`, or the other way round.
    #[error("the root of this home is {0}: use another `home`")]
    WrongKind(&'static str),
}

/// Every signing key in use.
pub struct Authority {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    intermediate_ends_at: u64,
    key_id: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    jwt: EcdsaKeyPair,
    jwt_public: JwtAuthority,
    jwt_header: String,
    feed: EcdsaKeyPair,
    tickets: hmac::Key,
    oid: BindingOid,
    random: SystemRandom,
}

impl Authority {
    /// Opens the keystore's authorities, and makes those that are missing. `now` is in unix seconds.
    pub fn open(
        keystore: &Keystore,
        td: &TrustDomain,
        oid: &BindingOid,
        development: bool,
        now: u64,
    ) -> Result<Authority, AuthorityError> {
        let root_key = key(keystore, "root.key")?;
        let root = match certificate(keystore, "root.pem", &root_key)? {
            Some(root) => root,
            None => {
                let root = make_root(td, development, &root_key, now).map_err(|e| AuthorityError::Unusable("root.pem", e))?;
                keystore.write("root.pem", pem("CERTIFICATE", &root).as_bytes())?;
                root
            }
        };
        let (for_td, is_development, _) = read_ca("root.pem", &root)?;
        if for_td != format!("spiffe://{td}") {
            return Err(AuthorityError::Unusable("root.pem", format!("it is the root of `{for_td}`")));
        }
        match (is_development, development) {
            (true, false) => return Err(AuthorityError::WrongKind("for development only")),
            (false, true) => return Err(AuthorityError::WrongKind("not for development")),
            _ => {}
        }
        let intermediate_key = key(keystore, "intermediate.key")?;
        let mut intermediate = certificate(keystore, "intermediate.pem", &intermediate_key)?;
        if let Some(known) = &intermediate
            && read_ca("intermediate.pem", known)?.2.saturating_sub(now) < INTERMEDIATE_LIFE / 3
        {
            intermediate = None;
        }
        let intermediate = match intermediate {
            Some(known) => known,
            None => {
                let made = make_intermediate(td, &root, &root_key, &intermediate_key, now)
                    .map_err(|e| AuthorityError::Unusable("intermediate.pem", e))?;
                keystore.write("intermediate.pem", pem("CERTIFICATE", &made).as_bytes())?;
                made
            }
        };
        let (_, _, intermediate_ends_at) = read_ca("intermediate.pem", &intermediate)?;
        let unusable = |e: rcgen::Error| AuthorityError::Unusable("intermediate.pem", e.to_string());
        let issuer = Issuer::from_ca_cert_der(&intermediate, intermediate_key).map_err(unusable)?;
        let key_id =
            subject_key_id(&intermediate).ok_or_else(|| AuthorityError::Unusable("intermediate.pem", "no SKI".into()))?;

        let jwt = ecdsa("jwt.key", &key(keystore, "jwt.key")?)?;
        let feed = ecdsa("feed.key", &key(keystore, "feed.key")?)?;
        let point = jwt.public_key().as_ref();
        let kid = URL_SAFE_NO_PAD.encode(sha256(point).get(..16).unwrap_or_default());
        let coordinate = |from: usize| point.get(from..from + 32).unwrap_or_default();
        let jwt_public = JwtAuthority::es256(&kid, coordinate(1), coordinate(33))
            .map_err(|e| AuthorityError::Unusable("jwt.key", e.to_string()))?;
        // JW-2, JW-4, JW-5: alg, kid, typ and nothing else.
        let jwt_header = URL_SAFE_NO_PAD.encode(serde_json::json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }).to_string());
        Ok(Authority {
            trust_domain: td.clone(),
            root,
            intermediate,
            intermediate_ends_at,
            key_id,
            issuer,
            jwt,
            jwt_public,
            jwt_header,
            feed,
            tickets: ticket_key(keystore)?,
            oid: oid.clone(),
            random: SystemRandom::new(),
        })
    }

    /// Unix seconds at which the issuing certificate ends.
    pub fn ends_at(&self) -> u64 {
        self.intermediate_ends_at
    }

    /// Key id of the issuing certificate.
    pub fn x509_key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// Key id of the JWT key.
    pub fn jwt_key_id(&self) -> &str {
        self.jwt_public.kid()
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The issuing certificate, which follows every leaf.
    pub fn intermediate(&self) -> &CertificateDer<'static> {
        &self.intermediate
    }

    /// Under which OID the binding stands.
    pub fn oid(&self) -> &BindingOid {
        &self.oid
    }

    /// SHA-256 of the root's `SubjectPublicKeyInfo`: what a ticket pins.
    pub fn root_pin(&self) -> [u8; 32] {
        X509Certificate::from_der(&self.root).map(|(_, cert)| sha256(cert.public_key().raw)).unwrap_or_default()
    }

    /// The public half. `refresh_hint` is in seconds.
    pub fn bundle(&self, sequence: u64, refresh_hint: u64) -> Bundle {
        Bundle::new(self.trust_domain.clone(), vec![self.root.to_vec()], vec![self.jwt_public.clone()], sequence, refresh_hint)
    }

    /// Signs a certificate, then reads it back and compares it with what was to be signed.
    pub fn sign_x509(&self, unsigned: &svid::x509::Unsigned) -> Result<CertificateDer<'static>, Fault> {
        let fault = |what: &dyn std::fmt::Display| Fault::new("sign x509", what);
        let public = SubjectPublicKeyInfo::from_der(&unsigned.spki).map_err(|e| fault(&e))?;
        let signed = unsigned.params.signed_by(&public, &self.issuer).map_err(|e| fault(&e))?;
        let expected = &unsigned.expected;
        let svid = inspect_x509(signed.der(), &self.trust_domain, &self.oid).map_err(|e| fault(&e))?;
        let same = svid.id.to_string() == expected.id
            && svid.key == expected.key
            && svid.serial == expected.serial
            && (svid.not_before, svid.not_after) == (expected.begins_at, expected.ends_at)
            && svid.binding == expected.binding
            && svid.authority == self.key_id
            && svid.not_after <= self.intermediate_ends_at;
        if same { Ok(signed.der().clone()) } else { Err(fault(&"the certificate is not what was to be signed")) }
    }

    /// Signs a token, and compares what was encoded with what was to be signed. JW-1: compact serialization.
    pub fn sign_jwt(&self, unsigned: &svid::jwt::Unsigned) -> Result<String, Fault> {
        let fault = |what: &dyn std::fmt::Display| Fault::new("sign jwt", what);
        let claims = serde_json::to_vec(&unsigned.claims).map_err(|e| fault(&e))?;
        let mut token = format!("{}.{}", self.jwt_header, URL_SAFE_NO_PAD.encode(&claims));
        let read: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&claims).map_err(|e| fault(&e))?;
        if read != unsigned.claims {
            return Err(fault(&"the claims are not what was to be signed"));
        }
        let signature = self.jwt.sign(&self.random, token.as_bytes()).map_err(|e| fault(&e))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
        Ok(token)
    }

    /// The secret of a ticket that a request may ask for again.
    pub fn ticket_secret(&self, request: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0u8; 32]);
        secret.copy_from_slice(hmac::sign(&self.tickets, request).as_ref());
        secret
    }

    /// Signs a heartbeat, with a key of its own.
    pub fn sign_heartbeat(&self, message: &[u8]) -> Result<Vec<u8>, Fault> {
        self.feed.sign(&self.random, message).map(|s| s.as_ref().to_vec()).map_err(|e| Fault::new("sign heartbeat", e))
    }

    /// Whether a heartbeat is ours.
    pub fn is_heartbeat(&self, message: &[u8], signature: &[u8]) -> bool {
        let alg = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
        aws_lc_rs::signature::UnparsedPublicKey::new(alg, self.feed.public_key().as_ref()).verify(message, signature).is_ok()
    }

    /// A fresh certificate and key for our own server: leaf, intermediate, root.
    ///
    /// The root goes along so that a ticket's pin is enough to know it.
    pub fn server_certificate(
        &self,
        names: &[String],
        now: u64,
    ) -> Result<(Vec<CertificateDer<'static>>, Zeroizing<Vec<u8>>), Fault> {
        let fault = |e: &dyn std::fmt::Display| Fault::new("server certificate", e);
        let key = KeyPair::generate().map_err(|e| fault(&e))?;
        let names = names
            .iter()
            .map(|name| match name.parse() {
                Ok(ip) => Ok(SanType::IpAddress(ip)),
                Err(_) => name.as_str().try_into().map(SanType::DnsName).map_err(|e| fault(&e)),
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let mut serial = vec![0u8; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|e| fault(&e))?;
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        let ends_at = (now + SERVER_LIFE).min(self.intermediate_ends_at);
        let unsigned = svid::x509::server(&self.trust_domain, &names, &spki, serial, now.saturating_sub(BACKDATE), ends_at)?;
        let leaf = self.sign_x509(&unsigned)?;
        Ok((vec![leaf, self.intermediate.clone(), self.root.clone()], Zeroizing::new(key.serialize_der())))
    }
}

// T46: the public half is derived from the private one; a certificate that does not fit it is refused.
fn key(keystore: &Keystore, name: &'static str) -> Result<KeyPair, AuthorityError> {
    let unusable = |e: rcgen::Error| AuthorityError::Unusable(name, e.to_string());
    if let Some(text) = keystore.read(name)? {
        return KeyPair::from_pem(&text).map_err(unusable);
    }
    let key = KeyPair::generate().map_err(unusable)?;
    keystore.write(name, Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

fn certificate(
    keystore: &Keystore,
    name: &'static str,
    key: &KeyPair,
) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    let Some(text) = keystore.read(name)? else { return Ok(None) };
    let unusable = |e: &dyn std::fmt::Display| AuthorityError::Unusable(name, e.to_string());
    let parsed = ::pem::parse(text.as_bytes()).map_err(|e| unusable(&e))?;
    let der = CertificateDer::from(parsed.into_contents());
    let (_, cert) = X509Certificate::from_der(&der).map_err(|e| unusable(&e))?;
    if cert.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(key) {
        return Err(unusable(&"it does not belong to the key beside it"));
    }
    Ok(Some(der))
}

/// From it the secrets of tickets are derived that a retry must give again.
fn ticket_key(keystore: &Keystore) -> Result<hmac::Key, AuthorityError> {
    const NAME: &str = "tickets.key";
    let unusable = |e: &dyn std::fmt::Display| AuthorityError::Unusable(NAME, e.to_string());
    let mut bytes = Zeroizing::new([0u8; 32]);
    match keystore.read(NAME)? {
        Some(text) => hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|e| unusable(&e))?,
        None => {
            aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|e| unusable(&e))?;
            keystore.write(NAME, Zeroizing::new(hex::encode(bytes.as_slice())).as_bytes())?;
        }
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))
}

fn ecdsa(name: &'static str, key: &KeyPair) -> Result<EcdsaKeyPair, AuthorityError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der())
        .map_err(|e| AuthorityError::Unusable(name, e.to_string()))
}

// XC-1, XC-3, XC-4: an SVID of the trust domain itself, cA, keyCertSign; cRLSign for what comes later.
fn ca(
    td: &TrustDomain,
    name: String,
    unit: Option<&str>,
    now: u64,
    life: u64,
    path: BasicConstraints,
) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://{td}");
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(|e: rcgen::Error| e.to_string())?)];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Mayfly");
    if let Some(unit) = unit {
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|e| e.to_string())?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = svid::x509::time_of(now.saturating_sub(BACKDATE)).map_err(|e| e.to_string())?;
    params.not_after = svid::x509::time_of(now + life).map_err(|e| e.to_string())?;
    params.is_ca = IsCa::Ca(path);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn make_root(td: &TrustDomain, development: bool, key: &KeyPair, now: u64) -> Result<CertificateDer<'static>, String> {
    let unit = development.then_some(DEVELOPMENT);
    let params = ca(td, "Mayfly root".into(), unit, now, ROOT_LIFE, BasicConstraints::Unconstrained)?;
    params.self_signed(key).map(|c| c.der().clone()).map_err(|e| e.to_string())
}

fn make_intermediate(
    td: &TrustDomain,
    root: &CertificateDer<'_>,
    root_key: &KeyPair,
    key: &KeyPair,
    now: u64,
) -> Result<CertificateDer<'static>, String> {
    let issuer = Issuer::from_ca_cert_der(root, root_key).map_err(|e| e.to_string())?;
    let (_, _, root_ends_at) = read_ca("root.pem", root).map_err(|e| e.to_string())?;
    let life = INTERMEDIATE_LIFE.min(root_ends_at.saturating_sub(now));
    // T33: no name constraints; verifiers refuse URI constraints altogether.
    let params = ca(td, "Mayfly issuing".into(), None, now, life, BasicConstraints::Constrained(0))?;
    params.signed_by(key, &issuer).map(|c| c.der().clone()).map_err(|e| e.to_string())
}

/// The SPIFFE ID of a CA certificate, whether it is for development, and its end in unix seconds.
fn read_ca(name: &'static str, der: &CertificateDer<'_>) -> Result<(String, bool, u64), AuthorityError> {
    let unusable = |e: &dyn std::fmt::Display| AuthorityError::Unusable(name, e.to_string());
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| unusable(&e))?;
    let san = cert.subject_alternative_name().map_err(|e| unusable(&e))?.ok_or_else(|| unusable(&"no SPIFFE ID"))?;
    let id = san
        .value
        .general_names
        .iter()
        .find_map(|n| if let x509_parser::extensions::GeneralName::URI(uri) = n { Some((*uri).to_owned()) } else { None })
        .ok_or_else(|| unusable(&"no SPIFFE ID"))?;
    let development = cert.subject().iter_organizational_unit().any(|ou| ou.as_str().is_ok_and(|ou| ou == DEVELOPMENT));
    let ends_at = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
    Ok((id, development, ends_at))
}

fn subject_key_id(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    cert.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// PEM of one DER document.
pub fn pem(tag: &str, der: &[u8]) -> String {
    ::pem::encode_config(&::pem::Pem::new(tag, der), ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF))
}
