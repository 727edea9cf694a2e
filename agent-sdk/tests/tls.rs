//! TLS by SPIFFE ID: whom a handshake lets in, and that each one is a whole one.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../verify/tests/feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;
#[path = "support/world.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod world;

use std::sync::Arc;

use mayfly_agent::peers::{Authorize, Verifier};
use mayfly_agent::tls::{CurrentIdentity, PeerVerifier, client_config, server_config, server_config_optional};
use mayfly_verify::{SpiffeId, Target, TrustDomain};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, HandshakeKind, ServerConfig, SupportedProtocolVersion, version,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use world::{Somebody, World};

fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn anybody(world: &World) -> Authorize {
    Authorize::trust_domain(world.verifier().own().clone())
}

/// How both ends see a handshake: whether the session was a resumed one.
async fn shake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> (Result<HandshakeKind, Error>, Result<(), Error>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let accepted = async {
        let mut tls = TlsAcceptor::from(Arc::clone(server)).accept(far).await.map_err(|e| cause(&e))?;
        let kind = tls.get_ref().1.handshake_kind().unwrap();
        let _ = tls.write_all(b"!").await;
        let _ = tls.flush().await;
        Ok(kind)
    };
    let connected = async {
        let name = "any.name.at.all".try_into().unwrap();
        let mut tls = TlsConnector::from(Arc::clone(client)).connect(name, near).await.map_err(|e| cause(&e))?;
        // In TLS 1.3 a client is done first: what the server thinks of it comes with the first byte, and so do tickets.
        tls.read_u8().await.map(drop).map_err(|e| cause(&e))
    };
    tokio::join!(accepted, connected)
}

fn cause(e: &std::io::Error) -> Error {
    e.get_ref().and_then(|e| e.downcast_ref::<Error>()).cloned().unwrap_or_else(|| Error::General(e.to_string()))
}

/// A server that lets in whom `authorize` allows; a client; and what the server says of it.
async fn refusal(verifier: &Verifier, server: &Somebody, client: &Somebody, authorize: Authorize) -> Option<CertificateError> {
    let config = Arc::new(server_config(&server.current(), verifier, authorize).unwrap());
    // Believes any server here: the other direction has tests of its own.
    let connector = Arc::new(client_config(&client.current(), verifier, Authorize::when(|_| true)).unwrap());
    match shake(&config, &connector).await {
        (Ok(HandshakeKind::Full), Ok(())) => None,
        (Err(Error::InvalidCertificate(why)), Err(_)) => Some(why),
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn who_may_be_the_peer_is_said_by_id_by_trust_domain_by_class_or_by_hand() {
    let mut world = World::new();
    let (server, orchestrator) = (world.workload("search"), world.workload("orchestrator"));
    let (worker, researcher) = (world.agent("worker", &[]), world.agent("researcher", &["search:read"]));
    let verifier = world.verifier();
    let id = |of: &Somebody| SpiffeId::new(&of.id).unwrap();
    let class = |name: &str| Authorize::class(td("td"), name.parse().unwrap());
    let denied = Some(CertificateError::ApplicationVerificationFailure);
    for (rule, allowed) in [
        (Authorize::ids([id(&orchestrator), id(&worker)]), [true, true, false]),
        (Authorize::ids([]), [false; 3]),
        (Authorize::trust_domain(td("td")), [true; 3]),
        (Authorize::trust_domain(td("other")), [false; 3]),
        (Authorize::agents(td("td")), [false, true, true]),
        (class("worker"), [false, true, false]),
        (Authorize::class(td("other"), "worker".parse().unwrap()), [false; 3]),
        (class("worker").or(class("researcher")), [false, true, true]),
        (Authorize::when(|shown| shown.binding.is_some_and(|b| b.scopes == ["search:read"])), [false, false, true]),
    ] {
        for (client, allowed) in [&orchestrator, &worker, &researcher].into_iter().zip(allowed) {
            let expected = if allowed { None } else { denied.clone() };
            assert_eq!(refusal(&verifier, &server, client, rule.clone()).await, expected, "{}", client.id);
        }
    }
    // A name that only begins or ends alike is another.
    let longer = world.workload("orchestrator2");
    assert_eq!(refusal(&verifier, &server, &longer, Authorize::ids([id(&orchestrator)])).await, denied);
}

#[tokio::test]
async fn what_is_cut_or_over_or_not_known_gets_through_no_handshake() {
    let mut world = World::new();
    let (server, kept, cut) = (world.workload("search"), world.agent("worker", &[]), world.agent("worker", &[]));
    let verifier = world.verifier();
    let ours = anybody(&world);
    let refusal = async |client: &Somebody| refusal(&verifier, &server, client, ours.clone()).await;
    assert_eq!((refusal(&kept).await, refusal(&cut).await), (None, None));
    world.cut(&cut.target());
    assert_eq!((refusal(&kept).await, refusal(&cut).await), (None, Some(CertificateError::Revoked)));
    // T41: nothing is heard for a while. The client is the first to notice, of the server.
    world.pass(36);
    let (server_says, client_says) = {
        let config = Arc::new(server_config(&server.current(), &verifier, ours.clone()).unwrap());
        let client = Arc::new(client_config(&kept.current(), &verifier, ours.clone()).unwrap());
        shake(&config, &client).await
    };
    assert_eq!(client_says, Err(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)));
    assert_eq!(server_says, Err(Error::AlertReceived(AlertDescription::UnknownCA)));
    world.publish();
    assert_eq!(refusal(&kept).await, None);
    // The certificates end.
    world.pass(895);
    world.publish();
    let fresh = world.workload("search");
    let expired = self::refusal(&verifier, &fresh, &kept, ours.clone()).await;
    assert_eq!(expired, Some(CertificateError::Expired));
}

#[tokio::test]
async fn t69_before_the_first_word_of_the_feed_nobody_is_anybody() {
    let world = World::silent(td("td"));
    let verifier = world.verifier();
    let (server, client) = (world.workload("search"), world.workload("orchestrator"));
    let config = Arc::new(server_config(&server.current(), &verifier, anybody(&world)).unwrap());
    let client = Arc::new(client_config(&client.current(), &verifier, anybody(&world)).unwrap());
    let (_, said) = shake(&config, &client).await;
    assert_eq!(said, Err(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)));
}

