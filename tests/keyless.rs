//! Agents without keys: parts of one process that act under names of their own, against the real binary.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::batches_client::BatchesClient;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::spawn_batch_response::Result as One;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use mayfly_agent::identity::{Identity, IdentityError, Issuer, Keyless, Over};
use mayfly_verify::{BindingOid, Bundle, Confirmation, JwtSvid, TrustDomain, sha256, verify_jwt};
use serde_json::Value;
use support::{Dev, ORCHESTRATOR, channel};
use tonic_types::StatusExt;

/// Three levels: a researcher has workers, and a worker has one more below it.
const CONFIG: &str = r#"
[[classes]]
name = "lead"
owner = "tests"
scopes = ["search:read", "mail:send"]
audiences = ["https://search.example", "https://mail.example"]
svid_ttl = "2m"
max_lease = "10m"
max_depth = 3
modes = ["delegated"]
spawners = ["workload/orchestrator", "class/lead"]
"#;
const SEARCH: &str = "https://search.example";

fn dev() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev
}

fn lead() -> v1::SpawnRequest {
    v1::SpawnRequest { class: "lead".into(), ..Default::default() }
}

async fn parent(dev: &Dev) -> Identity {
    let trust_domain = TrustDomain::new("dev.mayfly.test").unwrap();
    let at = Issuer { address: dev.text("grpc"), trust_domain, connect_timeout: Duration::from_secs(10) };
    let request = v1::SpawnRequest { user_token: dev.file("demo.jwt"), ..lead() };
    Identity::spawn(channel(dev, Some(ORCHESTRATOR)).await, at, request).await.unwrap()
}

fn verified(parent: &Identity, token: &str) -> JwtSvid {
    let bundle = Bundle::from_json(parent.issuer().trust_domain.clone(), &parent.current().bundle().spiffe_json).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    verify_jwt(token, SEARCH, &bundle, &BindingOid::default(), now).unwrap()
}

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().unwrap_or_else(|| panic!("{status}")).reason
}

async fn mint_for(by: &Identity, agent: &str) -> String {
    let request = v1::MintJwtRequest { audience: SEARCH.into(), for_agent: agent.into(), ..Default::default() };
    reason(&IdentitiesClient::new(by.channel()).mint_jwt(request).await.unwrap_err())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t256_tokens_of_an_agent_without_a_key_are_for_its_parent_and_bound_to_its_certificate() {
    let dev = dev();
    let (root, stranger) = (parent(&dev).await, parent(&dev).await);
    let middle = root.spawn_child(lead()).await.unwrap();
    let scopes = vec!["search:read".to_owned()];
    let child = middle.spawn_keyless(v1::SpawnRequest { scopes, ..lead() }).await.unwrap();
    let id = child.agent().agent_id.clone();

    // 1. It is itself, and no more than its parent: never the parent's token, and bound to the parent's certificate.
    let token = child.jwt(SEARCH).await.unwrap();
    assert_eq!(child.jwt(SEARCH).await.unwrap().token, token.token, "one is remembered");
    assert_ne!(middle.jwt(SEARCH).await.unwrap().token, token.token);
    let svid = verified(&middle, &token.token);
    assert_eq!(svid.id.to_string(), id);
    let leaf = sha256(&middle.current().chain()[0]);
    assert_eq!(svid.confirmation, Some(Confirmation::Certificate(URL_SAFE_NO_PAD.encode(leaf))));
    let binding = svid.binding.unwrap();
    assert_eq!(binding.scopes, ["search:read"]);
    assert_eq!(binding.parent_id(), middle.current().spiffe_id());
    assert_eq!(binding.user.unwrap().sub, "demo");

    // 2. Nobody else gets one: not the agent above its parent, not a stranger, and not for an agent that has a key.
    assert_eq!(mint_for(&root, &id).await, "PARENT_ONLY");
    assert_eq!(mint_for(&stranger, &id).await, "AGENT_UNKNOWN");
    assert_eq!(mint_for(&root, middle.current().spiffe_id()).await, "KEYLESS_ONLY");
    let orchestrator = channel(&dev, Some(ORCHESTRATOR)).await;
    let request = v1::SpawnRequest { keyless: true, user_token: dev.file("demo.jwt"), ..lead() };
    assert_eq!(reason(&IdentitiesClient::new(orchestrator).spawn(request).await.unwrap_err()), "KEYLESS_PARENT");
    let both = v1::SpawnRequest { keyless: true, ticket: true, ..lead() };
    assert_eq!(reason(&IdentitiesClient::new(root.channel()).spawn(both).await.unwrap_err()), "CSR_OR_TICKET");

    // 3. A copy of its token does not prove it at the issuer; its parent asks for it there too.
    let iss = dev.text("https_issuer");
    let copy = child.jwt(&iss).await.unwrap().token;
    let ca = reqwest::Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let form = [
        ("grant_type", "client_credentials"),
        ("resource", SEARCH),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"),
        ("client_assertion", copy.as_str()),
    ];
    let answer = http.post(format!("{iss}/oauth/token")).form(&form).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status == 401 && text.contains("client certificate"), "{status} {text}");
    let request = v1::ExchangeRequest { audience: SEARCH.into(), for_agent: id.clone(), ..Default::default() };
    let got = TokensClient::new(middle.channel()).exchange(request.clone()).await.unwrap().into_inner();
    assert_eq!(got.scopes, ["search:read"]);
    let refused = TokensClient::new(root.channel()).exchange(request).await.unwrap_err();
    assert_eq!(reason(&refused), "PARENT_ONLY");
    // Not by any scope that its parent has and it has not.
    let more =
        v1::ExchangeRequest { audience: SEARCH.into(), scopes: vec!["mail:send".into()], for_agent: id, ..Default::default() };
    let refused = TokensClient::new(middle.channel()).exchange(more).await.unwrap_err();
    assert_eq!(reason(&refused), "SCOPE_NOT_ALLOWED");
}

