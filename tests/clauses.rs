//! The SPIFFE clauses that an issuer meets, by number, on what a running issuer gave out (lists B, C, D, F).
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use support::Dev;
use x509_parser::prelude::*;

struct Issued {
    dev: Dev,
    chain: Vec<Vec<u8>>,
    root: Vec<u8>,
    header: Value,
    claims: Value,
    agent: Value,
    bundle: Value,
}

fn issued() -> Issued {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --audience https://search.example --out a1");
    let ders = |name: &str| -> Vec<Vec<u8>> {
        let text = std::fs::read(dev.path(name)).unwrap();
        ::pem::parse_many(text).unwrap().into_iter().map(::pem::Pem::into_contents).collect()
    };
    let (chain, root) = (ders("a1/svid.pem"), ders("a1/bundle.pem").remove(0));
    let token = std::fs::read_to_string(dev.path("a1/svid.jwt")).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "JW-1: compact serialization");
    let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (header, claims) = (read(parts[0]), read(parts[1]));
    let bundle = serde_json::from_slice(&std::fs::read(dev.path("a1/bundle.json")).unwrap()).unwrap();
    Issued { chain, root, header, claims, agent, bundle, dev }
}

fn now() -> i64 {
    ASN1Time::now().timestamp()
}

fn uris(cert: &X509Certificate<'_>) -> Vec<String> {
    let san = cert.subject_alternative_name().unwrap().unwrap();
    san.value
        .general_names
        .iter()
        .filter_map(|n| if let GeneralName::URI(uri) = n { Some((*uri).to_owned()) } else { None })
        .collect()
}

/// T30: the exact set of extensions, each with its critical bit.
fn extensions(cert: &X509Certificate<'_>) -> BTreeSet<(String, bool)> {
    cert.extensions().iter().map(|e| (e.oid.to_id_string(), e.critical)).collect()
}

#[test]
fn xl1_to_xl13_t30_the_leaf_of_an_agent() {
    let issued = issued();
    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let (_, ca) = X509Certificate::from_der(&issued.chain[1]).unwrap();
    assert_eq!(uris(&leaf), vec![issued.agent["agent_id"].as_str().unwrap().to_owned()], "XL-1");
    assert!(uris(&leaf)[0].strip_prefix("spiffe://dev.mayfly.test/").is_some_and(|path| !path.is_empty()), "XL-2");
    let expected: BTreeSet<(String, bool)> = [
        ("2.5.29.17", true),            // XL-3: SAN critical, the subject is empty
        ("2.5.29.19", true),            // XL-5: BasicConstraints present
        ("2.5.29.15", true),            // XL-6: KeyUsage critical
        ("2.5.29.37", false),           // XL-8: EKU
        ("2.5.29.35", false),           // XL-12: AKI
        ("2.5.29.14", false),           // XL-12: SKI
        ("1.3.6.1.4.1.32473.1", false), // XL-10: the binding, not critical
    ]
    .map(|(oid, critical)| (oid.to_owned(), critical))
    .into();
    assert_eq!(extensions(&leaf), expected);
    assert!(leaf.subject().iter().next().is_none(), "XL-3");
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca, "XL-4");
    assert_eq!(leaf.key_usage().unwrap().unwrap().value.flags, 1, "XL-7: digitalSignature and nothing else");
    let eku = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(eku.client_auth && eku.server_auth && !eku.any && eku.other.is_empty(), "XL-9");
    let serial = leaf.raw_serial();
    assert!(serial.len() == 16 && serial[0] < 0x80 && serial[0] >= 0x40, "XL-11");
    let id = |cert: &X509Certificate<'_>, authority: bool| {
        cert.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) if !authority => Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) if authority => id.key_identifier.as_ref().map(|k| k.0.to_vec()),
            _ => None,
        })
    };
    assert!(id(&leaf, true).is_some() && id(&leaf, true) == id(&ca, false), "XL-12");
    let (from, to) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    assert!(to <= ca.validity().not_after.timestamp(), "XL-13");
    assert!((1..=60).contains(&(now() - from)), "XL-13: begins slightly in the past");
    assert!((895..=900).contains(&(to - now())), "lasts fifteen minutes");
    assert_eq!(issued.chain.len(), 2, "leaf and issuing certificate, never the root");
}

