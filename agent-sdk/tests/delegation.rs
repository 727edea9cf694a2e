//! What the layer lets through, and exactly what it answers otherwise.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "../verify/tests/feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;
#[path = "support/world.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod world;

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use mayfly_agent::delegation::{Delegation, DelegationBody, DelegationLayer, Refused, Tokens};
use mayfly_agent::peers::{Authorize, Peer};
use mayfly_verify::{Mode, Target, TrustDomain, User};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer as _, ServiceExt as _};
use world::{Somebody, World};

const AUDIENCE: &str = "https://search.example";

fn accepted() -> Tokens {
    Tokens::Accepted { audience: AUDIENCE.into() }
}

fn preferred() -> Tokens {
    Tokens::Preferred { audience: AUDIENCE.into() }
}

fn peer(world: &World, of: &Somebody) -> Peer {
    Peer::prove(&world.verifier(), &of.chain, "127.0.0.1:1".parse().unwrap()).unwrap()
}

fn request(peer: Option<&Peer>, tokens: &[&str]) -> Request<()> {
    let mut request = Request::new(());
    peer.map(|peer| request.extensions_mut().insert(peer.clone()));
    for token in tokens {
        request.headers_mut().append("authorization", token.parse().unwrap());
    }
    request
}

/// What a service behind the layer gets to see, or what the caller is answered.
async fn pass(layer: &DelegationLayer, request: Request<()>) -> Result<Delegation, Response<DelegationBody<Body>>> {
    let service = tower::service_fn(async |request: Request<()>| {
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Delegation::of(request.extensions()).unwrap().clone());
        Ok::<_, Infallible>(response)
    });
    let mut response = layer.layer(service).oneshot(request).await.unwrap();
    response.extensions_mut().remove::<Delegation>().ok_or(response)
}

/// The answer in gRPC: code, reason, and whether it says when to ask again.
async fn grpc(layer: &DelegationLayer, mut request: Request<()>) -> (Code, String) {
    request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    let response = pass(layer, request).await.map(drop).unwrap_err();
    assert_eq!(response.status(), StatusCode::OK, "a status of gRPC is one of HTTP too");
    let told = told(&Status::from_header_map(response.headers()).unwrap());
    let refused = response.extensions().get::<Refused>().unwrap();
    assert_eq!(refused.reason(), told.1, "the service's own log says the same, and more");
    assert!(!refused.cause().is_empty());
    told
}

fn told(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "mayfly.v1");
    assert_eq!(status.get_details_retry_info().is_some(), status.code() == Code::Unavailable, "when to ask again");
    (status.code(), info.reason)
}

fn unauthenticated(reason: &str) -> (Code, String) {
    (Code::Unauthenticated, reason.to_owned())
}

#[tokio::test]
async fn a_request_carries_what_its_agent_may_do_and_for_whom() {
    let mut world = World::new();
    let agent = world.agent("worker", &["mail:read", "search:read"]);
    let peer = peer(&world, &agent);
    let layer = DelegationLayer::new(world.verifier());
    let token = format!("bearer {}", world.token(&agent, AUDIENCE));
    let with_tokens = layer.clone().with_tokens(accepted());
    for (layer, request, ends_in) in [(&layer, request(Some(&peer), &[]), 900), (&with_tokens, request(None, &[&token]), 300)] {
        let got = pass(layer, request).await.unwrap();
        assert_eq!((got.agent().to_string(), got.class().as_str()), (agent.id.clone(), "worker"));
        assert_eq!(got.user(), Some(&User { iss: "https://idp".into(), sub: "demo".into() }));
        assert_eq!((got.chain().len(), got.depth(), got.root()), (2, 2, "spiffe://td/workload/orchestrator"));
        assert_eq!((got.mode(), got.id().is_some(), got.expires_at()), (Mode::Delegated, true, world.now() + ends_in));
        assert_eq!(got.scopes(), ["mail:read", "search:read"]);
        assert!(got.require_scope("search:read").is_ok() && got.has_scope("mail:read") && got.check().is_ok());
        for missing in ["search", "search:rea", "search:read ", "SEARCH:READ", "", "*", "search:write"] {
            let status = got.require_scope(missing).unwrap_err();
            assert_eq!(told(&status), (Code::PermissionDenied, "SCOPE_MISSING".to_owned()));
            assert_eq!(status.get_details_error_info().unwrap().metadata["scope"], missing);
        }
    }
}