/// Until the issuer says so: a revocation has been answered by then.
fn decision(dev: &Dev, token: &str) -> Value {
    std::fs::write(dev.path("some.jwt"), token).unwrap();
    let out = dev.run("introspect --token-file some.jwt -o json");
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t257_an_agent_without_a_key_ends_alone_and_never_outlives_its_parent() {
    let dev = dev();
    let root = parent(&dev).await;
    let (mut children, mut tokens) = (Vec::<Keyless>::new(), Vec::new());
    for _ in 0..4 {
        let child = root.spawn_keyless(lead()).await.unwrap();
        tokens.push(child.jwt(SEARCH).await.unwrap().token);
        children.push(child);
    }
    let own = root.jwt(SEARCH).await.unwrap().token;
    let active = |token: &str| decision(&dev, token)["active"].as_bool().unwrap();
    assert!(tokens.iter().all(|token| active(token)) && active(&own));

    // One ends, another is revoked: their tokens are refused, and nobody else's.
    children[0].end().await.unwrap();
    dev.json(&format!("revoke --agent {}", children[1].agent().agent_id));
    assert!(!active(&tokens[0]) && !active(&tokens[1]) && active(&tokens[2]) && active(&own));
    assert_eq!(children[0].over(), Some(Over::Ended));
    assert!(matches!(children[0].jwt(SEARCH).await, Err(IdentityError::Over(Over::Ended))));
    let refused = children[1].jwt("https://mail.example").await.unwrap_err();
    assert!(matches!(&refused, IdentityError::Over(Over::Revoked { reason, .. }) if reason == "AGENT_REVOKED"), "{refused:?}");
    assert!(children[1].jwt(SEARCH).await.is_err(), "not what is remembered either");
    assert!(root.over().borrow().is_none(), "what ends a child does not end its parent");
    let shown = dev.json(&format!("agents show {}", children[2].agent().agent_id));
    assert_eq!((&shown["keyless"], &shown["svid_expires_at"]), (&Value::Bool(true), &Value::Null));

    // The parent ends, and the rest with it.
    dev.json(&format!("end {}", root.current().spiffe_id()));
    assert!(!active(&tokens[2]) && !active(&tokens[3]) && !active(&own));
    let started = Instant::now();
    while root.over().borrow().is_none() {
        assert!(started.elapsed() < Duration::from_secs(20), "it is never told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(matches!(children[2].jwt(SEARCH).await, Err(IdentityError::Over(_))));
    let refused = root.spawn_keyless(lead()).await.map(drop).unwrap_err();
    assert!(matches!(refused, IdentityError::Over(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t258_a_retry_is_the_same_agent_without_a_key_and_a_batch_makes_many_within_the_limits() {
    let dev = dev();
    let root = parent(&dev).await;
    let request = v1::SpawnRequest { request_id: "one".into(), keyless: true, jwt_audience: SEARCH.into(), ..lead() };
    let mut client = IdentitiesClient::new(root.channel());
    let first = client.spawn(request.clone()).await.unwrap().into_inner();
    let again = client.spawn(request.clone()).await.unwrap().into_inner();
    let id = |got: &v1::SpawnResponse| got.agent.as_ref().unwrap().agent_id.clone();
    assert_eq!(id(&first), id(&again));
    assert!(first.svid.is_none() && first.ticket.is_empty() && first.agent.as_ref().unwrap().keyless);
    // Its first token comes with it, bound as every other.
    let token = first.jwt.as_ref().unwrap();
    assert_eq!(token.spiffe_id, id(&first));
    assert!(verified(&root, &token.token).confirmation.is_some());
    // Another kind of agent is another request.
    let other =
        client.spawn(v1::SpawnRequest { keyless: false, ticket: true, jwt_audience: String::new(), ..request.clone() }).await;
    assert_eq!(reason(&other.unwrap_err()), "REQUEST_ID_REUSED");

    let template = v1::SpawnRequest { keyless: true, ..lead() };
    let batch = |count| v1::SpawnBatchRequest { template: Some(template.clone()), csrs: Vec::new(), count };
    let mut answers = BatchesClient::new(root.channel()).spawn(batch(50)).await.unwrap().into_inner();
    let mut ids = std::collections::BTreeSet::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let One::Spawned(got) = answer.result.unwrap() else { panic!("denied") };
        assert!(got.agent.as_ref().unwrap().keyless && ids.insert(id(&got)));
    }
    assert_eq!(ids.len(), 50);
    assert_eq!(reason(&BatchesClient::new(root.channel()).spawn(batch(0)).await.unwrap_err()), "BATCH_MALFORMED");
}
