//! Bundles of foreign trust domains, from a file at the issuer to the clients of an agent's socket, and their tokens.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use mayfly::run::files::Files;
use mayfly_agent::identity::Current;
use mayfly_agent::peers::Bundles;
use mayfly_verify::JwtAuthority;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;
use tonic::Streaming;

use super::*;

pub(crate) const SPIRE: &str = "spire.example.org";
const TOKENS: &str = "tokens.example.org";

pub(crate) fn foreign(name: &str) -> String {
    format!("[[foreign]]\ntrust_domain = \"{name}\"\nfile = \"{name}.json\"\n")
}

pub(crate) fn root() -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// A key of a foreign trust domain that signs JWT-SVIDs.
pub(crate) struct Signer(EcdsaKeyPair);

impl Signer {
    pub(crate) fn new() -> Signer {
        Signer(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn public(&self) -> JwtAuthority {
        let point = self.0.public_key().as_ref();
        JwtAuthority::es256("theirs", &point[1..33], &point[33..]).unwrap()
    }

    pub(crate) fn token(&self, sub: &str, audience: &str, exp: u64) -> String {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = part(json!({ "alg": "ES256", "kid": "theirs", "typ": "JWT" }));
        let signed = format!("{header}.{}", part(json!({ "sub": sub, "aud": [audience], "exp": exp, "iat": now() })));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(crate) fn write(dir: &Path, name: &str, roots: &[Vec<u8>], jwt: &[&Signer], sequence: u64) {
    let jwt = jwt.iter().map(|signer| signer.public()).collect();
    let bundle = Bundle::new(TrustDomain::new(name).unwrap(), roots.to_vec(), jwt, sequence, 10);
    // Whole: the issuer looks every two seconds.
    std::fs::write(dir.join("next.json"), bundle.to_json().unwrap().to_string()).unwrap();
    std::fs::rename(dir.join("next.json"), dir.join(format!("{name}.json"))).unwrap();
}

fn ids(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| format!("spiffe://{name}")).collect()
}

/// The next messages until their bundles are those of these trust domains.
async fn until<T>(stream: &mut Streaming<T>, of: impl Fn(&T) -> BTreeSet<String>, names: &[&str]) -> T {
    loop {
        let message = next(stream).await.unwrap();
        if of(&message) == ids(names) {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wa4_wa9_wa12_wa14_cl7_foreign_bundles_come_by_name_of_one_kind_each_and_change_and_go() {
    let (dir, first, second, signer) = (tempfile::tempdir().unwrap(), root(), root(), Signer::new());
    write(dir.path(), SPIRE, std::slice::from_ref(&first), &[&signer], 1);
    write(dir.path(), TOKENS, &[], &[&signer], 1);
    let world = World::with(dir, &(foreign(SPIRE) + &foreign(TOKENS))).await;
    let mut client = world.client();
    let mut svid = client.fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    let mut x509 = client.fetch_x509_bundles(with_header(api::X509BundlesRequest {})).await.unwrap().into_inner();
    let mut jwt = client.fetch_jwt_bundles(with_header(api::JwtBundlesRequest {})).await.unwrap().into_inner();
    let federated = |m: &api::X509svidResponse| m.federated_bundles.keys().cloned().collect();
    let roots = |m: &api::X509BundlesResponse| m.bundles.keys().cloned().collect();
    let sets = |m: &api::JwtBundlesResponse| m.bundles.keys().cloned().collect();

    // A trust domain without X.509 keys has no X.509 bundle.
    let got = until(&mut svid, federated, &[SPIRE]).await;
    whole(&got);
    assert_eq!(certificates(&got.federated_bundles[&format!("spiffe://{SPIRE}")]), [CertificateDer::from(first.clone())]);
    let got = until(&mut x509, roots, &[TD, SPIRE]).await;
    assert_eq!(certificates(&got.bundles[&format!("spiffe://{SPIRE}")]), [CertificateDer::from(first.clone())]);
    let got = until(&mut jwt, sets, &[TD, SPIRE, TOKENS]).await;
    for name in [SPIRE, TOKENS] {
        let set: serde_json::Value = serde_json::from_slice(&got.bundles[&format!("spiffe://{name}")]).unwrap();
        let keys = set["keys"].as_array().unwrap();
        assert!(keys.len() == 1 && keys[0]["kid"] == "theirs" && set.as_object().unwrap().len() == 1, "{set}");
        assert!(keys[0]["use"] == "jwt-svid" && keys[0].get("x5c").is_none(), "{set}");
    }
    // FC-6: none of it is ours.
    let ours = world.identity.current().bundle().x509_authorities.clone();
    assert!(!ours.contains(&first) && world.bundle().jwt_authorities().iter().all(|key| key.kid() != "theirs"));

    // Another root joins; then all of theirs are gone (BU-1). Each is pushed, and what has not changed is not.
    write(world.dev.dir.path(), SPIRE, &[first.clone(), second.clone()], &[&signer], 2);
    let got = next(&mut x509).await.unwrap();
    assert_eq!(certificates(&got.bundles[&format!("spiffe://{SPIRE}")]), [first, second].map(CertificateDer::from));
    assert!(silent(&mut jwt).await, "an unchanged set is not sent again");
    write(world.dev.dir.path(), SPIRE, &[], &[], 3);
    until(&mut svid, federated, &[]).await;
    assert_eq!(roots(&next(&mut x509).await.unwrap()), ids(&[TD]));
    assert_eq!(sets(&next(&mut jwt).await.unwrap()), ids(&[TD, TOKENS]));
}

#[tokio::test(flavor = "multi_thread")]
async fn wa9_a_trust_domain_that_the_issuer_does_not_trust_any_more_goes_with_its_restart() {
    let (dir, signer) = (tempfile::tempdir().unwrap(), Signer::new());
    write(dir.path(), SPIRE, &[root()], &[&signer], 1);
    let world = World::with(dir, &foreign(SPIRE)).await;
    let mut x509 = world.client().fetch_x509_bundles(with_header(api::X509BundlesRequest {})).await.unwrap().into_inner();
    let roots = |m: &api::X509BundlesResponse| m.bundles.keys().cloned().collect();
    until(&mut x509, roots, &[TD, SPIRE]).await;
    // A verifier that follows the same stream, and one bundle that somebody set there.
    let (bundles, theirs) = (Bundles::default(), TrustDomain::new("set.example.org").unwrap());
    bundles.set(Bundle::new(theirs, vec![root()], vec![], 0, 0));
    let _following = bundles.follow(world.identity.channel(), td());
    let mut changes = bundles.changes();
    while bundles.get(SPIRE).is_none() {
        tokio::time::timeout(SOON, changes.changed()).await.unwrap().unwrap();
    }
    assert_eq!(bundles.get(SPIRE).unwrap().x509_authorities().len(), 1);

    let World { dev, identity: _identity, router: _router, stop: _stop } = world;
    let dir = dev.kill();
    // While the issuer is away, what was believed stays.
    assert!(silent(&mut x509).await && bundles.get(SPIRE).is_some());
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let _dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    until(&mut x509, roots, &[TD]).await;
    while bundles.get(SPIRE).is_some() {
        tokio::time::timeout(SOON, changes.changed()).await.unwrap().unwrap();
    }
    assert!(bundles.get("set.example.org").is_some() && bundles.get(TD).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn wa15_jv6_a_foreign_token_is_validated_with_the_bundle_of_its_own_trust_domain() {
    let (dir, signer, stranger) = (tempfile::tempdir().unwrap(), Signer::new(), Signer::new());
    write(dir.path(), SPIRE, &[root()], &[&signer], 1);
    let world = World::with(dir, &foreign(SPIRE)).await;
    let mut client = world.client();
    let ask = |svid: String| with_header(api::ValidateJwtsvidRequest { audience: SEARCH.into(), svid });
    let (id, soon) = (format!("spiffe://{SPIRE}/ns/x/sa/y"), now() + 300);
    let held = client.validate_jwtsvid(ask(signer.token(&id, SEARCH, soon))).await.unwrap().into_inner();
    assert_eq!((held.spiffe_id.as_str(), held.claims.unwrap().fields.len()), (id.as_str(), 4));
    let ours = format!("spiffe://{TD}/workload/orchestrator");
    for (what, token) in [
        ("another key", stranger.token(&id, SEARCH, soon)),
        ("another audience", signer.token(&id, "https://mail.example", soon)),
        ("over", signer.token(&id, SEARCH, now() - 1)),
        ("their key, our name", signer.token(&ours, SEARCH, soon)),
        ("their key, a third name", signer.token("spiffe://third.example.org/x", SEARCH, soon)),
        ("no name", signer.token("nobody", SEARCH, soon)),
    ] {
        let status = client.validate_jwtsvid(ask(token)).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    }
    // Taken back by their trust domain's own bundle.
    write(world.dev.dir.path(), SPIRE, &[], &[], 2);
    let began = Instant::now();
    while client.validate_jwtsvid(ask(signer.token(&id, SEARCH, soon))).await.is_ok() {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let own = world.identity.jwt(SEARCH).await.unwrap().token;
    client.validate_jwtsvid(ask(own)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t208_files_have_the_roots_of_each_trust_domain_apart_and_lose_them_with_the_trust() {
    let (dir, first, signer) = (tempfile::tempdir().unwrap(), root(), Signer::new());
    write(dir.path(), SPIRE, std::slice::from_ref(&first), &[&signer], 1);
    write(dir.path(), TOKENS, &[], &[&signer], 1);
    let world = World::with(dir, &(foreign(SPIRE) + &foreign(TOKENS))).await;
    let pem = world.dev.path("pem");
    // Without the folders that the names lead through.
    let names = || {
        let all = std::fs::read_dir(&pem).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        all.filter(|name| !name.starts_with("..")).collect::<BTreeSet<_>>()
    };
    let plain = ["svid.pem", "svid_key.pem", "bundle.pem", "bundle_map.json"];
    // What an earlier run left, when its issuer trusted another.
    std::fs::create_dir(&pem).unwrap();
    std::fs::write(pem.join("federated.gone.example.pem"), "old").unwrap();
    std::fs::write(pem.join("notes.pem"), "mine").unwrap();
    // A run that was killed in the middle.
    let killed = pem.join("..0123456789abcdef01234567");
    std::fs::create_dir(&killed).unwrap();
    std::fs::write(killed.join("bundle.pem"), "old").unwrap();
    std::fs::write(killed.join(".svid_key.pem.0123456789abcdef01234567"), "a key").unwrap();
    let trusted = |current: &Current, roots: usize| {
        let mut all = current.foreign().into_iter().flat_map(|foreign| foreign.iter());
        all.any(|one| one.trust_domain().as_str() == SPIRE && one.bundle().x509_authorities().len() == roots)
    };
    let mut changed = world.identity.changed();
    let current = changed.wait_for(|current| trusted(current, 1)).await.unwrap().clone();
    let files = Files::new(&pem, None);
    assert!(files.write(&current).unwrap());
    assert!(!files.write(&current).unwrap(), "nothing has changed");
    assert!(!killed.exists(), "no key of an earlier run stays");
    let federated = format!("federated.{SPIRE}.pem");
    assert_eq!(names(), plain.iter().copied().chain(["notes.pem", &federated]).map(str::to_owned).collect());
    let roots = |name: &str| mayfly_agent::folder::certificates_from_pem(&std::fs::read(pem.join(name)).unwrap()).unwrap();
    assert_eq!(roots(&federated), [CertificateDer::from(first.clone())]);
    assert!(!roots("bundle.pem").contains(&CertificateDer::from(first.clone())), "theirs speak for no name of ours");
    // As gRPC reads it: a bundle document for each trust domain, with X.509 keys alone and no `kid`.
    let map = || serde_json::from_slice::<serde_json::Value>(&std::fs::read(pem.join("bundle_map.json")).unwrap()).unwrap();
    let of = |name: &str| {
        let document = map()["trust_domains"][name].clone();
        let keys = document["keys"].as_array().unwrap().clone();
        assert!(
            keys.iter()
                .all(|key| key["use"] == "x509-svid" && key.get("kid").is_none() && key["x5c"].as_array().unwrap().len() == 1)
        );
        Bundle::from_json(TrustDomain::new(name).unwrap(), document.to_string().as_bytes()).unwrap()
    };
    let domains = || map()["trust_domains"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(domains(), [TD, SPIRE], "a trust domain without X.509 keys has none to show");
    assert_eq!(of(SPIRE).x509_authorities(), [first]);
    assert_eq!(of(TD).x509_authorities(), world.identity.current().bundle().x509_authorities);

    write(world.dev.dir.path(), SPIRE, &[], &[&signer], 2);
    let current = changed.wait_for(|current| trusted(current, 0)).await.unwrap().clone();
    assert!(files.write(&current).unwrap());
    assert_eq!(names(), plain.iter().copied().chain(["notes.pem"]).map(str::to_owned).collect());
    assert_eq!(domains(), [TD]);
}
