//! The OAuth endpoints: who gets an access token, what it says, what each refusal is on the wire, and that it dies by the cut.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

#[path = "oauth/attacks.rs"]
mod attacks;
#[path = "oauth/bound.rs"]
mod bound;
#[path = "oauth/id_jag.rs"]
mod id_jag;
#[path = "oauth/profiles.rs"]
mod profiles;
#[path = "oauth/races.rs"]
mod races;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, Identity, Response};
use serde_json::{Value, json};
use support::{Dev, channel};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
const ID: &str = "urn:ietf:params:oauth:token-type:id_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const MAIL: &str = "https://mail.example";
const FILES: &str = "https://files.example";

/// A running issuer with the agent `a1` of the user demo.
struct House {
    dev: Dev,
    http: Client,
    issuer: String,
}

impl House {
    fn new() -> House {
        let dev = Dev::start();
        dev.token("demo", "demo.jwt");
        dev.json("spawn --class researcher --user-token demo.jwt --out a1");
        House::of(dev)
    }

    fn of(dev: Dev) -> House {
        let (http, issuer) = (client(&dev, None), dev.text("https_issuer"));
        House { dev, http, issuer }
    }

    /// A fresh JWT-SVID of an agent for the issuer.
    fn assertion(&self, agent: &str) -> String {
        self.mint(agent, &self.issuer)
    }

    fn mint(&self, agent: &str, audience: &str) -> String {
        self.dev.json(&format!("mint --as {agent} --audience {audience}"))["token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Response {
        self.http.post(format!("{}/oauth/{endpoint}", self.issuer)).form(form).send().await.unwrap()
    }

    /// A request of an agent, which proves itself by a fresh JWT-SVID.
    async fn asks(&self, agent: &str, endpoint: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let assertion = self.assertion(agent);
        let mut all = vec![("client_assertion_type", BEARER), ("client_assertion", assertion.as_str())];
        all.extend(form);
        read(self.post(endpoint, &all).await).await
    }

    /// A token for one audience, by what the agent is.
    async fn token(&self, agent: &str, audience: &str) -> String {
        let (status, body) = self.asks(agent, "token", &[("grant_type", "client_credentials"), ("resource", audience)]).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    fn introspect(&self, who: &str, token: &str) -> Value {
        std::fs::write(self.dev.path("asked"), token).unwrap();
        self.dev.json(&format!("introspect --as {who} --token-file asked"))
    }

    /// The claims and the header's `typ` of a token, verified by the issuer's URL alone.
    async fn verified(&self, token: &str, audience: &str) -> (Value, String) {
        let metadata: Value = get(&self.http, &format!("{}/.well-known/oauth-authorization-server", self.issuer)).await;
        let keys: JwkSet = serde_json::from_value(get(&self.http, metadata["jwks_uri"].as_str().unwrap()).await).unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        let mut checks = Validation::new(Algorithm::ES256);
        checks.set_issuer(&[&self.issuer]);
        checks.set_audience(&[audience]);
        checks.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        (jsonwebtoken::decode::<Value>(token, &key, &checks).unwrap().claims, header.typ.unwrap())
    }
}

fn client(dev: &Dev, identity: Option<&str>) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    let builder = Client::builder().tls_certs_only([ca]).no_proxy();
    match identity {
        Some(dir) => {
            let pem = format!("{}\n{}\n", dev.file(&format!("{dir}/svid.pem")), dev.file(&format!("{dir}/key.pem")));
            builder.identity(Identity::from_pem(pem.as_bytes()).unwrap()).build().unwrap()
        }
        None => builder.build().unwrap(),
    }
}

async fn get(http: &Client, url: &str) -> Value {
    serde_json::from_slice(&http.get(url).send().await.unwrap().bytes().await.unwrap()).unwrap()
}

/// The status and the body of an answer that nobody may keep.
async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
    assert_eq!(challenged, status == 401, "a 401 says how to authenticate, and nothing else does");
    let body = response.bytes().await.unwrap();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
}

fn bundle(house: &House) -> mayfly_verify::Bundle {
    let td = mayfly_verify::TrustDomain::new("dev.mayfly.test").unwrap();
    mayfly_verify::Bundle::from_json(td, house.dev.json("bundle").to_string().as_bytes()).unwrap()
}

/// Verifies access tokens of the issuer for an audience, from a holder who has proved something.
fn verifier(
    house: &House,
) -> impl Fn(&str, &str, &mayfly_verify::Possession) -> Result<mayfly_verify::AccessToken, mayfly_verify::Reject> {
    let (bundle, issuer, oid) = (bundle(house), house.issuer.clone(), mayfly_verify::BindingOid::default());
    move |token, audience, held| {
        mayfly_verify::verify_access_token(token, (&issuer, audience), &bundle, &oid, held, bound::seconds())
    }
}

fn error(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"].as_str().unwrap_or("none"))
}

