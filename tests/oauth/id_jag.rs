//! ID-JAGs: a provider's consent for one client, as proof of a user at spawn and at exchange. Each ceiling denies alone, and one use is
//! all there is.

use super::attacks::Provider;
use super::bound::{Key, seconds};
use super::*;

const TYP: &str = "oauth-id-jag+jwt";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
const ORCHESTRATOR: &str = "spiffe://dev.mayfly.test/workload/orchestrator";
const SEARCH: &str = "https://search.example";
const POLICIES: &str = r#"
@id("not-files")
@owner("files@example.org")
@reason("files are read by people")
forbid (principal, action == Action::"exchange", resource == Audience::"https://files.example");
"#;

/// A house whose provider `corp` makes ID-JAGs for the orchestrator, and the agent `c1` of its user demo.
fn house() -> (House, Provider) {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("corp.pem");
    let corp = Provider::start(&ca);
    std::fs::create_dir(dir.path().join("policies")).unwrap();
    std::fs::write(dir.path().join("policies/a.cedar"), POLICIES).unwrap();
    std::fs::write(dir.path().join("more.toml"), "[policy]\ndir = \"policies\"\n").unwrap();
    let house = House::of(Dev::start_args(dir, &["--config", "more.toml"], &[]));
    let text = format!(
        "[policy]\ndir = \"policies\"\n[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\nca_file = \"{}\"\nmax_age = \"5m\"\n\
         [[issuers.audiences]]\naudience = \"agents\"\nworkloads = [\"orchestrator\"]\n\
         [[issuers.audiences]]\naudience = \"{}\"\nid_jag = true\nworkloads = [\"orchestrator\"]\n\
         scopes = [\"mail:send\", \"files:read\"]\n",
        corp.url,
        ca.display(),
        house.issuer
    );
    std::fs::write(house.dev.path("more.toml"), text).unwrap();
    house.dev.json("reload");
    std::fs::write(house.dev.path("corp.jwt"), corp.token("JWT", &json!({}))).unwrap();
    house.dev.json("spawn --class researcher --user-token corp.jwt --out c1");
    (house, corp)
}

/// An ID-JAG for a client, with `more` over its claims.
fn jag(house: &House, corp: &Provider, client: &str, more: &Value) -> String {
    let mut claims = json!({ "aud": house.issuer, "client_id": client, "scope": "mail:send" });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    corp.token(TYP, &claims)
}

/// The answer to an ID-JAG as an authorization grant.
async fn granted(house: &House, assertion: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let mut form = vec![("grant_type", JWT_BEARER), ("assertion", assertion)];
    form.extend(more);
    if !more.iter().any(|(name, _)| *name == "resource") {
        form.push(("resource", MAIL));
    }
    house.asks("c1", "token", &form).await
}

fn spawned(house: &House, token: &str, out: &str) -> std::process::Output {
    std::fs::write(house.dev.path("jag.jwt"), token).unwrap();
    house.dev.run(&format!("spawn --class researcher --user-token jag.jwt --out {out}"))
}

/// The code of a denied spawn.
fn denied(house: &House, token: &str) -> String {
    let out = spawned(house, token, "none");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(3), "{text}");
    text
}