#[tokio::test]
async fn t19_t40_each_request_is_judged_anew_and_cut_is_told_from_stale() {
    let mut world = World::new();
    let (agent, other) = (world.agent("worker", &[]), world.agent("worker", &[]));
    let (cut, kept) = (peer(&world, &agent), peer(&world, &other));
    let layer = DelegationLayer::new(world.verifier()).with_tokens(accepted());
    let token = format!("Bearer {}", world.token(&agent, AUDIENCE));
    let before = pass(&layer, request(Some(&cut), &[])).await.unwrap();
    world.cut(&agent.target());
    let revoked = unauthenticated("CREDENTIAL_REVOKED");
    assert_eq!(grpc(&layer, request(Some(&cut), &[])).await, revoked);
    assert_eq!(grpc(&layer, request(None, &[&token])).await, revoked);
    assert_eq!(told(&before.check().unwrap_err()), revoked, "what is held since then is worth as little");
    assert!(pass(&layer, request(Some(&kept), &[])).await.is_ok());

    world.pass(36);
    let stale = (Code::Unavailable, "CREDENTIAL_STALE".to_owned());
    assert_eq!(grpc(&layer, request(Some(&kept), &[])).await, stale);
    assert_eq!(grpc(&layer, request(Some(&cut), &[])).await, revoked, "what is known to be cut is no question");
    world.publish();
    assert!(pass(&layer, request(Some(&kept), &[])).await.is_ok());

    world.pass(900);
    world.publish();
    assert_eq!(grpc(&layer, request(Some(&kept), &[])).await, unauthenticated("CREDENTIAL_EXPIRED"));

    // T19: what a header says of an identity is no identity.
    let mut forged = request(None, &[]);
    for name in ["x-forwarded-client-cert", "x-spiffe-id", "mayfly-delegation"] {
        forged.headers_mut().insert(name, agent.id.parse().unwrap());
    }
    assert_eq!(grpc(&layer, forged).await, unauthenticated("CREDENTIAL_MISSING"));
}

#[tokio::test]
async fn a_root_that_leaves_takes_its_connections_along() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let peer = peer(&world, &agent);
    let layer = DelegationLayer::new(world.verifier());
    assert!(pass(&layer, request(Some(&peer), &[])).await.is_ok());
    let bundle = world.bundle();
    let other = World::silent(TrustDomain::new("td").unwrap()).bundle();
    let roots = [bundle.x509_authorities(), other.x509_authorities()].concat();
    let with = |roots| mayfly_verify::Bundle::new(bundle.trust_domain().clone(), roots, vec![], 2, 1);
    world.bundles.set(with(roots));
    assert!(pass(&layer, request(Some(&peer), &[])).await.is_ok(), "while both are there");
    world.bundles.set(with(other.x509_authorities().to_vec()));
    assert_eq!(grpc(&layer, request(Some(&peer), &[])).await, unauthenticated("CREDENTIAL_UNTRUSTED"));
}

