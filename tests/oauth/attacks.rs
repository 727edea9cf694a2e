//! Tokens of a provider that are not what an exchange wants, each wrong in one thing; ceilings that deny alone; headers that say who asks;
//! and discovery that says the same to everybody.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::bound::{Key, seconds};
use super::*;

/// A provider of users: discovery and keys over HTTPS.
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) key: Key,
}

impl Provider {
    /// Starts one, and writes its CA to a file.
    pub(crate) fn start(ca_file: &std::path::Path) -> Provider {
        let key = Key::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(ca_file, made.cert.pem()).unwrap();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private).unwrap());
        let mut jwk = key.jwk();
        (jwk["kid"], jwk["use"], jwk["alg"]) = (json!("k1"), json!("sig"), json!("ES256"));
        let keys = json!({ "keys": [jwk] }).to_string();
        let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") }).to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream.unwrap());
                let (mut request, mut byte) = (Vec::new(), [0; 1]);
                while !request.ends_with(b"\r\n\r\n") && matches!(tls.read(&mut byte), Ok(1)) {
                    request.push(byte[0]);
                }
                let body = if request.starts_with(b"GET /jwks ") { &keys } else { &discovery };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
                let _ = write!(tls, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        });
        Provider { url, key }
    }

    /// A token of `typ` for the user demo, with `more` over its claims; one that is `null` is left out.
    pub(crate) fn token(&self, typ: &str, more: &Value) -> String {
        let now = seconds();
        let mut claims = json!({ "iss": self.url, "sub": "demo", "aud": "agents", "iat": now, "exp": now + 200,
            "jti": uuid::Uuid::now_v7().to_string() });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.key.sign(&json!({ "typ": typ, "alg": "ES256", "kid": "k1" }), &claims)
    }
}

/// A house with the provider `corp`, and the agent `c1` of its user demo.
fn house() -> (House, Provider) {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("corp.pem");
    let corp = Provider::start(&ca);
    let text = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\nca_file = \"{}\"\nmax_age = \"5m\"\n\
         [[issuers.audiences]]\naudience = \"agents\"\nworkloads = [\"orchestrator\"]\nscopes = [\"mail:send\", \"files:read\"]\n\
         [[issuers.audiences]]\naudience = \"narrow\"\nworkloads = [\"orchestrator\"]\nscopes = [\"files:read\"]\n\
         [[issuers.audiences]]\naudience = \"elsewhere\"\nworkloads = [\"mail-service\"]\n",
        corp.url,
        ca.display()
    );
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let house = House::of(Dev::start_args(dir, &["--config", "more.toml"], &[]));
    std::fs::write(house.dev.path("corp.jwt"), corp.token("JWT", &json!({}))).unwrap();
    house.dev.json("spawn --class researcher --user-token corp.jwt --out c1");
    (house, corp)
}