#[tokio::test]
async fn an_id_jag_spawns_one_agent_within_its_scopes_and_until_its_end() {
    let (house, corp) = house();
    let token = jag(&house, &corp, ORCHESTRATOR, &json!({ "scope": "files:read search:read", "act": { "sub": ORCHESTRATOR } }));
    let out = spawned(&house, &token, "j1");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let shown = house.dev.json("whoami --as j1");
    let id = shown["delegation_id"].as_str().unwrap_or_default().to_owned();
    // Of what the provider says, the configuration allows this.
    assert_eq!(shown["scopes"], json!(["files:read"]), "{shown}");
    assert_eq!(shown["user"]["sub"], "demo", "{shown}");
    // Once: neither for another agent, nor for a token of the one that it made, nor for a batch; the delegation goes on.
    assert!(denied(&house, &token).contains("USER_TOKEN_USED"));
    let (status, body) =
        house.asks("j1", "token", &[("grant_type", JWT_BEARER), ("assertion", &token), ("resource", MAIL)]).await;
    assert_eq!((status, body["error"].as_str()), (400, Some("invalid_grant")), "{body}");
    assert!(house.dev.run(&format!("spawn --class researcher --delegation {id} --out j2")).status.success());
    // What a delegation cannot say is not left out of it.
    for more in [
        json!({ "resource": MAIL }),
        json!({ "authorization_details": [{ "type": "payment" }] }),
        json!({ "cnf": { "jkt": Key::new().proved() } }),
    ] {
        let token = jag(&house, &corp, ORCHESTRATOR, &more);
        assert!(denied(&house, &token).contains("USER_TOKEN_RESOURCE"), "{more}");
    }
    // It dies with its user, as everything else does.
    house.dev.json("revoke --user corp/demo");
    assert!(house.dev.fails("whoami --as j1", 3).contains("AGENT_REVOKED"));
}

#[tokio::test]
async fn t245_an_id_jag_that_is_wrong_in_one_thing_proves_nobody() {
    let (house, corp) = house();
    let now = seconds();
    let c1 = house.dev.json("whoami --as c1")["spiffe_id"].as_str().unwrap().to_owned();
    for (what, more) in [
        ("for another server", json!({ "aud": "https://other.example" })),
        ("for us and for another", json!({ "aud": [house.issuer, "https://other.example"] })),
        ("for the audience of ID tokens", json!({ "aud": "agents" })),
        ("without an id", json!({ "jti": null })),
        ("without a client", json!({ "client_id": null })),
        ("of a client that is no text", json!({ "client_id": [c1] })),
        ("without a subject", json!({ "sub": null })),
        ("without an end", json!({ "exp": null })),
        ("of a day", json!({ "exp": now + 86_400 })),
        ("expired", json!({ "exp": now - 1 })),
        ("too old", json!({ "iat": now - 301 })),
        ("of the future", json!({ "iat": now + 60 })),
        ("of a tenant", json!({ "tenant": "t1" })),
        ("for a tenant", json!({ "aud_tenant": "t1" })),
        ("whose scope is a list", json!({ "scope": ["mail:send"] })),
        ("whose resource is a number", json!({ "resource": 1 })),
        ("whose actor has no name", json!({ "act": {} })),
        ("whose actor is a text", json!({ "act": c1 })),
        ("bound in a way that is unknown", json!({ "cnf": { "x5t#S256": "x" } })),
        ("bound to a key that is none", json!({ "cnf": { "jkt": "x" } })),
        ("whose details are no list", json!({ "authorization_details": {} })),
        ("of another user", json!({ "sub": "guest" })),
        ("of ourselves", json!({ "iss": house.issuer })),
    ] {
        let answer = granted(&house, &jag(&house, &corp, &c1, &more), &[]).await;
        assert_eq!(error(&answer), (400, "invalid_grant"), "{what}: {answer:?}");
    }
    let forger = Provider { url: corp.url.clone(), key: Key::new() };
    assert_eq!(error(&granted(&house, &jag(&house, &forger, &c1, &json!({})), &[]).await), (400, "invalid_grant"));
    // One family is never taken for another: no ID token at this audience, and no ID-JAG as a token of another type.
    for typ in ["JWT", "at+jwt"] {
        let posed = corp.token(typ, &json!({ "aud": house.issuer, "client_id": c1 }));
        let form = [("grant_type", EXCHANGE), ("subject_token", &*posed), ("subject_token_type", ID), ("resource", MAIL)];
        assert_eq!(error(&house.asks("c1", "token", &form).await), (400, "invalid_request"), "{typ}");
    }
    let right = jag(&house, &corp, &c1, &json!({}));
    for typ in [ID, ACCESS, JWT] {
        let form = [("grant_type", EXCHANGE), ("subject_token", &*right), ("subject_token_type", typ), ("resource", MAIL)];
        assert_eq!(error(&house.asks("c1", "token", &form).await), (400, "invalid_request"), "{typ}");
    }
    // It proves no client.
    let alone = [("grant_type", JWT_BEARER), ("assertion", right.as_str()), ("resource", MAIL)];
    assert_eq!(error(&read(house.post("token", &alone).await).await), (401, "invalid_client"));
    // And nothing of that used it up.
    let form = [("grant_type", EXCHANGE), ("subject_token", &*right), ("subject_token_type", ID_JAG), ("resource", MAIL)];
    let (status, body) = house.asks("c1", "token", &form).await;
    assert_eq!((status, body["scope"].as_str()), (200, Some("mail:send")), "{body}");
    assert_eq!(body["refresh_token"], Value::Null);
    assert_eq!(error(&granted(&house, &right, &[]).await), (400, "invalid_grant"), "a second use");
}