#[tokio::test]
async fn a_certificate_and_a_token_of_two_are_never_mixed_up() {
    let mut world = World::new();
    let (a, b) = (world.agent("worker", &["a:only", "shared"]), world.agent("worker", &["b:only", "shared"]));
    let gateway = world.workload("gateway");
    let token = |of: &Somebody| format!("Bearer {}", world.token(of, AUDIENCE));
    let (of_a, of_b) = (token(&a), token(&b));
    let (peer_a, peer_gateway) = (peer(&world, &a), peer(&world, &gateway));
    let layer = |tokens| DelegationLayer::new(world.verifier()).with_tokens(tokens);
    let differ = unauthenticated("CREDENTIALS_DIFFER");
    for peer in [&peer_a, &peer_gateway] {
        assert_eq!(grpc(&layer(accepted()), request(Some(peer), &[&of_b])).await, differ);
        let got = pass(&layer(preferred()), request(Some(peer), &[&of_b])).await.unwrap();
        assert_eq!((got.agent().to_string(), got.scopes()), (b.id.clone(), &["b:only".to_owned(), "shared".to_owned()][..]));
    }
    // Not configured: refused, or the service's own affair.
    let refused = unauthenticated("TOKEN_NOT_ACCEPTED");
    assert_eq!(grpc(&DelegationLayer::new(world.verifier()), request(Some(&peer_a), &[&of_b])).await, refused);
    let got = pass(&layer(Tokens::Ignored), request(Some(&peer_a), &[&of_b])).await.unwrap();
    assert_eq!(got.agent().to_string(), a.id);

    // Of one agent and of two times: what both say.
    let mut later = a.binding.clone().unwrap();
    later.scopes = vec!["shared".into()];
    later.lease_expires_at -= 1;
    let renewed = world.certify(&a.id, Some(later));
    let got = pass(&layer(accepted()), request(Some(&peer(&world, &renewed)), &[&of_a])).await.unwrap();
    assert_eq!((got.scopes(), got.expires_at()), (&["shared".to_owned()][..], world.now() + 300));

    // A connection that is cut carries nobody's token, whoever counts.
    let (cut, of_b) = (peer_a, of_b);
    world.cut(&a.target());
    assert_eq!(
        grpc(&DelegationLayer::new(world.verifier()).with_tokens(preferred()), request(Some(&cut), &[&of_b])).await,
        unauthenticated("CREDENTIAL_REVOKED")
    );
}

#[tokio::test]
async fn t24_t53_a_token_that_is_not_for_us_or_means_two_things_is_refused() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let layer = DelegationLayer::new(world.verifier()).with_tokens(accepted());
    let good = world.token(&agent, AUDIENCE);
    let bearer = |token: &str| format!("Bearer {token}");
    for other in ["https://search.example/", "https://SEARCH.example", "https://search.exampl", "x"] {
        let token = bearer(&world.token(&agent, other));
        assert_eq!(grpc(&layer, request(None, &[&token])).await, unauthenticated("CREDENTIAL_AUDIENCE"), "{other}");
    }
    let malformed = unauthenticated("TOKEN_MALFORMED");
    let twice = [bearer(&good), bearer(&good)];
    assert_eq!(grpc(&layer, request(None, &[&twice[0], &twice[1]])).await, malformed);
    for bad in ["", "Bearer", "Bearer ", &good, &format!("Basic {good}"), &format!("Bearer  {good}"), &format!("Bearer {good} x")]
    {
        assert_eq!(grpc(&layer, request(None, &[bad])).await, malformed, "{bad}");
    }
    for bad in ["x", "a.b.c", "a.b.c.d.e", &"x".repeat(20_000), &good[..good.len() - 8]] {
        let (code, reason) = grpc(&layer, request(None, &[&bearer(bad)])).await;
        assert!(code == Code::Unauthenticated && reason.starts_with("CREDENTIAL_"), "{bad}: {reason}");
    }
    // Of another trust domain that signs in our name, and of one that nobody vouches for.
    let mut other = World::silent(TrustDomain::new("td").unwrap());
    let theirs = other.agent("worker", &[]);
    let forged = bearer(&other.token(&theirs, AUDIENCE));
    assert_eq!(grpc(&layer, request(None, &[&forged])).await, unauthenticated("CREDENTIAL_UNTRUSTED"));
    let mut elsewhere = World::silent(TrustDomain::new("elsewhere").unwrap());
    let theirs = elsewhere.agent("worker", &[]);
    let strange = bearer(&elsewhere.token(&theirs, AUDIENCE));
    assert_eq!(grpc(&layer, request(None, &[&strange])).await, unauthenticated("CREDENTIAL_UNTRUSTED"));
    // The token outlives five minutes by nothing.
    world.pass(300);
    world.publish();
    assert_eq!(grpc(&layer, request(None, &[&bearer(&good)])).await, unauthenticated("CREDENTIAL_EXPIRED"));
}

