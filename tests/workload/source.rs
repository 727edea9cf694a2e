//! `mayfly_agent::workload` against the Workload API of `mayfly run`, over a socket.

use mayfly_agent::peers::Authorize;
use mayfly_agent::workload::{Endpoint, Lost, Source, WorkloadError};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

use super::*;

/// Serves on a socket in the issuer's folder.
fn listen(world: &World, served: Served) -> Endpoint {
    let path = world.dev.path(if served.0 { "w.sock" } else { "s.sock" });
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let routes = Routes::from(world.router.clone().layer(axum::Extension(served)));
    tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming));
    Endpoint::parse(&format!("unix://{}", path.display())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cl1_cl2_cl4_cl5_a_source_has_what_the_agent_has_rotates_with_it_and_loses_it_with_it() {
    let world = World::new().await;
    let source = Source::open(&listen(&world, Served(true)), SOON).await.unwrap();
    // Who does not belong to the tree is told so.
    let why = Source::open(&listen(&world, Served(false)), Duration::from_secs(1)).await.err().unwrap();
    assert!(matches!(&why, WorkloadError::Denied(said) if said == "no identity issued") && why.is_transient(), "{why}");
    let current = source.current();
    let svid = current.svid().unwrap();
    let id = world.identity.current().spiffe_id().to_owned();
    assert_eq!((svid.spiffe_id().to_string(), svid.hint()), (id.clone(), "instance"));
    assert!(current.hinted("instance").is_some() && source.trust_domain().as_str() == TD);
    // An agent's certificate says whom it acts for, wherever it came from.
    let binding = svid.binding(&BindingOid::default()).unwrap();
    assert_eq!(binding.root_id(), format!("spiffe://{TD}/workload/orchestrator"));
    assert!(verify_x509(svid.chain(), &source.bundles().get(TD).unwrap(), &BindingOid::default(), now()).is_ok());

    let token = source.jwt(SEARCH).await.unwrap();
    assert_eq!(source.validate_jwt(&token.token, SEARCH).await.unwrap().to_string(), id);
    let denied = source.jwt("https://evil.example").await.err().unwrap();
    assert!(matches!(denied, WorkloadError::Denied(_)), "{denied}");
    let invalid = source.validate_jwt(&token.token, "https://evil.example").await.err().unwrap();
    assert!(matches!(invalid, WorkloadError::Token(_)), "{invalid}");

    // It rotates; what was built from it before shows the newest.
    let server = source.server_config(Authorize::trust_domain(td())).unwrap();
    let mut changed = source.changed();
    for _ in 0..2 {
        tokio::time::timeout(SOON, changed.changed()).await.unwrap().unwrap();
    }
    let newest = source.current().svid().unwrap().chain().to_vec();
    assert!(newest != svid.chain() && id == source.current().svid().unwrap().spiffe_id().to_string());
    let client = source.client_config(Authorize::trust_domain(td())).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (accepted, connected) = tokio::join!(
        tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far),
        tokio_rustls::TlsConnector::from(Arc::new(client)).connect("x".try_into().unwrap(), near)
    );
    assert!(accepted.is_ok());
    let seen = connected.unwrap().get_ref().1.peer_certificates().unwrap().to_vec();
    assert!(seen[0] != svid.chain()[0]);

    world.dev.json(&format!("revoke --agent {id}"));
    let cut = Instant::now();
    let lost = tokio::time::timeout(SOON, source.lost()).await.unwrap();
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    assert_eq!(lost, Lost::Redacted("no identity issued".into()));
    assert!(source.current().svid().is_none() && matches!(source.jwt(SEARCH).await, Err(WorkloadError::Lost(_))));
    // Whom to believe of tokens is another stream's word.
    assert!(source.bundles().get(TD).is_none_or(|of| of.x509_authorities().is_empty()));
    let mut changes = source.bundles().changes();
    while source.bundles().get(TD).is_some() {
        tokio::time::timeout(SOON, changes.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cl3_cl7_foreign_bundles_reach_a_source_and_leave_it() {
    use super::federated::{SPIRE, Signer, foreign, root, write};

    let (dir, signer) = (tempfile::tempdir().unwrap(), Signer::new());
    write(dir.path(), SPIRE, &[root()], &[&signer], 1);
    let world = World::with(dir, &foreign(SPIRE)).await;
    let source = Source::open(&listen(&world, Served(true)), SOON).await.unwrap();
    let (bundles, mut changes) = (source.bundles(), source.bundles().changes());
    let kinds = |of: &Bundle| (of.x509_authorities().len(), of.jwt_authorities().len());
    while bundles.get(SPIRE).is_none_or(|of| kinds(&of) != (1, 1)) {
        tokio::time::timeout(SOON, changes.changed()).await.unwrap().unwrap();
    }
    let id = format!("spiffe://{SPIRE}/ns/x/sa/y");
    let held = source.validate_jwt(&signer.token(&id, SEARCH, now() + 300), SEARCH).await.unwrap();
    assert_eq!(held.to_string(), id);
    write(world.dev.dir.path(), SPIRE, &[], &[], 2);
    while bundles.get(SPIRE).is_some() {
        tokio::time::timeout(SOON, changes.changed()).await.unwrap().unwrap();
    }
}