#[tokio::test]
async fn t246_t247_each_of_six_ceilings_denies_alone_before_anything_is_recorded_or_signed() {
    let (house, corp) = house();
    let c1 = house.dev.json("whoami --as c1")["spiffe_id"].as_str().unwrap().to_owned();
    house.dev.json("spawn --as c1 --class worker --out w1");
    let watched = house.token("c1", MAIL).await;
    let wide = json!({ "scope": "mail:send files:read search:read" });
    // All of them say yes: the agent itself, an agent above it, and the workload at the root are who it names.
    for client in [c1.as_str(), ORCHESTRATOR] {
        let (status, body) = granted(&house, &jag(&house, &corp, client, &json!({ "resource": MAIL })), &[]).await;
        assert_eq!((status, body["scope"].as_str()), (200, Some("mail:send")), "{body}");
        let (claims, typ) = house.verified(body["access_token"].as_str().unwrap(), MAIL).await;
        assert_eq!((claims["sub"].as_str(), typ.as_str()), (Some("corp|demo"), "at+jwt"));
        assert!(claims["exp"].as_u64() <= Some(seconds() + 200), "it ends with the ID-JAG: {claims}");
    }
    let actor = |sub: &str| json!({ "act": { "sub": sub } });
    for (ceiling, agent, client, more, resource, scope, expected) in [
        ("the subject", "c1", c1.as_str(), json!({ "sub": "guest" }), MAIL, "mail:send", "invalid_grant"),
        ("consent: scopes", "c1", &c1, json!({ "scope": "files:read" }), MAIL, "mail:send", "invalid_scope"),
        ("consent: no scope at all", "c1", &c1, json!({ "scope": "" }), MAIL, "mail:send", "invalid_scope"),
        ("consent: the resource", "c1", &c1, json!({ "resource": SEARCH }), MAIL, "mail:send", "invalid_target"),
        ("consent: the provider's ceiling", "c1", &c1, wide.clone(), MAIL, "search:read", "invalid_scope"),
        (
            "the presenter: another client",
            "c1",
            "spiffe://dev.mayfly.test/workload/mail-service",
            json!({}),
            MAIL,
            "mail:send",
            "invalid_grant",
        ),
        (
            "the presenter: another actor",
            "c1",
            &c1,
            actor("spiffe://dev.mayfly.test/workload/guard"),
            MAIL,
            "mail:send",
            "invalid_grant",
        ),
        ("what the agent may do", "w1", &c1, wide.clone(), "https://files.example", "mail:send", "invalid_scope"),
        ("where its class may go", "w1", &c1, wide.clone(), MAIL, "files:read", "invalid_target"),
        ("what is registered", "c1", &c1, wide.clone(), "https://unknown.example", "mail:send", "invalid_target"),
        ("the policy of the target", "c1", &c1, wide.clone(), "https://files.example", "files:read", "unauthorized_client"),
    ] {
        let token = jag(&house, &corp, client, &more);
        // Before the revision is looked at: to mint a JWT-SVID is a record.
        let assertion = house.assertion(agent);
        let before = house.introspect("mail-service", &watched)["revision"].clone();
        let form = [
            ("client_assertion_type", BEARER),
            ("client_assertion", assertion.as_str()),
            ("grant_type", JWT_BEARER),
            ("assertion", token.as_str()),
            ("resource", resource),
            ("scope", scope),
        ];
        let answer = read(house.post("token", &form).await).await;
        assert_eq!(error(&answer), (400, expected), "{ceiling}: {answer:?}");
        assert!(before.is_u64() && house.introspect("mail-service", &watched)["revision"] == before, "{ceiling}");
    }
    // An agent below may use what names one above it, and nobody what names one below.
    let w1 = house.dev.json("whoami --as w1")["spiffe_id"].as_str().unwrap().to_owned();
    assert_eq!(error(&granted(&house, &jag(&house, &corp, &w1, &json!({})), &[]).await), (400, "invalid_grant"));
    assert!(denied(&house, &jag(&house, &corp, &c1, &json!({}))).contains("USER_TOKEN_CLIENT"), "the workload is not the agent");
}