#[tokio::test]
async fn a_user_token_becomes_an_access_token_that_names_user_agent_and_ancestors_and_dies_by_the_cut() {
    let house = House::new();
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    house.dev.json("spawn --as a1 --class worker --out a2");
    let a2 = house.dev.json("whoami --as a2")["spiffe_id"].as_str().unwrap().to_owned();
    let user = house.dev.file("demo.jwt");
    let form = [
        ("grant_type", EXCHANGE),
        ("subject_token", user.as_str()),
        ("subject_token_type", ID),
        ("resource", "https://FILES.example/"),
        ("scope", "files:read"),
    ];
    let (status, body) = house.asks("a2", "token", &form).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["token_type"], &body["issued_token_type"]), (&json!("Bearer"), &json!(ACCESS)));
    assert_eq!(body["scope"], "files:read");
    assert!(body["expires_in"].as_u64().is_some_and(|left| left > 0 && left <= 300) && body.get("refresh_token").is_none());
    let token = body["access_token"].as_str().unwrap();

    let (claims, typ) = house.verified(token, FILES).await;
    assert_eq!(typ, "at+jwt");
    assert_eq!((&claims["sub"], &claims["client_id"], &claims["aud"]), (&json!("dev|demo"), &json!(a2), &json!(FILES)));
    let actor = |id: &str| json!({ "iss": house.issuer, "sub": id });
    let (mut of_a1, mut of_a2) = (actor(&a1), actor(&a2));
    of_a1["act"] = actor("spiffe://dev.mayfly.test/workload/orchestrator");
    of_a2["act"] = of_a1;
    assert_eq!(claims["act"], of_a2, "from the agent up to the root, as the journal has it");
    for required in ["iss", "exp", "iat", "jti"] {
        assert!(!claims[required].is_null(), "RFC 9068 2.2: {required}");
    }
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 300);

    // Its audience hears of it, until something that it relies on is revoked: here the parent.
    let token = house.token("a1", MAIL).await;
    let said = house.introspect("mail-service", &token);
    assert_eq!((&said["active"], &said["sub"], &said["client_id"]), (&json!(true), &json!("dev|demo"), &json!(a1)));
    assert_eq!((&said["username"], &said["scope"]), (&json!("demo"), &json!("files:read mail:send search:read")));
    assert_eq!(said["act"]["act"], actor("spiffe://dev.mayfly.test/workload/orchestrator"));
    let assertion = house.assertion("a1");
    house.dev.json("revoke --user dev/demo");
    assert_eq!(house.introspect("mail-service", &token), json!({ "active": false }));
    let form = [
        ("client_assertion_type", BEARER),
        ("client_assertion", assertion.as_str()),
        ("grant_type", "client_credentials"),
        ("resource", MAIL),
    ];
    assert_eq!(error(&read(house.post("token", &form).await).await), (401, "invalid_client"));
}

#[tokio::test]
async fn the_lines_of_the_command_work_as_they_are_written() {
    let house = House::new();
    let got = house.dev.json("exchange --as a1 --user-token demo.jwt --audience https://mail.example");
    assert_eq!((&got["token_type"], &got["scope"]), (&json!("Bearer"), &json!("files:read mail:send search:read")));
    assert!(got["expires_in"].as_u64().is_some_and(|left| left > 0 && left <= 300));
    std::fs::write(house.dev.path("t"), got["access_token"].as_str().unwrap()).unwrap();
    let said = house.dev.json("introspect --as mail-service --token-file t");
    assert_eq!((&said["active"], &said["aud"]), (&json!(true), &json!([MAIL])));
    // An operator may ask about any.
    assert_eq!(house.dev.json("introspect --token-file t")["active"], true);
    let refused = house.dev.fails("exchange --as a1 --user-token demo.jwt --audience https://bank.example", 3);
    assert!(refused.contains("AUDIENCE_NOT_ALLOWED"), "{refused}");
}

#[tokio::test]
async fn the_metadata_names_what_exists_and_nothing_else() {
    let house = House::new();
    let said = get(&house.http, &format!("{}/.well-known/oauth-authorization-server", house.issuer)).await;
    assert_eq!(
        said["grant_types_supported"],
        json!([EXCHANGE, JWT_BEARER, "client_credentials", "urn:openid:params:grant-type:ciba"])
    );
    assert!(said.get("registration_endpoint").is_none());
    // OpenID Connect requires that one is named, and MCP's clients read nothing without it.
    let authorize = said["authorization_endpoint"].as_str().unwrap();
    let asked = "response_type=code&client_id=x&redirect_uri=https%3A%2F%2Fevil.example";
    let url = format!("{authorize}?{asked}");
    for request in [house.http.get(&url), house.http.post(&url)] {
        let answer = request.send().await.unwrap();
        assert!(answer.headers().get("location").is_none());
        assert_eq!(error(&read(answer).await), (400, "unsupported_response_type"));
    }
    for endpoint in ["token_endpoint", "introspection_endpoint", "revocation_endpoint", "backchannel_authentication_endpoint"] {
        for url in [&said[endpoint], &said["mtls_endpoint_aliases"][endpoint]] {
            let url = url.as_str().unwrap();
            let answer = read(house.http.post(url).form(&[("x", "y")]).send().await.unwrap()).await;
            assert_eq!(error(&answer), (401, "invalid_client"), "{url}");
            assert_eq!(house.http.get(url).send().await.unwrap().status(), 405, "{url}");
        }
    }
    assert_eq!(said["token_endpoint"], format!("{}/oauth/token", house.issuer));
}