#[tokio::test]
async fn xv1_t33_a_foreign_trust_domain_is_believed_of_itself_alone() {
    let (mut world, spire) = (World::new(), World::silent(td("spire")));
    let server = world.workload("search");
    let (theirs, ours) = (spire.certify("spiffe://spire/ns/x/sa/y", None), world.agent("worker", &[]));
    // Signed by them, and said to be of us; and of a domain that nobody vouches for.
    let forged = spire.certify("spiffe://td/workload/orchestrator", None);
    let stranger = spire.certify("spiffe://elsewhere/ns/x", None);
    let all = || Authorize::when(|_| true);
    let refused = async |verifier: &Verifier, client: &Somebody| match refusal(verifier, &server, client, all()).await {
        None => String::new(),
        Some(CertificateError::Other(why)) => why.to_string(),
        Some(other) => format!("{other:?}"),
    };
    let untrusted = |text: &str| text.starts_with("CREDENTIAL_UNTRUSTED");
    let alone = world.verifier();
    assert_eq!(refused(&alone, &ours).await, "");
    assert!(untrusted(&refused(&alone, &theirs).await));
    world.bundles.set(spire.bundle());
    let why = refused(&alone, &theirs).await;
    assert!(untrusted(&why) && why.contains("revoked"), "a bundle alone is not enough: {why}");
    let both = world.verifier().without_revocation(&td("spire"));
    assert_eq!(refused(&both, &theirs).await, "");
    for client in [&forged, &stranger] {
        assert!(untrusted(&refused(&both, client).await), "{}", client.id);
    }
    // Ours are cut as before, whatever is said of others and of us.
    let both = both.without_revocation(&td("td"));
    assert_eq!(refused(&both, &ours).await, "");
    world.cut(&ours.target());
    assert_eq!(refused(&both, &ours).await, "Revoked");
    // While running: their bundle goes, and they with it.
    world.bundles.remove(&td("spire"));
    assert!(untrusted(&refused(&both, &theirs).await));
}

#[tokio::test]
async fn a_client_knows_its_server_by_its_spiffe_id_and_not_by_name() {
    let mut world = World::new();
    let (search, mail, agent) = (world.workload("search"), world.workload("mail"), world.agent("worker", &[]));
    let verifier = world.verifier();
    let expected = Authorize::ids([SpiffeId::new(&search.id).unwrap()]);
    let client = Arc::new(client_config(&agent.current(), &verifier, expected).unwrap());
    let own = search.current();
    let config = Arc::new(server_config(&own, &verifier, anybody(&world)).unwrap());
    assert!(shake(&config, &client).await.1.is_ok());
    // The same settings, with another identity.
    own.replace(mail.identity()).unwrap();
    let (_, said) = shake(&config, &client).await;
    assert_eq!(said, Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)));
    own.replace(search.identity()).unwrap();
    let mixed = mayfly_agent::channel::Identity { chain: mail.chain.clone(), key: search.identity().key };
    assert!(own.replace(mixed).is_err() && CurrentIdentity::new(no_chain(&search)).is_err());
    assert!(shake(&config, &client).await.1.is_ok(), "what was shown stays");
}