#[tokio::test]
async fn t247_an_id_jag_for_an_action_or_a_key_is_of_no_use_without_it() {
    let (house, corp) = house();
    let c1 = house.dev.json("whoami --as c1")["spiffe_id"].as_str().unwrap().to_owned();
    let payment = |amount: &str| json!([{ "type": "payment", "amount": amount, "currency": "EUR" }]);
    let bank = [("resource", "https://bank.example")];
    // A provider's consent takes the place of no person's approval.
    let token = jag(&house, &corp, &c1, &json!({ "scope": null, "authorization_details": payment("10") }));
    assert_eq!(error(&granted(&house, &token, &bank).await), (400, "consent_required"));
    let more = payment("11").to_string();
    let asked = [bank[0], ("authorization_details", more.as_str())];
    assert!(error(&granted(&house, &token, &asked).await).0 == 400);
    // Without `authorization_details` it is for no action, and with them for nothing else.
    let plain = jag(&house, &corp, &c1, &json!({}));
    let ten = payment("10").to_string();
    let answer = granted(&house, &plain, &[bank[0], ("authorization_details", ten.as_str())]).await;
    assert_ne!(answer.0, 200, "{answer:?}");
    // Bound to a key: without its proof nothing, with another key's nothing.
    let (key, thief) = (Key::new(), Key::new());
    let token = jag(&house, &corp, &c1, &json!({ "cnf": { "jkt": key.proved() } }));
    assert_eq!(error(&granted(&house, &token, &[]).await), (400, "invalid_grant"));
    let url = format!("{}/oauth/token", house.issuer);
    let mut nonce = String::new();
    for (who, expected) in [(&thief, 400), (&thief, 400), (&key, 200)] {
        let assertion = house.assertion("c1");
        let form = [
            ("client_assertion_type", BEARER),
            ("client_assertion", assertion.as_str()),
            ("grant_type", JWT_BEARER),
            ("assertion", token.as_str()),
            ("resource", MAIL),
        ];
        let proof = who.proof("POST", &url, &[("nonce", json!(nonce))]);
        let response = house.http.post(&url).header("DPoP", proof).form(&form).send().await.unwrap();
        if let Some(next) = response.headers().get("dpop-nonce") {
            next.to_str().unwrap().clone_into(&mut nonce);
        }
        let (status, body) = read(response).await;
        assert_eq!(status, expected, "{body}");
    }
}

#[tokio::test]
async fn t248_an_id_jag_that_was_used_stays_used_across_a_restart() {
    let dev = Dev::start();
    let line = format!("token demo --id-jag {ORCHESTRATOR} --scope files:read");
    let token = String::from_utf8(dev.run(&line).stdout).unwrap();
    std::fs::write(dev.path("jag.jwt"), token).unwrap();
    dev.json("spawn --class researcher --user-token jag.jwt --out a1");
    let dev = Dev::start_in(dev.kill());
    assert!(dev.fails("spawn --class researcher --user-token jag.jwt --out a2", 3).contains("USER_TOKEN_USED"));
}

