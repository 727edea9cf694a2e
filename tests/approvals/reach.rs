//! People who are asked by their own provider (CIBA): what it is told, when it is polled, and which of its answers count.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::idp::{Asked, Idp, Says};
use super::support::Dev;
use super::{ask, id};

const CLIENT: &str = "mayfly-asks";

/// An issuer whose user `alice` of `corp` has the agent `c1`, and her provider.
fn house(more: &str) -> (Dev, Idp) {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("corp.pem");
    let corp = Idp::start(&ca);
    corp.needs_secret(Some("s3cret"));
    let secret = dir.path().join("client.secret");
    std::fs::write(&secret, "s3cret\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[[issuers]]\nname = \"corp\"\nissuer = \"{}\"\nca_file = \"{}\"\n{more}\n\
         [[issuers.audiences]]\naudience = \"agents\"\nworkloads = [\"orchestrator\"]\n\
         [[issuers.audiences]]\naudience = \"own\"\nuser = true\n\
         [[issuers.audiences]]\naudience = \"{CLIENT}\"\nciba = true\nsecret_file = \"{}\"\n",
        corp.url(),
        ca.display(),
        secret.display()
    );
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    std::fs::write(dev.path("alice.jwt"), corp.issue("agents", 600)).unwrap();
    std::fs::write(dev.path("own.jwt"), corp.issue("own", 600)).unwrap();
    dev.json("spawn --class researcher --user-token alice.jwt --out c1");
    (dev, corp)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn asked(corp: &Idp, nth: usize) -> Asked {
    until("the provider is told", || corp.people().get(nth).cloned())
}

fn state(dev: &Dev, asked: &Value) -> String {
    dev.json(&format!("approvals show {} --as c1", id(asked)))["state"].as_str().unwrap().to_owned()
}

fn becomes(dev: &Dev, asked: &Value, wanted: &str) {
    until(wanted, || (state(dev, asked) == wanted).then_some(()));
}

#[test]
fn a_person_agrees_at_their_provider_which_is_polled_no_faster_than_it_says() {
    let (dev, corp) = house("");
    corp.will_say([Says::Error("authorization_pending"), Says::Error("slow_down"), Says::Agrees(json!({}))]);
    let question = ask(&dev, "c1", "10.00");
    let told = asked(&corp, 0).form;
    let code = question["binding_code"].as_str().unwrap();
    assert_eq!((&*told["login_hint"], &*told["binding_message"], &*told["scope"]), ("alice", code, "openid"));
    assert_eq!(serde_json::from_str::<Value>(&told["authorization_details"]).unwrap(), question["authorization_details"]);
    let expiry: u64 = told["requested_expiry"].parse().unwrap();
    assert!((1..=600).contains(&expiry) && !told.contains_key("client_notification_token"), "{told:?}");
    // Keycloak and Auth0 take such a code.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    assert!(code.len() <= 50 && code.starts_with("mayfly-") && code.chars().all(plain), "{code}");
    // The same question while it waits asks nobody again.
    assert_eq!(ask(&dev, "c1", "10.00")["approval_id"], question["approval_id"]);
    becomes(&dev, &question, "approved");
    let all = corp.people();
    let [one] = all.as_slice() else { panic!("{all:?}") };
    // CIBA 11: none before the interval, and five seconds more after `slow_down`.
    let pauses: Vec<Duration> = one.polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(one.polls[0] - one.at >= Duration::from_secs(1) && pauses[0] >= Duration::from_secs(1), "{pauses:?}");
    assert!(pauses.len() == 2 && pauses[1] >= Duration::from_secs(6), "{pauses:?}");

    let shown = dev.json(&format!("approvals show {} --as c1", id(&question)));
    assert_eq!(shown["answered_by"], json!({ "iss": corp.url(), "sub": "alice" }));
    let said = dev.json("history --kind approval");
    let entry = said["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["target"].as_str().unwrap().contains(" approved, "))
        .unwrap();
    let target = entry["target"].as_str().unwrap();
    assert!(target.contains("asked at their provider, ID token sha256:") && target.contains("acr urn:test:phone"), "{entry}");
    assert!(entry["caller"].as_str().unwrap().starts_with("user alice of "), "{entry}");
    let got = dev.json(&format!("exchange --as c1 --approval {}", id(&question)));
    assert_eq!(got["authorization_details"], question["authorization_details"]);
    assert!(dev.fails(&format!("exchange --as c1 --approval {}", id(&question)), 3).contains("APPROVAL_USED"));
}

#[test]
fn a_person_refuses_or_does_not_answer_and_a_question_that_was_answered_elsewhere_is_asked_no_more() {
    let (dev, corp) = house("");
    corp.will_say([Says::Error("access_denied")]);
    let question = ask(&dev, "c1", "10.00");
    becomes(&dev, &question, "denied");
    assert!(dev.json("history --kind approval").to_string().contains("denied, asked at their provider, request sha256:"));
    // The provider gives up: the page and the command still work, and the same question is asked anew.
    corp.will_say([Says::Error("expired_token")]);
    let question = ask(&dev, "c1", "20.00");
    until("polled", || (!asked(&corp, 1).polls.is_empty()).then_some(()));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((state(&dev, &question).as_str(), corp.people()[1].polls.len()), ("pending", 1));
    ask(&dev, "c1", "20.00");
    asked(&corp, 2);
    dev.json(&format!("approve {} --user-token own.jwt", id(&question)));
    assert_eq!(state(&dev, &question), "approved");
    std::thread::sleep(Duration::from_millis(1500));
    let polls = corp.people()[2].polls.len();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(corp.people()[2].polls.len(), polls, "it was answered elsewhere");
    // A question that is over: its agent has ended.
    let question = ask(&dev, "c1", "30.00");
    asked(&corp, 3);
    dev.json("end --as c1");
    std::thread::sleep(Duration::from_millis(1500));
    let polls = corp.people()[3].polls.len();
    corp.will_say([Says::Agrees(json!({}))]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((corp.people()[3].polls.len(), question["state"].as_str()), (polls, Some("pending")));
}

#[test]
fn t333_only_the_id_token_of_the_person_who_was_asked_for_that_client_and_since_then_counts() {
    let (dev, corp) = house("");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (n, (what, claims)) in [
        ("somebody else agreed", json!({ "sub": "bob" })),
        ("for another client", json!({ "aud": "own" })),
        ("for another client too", json!({ "aud": ["other"] })),
        ("of another provider", json!({ "iss": "https://other.example" })),
        ("from before the question", json!({ "iat": now - 120 })),
        ("which has expired", json!({ "exp": now - 1 })),
        ("without a subject", json!({ "sub": "" })),
    ]
    .into_iter()
    .enumerate()
    {
        corp.will_say([Says::Agrees(claims)]);
        let question = ask(&dev, "c1", &format!("1{n}.00"));
        let at = n;
        until(what, || (!asked(&corp, at).polls.is_empty()).then_some(()));
        std::thread::sleep(Duration::from_millis(1300));
        assert_eq!((state(&dev, &question).as_str(), corp.people()[at].polls.len()), ("pending", 1), "{what}");
        dev.json(&format!("deny {} --user-token own.jwt", id(&question)));
    }
    // An answer proves nothing else: with it nobody spawns, answers, sees or stops anything.
    std::fs::write(dev.path("asked.jwt"), corp.issue(CLIENT, 600)).unwrap();
    assert!(dev.fails("spawn --class researcher --user-token asked.jwt --out c2", 3).contains("USER_TOKEN_AUDIENCE"));
    let question = ask(&dev, "c1", "50.00");
    assert!(dev.fails(&format!("approve {} --user-token asked.jwt", id(&question)), 3).contains("USER_TOKEN_AUDIENCE"));
    assert!(dev.fails("my agents --user-token asked.jwt", 3).contains("USER_TOKEN_AUDIENCE"));
    // Nor does the answer of somebody who was revoked meanwhile.
    dev.json("revoke --user corp/alice");
    corp.will_say([Says::Agrees(json!({}))]);
    std::thread::sleep(Duration::from_millis(2500));
    let entries = dev.json("history --kind approval").to_string();
    assert!(!entries.contains(" approved, "), "{entries}");
}

#[test]
fn t332_a_person_is_asked_about_a_few_things_at_once_and_a_provider_that_fails_holds_nothing_up() {
    let (dev, corp) = house("");
    for n in 0..7 {
        ask(&dev, "c1", &format!("{n}.50"));
    }
    asked(&corp, 3);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(corp.people().len(), 4, "more of them do not ring");
    let url = format!("http://{}/metrics", dev.text("http"));
    let metrics = || String::from_utf8(std::process::Command::new("curl").args(["-s", &url]).output().unwrap().stdout).unwrap();
    let dropped = until("counted", || {
        metrics().lines().find(|l| l.contains("at_provider") && l.contains("dropped") && l.ends_with(" 3")).map(str::to_owned)
    });
    assert!(dropped.starts_with("mayfly_asked_at_provider_total"), "{dropped}");
    // It answers with nonsense: the question stays, and is answered by the command.
    let dev = Dev::start_args(dev.kill(), &["--config", "more.toml"], &[]);
    assert_eq!(corp.people().len(), 4, "after a restart nobody is asked by itself");
    for (what, answer) in [
        ("an error", (400, json!({ "error": "invalid_binding_message" }))),
        ("no id", (200, json!({ "auth_req_id": "", "expires_in": 10 }))),
        ("an id that is none", (200, json!({ "auth_req_id": "a\r\nb", "expires_in": 10 }))),
        ("an id without end", (200, json!({ "auth_req_id": "x".repeat(9000), "expires_in": 10 }))),
        ("an answer without end", (200, json!({ "auth_req_id": "x", "expires_in": 10, "more": "x".repeat(300_000) }))),
        ("a server error", (503, json!({}))),
    ] {
        corp.acknowledges(Some(answer));
        let before = corp.people().len();
        let question = ask(&dev, "c1", &format!("{before}.75"));
        assert!(asked(&corp, before).polls.is_empty());
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(state(&dev, &question), "pending", "{what}");
        dev.json(&format!("deny {} --user-token own.jwt", id(&question)));
    }
    // Polls that fail are repeated, each later than the one before.
    corp.acknowledges(None);
    corp.will_say([Says::Garbage, Says::Agrees(json!({}))]);
    let before = corp.people().len();
    let question = ask(&dev, "c1", "99.75");
    becomes(&dev, &question, "approved");
    let polls = asked(&corp, before).polls;
    assert!(polls.len() == 2 && polls[1] - polls[0] >= Duration::from_secs(6), "{polls:?}");
    // One after another, too: seven were asked about since the start.
    let before = corp.people().len();
    for n in 0..5 {
        let question = ask(&dev, "c1", &format!("{n}.22"));
        std::thread::sleep(Duration::from_millis(500));
        dev.json(&format!("deny {} --user-token own.jwt", id(&question)));
    }
    assert_eq!(corp.people().len(), before + 3, "ten in five minutes, and no more");
    // A provider that is told in another way whom to ask: a claim of the token by which the user let the agent act.
    corp.breaks("issuer");
    ask(&dev, "c1", "1.11");
}

#[test]
fn a_provider_is_told_whom_to_ask_by_the_hint_that_it_knows() {
    let (dev, corp) = house("login_hint = \"iss_sub\"");
    ask(&dev, "c1", "1.00");
    let hint: Value = serde_json::from_str(&asked(&corp, 0).form["login_hint"]).unwrap();
    assert_eq!(hint, json!({ "format": "iss_sub", "iss": corp.url(), "sub": "alice" }));
    // A claim of their token, also after a restart; without it nobody is asked.
    let (dev, corp) = house("login_hint = \"preferred_username\"");
    ask(&dev, "c1", "1.00");
    std::thread::sleep(Duration::from_secs(1));
    assert!(corp.people().is_empty(), "her token has no such claim");
    let (dev, corp) = house("login_hint = \"jti\"");
    let dev = Dev::start_args(dev.kill(), &["--config", "more.toml"], &[]);
    ask(&dev, "c1", "1.00");
    assert!(asked(&corp, 0).form["login_hint"].parse::<u64>().is_ok());
}
