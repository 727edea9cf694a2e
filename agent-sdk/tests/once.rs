//! Tokens that are accepted once, and tokens that are accepted with one certificate alone.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../verify/tests/feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;
#[path = "support/world.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod world;

use std::convert::Infallible;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use mayfly_agent::delegation::{Delegation, DelegationLayer, Tokens};
use mayfly_agent::peers::{Authorize, Peer};
use mayfly_verify::{TrustDomain, sha256};
use tower::{Layer as _, ServiceExt as _};
use world::{Somebody, World};

const AUDIENCE: &str = "https://search.example";

/// The agent that the service sees, or the reason of the refusal.
async fn pass(layer: &DelegationLayer, peer: Option<&Peer>, token: &str) -> Result<Delegation, String> {
    let service = tower::service_fn(async |request: Request<()>| {
        let mut response = http::Response::new(Body::empty());
        response.extensions_mut().insert(Delegation::of(request.extensions()).unwrap().clone());
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::new(());
    peer.map(|peer| request.extensions_mut().insert(peer.clone()));
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut response = layer.layer(service).oneshot(request).await.unwrap();
    let reason = |response: &http::Response<_>| response.headers()["mayfly-reason"].to_str().unwrap().to_owned();
    response.extensions_mut().remove::<Delegation>().ok_or_else(|| reason(&response))
}

fn once(world: &World, of: &Somebody, jti: &str) -> String {
    world.token_with(of, AUDIENCE, &format!(r#","jti":"{jti}","single_use":true"#))
}

#[tokio::test]
async fn t290_t291_a_token_for_a_single_use_is_accepted_once_and_not_from_before_the_start() {
    let mut world = World::new();
    let (agent, other) = (world.agent("worker", &[]), world.agent("researcher", &[]));
    let accepted = || Tokens::Accepted { audience: AUDIENCE.into() };
    let workers = Authorize::class(TrustDomain::new("td").unwrap(), "worker".parse().unwrap());
    let layer = DelegationLayer::new(world.verifier()).with_tokens(accepted()).with_authorize(workers);
    let early = once(&world, &agent, "early");
    world.pass(5);
    world.publish();
    let edge = once(&world, &agent, "edge");
    world.pass(1);
    world.publish();
    // By clocks that differ as much as they may, both could have been accepted before the start.
    for token in [&early, &edge] {
        assert_eq!(pass(&layer, None, token).await.map(drop), Err("CREDENTIAL_TOO_OLD".into()));
    }
    let (token, often) = (once(&world, &agent, "1"), world.token(&agent, AUDIENCE));
    let first = pass(&layer, None, &token).await.unwrap();
    assert!(first.check().is_ok(), "what goes on is the use that was accepted");
    assert_eq!(pass(&layer, None, &token).await.map(drop), Err("CREDENTIAL_USED".into()));
    for _ in 0..2 {
        assert!(pass(&layer, None, &often).await.is_ok());
    }
    // Whoever may not call uses up nothing.
    let theirs = once(&world, &other, "2");
    assert_eq!(pass(&layer, None, &theirs).await.map(drop), Err("CALLER_NOT_AUTHORIZED".into()));
    let all = DelegationLayer::new(world.verifier()).with_tokens(accepted());
    world.pass(6);
    world.publish();
    let anew = once(&world, &other, "3");
    assert!(pass(&all, None, &anew).await.is_ok());
    assert_eq!(pass(&all, None, &theirs).await.map(drop), Err("CREDENTIAL_TOO_OLD".into()), "another process, another memory");
    // What cannot be told from another token, or says neither yes nor no.
    for further in [r#","single_use":true"#, r#","jti":"","single_use":true"#, r#","jti":"9","single_use":"yes""#] {
        let token = world.token_with(&agent, AUDIENCE, further);
        assert_eq!(pass(&all, None, &token).await.map(drop), Err("CREDENTIAL_PROFILE".into()), "{further}");
    }
    let token = world.token_with(&agent, AUDIENCE, r#","jti":"4","single_use":false"#);
    assert!(pass(&all, None, &token).await.is_ok() && pass(&all, None, &token).await.is_ok());
}

#[tokio::test]
async fn t294_the_token_of_an_agent_without_a_key_counts_on_the_connection_that_it_is_bound_to() {
    let mut world = World::new();
    let (parent, child, other) =
        (world.agent("researcher", &["all"]), world.agent("worker", &["some"]), world.agent("researcher", &["all"]));
    let layer = DelegationLayer::new(world.verifier()).with_tokens(Tokens::Accepted { audience: AUDIENCE.into() });
    let peer = |of: &Somebody| Peer::prove(&world.verifier(), &of.chain, "127.0.0.1:1".parse().unwrap()).unwrap();
    let (on_parent, on_other) = (peer(&parent), peer(&other));
    let digest = URL_SAFE_NO_PAD.encode(sha256(&parent.chain[0]));
    let token = world.token_with(&child, AUDIENCE, &format!(r#","cnf":{{"x5t#S256":"{digest}"}}"#));
    let got = pass(&layer, Some(&on_parent), &token).await.unwrap();
    assert_eq!(
        (got.agent().to_string(), got.scopes()),
        (child.id.clone(), &["some".to_owned()][..]),
        "it acts, with its own scopes"
    );
    assert_eq!(pass(&layer, Some(&on_other), &token).await.map(drop), Err("CREDENTIALS_DIFFER".into()));
    let loose = world.token(&child, AUDIENCE);
    assert_eq!(pass(&layer, Some(&on_parent), &loose).await.map(drop), Err("CREDENTIALS_DIFFER".into()), "bound to nothing");
    // Its parent presents, so it dies with it.
    world.cut(&parent.target());
    assert!(got.check().is_err());
    assert_eq!(pass(&layer, Some(&on_parent), &token).await.map(drop), Err("CREDENTIAL_REVOKED".into()));
}