#[tokio::test]
async fn an_id_jag_is_issued_for_the_servers_of_the_catalogue_and_is_a_token_nowhere_here() {
    const RAS: &str = "https://ras.example";
    let dir = tempfile::tempdir().unwrap();
    let text = "[[audiences]]\nname = \"https://ras.example\"\nowner = \"o\"\nform = \"id-jag\"\nclient_id = \"mayfly-{class}\"\n\
                resources = [\"https://api.example/a\", \"https://api.example/b\"]\n\
                [[audiences]]\nname = \"https://other.example\"\nowner = \"o\"\nform = \"id-jag\"\n\
                [[classes]]\nname = \"caller\"\nowner = \"o\"\nscopes = [\"api:read\", \"mail:send\"]\n\
                audiences = [\"https://ras.example\", \"https://other.example\", \"https://mail.example\"]\nsvid_ttl = \"15m\"\nmax_lease = \"1h\"\nmax_depth = 0\n\
                modes = [\"delegated\"]\nspawners = [\"workload/orchestrator\"]\n\
                [[classes]]\nname = \"robot\"\nowner = \"o\"\nscopes = [\"api:read\"]\naudiences = [\"https://other.example\"]\n\
                svid_ttl = \"15m\"\nmax_lease = \"1h\"\nmax_depth = 0\nmodes = [\"autonomous\"]\nspawners = [\"workload/orchestrator\"]\n";
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let house = House::of(Dev::start_args(dir, &["--config", "more.toml"], &[]));
    house.dev.token("demo", "demo.jwt");
    house.dev.json("spawn --class caller --user-token demo.jwt --out a1");
    house.dev.json("spawn --class robot --out b1");
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    let user = house.dev.file("demo.jwt");
    let ask = async |agent: &str, wanted: &str, more: &[(&str, &str)]| {
        let mut form = vec![
            ("grant_type", EXCHANGE),
            ("subject_token", &*user),
            ("subject_token_type", ID),
            ("requested_token_type", wanted),
        ];
        form.extend(more);
        house.asks(agent, "token", &form).await
    };
    let (resource, scope) = (("resource", "https://api.example/a"), ("scope", "api:read"));
    let (status, body) = ask("a1", ID_JAG, &[("audience", RAS), resource, scope]).await;
    assert_eq!((status, &body["issued_token_type"], &body["token_type"]), (200, &json!(ID_JAG), &json!("N_A")), "{body}");
    assert!(body["expires_in"].as_u64() <= Some(300) && body["scope"] == "api:read");
    let token = body["access_token"].as_str().unwrap();
    let (claims, typ) = house.verified(token, RAS).await;
    assert_eq!((typ.as_str(), &claims["sub"], &claims["client_id"]), (TYP, &json!("dev|demo"), &json!("mayfly-caller")));
    assert_eq!(
        (&claims["scope"], &claims["resource"], &claims["aud"]),
        (&json!("api:read"), &json!("https://api.example/a"), &json!(RAS))
    );
    assert_eq!((&claims["act"]["sub"], &claims["act"]["sub_profile"]), (&json!(a1), &json!("ai_agent")));
    assert_eq!(claims["act"]["act"]["sub"], "spiffe://dev.mayfly.test/workload/orchestrator");
    assert!(claims["jti"].is_string() && claims.as_object().unwrap().keys().all(|name| !name.starts_with("urn:oid:")));
    // The command says the same, without a type.
    let said = house.dev.json("exchange --as a1 --audience https://other.example --scope api:read");
    assert_eq!(said["token_type"], "N_A", "{said}");
    for (what, agent, wanted, more) in [
        ("an access token there", "a1", ACCESS, vec![("audience", RAS)]),
        ("an ID-JAG elsewhere", "a1", ID_JAG, vec![("audience", MAIL)]),
        ("a resource that is not listed", "a1", ID_JAG, vec![("audience", RAS), ("resource", "https://api.example/c")]),
        ("two resources", "a1", ID_JAG, vec![("audience", RAS), resource, ("resource", "https://api.example/b")]),
        ("one of two, and not which", "a1", ID_JAG, vec![("audience", RAS)]),
        ("a resource alone", "a1", ID_JAG, vec![resource]),
    ] {
        assert_eq!(error(&ask(agent, wanted, &more).await), (400, "invalid_target"), "{what}");
    }
    // By another grant there is none, and for nobody there is none.
    let plain = [("grant_type", "client_credentials"), ("audience", RAS)];
    assert_eq!(error(&house.asks("a1", "token", &plain).await), (400, "invalid_target"));
    assert!(house.dev.fails("exchange --as b1 --audience https://other.example", 3).contains("CLAIMS_UNUSABLE"));
    // It is no token of ours, and no proof of anything here.
    assert!(verifier(&house)(token, RAS, &mayfly_verify::Possession::default()).is_err());
    assert!(mayfly_verify::verify_jwt(token, RAS, &bundle(&house), &mayfly_verify::BindingOid::default(), seconds()).is_err());
    assert_eq!(
        error(&house.asks("a1", "token", &[("grant_type", JWT_BEARER), ("assertion", token), ("resource", MAIL)]).await),
        (400, "invalid_grant")
    );
    assert!(denied(&house, token).contains("USER_TOKEN_ISSUER_UNKNOWN"));
}

