//! The SPIFFE Workload API, clause by clause (lists I, J and what clients do with answers), over the service itself. Who may
//! connect to its socket is in `run.rs`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "workload/federated.rs"]
mod federated;
#[path = "workload/source.rs"]
mod source;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly::run::workload::{Served, routes};
use mayfly_agent::api::v1;
use mayfly_agent::api::workload as api;
use mayfly_agent::api::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use mayfly_agent::identity::{Identity, Issuer};
use mayfly_agent::ticket::Ticket;
use mayfly_verify::{BindingOid, Bundle, TrustDomain, verify_jwt, verify_x509};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{Dev, ORCHESTRATOR, channel};
use tokio::sync::watch;
use tonic::{Code, Request, Status};
use tower::ServiceExt as _;
use x509_parser::prelude::{FromDer, X509Certificate};

const CONFIG: &str = r#"
[[classes]]
name = "researcher"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://files.example", "https://search.example"]
svid_ttl = "10s"
max_lease = "5m"
modes = ["delegated"]
spawners = ["workload/orchestrator"]
"#;
const TD: &str = "dev.mayfly.test";
const SEARCH: &str = "https://search.example";
const SOON: Duration = Duration::from_secs(15);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn td() -> TrustDomain {
    TrustDomain::new(TD).unwrap()
}

type Service = tower::util::BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<Body>, std::convert::Infallible>;
type Client = SpiffeWorkloadApiClient<Service>;

/// An issuer, an agent of it, and the agent's Workload API.
struct World {
    dev: Dev,
    identity: Arc<Identity>,
    router: axum::Router,
    stop: watch::Sender<bool>,
}

impl World {
    async fn new() -> World {
        World::with(tempfile::tempdir().unwrap(), "").await
    }

    /// With more in its configuration.
    async fn with(dir: tempfile::TempDir, more: &str) -> World {
        std::fs::write(dir.path().join("extra.toml"), format!("{more}{CONFIG}")).unwrap();
        let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
        dev.token("demo", "demo.jwt");
        let identity = spawn(&dev).await;
        World::of(dev, identity)
    }

    fn of(dev: Dev, identity: Identity) -> World {
        let (identity, (stop, stopped)) = (Arc::new(identity), watch::channel(false));
        let router = routes(Arc::clone(&identity), BindingOid::default(), stopped).unwrap();
        World { dev, identity, router, stop }
    }

    fn service(&self, served: Served) -> Service {
        let router = self.router.clone();
        Service::new(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(served);
            router.clone().oneshot(request)
        }))
    }

    fn client(&self) -> Client {
        Client::new(self.service(Served(true)))
    }

    fn bundle(&self) -> Bundle {
        Bundle::from_json(td(), &self.identity.current().bundle().spiffe_json).unwrap()
    }
}

async fn spawn(dev: &Dev) -> Identity {
    let at = Issuer { address: dev.text("grpc"), trust_domain: td(), connect_timeout: Duration::from_secs(10) };
    let request = v1::SpawnRequest { class: "researcher".into(), user_token: dev.file("demo.jwt"), ..Default::default() };
    Identity::spawn(channel(dev, Some(ORCHESTRATOR)).await, at, request).await.unwrap()
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

async fn next<T>(stream: &mut tonic::Streaming<T>) -> Result<T, Status> {
    tokio::time::timeout(SOON, stream.message())
        .await
        .unwrap()
        .map(|message| message.unwrap_or_else(|| panic!("a stream never ends with OK")))
}

/// Nothing comes.
async fn silent<T>(stream: &mut tonic::Streaming<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(700), stream.message()).await.is_err()
}

fn certificates(mut ders: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut all = Vec::new();
    while !ders.is_empty() {
        let (rest, _) = X509Certificate::from_der(ders).unwrap();
        all.push(CertificateDer::from(ders[..ders.len() - rest.len()].to_vec()));
        ders = rest;
    }
    all
}

