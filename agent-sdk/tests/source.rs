//! A source of a Workload API, clause by clause (list O), against a server that does what each clause needs.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "source/fake.rs"]
mod fake;
#[path = "source/pki.rs"]
mod pki;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fake::{Fake, Told};
use mayfly_agent::api::workload as api;
use mayfly_agent::peers::Authorize;
use mayfly_agent::workload::{Link, Lost, Source, WorkloadError};
use mayfly_verify::{BindingOid, Reject, TrustDomain};
use pki::Pki;
use rustls_pki_types::CertificateDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::Status;

const SVIDS: &str = "/FetchX509SVID";
const AUDIENCE: &str = "https://search.example";
const SOON: Duration = Duration::from_secs(10);

async fn until(so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < SOON, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn leaf(source: &Source) -> Vec<u8> {
    source.current().svid().unwrap().chain()[0].to_vec()
}

fn id(source: &Source) -> String {
    source.current().svid().unwrap().spiffe_id().to_string()
}

/// How many roots are believed of a trust domain; none: it has no bundle.
fn roots(source: &Source, of: &Pki) -> Option<usize> {
    source.bundles().get(of.name).map(|bundle| bundle.x509_authorities().len())
}

fn federated(own: &Pki, others: &[(&Pki, Vec<u8>)]) -> api::X509svidResponse {
    let federated_bundles = others.iter().map(|(pki, ders)| (pki.key(), ders.clone())).collect();
    api::X509svidResponse { federated_bundles, ..own.message("a") }
}

fn jwks(of: &[&Pki]) -> api::JwtBundlesResponse {
    api::JwtBundlesResponse { bundles: of.iter().map(|pki| (pki.key(), pki.jwks())).collect() }
}

/// Sends a message and waits until it was taken.
async fn take(source: &Source, told: &Told<api::X509svidResponse>, message: api::X509svidResponse) {
    let mut changed = source.changed();
    changed.mark_unchanged();
    told.send(Ok(message)).unwrap();
    tokio::time::timeout(SOON, changed.changed()).await.unwrap().unwrap();
}

/// A handshake of a source's server with a source's client: which leaf the client saw.
async fn shake(server: &Source, client: &Source) -> Result<Vec<u8>, String> {
    let server = server.server_config(Authorize::when(|_| true)).unwrap();
    let client = client.client_config(Authorize::when(|_| true)).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accepted = TlsAcceptor::from(Arc::new(server)).accept(far);
    let connected = TlsConnector::from(Arc::new(client)).connect("any.name".try_into().unwrap(), near);
    let (accepted, connected) = tokio::join!(accepted, connected);
    accepted.map_err(|e| format!("server: {e}"))?;
    let connected = connected.map_err(|e| format!("client: {e}"))?;
    Ok(connected.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn cl1_cl9_every_call_carries_the_header_and_nothing_but_the_workload_api_is_called() {
    let (fake, pki) = (Fake::start(), Pki::of("spire.example"));
    let (source, _told) = fake.source(pki.message("a")).await;
    fake.token(Ok(pki.jwt("a", AUDIENCE, 300)));
    let token = source.jwt(AUDIENCE).await.unwrap();
    assert_eq!(source.jwt(AUDIENCE).await.unwrap(), token, "one is remembered");
    fake.verdict(Ok(api::ValidateJwtsvidResponse { spiffe_id: pki.id("a"), claims: None }));
    assert_eq!(source.validate_jwt(&token.token, AUDIENCE).await.unwrap().to_string(), pki.id("a"));
    // A task of its own asks for the bundles.
    until(|| !fake.calls("/FetchJWTBundles").is_empty()).await;
    let calls = fake.calls("");
    for method in [SVIDS, "/FetchJWTBundles", "/FetchJWTSVID", "/ValidateJWTSVID"] {
        assert_eq!(calls.iter().filter(|call| call.path == format!("/SpiffeWorkloadAPI{method}")).count(), 1, "{method}");
    }
    assert!(calls.len() == 4 && calls.iter().all(|call| call.header == ["true"]), "{calls:?}");
    // What it is: a workload of a trust domain that knows of no agents.
    let current = source.current();
    let svid = current.svid().unwrap();
    assert!(svid.binding(&BindingOid::default()).is_none() && source.trust_domain().as_str() == "spire.example");
    assert!(!format!("{current:?}").contains("PrivateKey"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cl2_a_stream_stays_open_and_is_opened_again_at_once_when_it_ends() {
    let (fake, pki) = (Fake::start(), Pki::of("spire.example"));
    for end in [None, Some(Status::unavailable("restarting")), Some(Status::cancelled("x")), Some(Status::internal("x"))] {
        let (source, told) = fake.source(pki.message("a")).await;
        let (before, calls) = (leaf(&source), fake.calls(SVIDS).len());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(fake.calls(SVIDS).len(), calls, "it stays open");
        let next = fake.svids();
        end.into_iter().for_each(|status| told.send(Err(status)).unwrap());
        drop(told);
        let took = until(|| fake.calls(SVIDS).len() > calls).await;
        assert!(took < Duration::from_millis(500), "{took:?}");
        assert!(leaf(&source) == before && source.current().lost().is_none(), "what is held stays held");
        take(&source, &next, pki.message("a")).await;
        assert!(leaf(&source) != before && *source.link().borrow() == Link::Open);
        // ORDER: before its stream ends, so that it asks for none of the next turn's.
        drop(source);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cl3_what_is_absent_is_cleared_and_a_bundle_that_is_absent_is_unloaded() {
    let (fake, own) = (Fake::start(), Pki::of("spire.example"));
    let (one, two) = (Pki::of("one.example"), Pki::of("two.example"));
    let told_jwt = fake.jwt_bundles();
    let both = [(&one, one.root.clone()), (&two, two.root.clone())];
    let (source, told) = fake.source(federated(&own, &both)).await;
    let all = |source: &Source| [roots(source, &own), roots(source, &one), roots(source, &two)];
    assert_eq!(all(&source), [Some(1), Some(1), Some(1)]);
    take(&source, &told, federated(&own, &[(&one, [one.root.clone(), two.root.clone()].concat())])).await;
    assert_eq!(all(&source), [Some(1), Some(2), None], "absent");
    take(&source, &told, federated(&own, &both)).await;
    take(&source, &told, federated(&own, &[(&one, vec![]), (&two, two.root.clone())])).await;
    assert_eq!(all(&source), [Some(1), None, Some(1)], "empty");
    // What is no bundle is none, and costs no other. Nobody but our own SVID says what our bundle is (FC-6).
    let spoiled = [(&one, b"no certificate".to_vec()), (&two, two.root.clone()), (&own, one.root.clone())];
    take(&source, &told, federated(&own, &spoiled)).await;
    assert_eq!(all(&source), [Some(1), None, Some(1)]);
    assert_eq!(source.bundles().get(own.name).unwrap().x509_authorities(), std::slice::from_ref(&own.root));
    let keys = |of: &Pki| source.bundles().get(of.name).map_or(0, |bundle| bundle.jwt_authorities().len());
    told_jwt.send(Ok(jwks(&[&own, &one]))).unwrap();
    until(|| (keys(&own), keys(&one)) == (1, 1)).await;
    told_jwt.send(Ok(jwks(&[&own]))).unwrap();
    until(|| (keys(&own), keys(&one)) == (1, 0)).await;
    assert_eq!((roots(&source, &own), roots(&source, &one)), (Some(1), None));
    assert_eq!(source.discarded().borrow().count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cl3_a_message_without_a_mandatory_field_is_reported_and_discarded_whole() {
    let (fake, pki, other) = (Fake::start(), Pki::of("spire.example"), Pki::of("other.example"));
    let (source, told) = fake.source(pki.message("a")).await;
    let before = leaf(&source);
    let with = |change: fn(&mut api::X509svid)| {
        let mut message = federated(&pki, &[(&other, other.root.clone())]);
        message.svids.push(pki.svid("b", "", 3600));
        change(&mut message.svids[1]);
        message
    };
    let many = api::X509svidResponse { svids: vec![pki.svid("a", "", 3600); 65], ..Default::default() };
    let over = api::X509svidResponse { svids: vec![pki.svid("a", "", -1)], ..Default::default() };
    let bad = [
        (api::X509svidResponse::default(), "there are no SVIDs"),
        (many, "or too many"),
        (over, "has expired"),
        (with(|svid| svid.spiffe_id.clear()), "a mandatory field is empty"),
        (with(|svid| svid.x509_svid.clear()), "a mandatory field is empty"),
        (with(|svid| svid.x509_svid_key.clear()), "a mandatory field is empty"),
        (with(|svid| svid.bundle.clear()), "a mandatory field is empty"),
        (with(|svid| svid.spiffe_id += "x"), "differs from the certificate's"),
        (
            with(|svid| svid.x509_svid_key = Pki::of("x").svid("b", "", 1).x509_svid_key),
            "the key does not belong to the certificate",
        ),
        (with(|svid| svid.x509_svid_key.truncate(20)), "the key cannot be read"),
        (with(|svid| svid.x509_svid.truncate(200)), "the certificates cannot be read"),
        (with(|svid| svid.x509_svid = svid.bundle.clone()), "the leaf is not an X.509-SVID"),
        (with(|svid| svid.bundle.push(0)), "the bundle cannot be read"),
        (with(|svid| svid.hint = "x".repeat(1025)), "a hint is too long"),
    ];
    for (count, (message, why)) in (1..).zip(bad) {
        told.send(Ok(message)).unwrap();
        until(|| source.discarded().borrow().count == count).await;
        assert!(source.discarded().borrow().why.contains(why), "{why}: {:?}", *source.discarded().borrow());
        assert!(leaf(&source) == before && roots(&source, &other).is_none(), "{why}");
    }
    // The stream stands, and the next good one counts.
    take(&source, &told, with(|_| ())).await;
    assert!(leaf(&source) != before && source.current().svids().len() == 2 && roots(&source, &other) == Some(1));
    assert_eq!(fake.calls(SVIDS).len(), 1);
    // Where nothing else comes, that is why.
    let fake = Fake::start();
    let told = fake.svids();
    told.send(Ok(api::X509svidResponse::default())).unwrap();
    let why = fake.open(Duration::from_secs(1)).await.err().unwrap();
    assert!(matches!(why, WorkloadError::Answer(_)), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cl4_what_is_refused_for_good_is_never_asked_again() {
    for status in [Status::invalid_argument("no header"), Status::unimplemented("no profile")] {
        let (fake, pki) = (Fake::start(), Pki::of("spire.example"));
        fake.no_svids(status.clone());
        let began = Instant::now();
        let why = fake.open(Duration::from_secs(60)).await.err().unwrap();
        assert!(matches!(&why, WorkloadError::Refused(said) if said.contains(status.message())), "{why}");
        assert!(!why.is_transient() && began.elapsed() < Duration::from_secs(5));
        // Also later; what is held holds until it ends.
        let (source, told) = fake.source(pki.message("a")).await;
        told.send(Err(status.clone())).unwrap();
        let mut link = source.link();
        tokio::time::timeout(SOON, link.wait_for(|link| matches!(link, Link::Refused(_)))).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(fake.calls(SVIDS).len(), 2);
        assert_eq!(id(&source), pki.id("a"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cl4_what_passes_by_itself_is_asked_again_at_growing_intervals() {
    for status in [Status::unavailable("not yet"), Status::permission_denied("no identity issued"), Status::unknown("?")] {
        let (fake, pki) = (Fake::start(), Pki::of("spire.example"));
        (0..6).for_each(|_| fake.no_svids(status.clone()));
        let (source, _told) = fake.source(pki.message("a")).await;
        let calls = fake.calls(SVIDS);
        let pauses: Vec<_> = calls.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert_eq!(pauses.len(), 6);
        // Each is between half of its pause and all of it, and the pause doubles.
        for (n, pause) in (0..).zip(&pauses) {
            assert!(*pause >= Duration::from_millis(25 << n), "{n}: {pauses:?}");
        }
        assert!(source.current().lost().is_none() && *source.link().borrow() == Link::Open);
    }
    // Which one it was is told to whoever cannot wait longer.
    let fake = Fake::start();
    (0..9).for_each(|_| fake.no_svids(Status::permission_denied("no identity issued")));
    let why = fake.open(Duration::from_millis(700)).await.err().unwrap();
    assert!(matches!(&why, WorkloadError::Denied(said) if said == "no identity issued") && why.is_transient(), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cl4_cl2_an_api_that_is_not_there_is_looked_for_until_it_is() {
    let (mut fake, pki) = (Fake::start(), Pki::of("spire.example"));
    fake.stop();
    let why = fake.open(Duration::from_millis(500)).await.err().unwrap();
    assert!(matches!(&why, WorkloadError::Unavailable(_)), "{why}");
    let told = fake.svids();
    told.send(Ok(pki.message("a"))).unwrap();
    let endpoint = fake.endpoint();
    let opening = tokio::spawn(async move { Source::open(&endpoint, SOON).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    fake.listen();
    let source = opening.await.unwrap().unwrap();
    // It breaks, and comes back with another certificate.
    let before = leaf(&source);
    fake.stop();
    let mut link = source.link();
    tokio::time::timeout(SOON, link.wait_for(|link| matches!(link, Link::Broken(_)))).await.unwrap().unwrap();
    assert!(leaf(&source) == before && source.current().lost().is_none());
    fake.svids().send(Ok(pki.message("a"))).unwrap();
    fake.listen();
    until(|| leaf(&source) != before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cl5_what_was_redacted_is_used_no_more_until_it_comes_back() {
    let (fake, pki, peer) = (Fake::start(), Pki::of("spire.example"), Fake::start());
    let (source, told) = fake.source(pki.message("a")).await;
    let (other, _told) = peer.source(pki.message("peer")).await;
    fake.token(Ok(pki.jwt("a", AUDIENCE, 300)));
    source.jwt(AUDIENCE).await.unwrap();
    assert_eq!(shake(&source, &other).await.unwrap(), leaf(&source));
    assert_eq!(shake(&other, &source).await.unwrap(), leaf(&other));
    let next = fake.svids();
    told.send(Err(Status::permission_denied("no identity issued"))).unwrap();
    let lost = tokio::time::timeout(SOON, source.lost()).await.unwrap();
    assert_eq!(lost, Lost::Redacted("no identity issued".into()));
    let current = source.current();
    assert!(current.svid().is_none() && current.svids().is_empty() && current.hinted("").is_none());
    assert!(source.bundles().get(pki.name).is_none(), "nor whom it made us believe");
    let why = source.jwt(AUDIENCE).await.err().unwrap();
    assert!(matches!(why, WorkloadError::Lost(Lost::Redacted(_))), "not what is remembered either: {why}");
    assert!(shake(&source, &other).await.unwrap_err().starts_with("server"), "it shows nothing");
    assert!(shake(&other, &source).await.is_err());
    // It comes back, and everything that was built from it goes on.
    take(&source, &next, pki.message("a")).await;
    assert!(source.current().lost().is_none());
    assert_eq!(shake(&source, &other).await.unwrap(), leaf(&source));
    assert_eq!(shake(&other, &source).await.unwrap(), leaf(&other));
    fake.token(Ok(pki.jwt("a", AUDIENCE, 300)));
    source.jwt(AUDIENCE).await.unwrap();
    assert_eq!(fake.calls("/FetchJWTSVID").len(), 2, "a fresh one");
}

#[tokio::test(flavor = "multi_thread")]
async fn cl5_what_is_omitted_or_has_run_out_is_used_no_more() {
    let (fake, pki) = (Fake::start(), Pki::of("spire.example"));
    let of = |svids: Vec<api::X509svid>| api::X509svidResponse { svids, ..Default::default() };
    let (source, told) = fake.source(of(vec![pki.svid("a", "one", 3600), pki.svid("b", "two", 3600)])).await;
    fake.token(Ok(pki.jwt("a", AUDIENCE, 300)));
    source.jwt(AUDIENCE).await.unwrap();
    take(&source, &told, of(vec![pki.svid("b", "two", 3600)])).await;
    assert!(source.current().hinted("one").is_none() && id(&source) == pki.id("b"));
    fake.token(Ok(pki.jwt("b", AUDIENCE, 300)));
    assert_eq!(source.jwt(AUDIENCE).await.unwrap().spiffe_id, pki.id("b"), "no token of whom we are no more");
    // A certificate is not used beyond its end, though the stream stands.
    take(&source, &told, of(vec![pki.svid("b", "two", 3)])).await;
    let ends_at = source.current().svid().unwrap().expires_at();
    assert_eq!(tokio::time::timeout(SOON, source.lost()).await.unwrap(), Lost::Expired);
    assert!(std::time::SystemTime::now() >= ends_at && source.current().svid().is_none());
    assert!(matches!(source.jwt(AUDIENCE).await, Err(WorkloadError::Lost(Lost::Expired))));
    assert!(shake(&source, &source).await.is_err());
    take(&source, &told, of(vec![pki.svid("b", "two", 3600)])).await;
    shake(&source, &source).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cl6_the_first_is_the_default_and_of_two_with_one_hint_the_first_counts() {
    let (fake, pki) = (Fake::start(), Pki::of("spire.example"));
    let named = [("c", ""), ("b", "x"), ("a", "x"), ("d", ""), ("e", "y")];
    let svids = named.map(|(path, hint)| pki.svid(path, hint, 3600)).to_vec();
    let (source, _told) = fake.source(api::X509svidResponse { svids, ..Default::default() }).await;
    let current = source.current();
    assert_eq!(id(&source), pki.id("c"));
    let ids: Vec<_> = current.svids().iter().map(|svid| svid.spiffe_id().to_string()).collect();
    assert_eq!(ids, ["c", "b", "d", "e"].map(|path| pki.id(path)));
    assert_eq!(current.hinted("x").unwrap().spiffe_id().to_string(), pki.id("b"));
    assert!(current.hinted("z").is_none());
    // The default's token, and the first of those.
    let mut two = pki.jwt("c", AUDIENCE, 300);
    let first = two.svids[0].svid.clone();
    two.svids.extend(pki.jwt("c", AUDIENCE, 200).svids);
    fake.token(Ok(two));
    assert_eq!(source.jwt(AUDIENCE).await.unwrap().token, first);
    // What is no token of ours is none.
    let mut lacking = pki.jwt("c", AUDIENCE, 300);
    lacking.svids[0].svid.clear();
    let mut said = pki.jwt("a", AUDIENCE, 300);
    said.svids[0].spiffe_id = pki.id("c");
    for bad in [api::JwtsvidResponse::default(), lacking, said, pki.jwt("a", AUDIENCE, 300), pki.jwt("c", AUDIENCE, -1)] {
        fake.token(Ok(bad));
        let why = source.jwt("https://files.example").await.err().unwrap();
        assert!(matches!(why, WorkloadError::Answer(_)), "{why}");
    }
    for (status, code) in [
        (Status::permission_denied("x"), "denied"),
        (Status::invalid_argument("x"), "refused"),
        (Status::unavailable("x"), "unavailable"),
    ] {
        fake.token(Err(status));
        assert_eq!(source.jwt("https://files.example").await.err().unwrap().code(), code);
    }
    assert_eq!(source.jwt(AUDIENCE).await.unwrap().token, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn cl7_x509_bundles_prove_certificates_alone_and_jwt_bundles_tokens_alone() {
    let (fake, own, other) = (Fake::start(), Pki::of("spire.example"), Pki::of("other.example"));
    let told_jwt = fake.jwt_bundles();
    let (source, told) = fake.source(federated(&own, &[(&other, other.root.clone())])).await;
    let of = |pki: &Pki| vec![CertificateDer::from(pki.svid("peer", "", 3600).x509_svid)];
    let (ours, theirs) = (of(&own), of(&other));
    let verifier = source.verifier().without_revocation(&TrustDomain::new(other.name).unwrap());
    assert!(verifier.verify_x509(&ours).is_ok() && verifier.verify_x509(&theirs).is_ok());
    let untrusted = |found: Result<_, Reject>| matches!(found, Err(Reject::Untrusted(_)));
    let token = other.token("x", AUDIENCE, 300);
    assert!(untrusted(verifier.verify_jwt(&token, AUDIENCE).map(drop)), "X.509 keys prove no token");
    told_jwt.send(Ok(jwks(&[&own, &other]))).unwrap();
    until(|| verifier.verify_jwt(&token, AUDIENCE).is_ok()).await;
    assert!(verifier.verify_jwt(&own.token("x", AUDIENCE, 300), AUDIENCE).is_ok());
    // Without its X.509 bundle, its JWT bundle proves no certificate.
    take(&source, &told, own.message("a")).await;
    assert!(untrusted(verifier.verify_x509(&theirs).map(drop)) && verifier.verify_jwt(&token, AUDIENCE).is_ok());
    // Of a trust domain nobody was told about, nothing holds.
    assert!(untrusted(source.verifier().verify_jwt(&token, AUDIENCE).map(drop)));
    // A key that is said to be for certificates is not for tokens.
    let set = String::from_utf8(other.jwks()).unwrap().replace(r#""kty""#, r#""use":"x509-svid","kty""#);
    let bundles = [(own.key(), own.jwks()), (other.key(), set.into_bytes())].into();
    told_jwt.send(Ok(api::JwtBundlesResponse { bundles })).unwrap();
    until(|| untrusted(verifier.verify_jwt(&token, AUDIENCE).map(drop))).await;
    // What is taken back of tokens leaves certificates alone.
    told_jwt.send(Err(Status::permission_denied("no identity issued"))).unwrap();
    until(|| untrusted(verifier.verify_jwt(&own.token("x", AUDIENCE, 300), AUDIENCE).map(drop))).await;
    assert!(verifier.verify_x509(&ours).is_ok() && source.current().svid().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn cl8_the_api_validates_where_it_can_and_the_bundles_where_it_cannot() {
    let (fake, own, other) = (Fake::start(), Pki::of("spire.example"), Pki::of("other.example"));
    let told_jwt = fake.jwt_bundles();
    told_jwt.send(Ok(jwks(&[&own, &other]))).unwrap();
    let (source, _told) = fake.source(own.message("a")).await;
    until(|| source.bundles().get(other.name).is_some()).await;
    let token = own.token("x", AUDIENCE, 300);
    let says = |pki: &Pki| Ok(api::ValidateJwtsvidResponse { spiffe_id: pki.id("x"), claims: None });
    // It knows more than we do, either way.
    fake.verdict(Err(Status::invalid_argument("CREDENTIAL_REVOKED")));
    let why = source.validate_jwt(&token, AUDIENCE).await.err().unwrap();
    assert!(matches!(&why, WorkloadError::Token(said) if said == "CREDENTIAL_REVOKED"), "{why}");
    let third = Pki::of("third.example");
    fake.verdict(says(&third));
    let held = source.validate_jwt(&third.token("x", AUDIENCE, 300), AUDIENCE).await.unwrap();
    assert_eq!(held.to_string(), third.id("x"));
    // An answer about somebody else, or nobody, is none; no answer is no yes.
    for wrong in [says(&other), Ok(api::ValidateJwtsvidResponse::default())] {
        fake.verdict(wrong);
        assert!(matches!(source.validate_jwt(&token, AUDIENCE).await, Err(WorkloadError::Answer(_))));
    }
    fake.verdict(Err(Status::unavailable("stale")));
    assert!(matches!(source.validate_jwt(&token, AUDIENCE).await, Err(WorkloadError::Unavailable(_))));
    // It does not validate: it is not asked again.
    fake.verdict(Err(Status::unimplemented("no")));
    let asked = fake.calls("/ValidateJWTSVID").len();
    for pki in [&own, &other] {
        let held = source.validate_jwt(&pki.token("x", AUDIENCE, 300), AUDIENCE).await.unwrap();
        assert_eq!(held.to_string(), pki.id("x"));
    }
    for (token, audience) in [
        (third.token("x", AUDIENCE, 300), AUDIENCE),
        (own.token("x", AUDIENCE, -1), AUDIENCE),
        (token, "https://files.example"),
        ("a.b".into(), AUDIENCE),
    ] {
        assert!(matches!(source.validate_jwt(&token, audience).await, Err(WorkloadError::Token(_))));
    }
    assert_eq!(fake.calls("/ValidateJWTSVID").len(), asked + 1);
}