#[test]
fn xl1_xc2_the_servers_own_leaf_and_the_workloads() {
    let issued = issued();
    let pem = std::fs::read(issued.dev.path(".mayfly/workloads/orchestrator/svid.pem")).unwrap();
    let der = ::pem::parse(pem).unwrap().into_contents();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(uris(&leaf), vec!["spiffe://dev.mayfly.test/workload/orchestrator".to_owned()]);
    assert_eq!(extensions(&leaf).len(), 6, "a workload carries no binding");
}

#[test]
fn xl11_t29_one_key_twice_gets_two_serials() {
    let issued = issued();
    let serial = |n: &str| {
        let made = issued.dev.json("join orchestrator");
        std::fs::write(issued.dev.path("t"), made["token"].as_str().unwrap()).unwrap();
        issued.dev.json(&format!("redeem --ticket-file t --out {n}"));
        issued.dev.json(&format!("verify {n}/svid.pem"))["serial"].as_str().unwrap().to_owned()
    };
    assert_ne!(serial("w1"), serial("w2"));
}

#[test]
fn xc1_to_xc7_id9_the_signing_certificates() {
    let issued = issued();
    for der in [&issued.root, &issued.chain[1]] {
        let (_, ca) = X509Certificate::from_der(der).unwrap();
        assert_eq!(uris(&ca), vec!["spiffe://dev.mayfly.test".to_owned()], "XC-1, ID-9: the trust domain, no path");
        assert!(ca.basic_constraints().unwrap().unwrap().value.ca, "XC-3");
        let usage = ca.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign(), "XC-4");
        assert!(!usage.value.digital_signature(), "XC-2, XC-4: signs certificates, authenticates nobody");
        assert!(ca.name_constraints().unwrap().is_none(), "XC-5, T33");
        assert!(ca.extended_key_usage().unwrap().is_none(), "XC-6");
    }
    let (_, root) = X509Certificate::from_der(&issued.root).unwrap();
    root.verify_signature(None).expect("the root is self-signed");
    let (_, ca) = X509Certificate::from_der(&issued.chain[1]).unwrap();
    ca.verify_signature(Some(root.public_key())).expect("the root signed the issuing certificate");
    assert_ne!(root.public_key().raw, ca.public_key().raw, "the root signs intermediates only");
}

#[test]
fn jw1_to_jw12_the_token_of_an_agent() {
    let issued = issued();
    let names: BTreeSet<&str> = issued.header.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["alg", "kid", "typ"].into(), "JW-2, JW-4");
    assert_eq!((&issued.header["alg"], &issued.header["typ"]), (&"ES256".into(), &"JWT".into()), "JW-3, JW-5");
    assert_eq!(issued.claims["sub"], issued.agent["agent_id"], "JW-6: the agent, never the user");
    assert_eq!(issued.claims["aud"], serde_json::json!(["https://search.example"]), "JW-7");
    let (iat, exp) = (issued.claims["iat"].as_i64().expect("JW-10, JW-12"), issued.claims["exp"].as_i64().expect("JW-8, JW-12"));
    assert!(iat <= now() && exp - iat == 300, "JW-10");
    assert!(issued.claims.get("nbf").is_none(), "JW-11");
    let names: BTreeSet<&str> = issued.claims.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "sub", "urn:oid:1.3.6.1.4.1.32473.1"].into(), "JW-9");
    let user = &issued.claims["urn:oid:1.3.6.1.4.1.32473.1"]["user"];
    assert_eq!(user.as_object().unwrap().len(), 2, "ID-11: issuer and subject, no e-mail and no name");
    // JW-10: another token has another jti.
    let again = issued.dev.json("mint --as a1 --audience https://search.example");
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(again["token"].as_str().unwrap().split('.').nth(1).unwrap()).unwrap())
            .unwrap();
    assert_ne!(claims["jti"], issued.claims["jti"]);
}

