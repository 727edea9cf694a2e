//! Approvals: an agent asks, a person answers, and exactly what was approved is used, once.
#![expect(clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

#[path = "support/idp.rs"]
mod idp;
#[path = "approvals/ping.rs"]
mod ping;
#[path = "approvals/reach.rs"]
mod reach;
#[path = "approvals/webhook.rs"]
mod webhook;

use std::process::{Command, Output};

use mayfly_agent::api::v1;
use mayfly_agent::api::v1::approvals_client::ApprovalsClient;
use mayfly_agent::api::v1::tokens_client::TokensClient;
use serde_json::{Value, json};
use support::{Dev, channel};
use tokio::task::JoinSet;
use tonic::Status;
use tonic_types::StatusExt;

const BANK: &str = "https://bank.example";
const PAYMENT: &str = r#"{"type":"payment","amount":"10.00","currency":"EUR"}"#;

/// Runs a command whose arguments may hold anything.
fn run(dev: &Dev, args: &[&str]) -> Output {
    Command::new(support::BIN).args(args).current_dir(dev.dir.path()).env_remove("MAYFLY_HOME").output().unwrap()
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn start() -> Dev {
    let dev = Dev::start();
    prepare(&dev);
    dev
}

/// The agent `a1` of the user demo, and tokens of demo and guest of their own.
fn prepare(dev: &Dev) {
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    person(dev, "demo", "me.jwt");
    person(dev, "guest", "guest.jwt");
}

fn person(dev: &Dev, user: &str, file: &str) {
    let token = dev.json(&format!("token {user} --audience mayfly-dev-user"));
    std::fs::write(dev.path(file), token["token"].as_str().unwrap()).unwrap();
}

/// Asks for the payment of `amount`, as an agent.
fn ask(dev: &Dev, agent: &str, amount: &str) -> Value {
    let action = json!({ "type": "payment", "amount": amount, "currency": "EUR" }).to_string();
    let args = ["ask", "--as", agent, "--audience", BANK, "--action", &action, "--reason", "invoice7", "-o", "json"];
    let out = run(dev, &args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn id(asked: &Value) -> &str {
    asked["approval_id"].as_str().unwrap()
}

fn claims(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn what_a_person_approves_is_what_the_token_says_and_it_is_used_once() {
    let dev = start();
    let out = run(&dev, &["exchange", "--as", "a1", "--audience", BANK, "--action", PAYMENT]);
    let refused = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(3) && refused.contains("APPROVAL_NEEDED") && refused.contains("mayfly ask"), "{refused}");

    let asked = ask(&dev, "a1", "10.00");
    let id = id(&asked);
    assert_eq!((&asked["state"], &asked["uses"], &asked["user"]["sub"]), (&json!("pending"), &json!(1), &json!("demo")));
    assert_eq!(asked["authorization_details"], json!([{ "type": "payment", "amount": "10.00", "currency": "EUR" }]));
    assert_eq!(ask(&dev, "a1", "10.00")["approval_id"], asked["approval_id"], "the same question while it waits");
    let listed = dev.json("approvals list --user-token me.jwt");
    assert_eq!(listed["approvals"][0], asked);
    assert!(dev.fails(&format!("exchange --as a1 --approval {id}"), 3).contains("APPROVAL_PENDING"));

    let approved = dev.json(&format!("approve {id} --user-token me.jwt"));
    assert_eq!((&approved["state"], &approved["answered_by"]["sub"]), (&json!("approved"), &json!("demo")));
    assert!(dev.fails(&format!("approve {id} --user-token me.jwt"), 3).contains("APPROVAL_ANSWERED"));
    assert!(dev.fails(&format!("deny {id} --user-token me.jwt"), 3).contains("APPROVAL_ANSWERED"));

    // T323: as long as it can be used, it is a standing approval.
    assert_eq!(dev.json("governance")["approvals"][0]["approval_id"], asked["approval_id"]);

    let got = dev.json(&format!("exchange --as a1 --approval {id}"));
    assert_eq!(dev.json("governance")["approvals"], json!([]));
    // T320: decided again, with the approval as it was before the use.
    let replayed = dev.json("replay --since 1h");
    assert_eq!((&replayed["different"], &replayed["tokens"]), (&json!(0), &json!(1)), "{replayed}");
    assert_eq!((&got["authorization_details"], &got["scope"]), (&asked["authorization_details"], &json!("")));
    let claims = claims(got["access_token"].as_str().unwrap());
    assert_eq!((&claims["aud"], &claims["sub"], &claims["acr"]), (&json!(BANK), &json!("dev|demo"), &json!("ciba")));
    assert_eq!((&claims["approval_id"], &claims["approved_by"]["sub"]), (&asked["approval_id"], &json!("demo")));
    assert_eq!(claims["authorization_details"], asked["authorization_details"]);
    assert_eq!(claims["act"]["sub"], asked["agent_id"]);
    assert!(claims.get("scope").is_none(), "nothing but what was approved");
    assert!(dev.fails(&format!("exchange --as a1 --approval {id}"), 3).contains("APPROVAL_USED"));
    assert_eq!(dev.json(&format!("approvals show {id} --as a1"))["state"], "used");

    // The history says who approved what, when, and by which evidence.
    let said = dev.json("history --kind approval");
    let entries: Vec<&Value> = said["entries"].as_array().unwrap().iter().collect();
    let answer = entries.iter().find(|entry| entry["target"].as_str().is_some_and(|t| t.contains(" approved, "))).unwrap();
    assert!(answer["caller"].as_str().unwrap().starts_with("user demo of "), "{answer}");
    let evidence = approved["evidence"].as_str().unwrap();
    assert!(answer["target"].as_str().unwrap().contains(evidence) && answer["target"].as_str().unwrap().contains(id), "{answer}");
    assert_eq!(answer["agent_id"], asked["agent_id"]);
}

#[test]
fn t182_nobody_answers_but_the_people_whose_it_is() {
    let dev = start();
    let asked = ask(&dev, "a1", "10.00");
    let id = id(&asked);
    // Another user neither sees nor answers it; a token for spawning is no token of the user's own.
    assert!(dev.fails(&format!("approve {id} --user-token guest.jwt"), 3).contains("APPROVAL_UNKNOWN"));
    assert!(dev.fails(&format!("deny {id} --user-token guest.jwt"), 3).contains("APPROVAL_UNKNOWN"));
    assert_eq!(dev.json("approvals list --user-token guest.jwt")["approvals"], json!([]));
    assert!(dev.fails(&format!("approve {id} --user-token demo.jwt"), 3).contains("USER_TOKEN_AUDIENCE"));
    // Neither the agent, nor its workload, nor an operator, nor any of them with the user's token beside its certificate.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let token = dev.file("me.jwt").trim().to_owned();
    runtime.block_on(async {
        for identity in ["a1", support::ORCHESTRATOR] {
            let mut client = ApprovalsClient::new(channel(&dev, Some(identity)).await);
            for user_token in [String::new(), token.clone()] {
                let digest = asked["digest"].as_str().unwrap().to_owned();
                let request = v1::ApproveRequest {
                    approval_id: id.to_owned(),
                    user_token: user_token.clone(),
                    digest,
                    ..Default::default()
                };
                assert_eq!(reason(&client.approve(request).await.unwrap_err()), "ROLE_NOT_ALLOWED", "{identity}");
                let request = v1::DenyRequest { approval_id: id.to_owned(), user_token };
                assert_eq!(reason(&client.deny(request).await.unwrap_err()), "ROLE_NOT_ALLOWED", "{identity}");
            }
        }
    });
    // T183: another digest than that of what is asked for.
    let other = "0".repeat(64);
    assert!(dev.fails(&format!("approve {id} --user-token me.jwt --digest {other}"), 3).contains("APPROVAL_CHANGED"));
    // Another agent of the same user cannot use what this one asked for.
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    dev.json(&format!("approve {id} --user-token me.jwt"));
    assert!(dev.fails(&format!("exchange --as a2 --approval {id}"), 3).contains("APPROVAL_UNKNOWN"));
    assert!(dev.fails(&format!("approvals show {id} --as a2"), 3).contains("APPROVAL_UNKNOWN"));
    dev.json(&format!("exchange --as a1 --approval {id}"));
}

#[test]
fn t183_the_token_is_never_for_more_than_what_was_approved() {
    let dev = start();
    let exchange = |id: &str, more: &[&str]| {
        let out = run(&dev, &[&["exchange", "--as", "a1", "--approval", id, "-o", "json"], more].concat());
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    let asked = ask(&dev, "a1", "10.00");
    let id = id(&asked);
    dev.json(&format!("approve {id} --user-token me.jwt"));
    let pay = |amount: &str, currency: &str| json!({ "type": "payment", "amount": amount, "currency": currency }).to_string();
    for (more, reason) in [
        (vec!["--action".to_owned(), pay("10.01", "EUR")], "ACTION_NOT_ALLOWED"),
        (vec!["--action".to_owned(), pay("1.00", "JPY")], "ACTION_NOT_ALLOWED"),
        (vec!["--action".to_owned(), r#"{"type":"refund"}"#.to_owned()], "ACTION_MALFORMED"),
        (vec!["--scope".to_owned(), "mail:send".to_owned()], "SCOPE_NOT_ALLOWED"),
        (vec!["--audience".to_owned(), "https://mail.example".to_owned()], "AUDIENCE_NOT_ALLOWED"),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let (code, said) = exchange(id, &more);
        assert!(code == 3 || said.contains("ACTION_MALFORMED"), "{said}");
        assert!(said.contains(reason), "{reason} not in {said}");
    }
    let less = pay("9.5", "EUR");
    let (code, said) = exchange(id, &["--action", &less]);
    assert_eq!(code, 0, "{said}");
    let got: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(got["authorization_details"][0]["amount"], "9.5", "less is used, and that uses it up");
    assert!(exchange(id, &[]).1.contains("APPROVAL_USED"));
}

#[test]
fn a_question_dies_with_its_agent_its_user_and_its_delegation_and_survives_a_restart() {
    let dev = start();
    let (first, second) = (ask(&dev, "a1", "1"), ask(&dev, "a1", "2"));
    dev.json(&format!("approve {} --user-token me.jwt", id(&first)));
    let dev = Dev::start_in(dev.kill());
    assert_eq!(dev.json(&format!("approvals show {} --as a1", id(&second)))["state"], "pending");
    dev.json(&format!("exchange --as a1 --approval {}", id(&first)));
    let dev = Dev::start_in(dev.kill());
    assert!(
        dev.fails(&format!("exchange --as a1 --approval {}", id(&first)), 3).contains("APPROVAL_USED"),
        "after a restart too"
    );
    // The agent.
    dev.json("end --as a1");
    assert!(dev.fails(&format!("approve {} --user-token me.jwt", id(&second)), 3).contains("APPROVAL_EXPIRED"));
    assert_eq!(dev.json("approvals list --user-token me.jwt")["approvals"], json!([]));
    // The delegation.
    let a2 = dev.json("spawn --class payer --user-token demo.jwt --out a2");
    let asked = ask(&dev, "a2", "3");
    dev.json(&format!("revoke --delegation {}", a2["delegation_id"].as_str().unwrap()));
    assert_eq!(dev.json(&format!("approvals show {}", id(&asked)))["state"], "revoked");
    assert!(dev.fails(&format!("approve {} --user-token me.jwt", id(&asked)), 3).contains("APPROVAL_EXPIRED"));
    // The user, after the approval was given.
    dev.token("guest", "guest-agent.jwt");
    dev.json("spawn --class payer --user-token guest-agent.jwt --out g1");
    let asked = ask(&dev, "g1", "4");
    dev.json(&format!("approve {} --user-token guest.jwt", id(&asked)));
    dev.json("revoke --user dev/guest");
    dev.json("reopen --user dev/guest");
    assert!(dev.fails(&format!("exchange --as g1 --approval {}", id(&asked)), 3).contains("REVOKED"));
    assert_eq!(dev.json(&format!("approvals show {}", id(&asked)))["state"], "revoked", "it does not come back");
}

#[test]
fn a_denied_question_gives_nothing_and_may_be_asked_again() {
    let dev = start();
    let asked = ask(&dev, "a1", "10");
    dev.json(&format!("deny {} --user-token me.jwt", id(&asked)));
    assert!(dev.fails(&format!("exchange --as a1 --approval {}", id(&asked)), 3).contains("APPROVAL_DENIED"));
    assert!(dev.fails(&format!("approve {} --user-token me.jwt", id(&asked)), 3).contains("APPROVAL_ANSWERED"));
    assert_ne!(ask(&dev, "a1", "10")["approval_id"], asked["approval_id"]);
}

#[test]
fn t185_questions_are_bounded_and_an_answer_gives_its_place_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), "[approvals]\nper_agent = 2\nper_user = 3\n").unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    prepare(&dev);
    dev.json("spawn --class payer --user-token demo.jwt --out a2");
    let action = |amount: &str| json!({ "type": "payment", "amount": amount, "currency": "EUR" }).to_string();
    let refused = |agent: &str, amount: &str| {
        let out = run(&dev, &["ask", "--as", agent, "--audience", BANK, "--action", &action(amount)]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(3) && said.contains("LIMIT_REACHED"), "{said}");
    };
    let first = ask(&dev, "a1", "1");
    ask(&dev, "a1", "2");
    refused("a1", "3");
    ask(&dev, "a2", "1");
    refused("a2", "2");
    dev.json(&format!("deny {} --user-token me.jwt", id(&first)));
    ask(&dev, "a2", "2");
    refused("a1", "3");
}

/// Uses one approval in `uses` requests at once. Returns how many got a token.
async fn race(dev: &Dev, id: &str, uses: usize) -> usize {
    let channel = channel(dev, Some("a1")).await;
    let (mut running, mut got) = (JoinSet::new(), 0);
    for n in 0..uses {
        let (mut client, approval_id) = (TokensClient::new(channel.clone()), id.to_owned());
        running.spawn(async move {
            let request = v1::ExchangeRequest { approval_id, ..Default::default() };
            match client.exchange(request).await {
                Ok(_) => true,
                Err(status) => {
                    let refusal = reason(&status);
                    assert!(matches!(refusal.as_str(), "APPROVAL_USED" | "BUSY"), "{status:?}");
                    false
                }
            }
        });
        // As many as one connection carries at once.
        if n % 200 == 199 {
            while let Some(done) = running.join_next().await {
                got += usize::from(done.unwrap());
            }
        }
    }
    while let Some(done) = running.join_next().await {
        got += usize::from(done.unwrap());
    }
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t182_of_ten_thousand_uses_two_hundred_at_a_time_exactly_one_succeeds() {
    let dev = start();
    for uses in [10_000, 100, 100] {
        let asked = ask(&dev, "a1", &uses.to_string());
        dev.json(&format!("approve {} --user-token me.jwt", id(&asked)));
        assert_eq!(race(&dev, id(&asked), uses).await, 1, "{uses}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a minute; cargo test --release --test approvals -- --ignored"]
async fn t182_of_a_hundred_thousand_uses_two_hundred_at_a_time_exactly_one_succeeds() {
    let dev = start();
    let asked = ask(&dev, "a1", "7");
    dev.json(&format!("approve {} --user-token me.jwt", id(&asked)));
    assert_eq!(race(&dev, id(&asked), 100_000).await, 1);
}

/// So many questions wait at once, of agents that ask 500 each, and hold neither a thread nor a connection of their own. Returns how many
/// threads the issuer has then, beside those from before.
async fn waiting(agents: usize) -> i64 {
    const EACH: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let text = "[approvals]\nper_agent = 1000\nper_user = 100000\ntotal = 100000\n\
                [writes]\nask = { caller = \"1000000/s\", root = \"1000000/s\" }\n";
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    person(&dev, "demo", "me.jwt");
    let threads = || std::fs::read_dir(format!("/proc/{}/task", dev.pid())).unwrap().count() as i64;
    let before = threads();
    let mut last = String::new();
    for n in 0..agents {
        dev.json(&format!("spawn --class payer --user-token demo.jwt --out p{n}"));
        let channel = channel(&dev, Some(&format!("p{n}"))).await;
        let mut asking = JoinSet::new();
        for amount in 0..EACH {
            let mut client = ApprovalsClient::new(channel.clone());
            let authorization_details = format!("[{}]", PAYMENT.replace("10.00", &format!("{amount}.01")));
            let request = v1::AskRequest { audience: BANK.into(), authorization_details, ..Default::default() };
            asking.spawn(async move { client.ask(request).await.unwrap().into_inner().approval.unwrap().approval_id });
            // As many at once as a connection has streams.
            if asking.len() >= 100 {
                last = asking.join_next().await.unwrap().unwrap();
            }
        }
        asking.join_all().await;
    }
    let held = threads() - before;
    // All of them wait, and one is answered as if it were alone.
    let mut client = ApprovalsClient::new(channel(&dev, None).await);
    let request = v1::ListApprovalsRequest { user_token: dev.file("me.jwt").trim().to_owned(), all: false };
    assert_eq!(client.list_approvals(request).await.unwrap().into_inner().approvals.len(), (agents * EACH).min(1000));
    assert_eq!(dev.json(&format!("approve {last} --user-token me.jwt"))["state"], "approved");
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t185_questions_that_wait_hold_no_thread() {
    let held = waiting(2).await;
    assert!(held < 100, "{held} threads for 1,000 questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: cargo test --release --test approvals t185 -- --ignored --nocapture"]
async fn t185_ten_thousand_questions_that_wait_hold_no_thread() {
    let held = waiting(20).await;
    eprintln!("10,000 questions wait, and the issuer has {held} threads more than before");
    assert!(held < 100, "{held} threads for 10,000 questions");
}

#[test]
fn t184_what_a_person_reads_is_what_was_written() {
    let dev = start();
    for reason in ["two\nlines", "\u{202e}7 eciovni", "a\u{200b}b"] {
        let out = run(&dev, &["ask", "--as", "a1", "--audience", BANK, "--action", PAYMENT, "--reason", reason]);
        assert!(String::from_utf8_lossy(&out.stderr).contains("REASON_TOO_LONG"), "{reason:?}");
    }
    // A type may have no other fields than those that it lists, so nothing is asked for that nobody is shown.
    let hidden = r#"{"type":"payment","amount":"10.00","currency":"EUR","also":"everything"}"#;
    let out = run(&dev, &["ask", "--as", "a1", "--audience", BANK, "--action", hidden]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("ACTION_MALFORMED"));
}

/// A form to an endpoint of OAuth, with a fresh JWT-SVID of an agent as the client.
async fn post(dev: &Dev, agent: &str, endpoint: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let assertion = assertion(dev, agent);
    post_by(dev, &assertion, endpoint, form).await
}

fn assertion(dev: &Dev, agent: &str) -> String {
    let issuer = dev.text("https_issuer");
    dev.json(&format!("mint --as {agent} --audience {issuer}"))["token"].as_str().unwrap().to_owned()
}

/// The same with this JWT-SVID.
async fn post_by(dev: &Dev, assertion: &str, endpoint: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let issuer = dev.text("https_issuer");
    let by = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
    let form = [&[("client_assertion_type", by), ("client_assertion", assertion)][..], form].concat();
    let ca = reqwest::Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let response = http.post(format!("{issuer}/oauth/{endpoint}")).form(&form).send().await.unwrap();
    (response.status().as_u16(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
}

fn error(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["error"].as_str().unwrap_or("none"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_asks_by_the_backchannel_and_polls_until_it_is_answered() {
    const CIBA: &str = "urn:openid:params:grant-type:ciba";
    let dev = start();
    let details = format!("[{PAYMENT}]");
    let with = |more: &[(&'static str, &'static str)]| {
        let mut form = vec![("authorization_details", details.as_str())];
        let usual = [("scope", "openid"), ("login_hint", "dev|demo"), ("resource", BANK), ("binding_message", "invoice-7")];
        form.extend(usual.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).copied());
        form.extend(more.iter().filter(|(_, value)| !value.is_empty()).copied());
        form
    };
    for (more, expected) in [
        (("login_hint", ""), (400, "invalid_request")),
        (("login_hint", "dev|guest"), (400, "unknown_user_id")),
        (("login_hint", "nobody"), (400, "unknown_user_id")),
        (("id_token_hint", "x"), (400, "invalid_request")),
        (("request", "x"), (400, "invalid_request")),
        (("user_code", "1234"), (400, "invalid_request")),
        (("requested_expiry", "0"), (400, "invalid_request")),
        (("binding_message", "two\nlines"), (400, "invalid_binding_message")),
        (("resource", ""), (400, "invalid_target")),
        (("scope", "openid mail:send"), (400, "invalid_authorization_details")),
    ] {
        assert_eq!(error(&post(&dev, "a1", "backchannel", &with(&[more])).await), expected, "{more:?}");
    }
    // Without an approval the token endpoint says what is missing.
    let own = [("grant_type", "client_credentials"), ("resource", BANK), ("authorization_details", details.as_str())];
    assert_eq!(error(&post(&dev, "a1", "token", &own).await), (400, "consent_required"));

    let (status, asked) = post(&dev, "a1", "backchannel", &with(&[("requested_expiry", "300")])).await;
    assert_eq!((status, &asked["interval"]), (200, &json!(5)), "{asked}");
    assert!(asked["expires_in"].as_u64().is_some_and(|left| left > 0 && left <= 300));
    let id = asked["auth_req_id"].as_str().unwrap();
    let poll = [("grant_type", CIBA), ("auth_req_id", id)];
    assert_eq!(error(&post(&dev, "a1", "token", &poll).await), (400, "authorization_pending"));
    assert_eq!(error(&post(&dev, "a1", "token", &poll).await), (400, "slow_down"));
    assert_eq!(error(&post(&dev, "a1", "token", &[("grant_type", CIBA)]).await), (400, "invalid_request"));
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    assert_eq!(error(&post(&dev, "a2", "token", &poll).await), (400, "invalid_grant"), "another client's");
    let unknown = "0".repeat(32);
    let other = [("grant_type", CIBA), ("auth_req_id", unknown.as_str())];
    assert_eq!(error(&post(&dev, "a1", "token", &other).await), (400, "invalid_grant"));

    dev.json(&format!("approve {id} --user-token me.jwt"));
    let (status, got) = post(&dev, "a1", "token", &poll).await;
    assert_eq!((status, &got["token_type"]), (200, &json!("Bearer")), "{got}");
    assert_eq!(got["authorization_details"][0]["amount"], "10.00");
    assert_eq!(claims(got["access_token"].as_str().unwrap())["approval_id"], asked["auth_req_id"]);
    assert_eq!(error(&post(&dev, "a1", "token", &poll).await), (400, "invalid_grant"), "once");

    let (_, asked) = post(&dev, "a1", "backchannel", &with(&[])).await;
    let id = asked["auth_req_id"].as_str().unwrap();
    dev.json(&format!("deny {id} --user-token me.jwt"));
    let poll = [("grant_type", CIBA), ("auth_req_id", id)];
    assert_eq!(error(&post(&dev, "a1", "token", &poll).await), (400, "access_denied"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t331_a_poll_of_what_was_approved_uses_up_its_assertion_and_one_that_is_refused_does_not() {
    let dev = start();
    for n in 0..5 {
        let asked = ask(&dev, "a1", &format!("1{n}.00"));
        dev.json(&format!("approve {} --user-token me.jwt", id(&asked)));
        let (own, other) = (assertion(&dev, "a1"), assertion(&dev, "a1"));
        let poll = [("grant_type", "urn:openid:params:grant-type:ciba"), ("auth_req_id", id(&asked))];
        // Refused, because it asks for more than what was approved: nothing is used up.
        let more = json!([{ "type": "payment", "amount": "99.00", "currency": "EUR" }]).to_string();
        let too_much = [&poll[..], &[("authorization_details", more.as_str())]].concat();
        assert_eq!(error(&post_by(&dev, &own, "token", &too_much).await), (400, "invalid_authorization_details"));
        // Of two requests at once with one JWT-SVID, one is answered.
        let look = [("token", "x")];
        let (polled, looked) = tokio::join!(post_by(&dev, &own, "token", &poll), post_by(&dev, &own, "introspect", &look));
        let mut got = [error(&polled), error(&looked)];
        got.sort_unstable();
        assert_eq!(got, [(200, "none"), (401, "invalid_client")], "{n}");
        assert_eq!(error(&post_by(&dev, &own, "token", &poll).await), (401, "invalid_client"), "it is used up");
        let again = post_by(&dev, &other, "token", &poll).await;
        assert!(again.0 == 200 || error(&again) == (400, "invalid_grant"), "{again:?}");
    }
}