#[tokio::test]
async fn who_is_no_agent_or_not_one_of_ours_has_no_place_here() {
    let mut world = World::new();
    let workload = peer(&world, &world.workload("orchestrator"));
    let agent = world.agent("worker", &[]);
    let (worker, token) = (peer(&world, &agent), format!("Bearer {}", world.token(&agent, AUDIENCE)));
    let layer = DelegationLayer::new(world.verifier());
    let denied = |reason: &str| (Code::PermissionDenied, reason.to_owned());
    assert_eq!(grpc(&layer, request(Some(&workload), &[])).await, denied("CALLER_NOT_AN_AGENT"));
    let researchers = Authorize::class(TrustDomain::new("td").unwrap(), "researcher".parse().unwrap());
    let layer = layer.with_authorize(researchers).with_tokens(accepted());
    assert_eq!(grpc(&layer, request(Some(&worker), &[])).await, denied("CALLER_NOT_AUTHORIZED"));
    assert_eq!(grpc(&layer, request(None, &[&token])).await, denied("CALLER_NOT_AUTHORIZED"), "by whatever credential");
    let stranger = Peer::stranger("127.0.0.1:1".parse().unwrap());
    assert_eq!(grpc(&layer, request(Some(&stranger), &[])).await, unauthenticated("CREDENTIAL_MISSING"));
}

#[tokio::test]
async fn plain_http_is_answered_in_its_own_words() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let worker = peer(&world, &agent);
    let workload = peer(&world, &world.workload("orchestrator"));
    let layer = DelegationLayer::new(world.verifier());
    let answer = async |request| {
        let response = pass(&layer, request).await.map(drop).unwrap_err();
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        (response.status().as_u16(), header("mayfly-reason"), header("www-authenticate"), header("retry-after"))
    };
    let is = |code: u16, reason: &str, challenge: &str, retry: &str| (code, reason.into(), challenge.into(), retry.into());
    let invalid = "Bearer error=\"invalid_token\"";
    assert_eq!(answer(request(None, &[])).await, is(401, "CREDENTIAL_MISSING", "Bearer", ""));
    assert_eq!(answer(request(Some(&workload), &[])).await, is(403, "CALLER_NOT_AN_AGENT", "", ""));
    world.pass(36);
    assert_eq!(answer(request(Some(&worker), &[])).await, is(503, "CREDENTIAL_STALE", "", "1"));
    world.cut(&agent.target());
    assert_eq!(answer(request(Some(&worker), &[])).await, is(401, "CREDENTIAL_REVOKED", invalid, ""));
}

#[tokio::test]
async fn work_that_outlasts_its_request_is_told_of_the_cut() {
    let mut world = World::new();
    let agent = world.agent("worker", &[]);
    let token = format!("Bearer {}", world.token(&agent, AUDIENCE));
    let layer = DelegationLayer::new(world.verifier()).with_tokens(accepted());
    let delegation = pass(&layer, request(None, &[&token])).await.unwrap();
    let over = tokio::spawn(async move { delegation.over().await });
    world.cut(&Target::Agent(uuid::Uuid::nil()));
    world.pass(36);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!over.is_finished(), "neither another's cut nor silence is the end");
    world.cut(&agent.target());
    let status = tokio::time::timeout(Duration::from_millis(500), over).await.unwrap().unwrap();
    assert_eq!(told(&status), unauthenticated("CREDENTIAL_REVOKED"));
}