#[test]
fn bu1_to_bu7_the_bundle() {
    let issued = issued();
    assert!(issued.bundle["spiffe_sequence"].as_u64().is_some_and(|s| s > 0), "BU-2");
    assert!(issued.bundle["spiffe_refresh_hint"].as_u64().is_some(), "BU-3");
    let keys = issued.bundle["keys"].as_array().expect("BU-1");
    let mut uses = Vec::new();
    for key in keys {
        assert!(key["kty"].is_string() && key["use"].is_string(), "BU-4");
        let allowed = ["kty", "use", "crv", "x", "y", "kid", "x5c"];
        assert!(key.as_object().unwrap().keys().all(|k| allowed.contains(&k.as_str())), "BU-7");
        match key["use"].as_str().unwrap() {
            "x509-svid" => {
                assert!(key.get("kid").is_none(), "BU-5");
                let x5c = key["x5c"].as_array().unwrap();
                assert_eq!(x5c.len(), 1, "BU-5");
                assert_eq!(STANDARD.decode(x5c[0].as_str().unwrap()).unwrap(), issued.root, "BU-5");
            }
            "jwt-svid" => assert_eq!(key["kid"], issued.header["kid"], "BU-6"),
            other => panic!("BU-4: {other}"),
        }
        uses.push(key["use"].as_str().unwrap());
    }
    uses.sort_unstable();
    assert_eq!(uses, ["jwt-svid", "x509-svid"]);
    // OIDC relying parties get another document: no x5c, `use: sig`, `alg`.
    let jwks: Value = serde_json::from_slice(&issued.dev.run("bundle --format jwks").stdout).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    assert_eq!((&jwks["keys"][0]["use"], &jwks["keys"][0]["alg"]), (&"sig".into(), &"ES256".into()));
}

#[test]
fn the_spiffe_crate_accepts_both() {
    let issued = issued();
    let key = ::pem::parse(std::fs::read(issued.dev.path("a1/key.pem")).unwrap()).unwrap().into_contents();
    let svid = spiffe::X509Svid::parse_from_der(&issued.chain.concat(), &key).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), issued.agent["agent_id"].as_str().unwrap());
    let td = spiffe::TrustDomain::new("dev.mayfly.test").unwrap();
    let jwt_keys: Vec<&Value> = issued.bundle["keys"].as_array().unwrap().iter().filter(|k| k["use"] == "jwt-svid").collect();
    let jwks = serde_json::json!({ "keys": jwt_keys }).to_string();
    let bundle = spiffe::JwtBundle::from_jwt_authorities(td, jwks.as_bytes()).unwrap();
    let token = std::fs::read_to_string(issued.dev.path("a1/svid.jwt")).unwrap();
    let mut set = spiffe::JwtBundleSet::new();
    set.add_bundle(bundle);
    let svid = spiffe::JwtSvid::parse_and_validate(&token, &set, &["https://search.example"]).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), issued.agent["agent_id"].as_str().unwrap());
}

#[test]
fn xc7_every_home_has_keys_of_its_own() {
    let keys = |dev: &Dev| -> Vec<String> {
        let bundle = dev.json("bundle");
        bundle["keys"].as_array().unwrap().iter().map(|key| key["x"].as_str().unwrap().to_owned()).collect()
    };
    let (one, other) = (Dev::start(), Dev::start());
    let (mine, its) = (keys(&one), keys(&other));
    assert_eq!((mine.len(), its.len()), (2, 2), "a root and a JWT key");
    assert!(mine.iter().all(|key| !its.contains(key)), "no key serves two");
    assert_ne!(mine[0], mine[1], "nor two kinds of documents");
}

#[test]
fn id7_the_longest_names_make_an_id_within_bounds() {
    let td = mayfly_verify::TrustDomain::new("a".repeat(255)).unwrap();
    let class = "c".repeat(32).parse().unwrap();
    let id = mayfly_verify::AgentId { trust_domain: td.clone(), class, uuid: uuid::Uuid::nil() }.to_string();
    let workload = mayfly_verify::workload_id(&td, &"w".repeat(48).parse().unwrap());
    for id in [id, workload, mayfly_verify::issuer_id(&td)] {
        assert!(id.len() <= mayfly_verify::MAX_SPIFFE_ID && mayfly_verify::parse_spiffe_id(&id).is_ok(), "{}", id.len());
    }
    assert!("c".repeat(33).parse::<mayfly_verify::ClassName>().is_err());
    assert!("w".repeat(49).parse::<mayfly_verify::WorkloadName>().is_err());
    let over = format!("trust_domain = \"{}\"", "a".repeat(256));
    assert!(mayfly::config::Config::parse(&over, "f").unwrap_err().0.iter().any(|f| f.contains("trust_domain")));
}

