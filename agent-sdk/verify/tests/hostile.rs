//! Credentials made to be believed: each is refused, beside one that differs in nothing else and holds.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::redundant_clone, reason = "tests")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_verify::{
    Binding, BindingOid, Bundle, DelegationId, JwtAuthority, Mode, Stamp, Target, TrustDomain, User, verify_jwt, verify_x509,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose as Eku, IsCa, Issuer, KeyPair,
    KeyUsagePurpose as Ku, SanType,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const AGENT: &str = "spiffe://td/agent/worker/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";

fn td() -> TrustDomain {
    TrustDomain::new("td").unwrap()
}

fn binding() -> Binding {
    Binding {
        incarnation: uuid::Uuid::from_u128(7),
        revision: 9,
        stamps: vec![Stamp { subject: Target::TrustDomain.unsalted(), since: 3 }],
        delegation: Some(DelegationId([1; 32])),
        user: Some(User { iss: "https://idp".into(), sub: "demo".into() }),
        chain: vec!["spiffe://td/workload/orchestrator".into()],
        mode: Mode::Delegated,
        scopes: vec![],
        lease_expires_at: NOW + 900,
    }
}

fn at(seconds: u64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

fn ca(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Ku::KeyCertSign];
    (params.not_before, params.not_after) = (at(NOW - 1000), at(NOW + 10_000));
    params
}

fn leaf() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(AGENT.try_into().unwrap())];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Ku::DigitalSignature];
    params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
    params.serial_number = Some(vec![0x42; 16].into());
    (params.not_before, params.not_after) = (at(NOW - 10), at(NOW + 900));
    params.custom_extensions = vec![bind(&binding())];
    params
}

fn bind(binding: &Binding) -> CustomExtension {
    CustomExtension::from_oid_content(BindingOid::default().arcs(), binding.to_der().unwrap())
}

struct Pki {
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    key: KeyPair,
}

fn pki(intermediate: CertificateParams) -> Pki {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root_params = ca("spiffe://td");
    let root = root_params.self_signed(&root_key).unwrap().der().clone();
    let root_issuer = Issuer::new(root_params, root_key);
    let signing = KeyPair::generate().unwrap();
    let signed = intermediate.signed_by(&signing, &root_issuer).unwrap().der().clone();
    Pki { root, intermediate: signed, issuer: Issuer::new(intermediate, signing), key }
}