fn no_chain(of: &Somebody) -> mayfly_agent::channel::Identity {
    mayfly_agent::channel::Identity { chain: vec![], key: of.identity().key }
}

#[tokio::test]
async fn a_certificate_is_needed_unless_it_is_said_to_be_optional_and_must_hold_then_too() {
    let mut world = World::new();
    let (server, cut) = (world.workload("search"), world.agent("worker", &[]));
    world.cut(&cut.target());
    let verifier = world.verifier();
    let needed = Arc::new(server_config(&server.current(), &verifier, anybody(&world)).unwrap());
    let optional = Arc::new(server_config_optional(&server.current(), &verifier, anybody(&world)).unwrap());
    let believes = Arc::new(PeerVerifier::new(verifier.clone(), anybody(&world)));
    let bare = ClientConfig::builder_with_details(provider(), Arc::new(verifier.clock().clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(believes)
        .with_no_client_auth();
    let bare = Arc::new(bare);
    assert_eq!(shake(&needed, &bare).await.0, Err(Error::NoCertificatesPresented));
    assert_eq!(shake(&optional, &bare).await, (Ok(HandshakeKind::Full), Ok(())));
    let client = Arc::new(client_config(&cut.current(), &verifier, anybody(&world)).unwrap());
    assert_eq!(shake(&optional, &client).await.0, Err(Error::InvalidCertificate(CertificateError::Revoked)));
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client as rustls makes it, that resumes whatever it can.
fn resuming(world: &World, client: &Somebody, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let verifier = world.verifier();
    let config = ClientConfig::builder_with_details(provider(), Arc::new(verifier.clock().clone()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(verifier, anybody(world))))
        .with_client_cert_resolver(Arc::new(client.current()));
    Arc::new(config)
}

/// A server with our verifier, and with what rustls does about sessions.
fn remembering(world: &World, server: &Somebody) -> Arc<ServerConfig> {
    let verifier = world.verifier();
    let config = ServerConfig::builder_with_details(provider(), Arc::new(verifier.clock().clone()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(PeerVerifier::new(verifier, anybody(world))))
        .with_cert_resolver(Arc::new(server.current()));
    Arc::new(config)
}

#[tokio::test]
async fn t40_no_session_is_resumed_whoever_insists_and_a_cut_counts_at_once() {
    for version in [&version::TLS12, &version::TLS13] {
        let mut world = World::new();
        let (server, agent, other) = (world.workload("search"), world.agent("worker", &[]), world.agent("worker", &[]));
        let (full, resumed) = ((Ok(HandshakeKind::Full), Ok(())), (Ok(HandshakeKind::Resumed), Ok(())));

        // That a client of rustls does resume, where it is let: and then a cut counts for nothing.
        let (careless, client) = (remembering(&world, &server), resuming(&world, &other, version));
        assert_eq!(shake(&careless, &client).await, full);
        assert_eq!(shake(&careless, &client).await, resumed);
        world.cut(&other.target());
        assert_eq!(shake(&careless, &client).await, resumed, "the hole: {version:?}");

        let ours = Arc::new(server_config(&server.current(), &world.verifier(), anybody(&world)).unwrap());
        let client = resuming(&world, &agent, version);
        for _ in 0..3 {
            assert_eq!(shake(&ours, &client).await, full, "{version:?}");
        }
        world.cut(&agent.target());
        assert_eq!(shake(&ours, &client).await.0, Err(Error::InvalidCertificate(CertificateError::Revoked)), "{version:?}");

        // And from the other side: a server that offers to resume, and a client of ours.
        let (mail, honest) = (world.workload("mail"), world.agent("worker", &[]));
        let (careless, client) =
            (remembering(&world, &mail), Arc::new(client_config(&honest.current(), &world.verifier(), anybody(&world)).unwrap()));
        for _ in 0..2 {
            assert_eq!(shake(&careless, &client).await, full);
        }
        world.cut(&Target::Key(mayfly_verify::inspect_x509(&mail.chain[0], &td("td"), &Default::default()).unwrap().key));
        assert_eq!(shake(&careless, &client).await.1, Err(Error::InvalidCertificate(CertificateError::Revoked)));
    }
}