#[test]
fn id7_the_certificates_of_the_longest_trust_domain_keep_the_bounds_of_x520() {
    let td = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
    assert_eq!(td.len(), 255);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("long.toml"), format!("trust_domain = \"{td}\"\n")).unwrap();
    let dev = Dev::start_args(dir, &["--config", "long.toml"], &[]);
    dev.token("demo", "demo.jwt");
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let mut names = BTreeSet::new();
    for file in ["a1/svid.pem", "a1/bundle.pem"] {
        for der in ::pem::parse_many(std::fs::read(dev.path(file)).unwrap()).unwrap() {
            let (_, cert) = X509Certificate::from_der(der.contents()).unwrap();
            assert!(uris(&cert)[0].starts_with(&format!("spiffe://{td}")), "the trust domain stands in the URI");
            // X.520: ub-common-name, ub-organization-name and ub-organizational-unit-name are 64.
            for attribute in cert.subject().iter_attributes().chain(cert.issuer().iter_attributes()) {
                let text = attribute.as_str().unwrap();
                assert!(!text.is_empty() && text.chars().count() <= 64, "{text}");
            }
            let name = cert.subject().iter_common_name().next().map(|cn| cn.as_str().unwrap().to_owned());
            assert!(names.insert(name), "each CA has a name of its own, and the leaf none");
        }
    }
    assert_eq!(names.len(), 3, "leaf, intermediate, root");
    dev.json("verify a1/svid.pem");
    if let Some(out) = openssl(&dev, "verify -x509_strict -CAfile a1/bundle.pem -untrusted a1/svid.pem a1/svid.pem") {
        assert!(out.contains("a1/svid.pem: OK"), "{out}");
        let text = openssl(&dev, "x509 -in a1/svid.pem -noout -ext subjectAltName").unwrap();
        assert!(text.contains(agent["agent_id"].as_str().unwrap()), "{text}");
    }
}

/// What openssl says; none where there is no openssl, which CI does not put up with.
fn openssl(dev: &Dev, line: &str) -> Option<String> {
    match std::process::Command::new("openssl").args(line.split(' ')).current_dir(&dev.dir).output() {
        Ok(out) => Some(String::from_utf8([out.stdout, out.stderr].concat()).unwrap()),
        Err(e) if std::env::var_os("MAYFLY_CI").is_none() => {
            eprintln!("SKIPPED: no openssl on PATH ({e})");
            None
        }
        Err(e) => panic!("MAYFLY_CI needs openssl on PATH: {e}"),
    }
}

#[test]
fn id10_the_id_and_the_key_are_what_the_signature_covers() {
    use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_x509};
    let issued = issued();
    let td = TrustDomain::new("dev.mayfly.test").unwrap();
    let bundle = Bundle::from_json(td, issued.bundle.to_string().as_bytes()).unwrap();
    let verify = |leaf: &[u8]| {
        let chain = [leaf, &issued.chain[1]].map(|der| rustls_pki_types::CertificateDer::from(der.to_vec()));
        verify_x509(&chain, &bundle, &BindingOid::default(), now().unsigned_abs()).map_err(|e| e.code())
    };
    assert!(verify(&issued.chain[0]).is_ok());
    let (_, cert) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let id = uris(&cert).remove(0);
    // The last digit of the UUID, and the last byte of the key.
    for (part, at) in [(id.as_bytes(), id.len() - 1), (cert.public_key().raw, cert.public_key().raw.len() - 1)] {
        let from = issued.chain[0].windows(part.len()).position(|w| w == part).unwrap();
        let mut changed = issued.chain[0].clone();
        let byte = &mut changed[from + at];
        *byte = if *byte == b'0' {
            b'1'
        } else if byte.is_ascii_hexdigit() {
            b'0'
        } else {
            *byte ^ 1
        };
        assert_eq!(verify(&changed).err(), Some("CREDENTIAL_UNTRUSTED"));
    }
}

#[test]
fn id12_nothing_is_asserted_that_was_not_verified_and_nothing_of_other_trust_domains() {
    let issued = issued();
    let token = std::fs::read_to_string(issued.dev.path("demo.jwt")).unwrap();
    let mut parts: Vec<String> = token.trim().split('.').map(str::to_owned).collect();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&parts[1]).unwrap()).unwrap();
    assert_eq!(issued.agent["user"], serde_json::json!({ "iss": claims["iss"], "sub": claims["sub"] }));
    // Another user than the provider signed for, or another issuer of the same user, is in no credential.
    for (name, value) in [("sub", "guest".to_owned()), ("iss", "https://elsewhere.example".to_owned())] {
        let before = std::mem::replace(&mut claims[name], value.into());
        parts[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
        std::fs::write(issued.dev.path("forged.jwt"), parts.join(".")).unwrap();
        issued.dev.fails("spawn --class researcher --user-token forged.jwt --out x", 3);
        claims[name] = before;
    }
    for id in ["agent_id", "parent_id", "root_id"] {
        assert!(issued.agent[id].as_str().unwrap().starts_with("spiffe://dev.mayfly.test/"), "{id}");
    }
}