impl Pki {
    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        params.signed_by(&self.key, &self.issuer).unwrap().der().clone()
    }

    fn code(&self, params: &CertificateParams) -> &'static str {
        self.code_of(&[self.sign(params), self.intermediate.clone()], NOW)
    }

    fn code_of(&self, chain: &[CertificateDer<'static>], now: u64) -> &'static str {
        let bundle = Bundle::new(td(), vec![self.root.to_vec()], vec![], 1, 1);
        verify_x509(chain, &bundle, &BindingOid::default(), now).map_or_else(|e| e.code(), |_| "ok")
    }
}

#[test]
fn t31_t32_xv2_xv3_leaves_against_the_profile() {
    let pki = pki(ca("spiffe://td"));
    assert_eq!(pki.code(&leaf()), "ok");
    let uri = |s: &str| SanType::URI(s.try_into().unwrap());
    type Change = Box<dyn Fn(&mut CertificateParams)>;
    let cases: Vec<(&str, Change, &str)> = vec![
        ("no URI", Box::new(|p| p.subject_alt_names = vec![SanType::DnsName("x".try_into().unwrap())]), "CREDENTIAL_PROFILE"),
        ("two URIs", Box::new(move |p| p.subject_alt_names.push(uri("spiffe://td/other"))), "CREDENTIAL_PROFILE"),
        (
            "no path",
            Box::new(|p| p.subject_alt_names = vec![SanType::URI("spiffe://td".try_into().unwrap())]),
            "CREDENTIAL_PROFILE",
        ),
        (
            "another scheme",
            Box::new(|p| p.subject_alt_names = vec![SanType::URI("Spiffe://td/a".try_into().unwrap())]),
            "CREDENTIAL_SPIFFE_ID",
        ),
        ("keyCertSign", Box::new(|p| p.key_usages.push(Ku::KeyCertSign)), "CREDENTIAL_PROFILE"),
        ("cRLSign", Box::new(|p| p.key_usages.push(Ku::CrlSign)), "CREDENTIAL_PROFILE"),
        ("no key usage", Box::new(|p| p.key_usages.clear()), "CREDENTIAL_PROFILE"),
        ("one EKU", Box::new(|p| p.extended_key_usages.truncate(1)), "CREDENTIAL_PROFILE"),
        ("cA", Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "CREDENTIAL_PROFILE"),
        ("serial zero", Box::new(|p| p.serial_number = Some(vec![0].into())), "CREDENTIAL_PROFILE"),
        ("serial too long", Box::new(|p| p.serial_number = Some(vec![0x42; 21].into())), "CREDENTIAL_PROFILE"),
        ("no binding", Box::new(|p| p.custom_extensions.clear()), "CREDENTIAL_BINDING"),
        (
            "XL-10 critical binding",
            Box::new(|p| p.custom_extensions.iter_mut().for_each(|e| e.set_criticality(true))),
            "CREDENTIAL_PROFILE",
        ),
        ("two bindings", Box::new(|p| p.custom_extensions.push(bind(&binding()))), "CREDENTIAL_MALFORMED"),
        (
            "T16 outlives its lease",
            Box::new(|p| p.custom_extensions = vec![bind(&Binding { lease_expires_at: NOW + 899, ..binding() })]),
            "CREDENTIAL_PROFILE",
        ),
        (
            "stands in its own chain",
            Box::new(|p| {
                let chain = vec![AGENT.to_owned(), "spiffe://td/workload/orchestrator".into()];
                p.custom_extensions = vec![bind(&Binding { chain, ..binding() })];
            }),
            "CREDENTIAL_PROFILE",
        ),
        (
            "a workload with a binding",
            Box::new(|p| p.subject_alt_names = vec![SanType::URI("spiffe://td/workload/w".try_into().unwrap())]),
            "CREDENTIAL_PROFILE",
        ),
        (
            "T33 another trust domain under our authority",
            Box::new(|p| p.subject_alt_names = vec![SanType::URI("spiffe://other/agent/x".try_into().unwrap())]),
            "CREDENTIAL_TRUST_DOMAIN",
        ),
    ];
    for (what, change, expected) in cases {
        let mut params = leaf();
        change(&mut params);
        assert_eq!(pki.code(&params), expected, "{what}");
    }
    // XV-4: what other issuers may do is accepted.
    let mut params = leaf();
    params.subject_alt_names.push(SanType::DnsName("agent.example".try_into().unwrap()));
    params.extended_key_usages.clear();
    assert_eq!(pki.code(&params), "ok");
}

#[test]
fn t18_t43_xv1_xv6_paths() {
    let ours = pki(ca("spiffe://td"));
    let good = ours.sign(&leaf());
    let chain = vec![good.clone(), ours.intermediate.clone()];
    assert_eq!(ours.code_of(&chain, NOW), "ok");
    assert_eq!(ours.code_of(&[], NOW), "CREDENTIAL_MALFORMED");
    assert_eq!(ours.code_of(&chain[..1], NOW), "CREDENTIAL_UNTRUSTED", "without its issuing certificate");
    assert_eq!(ours.code_of(&vec![good.clone(); 7], NOW), "CREDENTIAL_MALFORMED", "T38: bounded");
    assert_eq!(ours.code_of(&chain, NOW + 900), "CREDENTIAL_EXPIRED", "the last second is not in");
    assert_eq!(ours.code_of(&chain, NOW + 899), "ok");
    assert_eq!(ours.code_of(&chain, NOW - 11), "CREDENTIAL_NOT_YET_VALID");
    // T18: the same names and the same key, signed by somebody else, or by itself, or by a leaf.
    let theirs = pki(ca("spiffe://td"));
    let forged = leaf().signed_by(&ours.key, &theirs.issuer).unwrap().der().clone();
    assert_eq!(ours.code_of(&[forged.clone(), theirs.intermediate.clone()], NOW), "CREDENTIAL_UNTRUSTED");
    assert_eq!(ours.code_of(&[forged, ours.intermediate.clone()], NOW), "CREDENTIAL_UNTRUSTED");
    let own = leaf().self_signed(&ours.key).unwrap().der().clone();
    assert_eq!(ours.code_of(&[own], NOW), "CREDENTIAL_UNTRUSTED");
    let by_leaf = Issuer::new(leaf(), KeyPair::from_pem(&ours.key.serialize_pem()).unwrap());
    let child = leaf().signed_by(&KeyPair::generate().unwrap(), &by_leaf).unwrap().der().clone();
    assert_eq!(ours.code_of(&[child, good, ours.intermediate.clone()], NOW), "CREDENTIAL_UNTRUSTED");
    // T43: an expired intermediate, and one that may not sign.
    let mut expired = ca("spiffe://td");
    expired.not_after = at(NOW - 1);
    assert_ne!(pki(expired).code(&leaf()), "ok");
    let mut mute = ca("spiffe://td");
    mute.key_usages = vec![Ku::CrlSign];
    assert_ne!(pki(mute).code(&leaf()), "ok", "T32: keyCertSign");
    // XV-6: an empty bundle believes nobody.
    let none = Bundle::new(td(), vec![], vec![], 1, 1);
    assert!(verify_x509(&chain, &none, &BindingOid::default(), NOW).is_err());
}

#[test]
fn t23_every_truncation_and_every_changed_byte_is_an_error_or_the_same() {
    let pki = pki(ca("spiffe://td"));
    let good = pki.sign(&leaf());
    for n in 0..good.len() {
        let cut = CertificateDer::from(good.get(..n).unwrap().to_vec());
        assert_ne!(pki.code_of(&[cut, pki.intermediate.clone()], NOW), "ok");
        let mut changed = good.to_vec();
        *changed.get_mut(n).unwrap() ^= 0x55;
        assert_ne!(pki.code_of(&[CertificateDer::from(changed), pki.intermediate.clone()], NOW), "ok", "byte {n}");
    }
}

struct Signer {
    key: EcdsaKeyPair,
    bundle: Bundle,
}

fn signer() -> Signer {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = key.public_key().as_ref().to_vec();
    let authority = JwtAuthority::es256("k1", point.get(1..33).unwrap(), point.get(33..65).unwrap()).unwrap();
    Signer { key, bundle: Bundle::new(td(), vec![], vec![authority], 1, 1) }
}

impl Signer {
    fn sign(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn code(&self, token: &str) -> &'static str {
        verify_jwt(token, "https://x", &self.bundle, &BindingOid::default(), NOW).map_or_else(|e| e.code(), |_| "ok")
    }
}

fn claims(changes: &Value) -> String {
    let mut claims = json!({ "sub": AGENT, "aud": ["https://x"], "iat": NOW, "exp": NOW + 300,
        BindingOid::default().claim(): binding().to_claim().unwrap() });
    for (name, value) in changes.as_object().unwrap() {
        let map = claims.as_object_mut().unwrap();
        if value.is_null() {
            map.remove(name);
        } else {
            map.insert(name.clone(), value.clone());
        }
    }
    claims.to_string()
}

#[test]
fn jv1_to_jv9_t47_to_t53_tokens() {
    let s = signer();
    let head = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
    let good = s.sign(&head, &claims(&json!({})));
    assert_eq!(s.code(&good), "ok");
    let oid = BindingOid::default().claim();
    let header = |h: Value| s.sign(&h, &claims(&json!({})));
    let with = |c: Value| s.sign(&head, &claims(&c));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let cases: Vec<(&str, String, &str)> = vec![
        ("JV-1 none", header(json!({ "alg": "none", "kid": "k1" })), "CREDENTIAL_PROFILE"),
        ("JV-1 HS256", header(json!({ "alg": "HS256", "kid": "k1" })), "CREDENTIAL_PROFILE"),
        ("JV-1 EdDSA", header(json!({ "alg": "EdDSA", "kid": "k1" })), "CREDENTIAL_PROFILE"),
        ("JV-1 RS256 under an EC key", header(json!({ "alg": "RS256", "kid": "k1" })), "CREDENTIAL_UNTRUSTED"),
        ("JV-2 jku", header(json!({ "alg": "ES256", "kid": "k1", "jku": "https://evil" })), "CREDENTIAL_PROFILE"),
        ("JV-2 crit", header(json!({ "alg": "ES256", "kid": "k1", "crit": ["x"] })), "CREDENTIAL_PROFILE"),
        ("JV-3 typ", header(json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" })), "CREDENTIAL_PROFILE"),
        ("T49 kid", header(json!({ "alg": "ES256", "kid": "../k1" })), "CREDENTIAL_UNTRUSTED"),
        ("T49 kid type", header(json!({ "alg": "ES256", "kid": 1 })), "CREDENTIAL_PROFILE"),
        ("T55 zero", format!("{message}.{}", URL_SAFE_NO_PAD.encode([0u8; 64])), "CREDENTIAL_UNTRUSTED"),
        ("JV-8 five parts", format!("{good}.a.b"), "CREDENTIAL_MALFORMED"),
        ("JV-8 two parts", message.to_owned(), "CREDENTIAL_MALFORMED"),
        ("JV-8 padded", format!("{message}.{signature}="), "CREDENTIAL_UNTRUSTED"),
        ("JV-4 no aud", with(json!({ "aud": null })), "CREDENTIAL_MALFORMED"),
        ("T50 aud of numbers", with(json!({ "aud": [1] })), "CREDENTIAL_MALFORMED"),
        ("T53 prefix", with(json!({ "aud": "https://xy" })), "CREDENTIAL_AUDIENCE"),
        ("T52 no exp", with(json!({ "exp": null })), "CREDENTIAL_MALFORMED"),
        ("T50 exp as text", with(json!({ "exp": "9999999999" })), "CREDENTIAL_MALFORMED"),
        ("T158 exp with a fraction", with(json!({ "exp": 1.5 })), "CREDENTIAL_EXPIRED"),
        ("T50 exp beyond all time", with(json!({ "exp": 1e300 })), "CREDENTIAL_MALFORMED"),
        ("T50 exp before all time", with(json!({ "exp": -1.5 })), "CREDENTIAL_MALFORMED"),
        ("JV-5 expired now", with(json!({ "exp": NOW })), "CREDENTIAL_EXPIRED"),
        ("JV-5 nbf", with(json!({ "nbf": NOW + 60 })), "CREDENTIAL_NOT_YET_VALID"),
        ("JW-10 iat", with(json!({ "iat": NOW + 60 })), "CREDENTIAL_NOT_YET_VALID"),
        ("JV-9 sub", with(json!({ "sub": "demo" })), "CREDENTIAL_SPIFFE_ID"),
        ("JV-6 another trust domain", with(json!({ "sub": AGENT.replace("td", "other") })), "CREDENTIAL_TRUST_DOMAIN"),
        ("an agent unbound", with(json!({ oid.clone(): null })), "CREDENTIAL_BINDING"),
        ("a binding that is none", with(json!({ oid.clone(): {} })), "CREDENTIAL_BINDING"),
        ("T16 outlives its lease", with(json!({ "exp": NOW + 901 })), "CREDENTIAL_PROFILE"),
        ("a workload with a binding", with(json!({ "sub": "spiffe://td/workload/w" })), "CREDENTIAL_PROFILE"),
    ];
    for (what, token, expected) in cases {
        assert_eq!(s.code(&token), expected, "{what}");
    }
    assert_eq!(s.code(&header(json!({ "alg": "ES256" }))), "ok", "JV-7: without a kid the keys are tried");
    assert_eq!(signer().code(&good), "CREDENTIAL_UNTRUSTED", "another key under the same kid");
    assert_eq!(s.code(&with(json!({ "aud": "https://x" }))), "ok", "JV-4: a string counts too");
}

#[test]
fn xv5_jv6_a_bundle_keeps_what_it_can_read() {
    let s = signer();
    let pki = pki(ca("spiffe://td"));
    let whole = Bundle::new(td(), vec![pki.root.to_vec()], s.bundle.jwt_authorities().to_vec(), 7, 300);
    let mut doc = whole.to_json().unwrap();
    let keys = doc["keys"].as_array_mut().unwrap();
    keys.push(json!({ "use": "x509-svid", "kty": "EC" }));
    keys.push(json!({ "use": "wit-svid", "kty": "EC", "kid": "w" }));
    keys.push(json!({ "kty": "EC" }));
    keys.push(json!({ "use": "jwt-svid", "kty": "oct", "k": "AAAA", "kid": "s" }));
    keys.push(json!("nonsense"));
    let read = Bundle::from_json(td(), doc.to_string().as_bytes()).unwrap();
    assert_eq!((read.x509_authorities().len(), read.jwt_authorities().len(), read.sequence()), (1, 1, 7));
    for bad in ["", "[]", "{}", r#"{"keys":1}"#] {
        assert!(Bundle::from_json(td(), bad.as_bytes()).is_err(), "{bad}");
    }
    let many = json!({ "keys": vec![json!({}); 101] }).to_string();
    assert!(Bundle::from_json(td(), many.as_bytes()).is_err(), "bounded");
}
