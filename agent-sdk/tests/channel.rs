//! Channels against a real TLS server: who is accepted as the issuer, and who is not.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "channel/pki.rs"]
mod pki;
#[path = "channel/server.rs"]
mod server;

use std::time::{Duration, Instant};

use mayfly_agent::api::v1::GetBundleRequest;
use mayfly_agent::api::v1::bundles_client::BundlesClient;
use mayfly_agent::channel::{ChannelSettings, ConnectError, Identity, Trust, connect, connect_as, connect_unix, root_pin};
use mayfly_agent::tls::CurrentIdentity;
use mayfly_verify::TrustDomain;
use pki::{Leaf, Pki};
use rustls_pki_types::CertificateDer;
use server::Server;
use tonic::Code;
use tonic::transport::Channel;

const ISSUER: &str = "spiffe://td/issuer";

fn settings(address: String, trust: Trust) -> ChannelSettings {
    ChannelSettings {
        address,
        trust_domain: TrustDomain::new("td").unwrap(),
        trust,
        identity: None,
        connect_timeout: Duration::from_secs(5),
    }
}

fn roots(pki: &Pki) -> Trust {
    Trust::Roots(vec![pki.root.clone()])
}

fn pin(pki: &Pki) -> Trust {
    Trust::Pin(root_pin(&pki.root).unwrap())
}

/// Nobody implements the method: the answer shows that the call went through.
async fn call(channel: Channel) -> Code {
    BundlesClient::new(channel).get_bundle(GetBundleRequest {}).await.unwrap_err().code()
}

async fn accepted(chain: Vec<CertificateDer<'static>>, leaf: &Leaf, trust: Trust) {
    let server = Server::start(chain, leaf, None).await;
    let channel = connect(settings(server.address(), trust)).await.unwrap();
    assert_eq!(call(channel).await, Code::Unimplemented);
}

/// Why a server with this chain is refused.
async fn refused(chain: Vec<CertificateDer<'static>>, leaf: &Leaf, trust: Trust) -> String {
    let server = Server::start(chain, leaf, None).await;
    match connect(settings(server.address(), trust)).await.unwrap_err() {
        ConnectError::Untrusted(why) => why,
        other => unreachable!("refused for another reason: {other}"),
    }
}

#[tokio::test]
async fn the_issuer_is_accepted_under_its_roots_and_under_its_pin() {
    let pki = Pki::new();
    let leaf = pki.leaf(&[ISSUER]);
    accepted(pki.full_chain(&leaf), &leaf, roots(&pki)).await;
    accepted(pki.full_chain(&leaf), &leaf, pin(&pki)).await;
    accepted(pki.short_chain(&leaf), &leaf, roots(&pki)).await;
    // While roots change hands, the bundle holds both.
    accepted(pki.full_chain(&leaf), &leaf, Trust::Roots(vec![Pki::new().root, pki.root.clone()])).await;
}

#[tokio::test]
async fn only_the_issuer_of_the_expected_trust_domain_is_the_issuer() {
    let pki = Pki::new();
    for id in [
        "spiffe://other/issuer",
        "spiffe://td/workload/orchestrator",
        "spiffe://td/issuer/x",
        "spiffe://td",
        "spiffe://TD/issuer",
    ] {
        for trust in [roots(&pki), pin(&pki)] {
            let leaf = pki.leaf(&[id]);
            let why = refused(pki.full_chain(&leaf), &leaf, trust).await;
            assert!(why.contains(&format!("`{id}`")) || id == "spiffe://td" && why.contains("must have a path"), "{id}: {why}");
        }
    }
}

#[tokio::test]
async fn an_issuer_has_one_spiffe_id() {
    let pki = Pki::new();
    for ids in [&[][..], &[ISSUER, "spiffe://td/workload/x"], &[ISSUER, ISSUER]] {
        let leaf = pki.leaf(ids);
        let why = refused(pki.full_chain(&leaf), &leaf, roots(&pki)).await;
        assert!(why.contains("exactly one URI"), "{why}");
    }
}

#[tokio::test]
async fn another_root_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let leaf = pki.leaf(&[ISSUER]);
    let why = refused(pki.full_chain(&leaf), &leaf, roots(&other)).await;
    assert!(why.contains("not signed by an authority of the bundle"), "{why}");
    let why = refused(pki.full_chain(&leaf), &leaf, pin(&other)).await;
    assert!(why.contains("not the pinned one"), "{why}");
}