/// WA-7, WA-8: everything is there, in its form, and belongs together.
fn whole(message: &api::X509svidResponse) -> String {
    let hints: BTreeSet<_> = message.svids.iter().map(|svid| &svid.hint).collect();
    assert!(!message.svids.is_empty() && hints.len() == message.svids.len());
    let svid = &message.svids[0];
    assert!(svid.hint.len() <= 1024);
    let (chain, roots) = (certificates(&svid.x509_svid), certificates(&svid.bundle));
    assert!(chain.len() == 2 && !roots.is_empty());
    assert!(chain.iter().all(|der| !roots.contains(der)), "the root is not in the chain");
    let bundle = Bundle::new(td(), roots.iter().map(|der| der.to_vec()).collect(), vec![], 0, 0);
    let verified = verify_x509(&chain, &bundle, &BindingOid::default(), now()).unwrap();
    assert_eq!(verified.id.to_string(), svid.spiffe_id);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.x509_svid_key.clone()));
    let key = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&key).unwrap();
    rustls::sign::CertifiedKey::new(chain, key).keys_match().unwrap();
    // Version 0: PKCS#8 v1.
    assert_eq!(svid.x509_svid_key[3..6], [0x02, 0x01, 0x00]);
    svid.spiffe_id.clone()
}

fn refused<T>(answer: Result<T, Status>, code: Code) -> Status {
    let status = answer.err().unwrap();
    assert_eq!(status.code(), code, "{status:?}");
    status
}