#[tokio::test]
async fn each_way_to_prove_a_client_works_and_they_are_never_mixed() {
    let house = House::new();
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    let grant = [("grant_type", "client_credentials"), ("resource", MAIL)];
    let with = |more: &[(&'static str, String)]| {
        let mut form: Vec<(&str, String)> = grant.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        form.extend(more.iter().cloned());
        form
    };
    let post = |http: &Client, url: String, form: Vec<(&'static str, String)>| {
        let request = http.post(url).form(&form);
        async move { read(request.send().await.unwrap()).await }
    };
    let url = format!("{}/oauth/token", house.issuer);
    // By a JWT-SVID, under the type of the draft too.
    let form =
        with(&[("client_assertion_type", SPIFFE.into()), ("client_assertion", house.assertion("a1")), ("client_id", a1.clone())]);
    assert_eq!(post(&house.http, url.clone(), form).await.0, 200);
    // As the grant itself (RFC 7523 2.1).
    let form = vec![("grant_type", JWT_BEARER.to_owned()), ("assertion", house.assertion("a1")), ("resource", MAIL.to_owned())];
    assert_eq!(post(&house.http, url.clone(), form.clone()).await.0, 200);
    assert_eq!(error(&post(&house.http, url.clone(), form).await), (400, "invalid_grant"), "once");
    // By a certificate, where one is asked for.
    let metadata = get(&house.http, &format!("{}/.well-known/oauth-authorization-server", house.issuer)).await;
    let mtls = metadata["mtls_endpoint_aliases"]["token_endpoint"].as_str().unwrap().to_owned();
    let certified = client(&house.dev, Some("a1"));
    let (status, body) = post(&certified, mtls.clone(), with(&[("client_id", a1.clone())])).await;
    assert_eq!(status, 200, "{body}");
    for (more, expected) in [
        (vec![], (401, "invalid_client")),
        (vec![("client_id", "spiffe://dev.mayfly.test/workload/orchestrator".to_owned())], (401, "invalid_client")),
        (
            vec![
                ("client_id", a1.clone()),
                ("client_assertion_type", BEARER.into()),
                ("client_assertion", house.assertion("a1")),
            ],
            (400, "invalid_request"),
        ),
    ] {
        assert_eq!(error(&post(&certified, mtls.clone(), with(&more)).await), expected, "{more:?}");
    }
    // On the listener without client certificates nobody is one.
    assert_eq!(error(&post(&certified, url.clone(), with(&[("client_id", a1.clone())])).await), (401, "invalid_client"));
    // No secrets, whatever the client calls them.
    let secret = with(&[("client_id", a1.clone()), ("client_secret", "s".into())]);
    assert_eq!(error(&post(&house.http, url.clone(), secret).await), (401, "invalid_client"));
    let basic = house.http.post(&url).basic_auth("a1", Some("s")).form(&grant).send().await.unwrap();
    assert_eq!(error(&read(basic).await), (401, "invalid_client"));
    // Workloads get no access tokens.
    let workload = client(&house.dev, Some(support::ORCHESTRATOR));
    let form = with(&[("client_id", "spiffe://dev.mayfly.test/workload/orchestrator".into())]);
    assert_eq!(error(&post(&workload, mtls, form).await), (400, "unauthorized_client"));
}

#[tokio::test]
async fn t142_a_token_of_one_family_is_never_taken_for_the_other() {
    let house = House::new();
    let access = house.token("a1", MAIL).await;
    let svid = house.mint("a1", MAIL);
    std::fs::write(house.dev.path("a1/access"), &access).unwrap();
    let refused = house.dev.fails("verify a1/access --audience https://mail.example", 4);
    assert!(refused.contains("typ"), "{refused}");
    // As a client's proof, and as a JWT-SVID beside one.
    let form = [
        ("client_assertion_type", BEARER),
        ("client_assertion", &access),
        ("grant_type", "client_credentials"),
        ("resource", MAIL),
    ];
    assert_eq!(error(&read(house.post("token", &form).await).await), (401, "invalid_client"));
    let form = [("grant_type", EXCHANGE), ("subject_token", &svid), ("subject_token_type", ACCESS), ("resource", MAIL)];
    assert_eq!(error(&house.asks("a1", "token", &form).await), (400, "invalid_request"));
    // By our own verifier, in both directions.
    let bundle = bundle(&house);
    let (oid, now) = (mayfly_verify::BindingOid::default(), bound::seconds());
    let held = mayfly_verify::Possession::default();
    let verify = |token: &str, audience| verifier(&house)(token, audience, &held);
    let verified = verify(&access, MAIL).unwrap();
    assert_eq!((verified.subject.as_str(), verified.confirmation), ("dev|demo", None));
    assert_eq!(verify(&svid, MAIL).unwrap_err().code(), "CREDENTIAL_PROFILE");
    assert_eq!(verify(&access, FILES).unwrap_err().code(), "CREDENTIAL_AUDIENCE");
    assert_eq!(mayfly_verify::verify_jwt(&access, MAIL, &bundle, &oid, now).unwrap_err().code(), "CREDENTIAL_PROFILE");
    let other = mayfly_verify::verify_access_token(&access, ("https://other.example", MAIL), &bundle, &oid, &held, now);
    assert_eq!(other.unwrap_err().code(), "CREDENTIAL_UNTRUSTED");
    assert_eq!(verify(&access, MAIL).map(|_| ()), Ok(()));
    let later = mayfly_verify::verify_access_token(&access, (&house.issuer, MAIL), &bundle, &oid, &held, now + 301);
    assert_eq!(later.unwrap_err().code(), "CREDENTIAL_EXPIRED");
}

#[tokio::test]
async fn t143_an_assertion_proves_its_agent_once_in_a_race_at_any_endpoint_and_after_a_restart() {
    let house = House::new();
    let assertion = house.assertion("a1");
    let form = [
        ("client_assertion_type", BEARER),
        ("client_assertion", assertion.as_str()),
        ("grant_type", "client_credentials"),
        ("resource", MAIL),
    ];
    let all = futures(8, || house.post("token", &form)).await;
    let mut got = Vec::new();
    for response in all {
        got.push(read(response).await);
    }
    got.sort_by_key(|(status, _)| *status);
    assert_eq!(got.iter().map(error).collect::<Vec<_>>(), [vec![(200, "none")], vec![(401, "invalid_client"); 7]].concat());
    assert!(got[1].1["error_description"].as_str().unwrap().starts_with("ASSERTION_USED"), "{:?}", got[1]);
    let introspection = [form[0], form[1], ("token", "x")];
    assert_eq!(error(&read(house.post("introspect", &introspection).await).await), (401, "invalid_client"));
    // Where nothing is recorded too.
    let other = house.assertion("a1");
    let introspection = [form[0], ("client_assertion", other.as_str()), ("token", "x")];
    assert_eq!(read(house.post("introspect", &introspection).await).await, (200, json!({ "active": false })));
    assert_eq!(error(&read(house.post("introspect", &introspection).await).await), (401, "invalid_client"));

    let unused = house.assertion("a1");
    let house = House::of(Dev::start_in(house.dev.kill()));
    assert_eq!(error(&read(house.post("token", &form).await).await), (401, "invalid_client"), "it is remembered");
    let form = [form[0], ("client_assertion", unused.as_str()), form[2], form[3]];
    assert_eq!(read(house.post("token", &form).await).await.0, 200);
}

#[tokio::test]
async fn t331_of_requests_at_once_that_record_something_and_that_record_nothing_one_uses_an_assertion() {
    let house = House::new();
    for n in 0..30 {
        let assertion = house.assertion("a1");
        let client = [("client_assertion_type", BEARER), ("client_assertion", assertion.as_str())];
        let exchanged = [&client[..], &[("grant_type", "client_credentials"), ("resource", MAIL)]].concat();
        let introspected = [&client[..], &[("token", "x")]].concat();
        // Which of the two is sent first changes.
        let (first, second) = if n % 2 == 0 { ("token", "introspect") } else { ("introspect", "token") };
        let form = |endpoint| if endpoint == "token" { &exchanged[..] } else { &introspected[..] };
        let (one, other) = tokio::join!(house.post(first, form(first)), house.post(second, form(second)));
        let mut got = [read(one).await, read(other).await];
        got.sort_by_key(|(status, _)| *status);
        assert_eq!(got.each_ref().map(error), [(200, "none"), (401, "invalid_client")], "{n}: {got:?}");
    }
    // A request that is refused uses nothing up.
    let assertion = house.assertion("a1");
    let client = [("client_assertion_type", BEARER), ("client_assertion", assertion.as_str())];
    let exchanged = |resource| [&client[..], &[("grant_type", "client_credentials"), ("resource", resource)]].concat();
    assert_eq!(error(&read(house.post("token", &exchanged("https://bank.example")).await).await), (400, "invalid_target"));
    assert_eq!(read(house.post("token", &exchanged(MAIL)).await).await.0, 200);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn t331_an_assertion_is_held_until_its_record_is_durable_also_if_the_caller_gives_up() {
    let faults = support::faults::Faults::new();
    let dev = faults.start(tempfile::tempdir().unwrap());
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let house = House::of(dev);
    let assertion = house.assertion("a1");
    let client = [("client_assertion_type", BEARER), ("client_assertion", assertion.as_str())];
    faults.set("hang", true);
    let exchanged = [&client[..], &[("grant_type", "client_credentials"), ("resource", MAIL)]].concat();
    let given_up = tokio::time::timeout(std::time::Duration::from_millis(500), house.post("token", &exchanged)).await;
    assert!(given_up.is_err(), "the journal does not answer");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    // The record is in a commit, and will be durable.
    let introspected = [&client[..], &[("token", "x")]].concat();
    let got = read(house.post("introspect", &introspected).await).await;
    faults.set("hang", false);
    assert_eq!((got.0, error(&got)), (401, (401, "invalid_client")), "{got:?}");
    assert_eq!(read(house.post("introspect", &introspected).await).await.0, 401);
}

/// Starts `n` at once.
async fn futures<T: Send + 'static, F: Future<Output = T>>(n: usize, mut begin: impl FnMut() -> F) -> Vec<T> {
    let mut all: Vec<_> = (0..n).map(|_| Box::pin(begin())).collect();
    let mut done = Vec::new();
    while !all.is_empty() {
        let ready = std::future::poll_fn(|cx| {
            let ready = all.iter_mut().enumerate().find_map(|(at, one)| match one.as_mut().poll(cx) {
                std::task::Poll::Ready(value) => Some((at, value)),
                std::task::Poll::Pending => None,
            });
            ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        });
        let (at, value) = ready.await;
        drop(all.swap_remove(at));
        done.push(value);
    }
    done
}

#[tokio::test]
async fn t144_an_assertion_is_for_this_issuer_alone_and_signed_by_it() {
    let house = House::new();
    let grant = [("grant_type", "client_credentials"), ("resource", MAIL)];
    let good = house.assertion("a1");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let forged = format!(
        "{signed}.{}",
        if signature.starts_with('A') { signature.replacen('A', "B", 1) } else { format!("A{}", &signature[1..]) }
    );
    let foreign = house.dev.file("demo.jwt");
    let other = house.mint("a1", MAIL);
    let endpoint = house.dev.run(&format!("mint --as a1 --audience {}/oauth/token", house.issuer));
    assert_eq!(endpoint.status.code(), Some(3), "only the issuer's own URL is for every agent");
    for (what, bad) in [
        ("another audience", other.as_str()),
        ("forged", &forged),
        ("a user's", &foreign),
        ("no token", "x.y.z"),
        ("five parts", "a.b.c.d.e"),
    ] {
        let mut form = vec![("client_assertion_type", BEARER), ("client_assertion", bad)];
        form.extend(grant);
        assert_eq!(error(&read(house.post("token", &form).await).await), (401, "invalid_client"), "{what}");
    }
    // Several audiences are refused when they are asked for, so no token of ours is for us and for somebody else.
    let mut identities = IdentitiesClient::new(channel(&house.dev, Some("a1")).await);
    let both = v1::MintJwtRequest { audience: house.issuer.clone(), further_audiences: vec![MAIL.into()], ..Default::default() };
    assert_eq!(identities.mint_jwt(both).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    let unknown = [("client_assertion_type", "urn:other"), ("client_assertion", good.as_str()), grant[0], grant[1]];
    assert_eq!(error(&read(house.post("token", &unknown).await).await), (401, "invalid_client"));
    let named = [
        ("client_assertion_type", BEARER),
        ("client_assertion", &good),
        ("client_id", "spiffe://dev.mayfly.test/x"),
        grant[0],
        grant[1],
    ];
    assert_eq!(error(&read(house.post("token", &named).await).await), (401, "invalid_client"));
    // None of these used it up.
    let form = [("client_assertion_type", BEARER), ("client_assertion", good.as_str()), grant[0], grant[1]];
    assert_eq!(read(house.post("token", &form).await).await.0, 200);
}

#[tokio::test]
async fn t145_a_request_of_another_shape_is_refused_with_the_error_of_its_standard() {
    let house = House::new();
    let url = format!("{}/oauth/token", house.issuer);
    let raw = |of: &str, body: String| house.http.post(&url).header(CONTENT_TYPE, of).body(body).send();
    let form = "application/x-www-form-urlencoded";
    for (body, expected) in [
        ("grant_type=client_credentials&grant_type=client_credentials", (400, "invalid_request")),
        ("client_assertion=a&client_assertion=b", (400, "invalid_request")),
        ("unknown=a&unknown=b", (400, "invalid_request")),
        ("grant_type=%ff", (400, "invalid_request")),
        ("client_assertion=a", (400, "invalid_request")),
        ("", (401, "invalid_client")),
        ("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=x", (400, "invalid_grant")),
    ] {
        assert_eq!(error(&read(raw(form, body.into()).await.unwrap()).await), expected, "{body}");
    }
    for of in ["application/json", "text/plain", "multipart/form-data; boundary=x", ""] {
        assert_eq!(error(&read(raw(of, "a=b".into()).await.unwrap()).await), (415, "invalid_request"), "{of}");
    }
    let charset = raw("application/x-www-form-urlencoded; charset=UTF-8", "a=b".into()).await.unwrap();
    assert_eq!(error(&read(charset).await), (401, "invalid_client"));
    // Exactly 64 KiB are read, and no more; with or without a length. The listener with client certificates does the same.
    let most = format!("a={}", "x".repeat(65_534));
    assert_eq!(error(&read(raw(form, most.clone()).await.unwrap()).await), (401, "invalid_client"));
    assert_eq!(error(&read(raw(form, format!("{most}x")).await.unwrap()).await), (413, "invalid_request"));
    assert_eq!(error(&read(raw(form, format!("{most}{most}")).await.unwrap()).await), (413, "invalid_request"));
    let mtls = format!("https://{}/oauth/token", house.dev.text("grpc"));
    let long = house.http.post(mtls).header(CONTENT_TYPE, form).body(format!("{most}{most}")).send().await.unwrap();
    assert_eq!(error(&read(long).await), (413, "invalid_request"));
    // Parameters in the query count for nothing.
    let query = house.http.post(format!("{url}?client_assertion=x&client_assertion=y")).form(&[("a", "b")]).send().await.unwrap();
    assert_eq!(error(&read(query).await), (401, "invalid_client"));

    let user = house.dev.file("demo.jwt");
    let exchange = |more: &[(&'static str, &'static str)]| {
        let mut form = vec![("grant_type", EXCHANGE), ("resource", MAIL)];
        form.extend(more);
        form
    };
    for (of, form, expected) in [
        ("no grant", vec![("resource", MAIL)], (400, "invalid_request")),
        ("unknown grant", vec![("grant_type", "password"), ("resource", MAIL)], (400, "unsupported_grant_type")),
        ("no subject", exchange(&[("subject_token_type", ID)]), (400, "invalid_request")),
        ("no subject's type", exchange(&[("subject_token", "x")]), (400, "invalid_request")),
        ("unknown type", exchange(&[("subject_token", "x"), ("subject_token_type", "urn:x")]), (400, "invalid_request")),
        ("not a token", exchange(&[("subject_token", "x"), ("subject_token_type", ID)]), (400, "invalid_request")),
        (
            "an actor's type alone",
            exchange(&[("subject_token", "x"), ("subject_token_type", ID), ("actor_token_type", JWT)]),
            (400, "invalid_request"),
        ),
        ("no audience", vec![("grant_type", "client_credentials")], (400, "invalid_target")),
        ("two", vec![("grant_type", "client_credentials"), ("resource", MAIL), ("resource", FILES)], (400, "invalid_target")),
        (
            "a fragment",
            vec![("grant_type", "client_credentials"), ("resource", "https://mail.example/#x")],
            (400, "invalid_target"),
        ),
        ("no URI", vec![("grant_type", "client_credentials"), ("resource", "mail")], (400, "invalid_target")),
        ("not its", vec![("grant_type", "client_credentials"), ("audience", "https://bank.example")], (400, "invalid_target")),
        (
            "scope",
            vec![("grant_type", "client_credentials"), ("resource", MAIL), ("scope", "mail:send x")],
            (400, "invalid_scope"),
        ),
        (
            "details",
            vec![("grant_type", "client_credentials"), ("resource", MAIL), ("authorization_details", "[]")],
            (400, "invalid_authorization_details"),
        ),
    ] {
        assert_eq!(error(&house.asks("a1", "token", &form).await), expected, "{of}");
    }
    let refresh = [
        ("grant_type", EXCHANGE),
        ("subject_token", user.as_str()),
        ("subject_token_type", ID),
        ("resource", MAIL),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
    ];
    assert_eq!(error(&house.asks("a1", "token", &refresh).await), (400, "invalid_request"));
    assert_eq!(error(&house.asks("a1", "introspect", &[]).await), (400, "invalid_request"));
    assert_eq!(error(&house.asks("a1", "revoke", &[]).await), (400, "invalid_request"));
}

#[tokio::test]
async fn t146_the_subject_is_the_agents_own_user_and_the_actor_is_the_client() {
    let house = House::new();
    house.dev.token("guest", "guest.jwt");
    house.dev.json("spawn --class researcher --user-token guest.jwt --out b1");
    house.dev.json("spawn --as a1 --class worker --out a2");
    let (demo, guest) = (house.dev.file("demo.jwt"), house.dev.file("guest.jwt"));
    let exchange = async |agent: &str, token: &str, of: &str, more: &[(&str, &str)]| {
        let mut form = vec![("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", of), ("resource", FILES)];
        form.extend(more);
        house.asks(agent, "token", &form).await
    };
    assert_eq!(exchange("a1", &demo, ID, &[]).await.0, 200);
    assert_eq!(error(&exchange("a1", &guest, ID, &[]).await), (400, "invalid_request"), "another user");
    // A fresh token, which nobody has recorded, is judged in the same way.
    house.dev.token("guest", "fresh.jwt");
    let fresh = house.dev.file("fresh.jwt");
    assert_eq!(error(&exchange("a1", &fresh, ID, &[]).await), (400, "invalid_request"), "another user");
    assert_eq!(exchange("b1", &fresh, ID, &[]).await.0, 200);
    // The actor token is the client's own.
    let (own, of_b1) = (house.assertion("a1"), house.assertion("b1"));
    assert_eq!(exchange("a1", &demo, ID, &[("actor_token", &own), ("actor_token_type", JWT)]).await.0, 200);
    let mixed = exchange("a1", &demo, ID, &[("actor_token", &of_b1), ("actor_token_type", JWT)]).await;
    assert_eq!(error(&mixed), (400, "invalid_request"));
    // An access token is used by its agent and by those below it.
    let token = house.token("a1", FILES).await;
    assert_eq!(exchange("a1", &token, ACCESS, &[]).await.0, 200);
    assert_eq!(exchange("a2", &token, ACCESS, &[]).await.0, 200, "a child, with what its parent hands down");
    assert_eq!(error(&exchange("b1", &token, ACCESS, &[]).await), (400, "invalid_request"), "somebody else's");
    let below = house.token("a2", FILES).await;
    assert_eq!(error(&exchange("a1", &below, ACCESS, &[]).await), (400, "invalid_request"), "a parent is not below its child");
    // The JWT-SVID of an agent is no token of its user.
    let svid = house.assertion("a1");
    assert_eq!(error(&exchange("a1", &svid, JWT, &[]).await), (400, "invalid_request"));
}

#[tokio::test]
async fn t147_what_is_exchanged_allows_no_more_and_lasts_no_longer() {
    let house = House::new();
    let first = [("grant_type", "client_credentials"), ("resource", MAIL), ("scope", "files:read mail:send")];
    let (_, first) = house.asks("a1", "token", &first).await;
    let first = first["access_token"].as_str().unwrap();
    let again = [("grant_type", EXCHANGE), ("subject_token", first), ("subject_token_type", ACCESS), ("resource", FILES)];
    let (_, second) = house.asks("a1", "token", &again).await;
    assert_eq!(second["scope"], "files:read mail:send", "without `scope` it is what the token allows, not what the agent may do");
    let (before, _) = house.verified(first, MAIL).await;
    let (after, _) = house.verified(second["access_token"].as_str().unwrap(), FILES).await;
    assert!(after["exp"].as_u64() <= before["exp"].as_u64());
    let more = [again[0], again[1], again[2], again[3], ("scope", "search:read")];
    assert_eq!(error(&house.asks("a1", "token", &more).await), (400, "invalid_scope"));
    // The child may do less than its parent's token allows.
    house.dev.json("spawn --as a1 --class worker --out a2");
    let (_, child) = house.asks("a2", "token", &again).await;
    assert_eq!(child["scope"], "files:read");
    let target = [again[0], again[1], again[2], ("resource", MAIL)];
    assert_eq!(error(&house.asks("a2", "token", &target).await), (400, "invalid_target"), "not an audience of its class");
}

#[tokio::test]
async fn t148_nothing_that_races_a_cut_is_valid_after_its_receipt() {
    let house = House::new();
    for round in 0..4 {
        let agent = format!("r{round}");
        house.dev.json(&format!("spawn --class researcher --user-token demo.jwt --out {agent}"));
        let id = house.dev.json(&format!("whoami --as {agent}"))["spiffe_id"].as_str().unwrap().to_owned();
        let held = house.token(&agent, MAIL).await;
        let mut tokens = TokensClient::new(channel(&house.dev, Some(&agent)).await);
        let racing = tokio::spawn(async move {
            let mut got = Vec::new();
            for _ in 0..200 {
                let request = v1::ExchangeRequest { audience: MAIL.into(), ..Default::default() };
                match tokens.exchange(request).await {
                    Ok(token) => got.push(token.into_inner().access_token),
                    Err(_) => break,
                }
            }
            got
        });
        while house.introspect("mail-service", &held)["active"] != true {}
        house.dev.json(&format!("revoke --agent {id}"));
        let mut got = racing.await.unwrap();
        got.push(held);
        for token in got.iter().rev().take(3) {
            assert_eq!(house.introspect("mail-service", token), json!({ "active": false }));
        }
    }
}

#[tokio::test]
async fn t149_who_is_not_the_audience_learns_nothing_and_revokes_nothing() {
    let house = House::new();
    house.dev.json("spawn --class researcher --user-token demo.jwt --out b1");
    let (token, other) = (house.token("a1", MAIL).await, house.token("a1", FILES).await);
    let inactive = (200, json!({ "active": false }));
    assert_eq!(house.introspect("mail-service", &other), inactive.1, "another audience");
    assert_eq!(house.introspect(support::ORCHESTRATOR, &token), inactive.1, "a workload that serves nothing");
    for who in ["a1", "b1"] {
        assert_eq!(house.asks(who, "introspect", &[("token", &token)]).await, inactive);
    }
    for nonsense in ["x", "a.b.c", &house.dev.file("demo.jwt"), &"y".repeat(60_000)] {
        assert_eq!(house.asks("a1", "introspect", &[("token", nonsense)]).await, inactive);
        assert_eq!(house.asks("a1", "revoke", &[("token", nonsense)]).await, (200, Value::Null));
    }
    // JWT-SVIDs are told of in the same way.
    let svid = house.mint("a1", MAIL);
    assert_eq!(house.introspect("mail-service", &svid)["active"], true);
    assert_eq!(house.introspect("mail-service", &house.mint("a1", FILES)), inactive.1);

    // RFC 7009: one token ends, for its own client and for nobody else.
    assert_eq!(house.asks("b1", "revoke", &[("token", &token)]).await, (200, Value::Null));
    assert_eq!(house.introspect("mail-service", &token)["active"], true, "another client changes nothing");
    let second = house.token("a1", MAIL).await;
    for _ in 0..2 {
        assert_eq!(house.asks("a1", "revoke", &[("token", &token)]).await, (200, Value::Null));
        assert_eq!(house.introspect("mail-service", &token), inactive.1);
    }
    assert_eq!(house.introspect("mail-service", &second)["active"], true, "its other tokens hold");
    let again = [("grant_type", EXCHANGE), ("subject_token", token.as_str()), ("subject_token_type", ACCESS), ("resource", MAIL)];
    assert_eq!(error(&house.asks("a1", "token", &again).await), (400, "invalid_request"), "what was revoked is no subject");
    // It is listed, and remembered after a restart.
    let jti = house.verified(&token, MAIL).await.0["jti"].clone();
    let cuts = house.dev.json("cuts list");
    assert!(cuts["cuts"].as_array().unwrap().iter().any(|cut| cut["target"] == "token" && cut["name"] == jti), "{cuts}");
    let house = House::of(Dev::start_in(house.dev.kill()));
    assert_eq!(house.introspect("mail-service", &token), inactive.1);
    assert_eq!(house.introspect("mail-service", &second)["active"], true);
    // With our extension the agent ends with it.
    assert_eq!(error(&house.asks("a1", "revoke", &[("token", &second), ("cascade", "all")]).await), (400, "invalid_request"));
    assert_eq!(house.asks("a1", "revoke", &[("token", &second), ("cascade", "agent")]).await, (200, Value::Null));
    assert_eq!(house.introspect("mail-service", &second), inactive.1);
    assert!(house.dev.fails("exchange --as a1 --audience https://mail.example", 3).contains("AGENT_REVOKED"));
}

#[tokio::test]
async fn t149_an_agent_that_asks_too_often_is_told_when_to_ask_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), "[writes]\nexchange = { caller = \"1/m\", root = \"100/s\" }\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let house = House::of(dev);
    for _ in 0..10 {
        house.token("a1", MAIL).await;
    }
    let assertion = house.assertion("a1");
    let form = [
        ("client_assertion_type", BEARER),
        ("client_assertion", assertion.as_str()),
        ("grant_type", "client_credentials"),
        ("resource", MAIL),
    ];
    let response = house.post("token", &form).await;
    assert!(response.headers()[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(error(&read(response).await), (429, "temporarily_unavailable"));
}

#[tokio::test]
async fn the_history_has_each_exchange_and_each_denial_with_caller_and_address() {
    let house = House::new();
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    house.token("a1", MAIL).await;
    let wrong = [("grant_type", "client_credentials"), ("audience", "https://bank.example")];
    assert_eq!(error(&house.asks("a1", "token", &wrong).await), (400, "invalid_target"));
    let forged = [
        ("client_assertion_type", BEARER),
        ("client_assertion", "a.b.c"),
        ("grant_type", "client_credentials"),
        ("resource", MAIL),
    ];
    assert_eq!(error(&read(house.post("token", &forged).await).await), (401, "invalid_client"));
    let entries = |filter: &str| -> Vec<Value> {
        // The history is a moment behind.
        for _ in 0..100 {
            let got = house.dev.json(&format!("history {filter}"))["entries"].as_array().unwrap().clone();
            if got.iter().any(|entry| entry["method"] == "oauth/token") {
                return got.into_iter().filter(|entry| entry["method"] == "oauth/token").collect();
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("no entry of {filter}");
    };
    let exchanged = entries("--kind mint");
    assert_eq!((&exchanged[0]["caller"], &exchanged[0]["peer"]), (&json!(a1), &json!("127.0.0.1")));
    let denied = entries("--kind denial");
    let of =
        |code: &str| denied.iter().find(|entry| entry["reason_code"] == code).unwrap_or_else(|| panic!("{code}: {denied:#?}"));
    assert_eq!((&of("AUDIENCE_NOT_ALLOWED")["caller"], &of("AUDIENCE_NOT_ALLOWED")["peer"]), (&json!(a1), &json!("127.0.0.1")));
    assert_eq!(of("CREDENTIAL_MALFORMED")["peer"], "127.0.0.1");
}

#[tokio::test]
async fn t250_a_signed_introspection_is_for_who_asked_and_passes_for_no_token() {
    let house = House::new();
    let token = house.token("a1", MAIL).await;
    let http = client(&house.dev, Some(".mayfly/workloads/mail-service"));
    let url = get(&house.http, &format!("{}/.well-known/oauth-authorization-server", house.issuer)).await;
    assert_eq!(url["introspection_signing_alg_values_supported"], json!(["ES256"]));
    let url = url["mtls_endpoint_aliases"]["introspection_endpoint"].as_str().unwrap().to_owned();
    let id = "spiffe://dev.mayfly.test/workload/mail-service";
    let ask = async |token: &str| {
        let form = [("token", token), ("client_id", id)];
        let response = http.post(&url).header("accept", "application/token-introspection+jwt").form(&form).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/token-introspection+jwt");
        assert_eq!((response.status().as_u16(), &response.headers()["cache-control"]), (200, &"no-store".parse().unwrap()));
        response.text().await.unwrap()
    };
    let signed = ask(&token).await;
    let metadata = get(&house.http, &format!("{}/oauth/jwks", house.issuer)).await;
    let keys: JwkSet = serde_json::from_value(metadata).unwrap();
    let header = jsonwebtoken::decode_header(&signed).unwrap();
    let mut checks = Validation::new(Algorithm::ES256);
    checks.set_issuer(&[&house.issuer]);
    checks.set_audience(&[id]);
    // It has no end of its own, so that it is never taken for a token.
    checks.set_required_spec_claims(&["iss", "aud"]);
    checks.validate_exp = false;
    let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
    let said = jsonwebtoken::decode::<Value>(&signed, &key, &checks).unwrap().claims;
    assert_eq!(header.typ.as_deref(), Some("token-introspection+jwt"));
    let mut names: Vec<&String> = said.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["aud", "iat", "iss", "token_introspection"]);
    assert_eq!((&said["token_introspection"]["active"], &said["token_introspection"]["aud"]), (&json!(true), &json!([MAIL])));
    assert!(verifier(&house)(&signed, MAIL, &mayfly_verify::Possession::default()).is_err());
    assert!(
        mayfly_verify::verify_jwt(&signed, id, &bundle(&house), &mayfly_verify::BindingOid::default(), bound::seconds()).is_err()
    );
    assert_eq!(house.introspect("mail-service", &signed), json!({ "active": false }));
    // What they may not know of says nothing.
    let other = house.token("a1", FILES).await;
    let hidden = ask(&other).await;
    let said = jsonwebtoken::decode::<Value>(&hidden, &key, &checks).unwrap().claims;
    assert_eq!(said["token_introspection"], json!({ "active": false }));
}