#[tokio::test]
async fn an_id_jag_extends_a_lease_once_and_only_within_all_that_it_says() {
    let (house, corp) = house();
    let spawn = |out: &str| {
        std::fs::write(house.dev.path("corp.jwt"), corp.token("JWT", &json!({}))).unwrap();
        house.dev.json(&format!("spawn --class researcher --user-token corp.jwt --scope mail:send --out {out}"))
    };
    let (first, second) = (spawn("e1"), spawn("e2"));
    assert!(second["lease_expires_at"].is_string());
    // It ends long after the first token, so that it could extend the lease.
    let longer = |client: &str, more: Value| {
        let mut claims = json!({ "exp": seconds() + 1800 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::write(house.dev.path("jag.jwt"), jag(&house, &corp, client, &claims)).unwrap();
    };
    let guard = "spiffe://dev.mayfly.test/workload/guard";
    for (what, client, more, code) in [
        ("of another user", ORCHESTRATOR, json!({ "sub": "guest" }), "USER_DIFFERS"),
        ("of another client", guard, json!({}), "USER_TOKEN_CLIENT"),
        ("of another actor", ORCHESTRATOR, json!({ "act": { "sub": guard } }), "USER_TOKEN_CLIENT"),
        ("for another server", ORCHESTRATOR, json!({ "aud": "https://other.example" }), "USER_TOKEN_AUDIENCE"),
        ("for less than the agent may do", ORCHESTRATOR, json!({ "scope": "files:read" }), "EXCEEDS_AUTHORITY"),
        ("for one resource", ORCHESTRATOR, json!({ "resource": MAIL }), "USER_TOKEN_RESOURCE"),
        ("for actions", ORCHESTRATOR, json!({ "authorization_details": [{ "type": "payment" }] }), "USER_TOKEN_RESOURCE"),
        ("of a key", ORCHESTRATOR, json!({ "cnf": { "jkt": Key::new().proved() } }), "USER_TOKEN_RESOURCE"),
    ] {
        longer(client, more);
        let refused = house.dev.fails("extend --as e1 --user-token jag.jwt", 3);
        assert!(refused.contains(code), "{what}: {refused}");
    }
    longer(ORCHESTRATOR, json!({}));
    let extended = house.dev.json("extend --as e1 --user-token jag.jwt");
    assert!(extended["lease_expires_at"].as_str() > first["lease_expires_at"].as_str(), "{extended}");
    // Once: the same request again is the same extension, and for anything else the ID-JAG was used.
    assert_eq!(house.dev.json("extend --as e1 --user-token jag.jwt")["lease_expires_at"], extended["lease_expires_at"]);
    assert!(house.dev.fails("extend --as e2 --user-token jag.jwt", 3).contains("USER_TOKEN_USED"));
    assert!(house.dev.fails("spawn --class researcher --user-token jag.jwt --out none", 3).contains("USER_TOKEN_USED"));
}