fn no_identity<T>(answer: Result<T, Status>) {
    assert_eq!(refused(answer, Code::PermissionDenied).message(), "no identity issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn we3_a_request_without_exactly_one_header_is_invalid() {
    let world = World::new().await;
    let mut client = world.client();
    for values in [&[][..], &["True"], &["false"], &[""], &["true", "true"], &["true", "false"], &["true,true"]] {
        fn with<T>(message: T, values: &[&str]) -> Request<T> {
            let mut request = Request::new(message);
            for value in values {
                request.metadata_mut().append("workload.spiffe.io", value.parse().unwrap());
            }
            request
        }
        let invalid = Code::InvalidArgument;
        refused(client.fetch_x509svid(with(api::X509svidRequest {}, values)).await, invalid);
        refused(client.fetch_x509_bundles(with(api::X509BundlesRequest {}, values)).await, invalid);
        refused(client.fetch_jwtsvid(with(api::JwtsvidRequest::default(), values)).await, invalid);
        refused(client.fetch_jwt_bundles(with(api::JwtBundlesRequest {}, values)).await, invalid);
        refused(client.validate_jwtsvid(with(api::ValidateJwtsvidRequest::default(), values)).await, invalid);
        refused(client.fetch_witsvid(with(api::WitsvidRequest::default(), values)).await, invalid);
    }
    client.fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn we7_we8_wa16_what_is_not_served_is_unimplemented() {
    let world = World::new().await;
    let mut client = world.client();
    refused(client.fetch_witsvid(with_header(api::WitsvidRequest::default())).await, Code::Unimplemented);
    refused(client.fetch_wit_bundles(with_header(api::WitBundlesRequest {})).await, Code::Unimplemented);
    for path in ["/SpiffeWorkloadAPI/Spawn", "/mayfly.v1.Identities/Renew", "/grpc.health.v1.Health/Check"] {
        let mut grpc = tonic::client::Grpc::new(world.service(Served(true)));
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        refused(grpc.unary(with_header(()), path.parse().unwrap(), codec).await, Code::Unimplemented);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we9_reflection_lists_the_services_and_their_messages() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    let world = World::new().await;
    let mut client = ServerReflectionClient::new(world.service(Served(true)));
    let mut ask = async |what| -> ServerReflectionResponse {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(what) };
        let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap()
    };
    let listed = ask(MessageRequest::ListServices(String::new())).await.message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
    let names: BTreeSet<_> = listed.service.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(
        names,
        ["SpiffeWorkloadAPI", "envoy.service.secret.v3.SecretDiscoveryService", "grpc.reflection.v1.ServerReflection"].into()
    );
    for symbol in ["SpiffeWorkloadAPI", "X509SVIDResponse"] {
        let found = ask(MessageRequest::FileContainingSymbol(symbol.into())).await.message_response;
        assert!(matches!(found, Some(MessageResponse::FileDescriptorResponse(_))), "{symbol}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn we6_wa10_a_process_that_does_not_belong_has_no_identity() {
    let world = World::new().await;
    let token = world.identity.jwt(SEARCH).await.unwrap().token;
    let mut client = Client::new(world.service(Served(false)));
    no_identity(client.fetch_x509svid(with_header(api::X509svidRequest {})).await);
    no_identity(client.fetch_x509_bundles(with_header(api::X509BundlesRequest {})).await);
    no_identity(client.fetch_jwt_bundles(with_header(api::JwtBundlesRequest {})).await);
    no_identity(client.fetch_jwtsvid(with_header(jwt_for(&[SEARCH]))).await);
    let validate = api::ValidateJwtsvidRequest { audience: SEARCH.into(), svid: token };
    no_identity(client.validate_jwtsvid(with_header(validate)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn wa2_wa3_wa4_wa7_wa8_the_whole_set_comes_at_once_and_after_each_rotation() {
    let world = World::new().await;
    let began = Instant::now();
    let mut stream = world.client().fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    let first = next(&mut stream).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let id = whole(&first);
    // WA-9, WA-12: no other trust domain's bundle, where the issuer gives none.
    assert!(first.federated_bundles.is_empty() && first.crl.is_empty());
    // Rotated three times: each time the whole set, and never the same twice.
    let mut before = first;
    for _ in 0..3 {
        let next = next(&mut stream).await.unwrap();
        assert_eq!(whole(&next), id);
        assert_ne!(next.svids[0].x509_svid, before.svids[0].x509_svid);
        assert_ne!(next.svids[0].x509_svid_key, before.svids[0].x509_svid_key);
        before = next;
    }
    // A second stream begins with what the first one has.
    let mut other = world.client().fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(next(&mut other).await.unwrap().svids[0].spiffe_id, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn wa4_wa12_wa14_bundles_come_at_once_and_only_those_that_changed_again() {
    let world = World::new().await;
    let mut jwt = world.client().fetch_jwt_bundles(with_header(api::JwtBundlesRequest {})).await.unwrap().into_inner();
    let mut x509 = world.client().fetch_x509_bundles(with_header(api::X509BundlesRequest {})).await.unwrap().into_inner();
    let keys = |message: &api::JwtBundlesResponse| -> Vec<String> {
        assert_eq!(message.bundles.keys().collect::<Vec<_>>(), [&format!("spiffe://{TD}")], "WA-9");
        let set: serde_json::Value = serde_json::from_slice(&message.bundles[&format!("spiffe://{TD}")]).unwrap();
        assert_eq!(set.as_object().unwrap().len(), 1, "a plain JWK set");
        let keys = set["keys"].as_array().unwrap();
        for key in keys {
            assert!(key["use"] == "jwt-svid" && key["kty"] == "EC" && key.get("x5c").is_none(), "{key}");
        }
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    let first = keys(&next(&mut jwt).await.unwrap());
    let roots = next(&mut x509).await.unwrap();
    assert_eq!(roots.bundles.keys().collect::<Vec<_>>(), [&format!("spiffe://{TD}")]);
    let bundle = world.identity.current().bundle().x509_authorities.clone();
    assert_eq!(certificates(&roots.bundles[&format!("spiffe://{TD}")]).len(), bundle.len());

    world.dev.json("authority prepare jwt");
    let second = keys(&next(&mut jwt).await.unwrap());
    assert!(second.len() == first.len() + 1 && first.iter().all(|kid| second.contains(kid)), "the full set");
    assert!(silent(&mut x509).await && silent(&mut jwt).await, "an unchanged set is not sent again");
}

fn jwt_for(audience: &[&str]) -> api::JwtsvidRequest {
    api::JwtsvidRequest { audience: audience.iter().map(|&a| a.into()).collect(), spiffe_id: String::new() }
}

fn claims_of(token: &str) -> serde_json::Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wa5_wa13_a_token_is_for_exactly_the_audience_that_was_asked_for() {
    let world = World::new().await;
    let mut client = world.client();
    let id = world.identity.current().spiffe_id().to_owned();
    for spiffe_id in [String::new(), id.clone()] {
        let asked = api::JwtsvidRequest { spiffe_id, ..jwt_for(&[SEARCH]) };
        let svids = client.fetch_jwtsvid(with_header(asked)).await.unwrap().into_inner().svids;
        assert!(svids.len() == 1 && svids[0].spiffe_id == id);
        let verified = verify_jwt(&svids[0].svid, SEARCH, &world.bundle(), &BindingOid::default(), now()).unwrap();
        assert_eq!((verified.id.to_string(), verified.audience), (id.clone(), vec![SEARCH.to_owned()]));
        // What deployed clients need: `kid`, whole seconds, no `nbf`, `iat` not in the future.
        let header: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(svids[0].svid.split('.').next().unwrap()).unwrap()).unwrap();
        let claims = claims_of(&svids[0].svid);
        assert!(header["kid"].is_string() && header["typ"] == "JWT");
        assert!(claims["exp"].is_u64() && claims["iat"].as_u64().unwrap() <= now() && claims.get("nbf").is_none());
    }
    // Several are allowed, and the token is for all of them.
    let both = [SEARCH, "https://files.example"];
    let svid = client.fetch_jwtsvid(with_header(jwt_for(&both))).await.unwrap().into_inner().svids.remove(0).svid;
    for audience in both {
        let verified = verify_jwt(&svid, audience, &world.bundle(), &BindingOid::default(), now()).unwrap();
        assert_eq!(verified.audience, both);
    }
    refused(client.fetch_jwtsvid(with_header(jwt_for(&[SEARCH, "https://evil.example"]))).await, Code::PermissionDenied);
    for bad in [&[][..], &[""], &[SEARCH, ""], &[&"a".repeat(257)]] {
        refused(client.fetch_jwtsvid(with_header(jwt_for(bad))).await, Code::InvalidArgument);
    }
    refused(client.fetch_jwtsvid(with_header(jwt_for(&["https://evil.example"]))).await, Code::PermissionDenied);
    let other = |id: &str| api::JwtsvidRequest { spiffe_id: id.into(), ..jwt_for(&[SEARCH]) };
    for foreign in ["spiffe://dev.mayfly.test/workload/orchestrator", "spiffe://other.test/x"] {
        refused(client.fetch_jwtsvid(with_header(other(foreign))).await, Code::PermissionDenied);
    }
    refused(client.fetch_jwtsvid(with_header(other("nobody"))).await, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn wa5_wa15_a_token_is_validated_with_its_bundle_and_with_what_is_revoked() {
    let world = World::new().await;
    let sibling = spawn(&world.dev).await;
    let token = sibling.jwt(SEARCH).await.unwrap().token;
    let mut client = world.client();
    let ask =
        |audience: &str, svid: &str| with_header(api::ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() });
    let held = client.validate_jwtsvid(ask(SEARCH, &token)).await.unwrap().into_inner();
    assert_eq!(held.spiffe_id, sibling.current().spiffe_id());
    let claims = held.claims.unwrap().fields;
    assert_eq!(claims.len(), claims_of(&token).as_object().unwrap().len());
    assert!(claims.contains_key("sub") && claims.contains_key("exp"));

    let mut forged = token.clone();
    let at = token.rfind('.').unwrap() + 10;
    let other = if &token[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    for (audience, token) in
        [("", token.as_str()), (SEARCH, ""), ("https://mail.example", &token), (SEARCH, &forged), (SEARCH, "x")]
    {
        refused(client.validate_jwtsvid(ask(audience, token)).await, Code::InvalidArgument);
    }
    world.dev.json(&format!("revoke --agent {}", sibling.current().spiffe_id()));
    let cut = Instant::now();
    let status = loop {
        match client.validate_jwtsvid(ask(SEARCH, &token)).await {
            Ok(_) => assert!(cut.elapsed() < Duration::from_secs(3), "a cut counts at once"),
            Err(status) => break status,
        }
    };
    assert!(status.code() == Code::InvalidArgument && status.message().contains("CREDENTIAL_REVOKED"), "{status:?}");
    // What is not known is no answer for good.
    let own = world.identity.jwt(SEARCH).await.unwrap().token;
    client.validate_jwtsvid(ask(SEARCH, &own)).await.unwrap();
    let World { dev, identity: _identity, router: _router, stop: _stop } = world;
    drop(dev);
    let gone = Instant::now();
    while client.validate_jwtsvid(ask(SEARCH, &own)).await.is_ok() {
        assert!(gone.elapsed() < Duration::from_secs(9));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let status = client.validate_jwtsvid(ask(SEARCH, &own)).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wa10_wa11_after_a_cut_every_stream_ends_and_nothing_is_answered() {
    let world = World::new().await;
    let mut client = world.client();
    let mut x509 = client.fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    let mut roots = client.fetch_x509_bundles(with_header(api::X509BundlesRequest {})).await.unwrap().into_inner();
    let mut jwt = client.fetch_jwt_bundles(with_header(api::JwtBundlesRequest {})).await.unwrap().into_inner();
    // One that reads nothing until the end.
    let mut lazy = client.fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    next(&mut x509).await.unwrap();
    next(&mut roots).await.unwrap();
    next(&mut jwt).await.unwrap();
    client.fetch_jwtsvid(with_header(jwt_for(&[SEARCH]))).await.unwrap();

    world.dev.json(&format!("revoke --agent {}", world.identity.current().spiffe_id()));
    let cut = Instant::now();
    let mut last = next(&mut x509).await;
    while last.is_ok() {
        last = next(&mut x509).await;
    }
    no_identity(last);
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    no_identity(next(&mut roots).await);
    no_identity(next(&mut jwt).await);
    let mut last = next(&mut lazy).await;
    while last.is_ok() {
        last = next(&mut lazy).await;
    }
    no_identity(last);
    no_identity(client.fetch_x509svid(with_header(api::X509svidRequest {})).await);
    no_identity(client.fetch_jwtsvid(with_header(jwt_for(&[SEARCH]))).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn wa18_at_a_stop_every_stream_ends_with_unavailable() {
    let world = World::new().await;
    let mut client = world.client();
    let mut x509 = client.fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    let mut jwt = client.fetch_jwt_bundles(with_header(api::JwtBundlesRequest {})).await.unwrap().into_inner();
    next(&mut x509).await.unwrap();
    world.stop.send(true).unwrap();
    refused(next(&mut x509).await, Code::Unavailable);
    // What it had not read yet comes first.
    next(&mut jwt).await.unwrap();
    refused(next(&mut jwt).await, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_has_an_x509_svid_and_no_token() {
    let dev = Dev::start();
    let ticket = dev.json("join orchestrator")["token"].as_str().unwrap().to_owned();
    let identity = Identity::redeem(&Ticket::parse(&ticket).unwrap(), Duration::from_secs(5)).await.unwrap();
    let world = World::of(dev, identity);
    let mut client = world.client();
    let mut stream = client.fetch_x509svid(with_header(api::X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(whole(&next(&mut stream).await.unwrap()), format!("spiffe://{TD}/workload/orchestrator"));
    no_identity(client.fetch_jwtsvid(with_header(jwt_for(&[SEARCH]))).await);
}
