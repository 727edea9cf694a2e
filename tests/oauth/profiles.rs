//! What an audience of the catalogue gets: whom its tokens name, in which form, and whether the agent is in them.

use super::*;

const CATALOGUE: &str = r#"
[[audiences]]
name = "https://mail.example"
owner = "o"
bound = "none"
impersonation = true

[[audiences]]
name = "https://files.example"
owner = "o"
subject = "class"
groups = ["{class}", "agents"]
lifetime = "60s"

[[audiences]]
name = "https://search.example"
owner = "o"
subject = "{user.sub}@example.org"
form = "jwt"

[[audiences]]
name = "snowflakecomputing.com"
owner = "o"
kind = "snowflake"

[[classes]]
name = "researcher"
owner = "development"
scopes = ["files:read", "mail:send"]
audiences = ["https://files.example", "https://mail.example", "https://search.example", "snowflakecomputing.com"]
impersonates = ["https://mail.example"]
max_depth = 3
spawners = ["workload/orchestrator"]

[[classes]]
name = "reader"
owner = "development"
scopes = ["mail:send"]
audiences = ["https://mail.example"]
spawners = ["workload/orchestrator"]
"#;
const SEARCH: &str = "https://search.example";
const SNOWFLAKE: &str = "snowflakecomputing.com";

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), CATALOGUE).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    House::of(dev)
}

async fn token(house: &House, agent: &str, audience: &str) -> String {
    let form = [("grant_type", "client_credentials"), ("audience", audience)];
    let (status, body) = house.asks(agent, "token", &form).await;
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_audience_gets_the_subject_and_the_form_that_it_expects() {
    let house = house();
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    let class = "spiffe://dev.mayfly.test/class/researcher";
    // One name for all agents of a class; the instance is the actor.
    let (claims, typ) = house.verified(&token(&house, "a1", FILES).await, FILES).await;
    assert_eq!((typ.as_str(), &claims["sub"], &claims["client_id"]), ("at+jwt", &json!(class), &json!(a1)));
    assert_eq!((&claims["act"]["sub"], &claims["groups"]), (&json!(a1), &json!(["researcher", "agents"])));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    house.dev.json("spawn --class researcher --user-token demo.jwt --out b1");
    assert_eq!(house.verified(&token(&house, "b1", FILES).await, FILES).await.0["sub"], class);
    // The user, as the system knows them.
    let plain = token(&house, "a1", SEARCH).await;
    let (claims, typ) = house.verified(&plain, SEARCH).await;
    assert_eq!((typ.as_str(), &claims["sub"], &claims["act"]["sub"]), ("JWT", &json!("demo@example.org"), &json!(a1)));
    // What is usual for a system needs no words.
    let of_class = token(&house, "a1", SNOWFLAKE).await;
    let (claims, typ) = house.verified(&of_class, SNOWFLAKE).await;
    assert_eq!((typ.as_str(), &claims["sub"]), ("JWT", &json!(class)));

    // T190: in whatever form, no verifier of JWT-SVIDs takes it for one, and no verifier of access tokens takes a plain JWT.
    let (bundle, oid, held) = (bundle(&house), mayfly_verify::BindingOid::default(), mayfly_verify::Possession::default());
    for (text, audience) in [(&plain, SEARCH), (&of_class, SNOWFLAKE)] {
        assert!(mayfly_verify::verify_jwt(text, audience, &bundle, &oid, bound::seconds()).is_err());
        assert_eq!(verifier(&house)(text, audience, &held).map(drop).unwrap_err().code(), "CREDENTIAL_PROFILE");
        // As a subject token, or as a proof of the client.
        let form = [("grant_type", EXCHANGE), ("subject_token", text.as_str()), ("subject_token_type", JWT), ("audience", FILES)];
        assert_eq!(error(&house.asks("a1", "token", &form).await), (400, "invalid_request"));
        let form = [("client_assertion_type", BEARER), ("client_assertion", text.as_str()), ("grant_type", "client_credentials")];
        assert_eq!(error(&read(house.post("token", &form).await).await), (401, "invalid_client"));
        // The issuer knows it, and it dies by the cut.
        std::fs::write(house.dev.path("asked"), text).unwrap();
        assert_eq!(house.dev.json("introspect --token-file asked")["client_id"], a1);
    }
    house.dev.json(&format!("revoke --agent {a1}"));
    assert_eq!(house.dev.json("introspect --token-file asked"), json!({ "active": false }));
}

#[tokio::test]
async fn t191_a_token_says_nothing_of_the_agent_only_where_class_and_audience_say_so() {
    let house = house();
    let a1 = house.dev.json("whoami --as a1")["spiffe_id"].as_str().unwrap().to_owned();
    house.dev.json("spawn --class reader --user-token demo.jwt --out r1");
    let alone = token(&house, "a1", MAIL).await;
    let (claims, _) = house.verified(&alone, MAIL).await;
    assert_eq!((&claims["sub"], claims.get("act"), &claims["client_id"]), (&json!("dev|demo"), None, &json!(a1)));
    let verified = verifier(&house)(&alone, MAIL, &mayfly_verify::Possession::default()).unwrap();
    assert!(verified.impersonates);
    // Whoever asks the issuer hears who acts.
    let said = house.introspect("mail-service", &alone);
    assert_eq!((&said["impersonation"], &said["act"]["sub"]), (&json!(true), &json!(a1)));
    // The class of this one does not say so.
    let both = token(&house, "r1", MAIL).await;
    assert!(house.verified(&both, MAIL).await.0.get("act").is_some());
    assert_eq!(house.introspect("mail-service", &both).get("impersonation"), None);
    // Nor does the audience of this one, whatever else is asked for.
    assert!(house.verified(&token(&house, "a1", FILES).await, FILES).await.0.get("act").is_some());
    let two = [("grant_type", "client_credentials"), ("audience", MAIL), ("audience", FILES)];
    assert_eq!(error(&house.asks("a1", "token", &two).await), (400, "invalid_target"));
    // The history knows it apart.
    let marked = |agent: &str| {
        let entries = house.dev.json(&format!("history --kind mint --agent {agent}"))["entries"].as_array().unwrap().clone();
        entries.iter().any(|entry| entry["target"].as_str().is_some_and(|target| target.contains("says nothing of the agent")))
    };
    let told = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        marked(&a1)
    });
    assert!(told);
}
