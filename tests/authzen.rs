//! AuthZEN 1.0 over HTTPS: what gateways hear of agents, users and workloads, that it is what the issuer itself decides, and who hears nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Certificate, Client, Identity, Response};
use serde_json::{Value, json};
use support::{Dev, ORCHESTRATOR};

const CONFIG: &str = r#"
[policy]
dir = "policies"

[[workloads]]
name = "mail-service"
gateway = true

[[classes]]
name = "reader"
owner = "readers@example.org"
scopes = ["a:read", "a:write"]
audiences = ["https://a.example", "https://b.example"]
max_depth = 1
spawners = ["workload/orchestrator", "class/reader"]

[[classes]]
name = "other"
owner = "others@example.org"
scopes = ["b:read"]
audiences = ["https://b.example"]
spawners = ["class/reader"]
"#;
const POLICY: &str = r#"
@id("no-writing-there")
@owner("security@example.org")
@reason("b is read by people")
forbid (principal in Class::"reader", action == Action::"exchange", resource == Audience::"https://b.example")
when { context.scopes.contains(Scope::"a:write") };
"#;
const GATEWAY: &str = ".mayfly/workloads/mail-service";

struct House {
    dev: Dev,
    http: Client,
    metadata: Value,
    url: String,
}

impl House {
    async fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("policies")).unwrap();
        std::fs::write(dir.path().join("policies/a.cedar"), POLICY).unwrap();
        std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
        let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
        dev.token("demo", "demo.jwt");
        dev.token("guest", "guest.jwt");
        dev.json("spawn --class reader --user-token demo.jwt --out a1");
        let (http, url) = (client(&dev, None), dev.text("https_issuer"));
        let well_known = format!("{url}/.well-known/authzen-configuration");
        let metadata = serde_json::from_slice(&http.get(well_known).send().await.unwrap().bytes().await.unwrap()).unwrap();
        House { dev, http, metadata, url }
    }

    fn id(&self, dir: &str) -> String {
        self.dev.json(&format!("whoami --as {dir}"))["spiffe_id"].as_str().unwrap().to_owned()
    }

    /// An answer to a caller with a certificate.
    async fn certified(&self, who: &str, endpoint: &str, body: &Value) -> (u16, Value) {
        let url = self.metadata["mtls_endpoint_aliases"][endpoint].as_str().unwrap();
        read(
            client(&self.dev, Some(who))
                .post(url)
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string())
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// An answer to an agent with a fresh JWT-SVID.
    async fn bearer(&self, agent: &str, endpoint: &str, body: &Value) -> (u16, Value) {
        read(self.post(endpoint, &self.assertion(agent), body).await).await
    }

    fn assertion(&self, agent: &str) -> String {
        self.dev.json(&format!("mint --as {agent} --audience {}", self.url))["token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, endpoint: &str, token: &str, body: &Value) -> Response {
        let url = self.metadata[endpoint].as_str().unwrap();
        self.http
            .post(url)
            .bearer_auth(token)
            .header(CONTENT_TYPE, "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap()
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

/// The status and body of an answer that nobody keeps.
async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers().contains_key("www-authenticate"), status == 401);
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

fn asks(subject: (&str, &str), action: &str, resource: (&str, &str)) -> Value {
    json!({ "subject": { "type": subject.0, "id": subject.1 }, "action": { "name": action },
            "resource": { "type": resource.0, "id": resource.1 } })
}

/// The code of a no, with its owner. `None` for a yes. Each reason has its place and its owner.
fn why((status, answer): &(u16, Value)) -> Option<(String, String)> {
    assert_eq!(*status, 200, "{answer}");
    let reasons = answer["context"]["reasons"].as_array().unwrap();
    assert!(!reasons.is_empty(), "{answer}");
    for reason in reasons {
        for field in ["code", "message", "check", "where", "owner"] {
            assert!(reason[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {answer}");
        }
    }
    let text = |field: &str| reasons[0][field].as_str().unwrap().to_owned();
    let told = answer["context"]["reason_user"][text("code")].is_string();
    assert_eq!(told, answer["decision"] == false, "{answer}");
    (answer["decision"] == false).then(|| (text("code"), text("owner")))
}

const EVALUATION: &str = "access_evaluation_endpoint";
const SUBJECTS: &str = "search_subject_endpoint";

#[tokio::test]
async fn a_gateway_hears_what_the_issuer_itself_would_decide_and_whose_it_is() {
    let house = House::new().await;
    let a1 = house.id("a1");
    let no = |code: &str, owner: &str| Some((code.to_owned(), owner.to_owned()));
    // Each is asked of the decision point, and of the issuer itself.
    for (scope, audience, expected) in [
        ("a:read", "https://a.example", None),
        ("a:write", "https://a.example", None),
        ("a:read", "https://b.example", None),
        ("a:write", "https://b.example", no("POLICY_DENIED", "security@example.org")),
        ("b:read", "https://b.example", no("SCOPE_NOT_ALLOWED", "readers@example.org")),
        ("a:read", "https://c.example", no("AUDIENCE_NOT_ALLOWED", "readers@example.org")),
    ] {
        let answer = house.certified(GATEWAY, EVALUATION, &asks(("agent", &a1), scope, ("audience", audience))).await;
        assert_eq!(why(&answer), expected, "{scope} {audience}: {}", answer.1);
        let own = house.dev.run(&format!("exchange --as a1 --audience {audience} --scope {scope}"));
        assert_eq!(own.status.success(), expected.is_none(), "{scope} {audience}");
    }
    let mint = |audience| asks(("agent", &a1), "mint", ("audience", audience));
    assert_eq!(why(&house.certified(GATEWAY, EVALUATION, &mint("https://b.example")).await), None);
    assert!(why(&house.certified(GATEWAY, EVALUATION, &mint("https://c.example")).await).is_some());
    // Whoever may spawn what: agents, workloads, and users by a token that they would bring.
    for (subject, class, expected) in [
        (("agent", a1.as_str()), "other", no("NOTHING_LEFT", "others@example.org")),
        (("agent", &a1), "reader", None),
        (("workload", "orchestrator"), "reader", no("MODE_NOT_ALLOWED", "readers@example.org")),
        (("user", "dev/demo"), "reader", None),
        (("user", "dev/demo"), "other", no("SPAWNER_NOT_ALLOWED", "others@example.org")),
    ] {
        let answer = house.certified(GATEWAY, EVALUATION, &asks(subject, "spawn", ("class", class))).await;
        assert_eq!(why(&answer), expected, "{subject:?} {class}: {}", answer.1);
    }
    let mut brought = asks(("workload", "orchestrator"), "spawn", ("class", "reader"));
    brought["context"] = json!({ "user": "dev/demo" });
    assert_eq!(why(&house.certified(GATEWAY, EVALUATION, &brought).await), None);
    // A batch, in its order.
    let batch = json!({ "subject": { "type": "agent", "id": a1 }, "resource": { "type": "audience", "id": "https://b.example" },
                        "evaluations": [{ "action": { "name": "a:write" } }, { "action": { "name": "a:read" } }, {}] });
    let (_, answer) = house.certified(GATEWAY, "access_evaluations_endpoint", &batch).await;
    let decisions: Vec<_> = answer["evaluations"].as_array().unwrap().iter().map(|one| one["decision"].clone()).collect();
    assert_eq!(decisions, [json!(false), json!(true), json!(false)], "{answer}");
    // Nothing was recorded, and what is revoked is so at once, with whoever revoked it not named.
    house.dev.json(&format!("revoke --agent {a1} --reason leaked"));
    let answer = house.certified(GATEWAY, EVALUATION, &asks(("agent", &a1), "a:read", ("audience", "https://a.example"))).await;
    assert_eq!(why(&answer).unwrap().0, "AGENT_REVOKED");
    assert!(!answer.1.to_string().contains("leaked") && !answer.1.to_string().contains("extra.toml"), "{}", answer.1);
    house.dev.json("revoke --user dev/demo");
    let answer = house.certified(GATEWAY, EVALUATION, &asks(("user", "dev/demo"), "spawn", ("class", "reader"))).await;
    assert_eq!(why(&answer).unwrap().0, "USER_CLOSED", "{}", answer.1);
}

#[tokio::test]
async fn searches_find_whoever_may_page_by_page() {
    let house = House::new().await;
    for (n, user) in ["demo", "guest", "guest"].into_iter().enumerate() {
        house.dev.json(&format!("spawn --class reader --user-token {user}.jwt --scope a:read --out r{n}"));
    }
    let readers = asks(("agent", "any"), "a:read", ("audience", "https://a.example"));
    let (_, all) = house.certified(GATEWAY, SUBJECTS, &readers).await;
    assert_eq!((all["results"].as_array().unwrap().len(), &all["page"]["next_token"]), (4, &json!("")), "{all}");
    assert!(all["results"].as_array().unwrap().contains(&json!({ "type": "agent", "id": house.id("r2") })));
    let writers = asks(("agent", "any"), "a:write", ("audience", "https://a.example"));
    let (_, found) = house.certified(GATEWAY, SUBJECTS, &writers).await;
    assert_eq!(found["results"], json!([{ "type": "agent", "id": house.id("a1") }]));
    // Page by page the same, and a token is for its caller and its search.
    let (mut paged, mut got, mut token) = (readers.clone(), Vec::new(), String::new());
    for _ in 0..6 {
        paged["page"] = json!({ "limit": 1, "token": token });
        let (status, page) = house.certified(GATEWAY, SUBJECTS, &paged).await;
        assert_eq!(status, 200, "{page}");
        got.extend(page["results"].as_array().unwrap().clone());
        token = page["page"]["next_token"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
        paged["page"]["token"] = json!(token);
        let mut other = writers.clone();
        other["page"] = json!({ "token": token });
        assert_eq!(house.certified(GATEWAY, SUBJECTS, &other).await.0, 400);
        assert_eq!(house.certified(ORCHESTRATOR, SUBJECTS, &paged).await.0, 400);
    }
    assert_eq!((&json!(got), token.as_str()), (&all["results"], ""));
    let (a1, r0) = (house.id("a1"), house.id("r0"));
    for (endpoint, body, expected) in [
        (SUBJECTS, asks(("user", ""), "spawn", ("class", "reader")), json!(["dev/demo", "dev/guest"])),
        (SUBJECTS, asks(("workload", ""), "spawn", ("class", "reader")), json!([])),
        (SUBJECTS, asks(("spaceship", ""), "spawn", ("class", "reader")), json!([])),
        ("search_resource_endpoint", asks(("agent", &a1), "a:write", ("audience", "")), json!(["https://a.example"])),
        ("search_resource_endpoint", asks(("agent", &r0), "spawn", ("class", "")), json!(["reader"])),
        ("search_resource_endpoint", asks(("user", "dev/demo"), "spawn", ("class", "")), json!(["reader"])),
        ("search_resource_endpoint", asks(("user", "nobody/here"), "spawn", ("class", "")), json!([])),
        (
            "search_action_endpoint",
            asks(("agent", &r0), "", ("audience", "https://b.example")),
            json!(["a:read", "exchange", "mint"]),
        ),
        ("search_action_endpoint", asks(("user", "dev/demo"), "", ("class", "other")), json!([])),
    ] {
        let (status, answer) = house.certified(GATEWAY, endpoint, &body).await;
        let found = |one: &Value| one.get("id").or(one.get("name")).cloned().unwrap();
        let mut found: Vec<Value> = answer["results"].as_array().map(|all| all.iter().map(found).collect()).unwrap_or_default();
        if body["resource"]["id"] == "" && body["resource"]["type"] == "class" {
            found.retain(|name| ["reader", "other"].contains(&name.as_str().unwrap()));
        }
        assert_eq!((status, json!(found)), (200, expected), "{endpoint} {body}: {answer}");
    }
}

#[tokio::test]
async fn t251_nobody_hears_of_what_is_not_theirs_and_strangers_hear_nothing() {
    let house = House::new().await;
    house.dev.json("spawn --class reader --user-token guest.jwt --out b1");
    let (a1, b1) = (house.id("a1"), house.id("b1"));
    let gone = b1.replace(|c: char| c.is_ascii_digit(), "7");
    let about = |id: &str| asks(("agent", id), "a:read", ("audience", "https://a.example"));
    // An agent by its JWT-SVID, which proves it once.
    assert_eq!(why(&house.bearer("a1", EVALUATION, &about(&a1)).await), None);
    let token = house.assertion("a1");
    assert_eq!(house.post(EVALUATION, &token, &about(&a1)).await.status(), 200);
    assert_eq!(read(house.post(EVALUATION, &token, &about(&a1)).await).await.1["error"], "ASSERTION_USED");
    // Another's looks as if it did not exist.
    let others = house.bearer("a1", EVALUATION, &about(&b1)).await;
    let nobody = house.bearer("a1", EVALUATION, &about(&gone)).await;
    assert_eq!((why(&others), others.1["context"]["reasons"].clone()), (why(&nobody), nobody.1["context"]["reasons"].clone()));
    assert_eq!(why(&others).unwrap().0, "AGENT_UNKNOWN");
    for user in ["dev/demo", "dev/guest", "dev/nobody"] {
        let answer = house.bearer("a1", EVALUATION, &asks(("user", user), "spawn", ("class", "reader"))).await;
        assert_eq!(why(&answer).unwrap().0, "SUBJECT_UNKNOWN");
    }
    let (_, found) = house.bearer("a1", SUBJECTS, &about("any")).await;
    assert_eq!(found["results"], json!([{ "type": "agent", "id": a1 }]), "its own tree and nothing else");
    let (_, found) = house.bearer("a1", SUBJECTS, &asks(("user", ""), "spawn", ("class", "reader"))).await;
    assert_eq!(found["results"], json!([]));
    // The spawner hears of both, as it may see both.
    for id in [&a1, &b1] {
        assert_eq!(why(&house.certified(ORCHESTRATOR, EVALUATION, &about(id)).await), None);
    }
    // Who proves nothing is told so before the body is read; a request of a wrong shape is refused; its id comes back in each case.
    let url = house.metadata[EVALUATION].as_str().unwrap();
    let mtls = house.metadata["mtls_endpoint_aliases"][EVALUATION].as_str().unwrap();
    for url in [url, mtls] {
        let answer = read(
            house.http.post(url).header(CONTENT_TYPE, "application/json").body(about(&a1).to_string()).send().await.unwrap(),
        )
        .await;
        assert_eq!((answer.0, &answer.1["error"]), (401, &json!("CERTIFICATE_NEEDED")));
    }
    for wrong in ["Basic YTpi", "Bearer x", "Bearer"] {
        assert_eq!(
            house
                .http
                .post(url)
                .header(AUTHORIZATION, wrong)
                .header(CONTENT_TYPE, "application/json")
                .body(about(&a1).to_string())
                .send()
                .await
                .unwrap()
                .status(),
            401,
            "{wrong}"
        );
    }
    let elsewhere = house.dev.json("mint --as a1 --audience https://a.example")["token"].as_str().unwrap().to_owned();
    assert_eq!(house.post(EVALUATION, &elsewhere, &about(&a1)).await.status(), 401);
    let both = client(&house.dev, Some(GATEWAY))
        .post(mtls)
        .bearer_auth(house.assertion("a1"))
        .header(CONTENT_TYPE, "application/json")
        .body(about(&a1).to_string());
    assert_eq!(both.send().await.unwrap().status(), 400);
    let gateway = client(&house.dev, Some(GATEWAY));
    let long = format!("{{\"subject\": \"{}\"}}", "x".repeat(70_000));
    for (of, body) in [
        ("text/plain", about(&a1).to_string()),
        ("application/json", String::new()),
        ("application/json", "{".to_owned()),
        ("application/json", "[]".to_owned()),
        ("application/json", "[".repeat(50_000)),
        ("application/json", long),
        ("application/json", json!({ "action": { "name": "a:read" } }).to_string()),
    ] {
        let sent = gateway.post(mtls).header(CONTENT_TYPE, of).header("X-Request-ID", "r-17").body(body);
        let answer = sent.send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["x-request-id"].to_str().unwrap()), (400, "r-17"), "{of}");
    }
    let sent = gateway
        .post(mtls)
        .header("X-Request-ID", "x".repeat(200))
        .header(CONTENT_TYPE, "application/json")
        .body(about(&a1).to_string())
        .send()
        .await
        .unwrap();
    assert!(sent.status() == 200 && !sent.headers().contains_key("x-request-id"), "no longer one than is kept");
    assert_eq!(house.http.get(url).send().await.unwrap().status(), 405);
    // The metadata names what is there.
    assert_eq!(house.metadata["policy_decision_point"], house.url);
    for name in [EVALUATION, "access_evaluations_endpoint", SUBJECTS, "search_resource_endpoint", "search_action_endpoint"] {
        let url = house.metadata[name].as_str().unwrap();
        assert!(url.starts_with(&format!("{}/access/v1/", house.url)), "{url}");
        assert_eq!(house.http.post(url).send().await.unwrap().status(), 401, "{url}");
    }
}