#[tokio::test]
async fn a_pin_needs_the_root_and_the_chain_below_it() {
    let (pki, other) = (Pki::new(), Pki::new());
    let leaf = pki.leaf(&[ISSUER]);
    let why = refused(pki.short_chain(&leaf), &leaf, pin(&pki)).await;
    assert!(why.contains("not the pinned one"), "{why}");
    let why = refused(vec![leaf.der.clone()], &leaf, pin(&pki)).await;
    assert!(why.contains("no root"), "{why}");
    // Anybody can present our root, which is public, above a chain of their own.
    let theirs = other.leaf(&[ISSUER]);
    let chain = vec![theirs.der.clone(), other.intermediate.clone(), pki.root.clone()];
    let why = refused(chain, &theirs, pin(&pki)).await;
    assert!(why.contains("not signed by an authority of the bundle"), "{why}");
    // A pin of a key that is not a CA's, here the leaf's own, makes no root of it.
    let why = refused(vec![leaf.der.clone(), leaf.der.clone()], &leaf, Trust::Pin(root_pin(&leaf.der).unwrap())).await;
    assert!(why.contains("no self-signed CA"), "{why}");
    // Neither does a certificate for the pinned key that the key did not sign.
    let forged = pki.root_signed_by(&other);
    let why = refused(vec![leaf.der.clone(), pki.intermediate.clone(), forged], &leaf, pin(&pki)).await;
    assert!(why.contains("no self-signed CA"), "{why}");
}

#[tokio::test]
async fn t32_what_has_expired_is_refused_roots_too() {
    let pki = Pki::new();
    let leaf = pki.issue(&[ISSUER], |p| p.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let why = refused(pki.full_chain(&leaf), &leaf, roots(&pki)).await;
    assert!(why.contains("expired"), "{why}");
    let old = Pki::ending(rcgen::date_time_ymd(2021, 1, 1));
    let leaf = old.leaf(&[ISSUER]);
    for trust in [roots(&old), pin(&old)] {
        let why = refused(old.full_chain(&leaf), &leaf, trust).await;
        assert!(why.contains("no root of the bundle is valid now"), "{why}");
    }
}

#[tokio::test]
async fn t32_a_leaf_has_the_key_usage_of_an_svid_and_is_no_ca() {
    use rcgen::KeyUsagePurpose::{CrlSign, DigitalSignature, KeyCertSign};
    let pki = Pki::new();
    for usages in [vec![], vec![DigitalSignature, KeyCertSign], vec![DigitalSignature, CrlSign]] {
        let leaf = pki.issue(&[ISSUER], |p| p.key_usages = usages);
        let why = refused(pki.full_chain(&leaf), &leaf, roots(&pki)).await;
        assert!(why.contains("key usage"), "{why}");
    }
    let ca = pki.issue(&[ISSUER], |p| p.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let why = refused(pki.full_chain(&ca), &ca, roots(&pki)).await;
    assert!(why.contains("cA=false"), "{why}");
    let client = pki.issue(&[ISSUER], |p| p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth]);
    let why = refused(pki.full_chain(&client), &client, roots(&pki)).await;
    assert!(why.contains("extended key usage") || why.contains("purpose"), "{why}");
}

#[tokio::test]
async fn t32_an_intermediate_must_be_allowed_to_sign() {
    let pki = Pki::with_intermediate(|p| p.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature]);
    let leaf = pki.leaf(&[ISSUER]);
    let why = refused(pki.full_chain(&leaf), &leaf, roots(&pki)).await;
    assert!(why.contains("lacks cA or keyCertSign"), "{why}");
}

#[tokio::test]
async fn both_ends_are_verified() {
    let pki = Pki::new();
    let leaf = pki.leaf(&[ISSUER]);
    let server = Server::start(pki.full_chain(&leaf), &leaf, Some(pki.root.clone())).await;
    let me = pki.leaf(&["spiffe://td/workload/me"]);
    let identity = Identity { chain: pki.short_chain(&me), key: me.key() };
    let with = ChannelSettings { identity: Some(identity), ..settings(server.address(), roots(&pki)) };
    assert_eq!(call(connect(with).await.unwrap()).await, Code::Unimplemented);
    assert_eq!(server.peers(), [Some(me.der.clone())]);
    // Without a certificate the handshake ends well for us, and the first call tells.
    if let Ok(channel) = connect(settings(server.address(), roots(&pki))).await {
        assert_ne!(call(channel).await, Code::Unimplemented);
    }
    assert_eq!(server.peers().len(), 1);
}