async fn exchange(house: &House, agent: &str, token: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let mut form = vec![("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ID), ("resource", MAIL)];
    form.extend(more);
    house.asks(agent, "token", &form).await
}

#[tokio::test]
async fn t192_a_subject_token_that_is_wrong_in_one_thing_is_refused() {
    let (house, corp) = house();
    let now = seconds();
    let c1 = house.dev.json("whoami --as c1")["spiffe_id"].as_str().unwrap().to_owned();
    let orchestrator = "spiffe://dev.mayfly.test/workload/orchestrator";
    let dev = house.dev.text("oidc");
    for (what, typ, claims) in [
        ("the right one", "JWT", json!({})),
        ("an access token", "at+jwt", json!({ "client_id": "x" })),
        ("one that lets it act", "JWT", json!({ "may_act": { "sub": c1, "iss": house.issuer } })),
        ("one that lets it act by its client id", "JWT", json!({ "may_act": { "client_id": c1, "other": 1 } })),
    ] {
        let (status, body) = exchange(&house, "c1", &corp.token(typ, &claims), &[]).await;
        assert_eq!(status, 200, "{what}: {body}");
        let (claims, _) = house.verified(body["access_token"].as_str().unwrap(), MAIL).await;
        assert_eq!(claims["sub"], "corp|demo", "the demo of another provider is somebody else");
    }
    for (what, typ, claims) in [
        ("a logout token", "logout+jwt", json!({})),
        ("a proof", "dpop+jwt", json!({})),
        ("an identity assertion", "oauth-id-jag+jwt", json!({})),
        ("an event", "JWT", json!({ "events": {} })),
        ("one of an actor", "JWT", json!({ "act": { "sub": c1 } })),
        ("one that is bound", "JWT", json!({ "cnf": { "jkt": "x" } })),
        ("another provider's name", "JWT", json!({ "iss": dev })),
        ("our own name", "at+jwt", json!({ "iss": house.issuer, "client_id": c1 })),
        ("our own name, as an ID token", "JWT", json!({ "iss": house.issuer })),
        ("a name with a slash more", "JWT", json!({ "iss": format!("{}/", corp.url) })),
        ("for another client", "JWT", json!({ "aud": "another" })),
        ("for two of ours", "JWT", json!({ "aud": ["agents", "narrow"] })),
        ("for several, and issued to another", "JWT", json!({ "aud": ["agents", "another"], "azp": "another" })),
        ("of an audience of another workload", "JWT", json!({ "aud": "elsewhere" })),
        ("that lets another act", "JWT", json!({ "may_act": { "sub": format!("{c1}x") } })),
        ("that lets its workload act", "JWT", json!({ "may_act": { "sub": orchestrator } })),
        ("that lets it act for another issuer", "JWT", json!({ "may_act": { "sub": c1, "iss": "https://other.example" } })),
        ("that lets nobody act", "JWT", json!({ "may_act": {} })),
        ("whose actor is no object", "JWT", json!({ "may_act": c1 })),
        ("expired", "JWT", json!({ "exp": now - 1 })),
        ("of the future", "JWT", json!({ "iat": now + 60 })),
        ("not yet valid", "JWT", json!({ "nbf": now + 60 })),
        ("too old", "JWT", json!({ "iat": now - 301 })),
        ("without an end", "JWT", json!({ "exp": null })),
        ("without a subject", "JWT", json!({ "sub": null })),
        ("of another user", "JWT", json!({ "sub": "guest" })),
    ] {
        let answer = exchange(&house, "c1", &corp.token(typ, &claims), &[]).await;
        assert_eq!(error(&answer), (400, "invalid_request"), "{what}: {answer:?}");
    }
    // keycloak #51306: the token lets the actor act whose proof comes along, and somebody else asks; and the other way round.
    let child = house.dev.json("spawn --as c1 --class worker --out w1")["agent_id"].as_str().unwrap().to_owned();
    for named in [&child, &c1] {
        let (token, proof) = (corp.token("JWT", &json!({ "may_act": { "sub": named } })), house.assertion("w1"));
        let more = [("actor_token", proof.as_str()), ("actor_token_type", JWT)];
        let answer = exchange(&house, "c1", &token, &more).await;
        assert_eq!(error(&answer), (400, "invalid_request"), "{named}: {answer:?}");
    }
    // Another key under the provider's name; and who is right for one agent is not for another.
    let forger = Provider { url: corp.url.clone(), key: Key::new() };
    assert_eq!(error(&exchange(&house, "c1", &forger.token("JWT", &json!({})), &[]).await), (400, "invalid_request"));
    house.dev.token("demo", "demo.jwt");
    house.dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    assert_eq!(error(&exchange(&house, "a1", &corp.token("JWT", &json!({})), &[]).await), (400, "invalid_request"));
    let of_dev = house.dev.file("demo.jwt");
    assert_eq!(error(&exchange(&house, "c1", &of_dev, &[]).await), (400, "invalid_request"));
    assert_eq!(exchange(&house, "a1", &of_dev, &[]).await.0, 200);
}

#[tokio::test]
async fn t193_each_ceiling_denies_alone_and_nothing_is_recorded_or_signed() {
    let (house, corp) = house();
    house.dev.json("spawn --as c1 --class worker --out w1");
    let (good, narrow) = (corp.token("JWT", &json!({})), corp.token("JWT", &json!({ "aud": "narrow" })));
    let watched = house.token("c1", MAIL).await;
    let files = [("grant_type", EXCHANGE), ("subject_token", good.as_str()), ("subject_token_type", ID), ("resource", FILES)];
    assert_eq!(house.asks("w1", "token", &files).await.0, 200);
    for (what, agent, subject, resource, scope, expected) in [
        ("what the user's provider lets it do", "c1", &narrow, MAIL, "mail:send", "invalid_scope"),
        ("what the delegation lets it do", "c1", &good, MAIL, "search:read", "invalid_scope"),
        ("what its class may do", "w1", &good, FILES, "mail:send", "invalid_scope"),
        ("where its class may go", "w1", &good, MAIL, "files:read", "invalid_target"),
        ("where it may go", "c1", &good, "https://bank.example", "mail:send", "invalid_target"),
        ("all but one of its scopes", "c1", &good, MAIL, "mail:send admin", "invalid_scope"),
    ] {
        let assertion = house.assertion(agent);
        let form = [
            ("client_assertion_type", BEARER),
            ("client_assertion", assertion.as_str()),
            ("grant_type", EXCHANGE),
            ("subject_token", subject.as_str()),
            ("subject_token_type", ID),
            ("resource", resource),
            ("scope", scope),
        ];
        let before = house.introspect("mail-service", &watched)["revision"].clone();
        let answer = read(house.post("token", &form).await).await;
        assert_eq!(error(&answer), (400, expected), "{what}: {answer:?}");
        assert!(before.is_u64() && house.introspect("mail-service", &watched)["revision"] == before, "{what}");
    }
    // A user who is closed, whatever their provider still signs (CVE-2026-1609).
    let (late, assertion) = (corp.token("JWT", &json!({})), house.assertion("c1"));
    house.dev.json("revoke --user corp/demo");
    let form = [
        ("client_assertion_type", BEARER),
        ("client_assertion", assertion.as_str()),
        ("grant_type", EXCHANGE),
        ("subject_token", late.as_str()),
        ("subject_token_type", ID),
        ("resource", MAIL),
    ];
    assert_eq!(error(&read(house.post("token", &form).await).await), (401, "invalid_client"));
    std::fs::write(house.dev.path("late.jwt"), corp.token("JWT", &json!({ "iat": seconds() + 2 }))).unwrap();
    assert!(house.dev.fails("spawn --class researcher --user-token late.jwt --out c2", 3).contains("USER_CLOSED"));
}

#[tokio::test]
async fn t194_no_header_says_who_asks_or_where_the_issuer_is() {
    let house = House::new();
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    let pem = house.dev.file("a1/svid.pem").replace('\n', "%0A");
    let url = format!("{}/oauth/token", house.issuer);
    let form = [("grant_type", "client_credentials"), ("resource", MAIL), ("client_id", a1.as_str())];
    for (name, value) in [
        ("x-forwarded-client-cert", format!("By=spiffe://dev.mayfly.test/issuer;URI={a1};Cert=\"{pem}\"")),
        ("x-client-cert", pem.clone()),
        ("ssl-client-cert", pem.clone()),
        ("x-ssl-client-verify", "SUCCESS".into()),
        ("client-cert", format!(":{pem}:")),
        ("x-mayfly-agent", a1.clone()),
        ("x-original-method", "GET".into()),
    ] {
        let response = house.http.post(&url).header(name, value).form(&form).send().await.unwrap();
        assert_eq!(error(&read(response).await), (401, "invalid_client"), "{name}");
    }
    // A second content type, and one method for another.
    let two = house.http.post(&url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").header(CONTENT_TYPE, "text/plain");
    assert_eq!(error(&read(two.body("a=b").send().await.unwrap()).await), (415, "invalid_request"));
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request = house.http.request(method.parse().unwrap(), &url).header("x-http-method-override", "POST").form(&form);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert!(response.headers().get("access-control-allow-origin").is_none(), "{method}: no page asks for tokens");
    }
    // Discovery is what is configured, whoever asks and however, so that nobody is sent to another issuer.
    let found = format!("{}/.well-known/oauth-authorization-server", house.issuer);
    let said = get(&house.http, &found).await;
    assert_eq!(said["issuer"], house.issuer);
    for (name, value) in [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "host=evil.example;proto=http"),
        ("x-original-url", "/oauth/token"),
        ("accept", "text/html"),
        ("authorization", "Bearer x"),
    ] {
        let response = house.http.get(format!("{found}?issuer=https://evil.example")).header(name, value).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/json".parse().unwrap())
        );
        assert_eq!(serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap(), said, "{name}");
    }
    let text = said.to_string();
    assert!(!text.contains("evil") && !text.contains("BEGIN") && !text.contains(".mayfly/"));
    for path in [
        "/.well-known/oauth-authorization-server/x",
        "/.well-known/openid-configuration/",
        "/.well-known/",
        "/.well-known/%2e%2e%2foauth%2ftoken",
        "//.well-known/openid-configuration",
        "/.WELL-KNOWN/openid-configuration",
        "/oauth",
        "/oauth/token/",
        "/oauth/jwks/x",
    ] {
        let status = house.http.get(format!("{}{path}", house.issuer)).send().await.unwrap().status();
        assert_eq!(status, 404, "{path}");
    }
}
