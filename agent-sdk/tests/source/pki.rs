//! A trust domain that certifies whoever a test needs, as a Workload API hands it out.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_agent::api::workload as api;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair, KeyUsagePurpose as Ku,
    SanType,
};
use time::{Duration, OffsetDateTime};

pub(crate) struct Pki {
    pub(crate) name: &'static str,
    pub(crate) root: Vec<u8>,
    signer: Issuer<'static, KeyPair>,
    jwt: EcdsaKeyPair,
}

impl Pki {
    pub(crate) fn of(name: &'static str) -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, URL_SAFE_NO_PAD.encode(&key.public_key_raw()[..8]));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Ku::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().to_vec();
        let jwt = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Pki { name, root, signer: Issuer::new(params, key), jwt }
    }

    /// Its name as a key of bundles.
    pub(crate) fn key(&self) -> String {
        format!("spiffe://{}", self.name)
    }

    pub(crate) fn id(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.name)
    }

    /// An entry with everything in it, of a certificate that lasts so many seconds.
    pub(crate) fn svid(&self, path: &str, hint: &str, seconds: i64) -> api::X509svid {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::OrganizationName, "SPIRE");
        leaf.subject_alt_names = vec![SanType::URI(self.id(path).try_into().unwrap())];
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![Ku::DigitalSignature];
        leaf.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
        leaf.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        leaf.not_after = OffsetDateTime::now_utc() + Duration::seconds(seconds);
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &self.signer).unwrap().der().to_vec();
        api::X509svid {
            spiffe_id: self.id(path),
            x509_svid: leaf,
            x509_svid_key: key.serialize_der(),
            bundle: self.root.clone(),
            hint: hint.to_owned(),
        }
    }

    /// A message with one identity.
    pub(crate) fn message(&self, path: &str) -> api::X509svidResponse {
        api::X509svidResponse { svids: vec![self.svid(path, "", 3600)], ..Default::default() }
    }

    /// JWK set as SPIRE writes it: without `use`.
    pub(crate) fn jwks(&self) -> Vec<u8> {
        let point = self.jwt.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let key = format!(r#"{{"kty":"EC","crv":"P-256","kid":"k","x":"{}","y":"{}"}}"#, part(&point[1..33]), part(&point[33..]));
        format!(r#"{{"keys":[{key}]}}"#).into_bytes()
    }

    /// A JWT-SVID that ends in so many seconds.
    pub(crate) fn token(&self, path: &str, audience: &str, seconds: i64) -> String {
        let exp = OffsetDateTime::now_utc().unix_timestamp() + seconds;
        let claims = format!(r#"{{"sub":"{}","aud":["{audience}"],"exp":{exp}}}"#, self.id(path));
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#), part(&claims));
        let signature = self.jwt.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// The answer with one such token.
    pub(crate) fn jwt(&self, path: &str, audience: &str, seconds: i64) -> api::JwtsvidResponse {
        let svid = api::Jwtsvid { spiffe_id: self.id(path), svid: self.token(path, audience, seconds), hint: String::new() };
        api::JwtsvidResponse { svids: vec![svid] }
    }
}
