//! Tokens that count once at a guard, and those of agents without keys, which count with the certificate of their parent.

use super::*;

const ONCE: &str = "https://mail.example";
const CATALOGUE: &str =
    "[[audiences]]\nname = \"https://mail.example\"\nowner = \"o\"\nkind = \"mcp\"\nsingle_use = true\nlifetime = \"2m\"\n";

fn mint(dev: &Dev) -> String {
    dev.json(&format!("mint --as a1 --audience {ONCE}"))["token"].as_str().unwrap().to_owned()
}

#[test]
fn t291_t293_a_token_for_a_single_use_is_accepted_once_and_never_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), CATALOGUE).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    Guard::join(&dev);
    spawn(&dev, "a1");
    let issuer = dev.text("https_issuer");
    let guard = Guard::start(&dev, &["unix:g.sock", "--issuer", &issuer]);
    let ask = |guard: &Guard, token: &str, scopes: &[&str]| {
        let (_, said) = guard.verify(&json!({ "credential": token, "audience": ONCE, "scopes": scopes }));
        said["reason"].as_str().unwrap_or("").to_owned()
    };
    // From before the start: the guard cannot know whether it was used. So it is for as long as clocks may differ, and no longer.
    let early = mint(&dev);
    assert_eq!(ask(&guard, &early, &[]), "CREDENTIAL_TOO_OLD");
    until("the guard remembers", || {
        let reason = ask(&guard, &mint(&dev), &[]);
        assert!(reason.is_empty() || reason == "CREDENTIAL_TOO_OLD", "{reason}");
        reason.is_empty()
    });
    assert_eq!(ask(&guard, &early, &[]), "CREDENTIAL_TOO_OLD");

    // What is refused for something else uses up nothing; then it counts once, whoever asks.
    let token = mint(&dev);
    std::fs::write(dev.path("once.jwt"), &token).unwrap();
    let verified = dev.json(&format!("verify once.jwt --bundle a1/bundle.json --audience {ONCE} --live"));
    assert_eq!(verified["single_use"], true, "{verified}");
    assert_eq!(ask(&guard, &token, &["admin"]), "SCOPE_MISSING");
    let barrier = std::sync::Barrier::new(8);
    let accepted = std::thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            ask(&guard, &token, &[])
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|one| one.join().unwrap()).filter(String::is_empty).count()
    });
    assert_eq!(accepted, 1);
    let (status, said) = guard.verify(&json!({ "credential": token, "audience": ONCE }));
    assert_eq!((status, &said["reason"]), (403, &json!("CREDENTIAL_USED")), "{said}");
    assert!(said["hint"].as_str().unwrap().contains("get one for each request"), "{said}");

    // So at each door, and an access token too.
    let bearer = format!("Bearer {}", mint(&dev));
    let auth = || guard.send("GET", &format!("/auth?audience={ONCE}"), &[("authorization", &bearer)], b"");
    assert_eq!(auth().status, 200);
    let second = auth();
    assert_eq!((second.status, second.header("mayfly-reason")), (401, Some("CREDENTIAL_USED")));
    assert!(second.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
    let access = dev.json(&format!("exchange --as a1 --audience {ONCE} --scope mail:send"))["access_token"].clone();
    let question = json!({ "credential": access, "audience": ONCE });
    let batch = json!({ "checks": [question, question] }).to_string();
    let answers = guard.send("POST", "/verify/batch", &[], batch.as_bytes()).json()["answers"].clone();
    assert_eq!((&answers[0]["decision"], &answers[1]["reason"]), (&json!(true), &json!("CREDENTIAL_USED")), "{answers}");
    std::fs::write(dev.path("access.jwt"), access.as_str().unwrap()).unwrap();
    let told = dev.json("introspect --token-file access.jwt");
    assert_eq!((&told["active"], &told["single_use"]), (&json!(true), &json!(true)), "{told}");
    // Another guard knows nothing of it, and accepts neither.
    drop(guard);
    let guard = Guard::start(&dev, &["unix:g2.sock", "--issuer", &issuer]);
    assert_eq!(ask(&guard, &token, &[]), "CREDENTIAL_TOO_OLD");
    assert_eq!(ask(&guard, access.as_str().unwrap(), &[]), "CREDENTIAL_TOO_OLD");
}

#[test]
fn t294_the_token_of_an_agent_without_a_key_counts_with_its_parents_certificate_and_no_other() {
    let dev = world();
    let guard = Guard::start(&dev, &["unix:g.sock"]);
    let parent = spawn(&dev, "a1");
    spawn(&dev, "a2");
    let id = |agent: &Value| agent["agent_id"].as_str().unwrap().to_owned();
    let child = id(&dev.json("spawn --as a1 --class worker --scope search:read --keyless"));
    let token = dev.json(&format!("mint --as a1 --for {child} --audience {SEARCH}"))["token"].as_str().unwrap().to_owned();
    let certificate = |dir: &str| leaf(&(dev.file(&format!("{dir}/svid.pem")) + "\n"));
    let ask = |shown: Option<&str>| {
        guard.verify(&json!({ "credential": token, "audience": SEARCH, "certificate": shown, "scopes": ["search:read"] }))
    };
    let (own, other, workload) = (certificate("a1"), certificate("a2"), certificate("g"));
    // The child acts, with its own scopes, whoever presents.
    for shown in [None, Some(own.as_str())] {
        let (status, said) = ask(shown);
        assert_eq!((status, &said["agent_id"], &said["scopes"]), (200, &json!(child), &json!(["search:read"])), "{said}");
        assert_eq!((&said["parent_id"], &said["kind"]), (&json!(id(&parent)), &json!("jwt-svid")), "{said}");
    }
    let bearer = format!("Bearer {token}");
    let auth = |certificate: &str| {
        let headers = [("authorization", bearer.as_str()), ("x-client-cert", &percent(certificate))];
        guard.send("GET", &format!("/auth?credential=any&audience={SEARCH}"), &headers, b"")
    };
    assert_eq!((auth(&own).status, auth(&own).header("x-mayfly-agent")), (200, Some(child.as_str())));
    // Not what its parent may do beside it.
    let (_, said) =
        guard.verify(&json!({ "credential": token, "audience": SEARCH, "certificate": own, "scopes": ["mail:send"] }));
    assert_eq!(said["reason"], "SCOPE_MISSING", "{said}");
    for stranger in [&other, &workload] {
        assert_eq!(ask(Some(stranger)).1["reason"], "CREDENTIALS_DIFFER");
        assert_eq!(auth(stranger).header("mayfly-reason"), Some("CREDENTIALS_DIFFER"));
    }
    // Of the parent's other agents it is none either: bound is it to this certificate, not to the parent.
    dev.json("renew --as a1");
    let renewed = certificate("a1");
    assert_eq!(ask(Some(&renewed)).1["reason"], "CREDENTIALS_DIFFER");
    // It ends alone, and with its parent.
    let second = id(&dev.json("spawn --as a1 --class worker --scope search:read --keyless"));
    let another = dev.json(&format!("mint --as a1 --for {second} --audience {SEARCH}"))["token"].clone();
    let with = |token: &Value| guard.verify(&json!({ "credential": token, "audience": SEARCH, "certificate": renewed }));
    assert_eq!(with(&another).0, 200);
    dev.json(&format!("revoke --agent {child}"));
    until("the cut", || ask(Some(&own)).1["reason"] == "CREDENTIAL_REVOKED");
    assert_eq!(with(&another).0, 200);
    dev.json(&format!("revoke --agent {}", id(&parent)));
    until("the cut", || with(&another).1["reason"] == "CREDENTIAL_REVOKED");
}