/// Frames as they come, until the answer ends: with trailers or without, or with an error.
async fn read(body: &mut DelegationBody<Body>) -> Result<Option<http::HeaderMap>, String> {
    for _ in 0..1000 {
        let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { return Ok(None) };
        if let Ok(trailers) = frame.map_err(|e| e.to_string())?.into_trailers() {
            return Ok(Some(trailers));
        }
    }
    Err("it goes on".into())
}

/// Always has the next one, and never lets go.
struct Hurry;

impl tokio_stream::Stream for Hurry {
    type Item = Result<&'static str, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(Some(Ok("tick")))
    }
}

#[tokio::test]
async fn an_answer_that_goes_on_ends_with_what_it_relies_on_and_says_so() {
    let mut world = World::new();
    let (agent, other) = (world.agent("worker", &[]), world.agent("worker", &[]));
    let layer = DelegationLayer::new(world.verifier()).with_tokens(accepted());
    // One frame at once, and then it waits; one that never waits; and one that is whole.
    let waits = || Body::from_stream(tokio_stream::iter([Ok::<_, Infallible>("tick")]).chain(tokio_stream::pending()));
    let hurries = || Body::from_stream(Hurry);
    let answer = async |of: &Somebody, body: Body, grpc: bool| {
        let slot = std::sync::Mutex::new(Some(body));
        let service = tower::service_fn(|_: Request<()>| {
            let mut response = Response::new(slot.lock().unwrap().take().unwrap());
            if grpc {
                response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
            }
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let token = format!("Bearer {}", world.token(of, AUDIENCE));
        layer.layer(service).oneshot(request(None, &[&token])).await.unwrap().into_body()
    };
    let mut bodies = Vec::new();
    for body in [waits, hurries as fn() -> Body] {
        for grpc in [true, false] {
            bodies.push((grpc, answer(&agent, body(), grpc).await));
        }
    }
    let mut whole = answer(&agent, Body::from("whole"), false).await;
    let mut kept = answer(&other, waits(), true).await;
    for (_, body) in &mut bodies {
        let early = tokio::time::timeout(Duration::from_millis(20), async {
            std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.unwrap().unwrap();
        });
        early.await.unwrap();
    }
    world.cut(&agent.target());
    for (grpc, body) in &mut bodies {
        let end = tokio::time::timeout(Duration::from_millis(500), read(body)).await.unwrap();
        if *grpc {
            assert_eq!(told(&Status::from_header_map(&end.unwrap().unwrap()).unwrap()), unauthenticated("CREDENTIAL_REVOKED"));
        } else {
            assert!(end.unwrap_err().contains("the credential was revoked"), "a part is no whole");
        }
        assert!(read(body).await.unwrap().is_none(), "and nothing comes after the end");
    }
    assert_eq!(read(&mut whole).await, Ok(None), "what was answered is answered");
    assert!(tokio::time::timeout(Duration::from_millis(100), read(&mut kept)).await.is_err(), "another's goes on");
}

#[tokio::test]
async fn the_layer_stands_before_axum_as_before_tonic() {
    let mut world = World::new();
    let agent = world.agent("worker", &["search:read"]);
    let scopes = async |axum::Extension(of): axum::Extension<Delegation>| of.scopes().join(" ");
    let router = axum::Router::new().route("/", axum::routing::get(scopes)).layer(DelegationLayer::new(world.verifier()));
    let ask = async |peer: Option<&Peer>| {
        let response = router.clone().oneshot(request(peer, &[]).map(|()| Body::empty())).await.unwrap();
        let code = response.status().as_u16();
        (code, String::from_utf8(axum::body::to_bytes(response.into_body(), 100).await.unwrap().to_vec()).unwrap())
    };
    assert_eq!(ask(Some(&peer(&world, &agent))).await, (200, "search:read".into()));
    assert_eq!(ask(None).await, (401, String::new()));
}