#[tokio::test]
async fn a_channel_shows_at_each_connection_who_we_are_by_then() {
    let pki = Pki::new();
    let leaf = pki.leaf(&[ISSUER]);
    let server = Server::start(pki.full_chain(&leaf), &leaf, Some(pki.root.clone())).await;
    let identity = |of: &Leaf| Identity { chain: pki.short_chain(of), key: of.key() };
    let (stale, first, second) = (pki.leaf(&["spiffe://td/a"]), pki.leaf(&["spiffe://td/b"]), pki.leaf(&["spiffe://td/b"]));
    let current = CurrentIdentity::new(identity(&first)).unwrap();
    // What follows counts before what was put into the settings.
    let with = ChannelSettings { identity: Some(identity(&stale)), ..settings(server.address(), roots(&pki)) };
    let channel = connect_as(with, current.clone()).await.unwrap();
    assert_eq!(call(channel.clone()).await, Code::Unimplemented);
    current.replace(identity(&second)).unwrap();
    assert_eq!(call(channel.clone()).await, Code::Unimplemented);
    assert_eq!(server.peers(), [Some(first.der.clone())], "a connection that stands is what it was");
    server.drop_connections();
    let deadline = Instant::now() + Duration::from_secs(5);
    while call(channel.clone()).await != Code::Unimplemented {
        assert!(Instant::now() < deadline, "it does not come back");
    }
    assert_eq!(server.peers(), [Some(first.der.clone()), Some(second.der.clone())]);
}

#[tokio::test]
async fn t40_no_session_is_resumed() {
    let pki = Pki::new();
    let leaf = pki.leaf(&[ISSUER]);
    let server = Server::start(pki.full_chain(&leaf), &leaf, None).await;
    let channel = connect(settings(server.address(), roots(&pki))).await.unwrap();
    for round in 1..=3 {
        // The channel reconnects by itself, once it has noticed.
        let deadline = Instant::now() + Duration::from_secs(5);
        while server.peers().len() < round {
            let _ = call(channel.clone()).await;
            assert!(Instant::now() < deadline, "no reconnection");
        }
        server.drop_connections();
    }
    assert_eq!(server.resumed(), 0);
}

#[tokio::test]
async fn a_reconnection_is_verified_like_the_first() {
    let pki = Pki::new();
    let leaf = pki.leaf(&[ISSUER]);
    let server = Server::start(pki.full_chain(&leaf), &leaf, None).await;
    let channel = connect(settings(server.address(), roots(&pki))).await.unwrap();
    assert_eq!(call(channel.clone()).await, Code::Unimplemented);
    let impostor = pki.leaf(&["spiffe://td/workload/x"]);
    server.present(pki.full_chain(&impostor), &impostor);
    server.drop_connections();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let status = BundlesClient::new(channel.clone()).get_bundle(GetBundleRequest {}).await.unwrap_err();
        if let Some(why) = ConnectError::behind(&status) {
            assert_eq!(why.code(), "untrusted");
            break;
        }
        assert!(Instant::now() < deadline, "last answer: {status:?}");
    }
}

#[tokio::test]
async fn a_failed_connection_says_why() {
    let pki = Pki::new();
    let code = |r: Result<Channel, ConnectError>| r.unwrap_err().code();
    assert_eq!(code(connect(settings("nowhere".into(), roots(&pki))).await), "address");
    assert_eq!(code(connect(settings("127.0.0.1:1".into(), Trust::Roots(Vec::new()))).await), "roots");
    let no_root = Trust::Roots(vec![CertificateDer::from(vec![0x30])]);
    assert_eq!(code(connect(settings("127.0.0.1:1".into(), no_root)).await), "roots");
    let (one, other) = (pki.leaf(&[ISSUER]), pki.leaf(&[ISSUER]));
    let mixed = Identity { chain: vec![one.der.clone()], key: other.key() };
    let mixed = ChannelSettings { identity: Some(mixed), ..settings("127.0.0.1:1".into(), roots(&pki)) };
    assert_eq!(code(connect(mixed).await), "identity");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Somebody listens and never answers.
    let hasty = ChannelSettings { connect_timeout: Duration::from_millis(50), ..settings(address.clone(), roots(&pki)) };
    assert_eq!(code(connect(hasty).await), "timed_out");
    // Nobody listens.
    drop(listener);
    assert_eq!(code(connect(settings(address, roots(&pki))).await), "unreachable");
    // It is TLS, and no HTTP/2.
    let server = Server::without_alpn(pki.full_chain(&one), &one).await;
    assert_eq!(code(connect(settings(server.address(), roots(&pki))).await), "handshake");
}

#[tokio::test]
async fn an_operator_socket_is_connected_or_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("operator.sock");
    let error = connect_unix(&path).await.unwrap_err();
    assert_eq!(error.code(), "unreachable");
    assert!(error.to_string().contains("operator.sock"), "{error}");
    let _server = server::unix(&path);
    assert_eq!(call(connect_unix(&path).await.unwrap()).await, Code::Unimplemented);
}
