//! The webhook: who is told of a question, by what they know that it is from here, and which links to the page count.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::support::Dev;
use super::{ask, id, prepare};

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A receiver without TLS on this machine. It answers with each of these status codes in turn, and then with 204; 0 never answers.
fn receiver(answers: &'static [u16]) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (told, heard) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.iter();
        for stream in listener.incoming() {
            let (mut stream, told, answer) = (stream.unwrap(), told.clone(), answers.next().copied().unwrap_or(204));
            std::thread::spawn(move || {
                let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
                loop {
                    let whole = String::from_utf8_lossy(&text).to_lowercase();
                    let length =
                        whole.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
                    let end = whole.find("\r\n\r\n");
                    if end.zip(length).is_some_and(|(end, length)| text.len() >= end + 4 + length) {
                        break;
                    }
                    match stream.read(&mut buffer) {
                        Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
                let _ = told.send(String::from_utf8_lossy(&text).into_owned());
                if answer == 0 {
                    std::thread::sleep(Duration::from_secs(60));
                }
                let head = format!("HTTP/1.1 {answer} X\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n");
                let _ = stream.write_all(format!("{head}content-length: 0\r\n\r\n").as_bytes());
            });
        }
    });
    (url, heard)
}

fn house(url: &str) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("hook.secret");
    std::fs::write(&secret, format!("whsec_{SECRET}\n")).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!("[approvals.webhook]\nurl = \"{url}\"\nsecret_file = \"{}\"\n", secret.display());
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    prepare(&dev);
    dev
}

fn next(heard: &Receiver<String>) -> String {
    heard.recv_timeout(Duration::from_secs(60)).unwrap()
}

fn header<'t>(text: &'t str, name: &str) -> &'t str {
    let line = text.lines().find_map(|line| line.split_once(": ").filter(|(known, _)| known.eq_ignore_ascii_case(name)));
    line.unwrap_or_else(|| panic!("{name} is missing in {text}")).1
}

fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_program_is_told_of_each_new_question_and_can_tell_that_it_is_from_here() {
    let (url, heard) = receiver(&[503]);
    let dev = house(&url);
    let asked = ask(&dev, "a1", "10.00");
    let (first, second) = (next(&heard), next(&heard));
    assert_eq!(header(&first, "webhook-id"), header(&second, "webhook-id"), "an attempt more has the same id");
    assert!(second.starts_with("POST /hook HTTP/1.1") && header(&second, "content-type") == "application/json");
    let signed = format!("{}.{}.{}", header(&second, "webhook-id"), header(&second, "webhook-timestamp"), body(&second));
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
    let tag = header(&second, "webhook-signature").strip_prefix("v1,").unwrap();
    hmac::verify(&key, signed.as_bytes(), &STANDARD.decode(tag).unwrap()).unwrap();
    let told: Value = serde_json::from_str(body(&second)).unwrap();
    let data = &told["data"];
    assert_eq!((&told["type"], &data["approval_id"]), (&json!("approval.asked"), &asked["approval_id"]));
    for name in ["agent_id", "chain", "user", "audience", "authorization_details", "reason", "digest", "binding_code"] {
        assert_eq!(data[name], asked[name], "{name}");
    }
    // The same question again is no new one, and nobody is told of an answer.
    ask(&dev, "a1", "10.00");
    dev.json(&format!("approve {} --user-token me.jwt", id(&asked)));
    let other = ask(&dev, "a1", "11.00");
    assert!(next(&heard).contains(id(&other)));
}

#[test]
fn t334_a_receiver_that_refuses_hangs_or_is_gone_holds_nobody_up() {
    // It hangs, and then refuses by a redirect, which nobody follows.
    let (url, heard) = receiver(&[0, 302]);
    let dev = house(&url);
    let began = Instant::now();
    let asked = ask(&dev, "a1", "10.00");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    next(&heard);
    let other = ask(&dev, "a1", "11.00");
    assert!(next(&heard).contains(id(&other)), "one that hangs is waited for beside the others");
    dev.json(&format!("approve {} --user-token me.jwt", id(&asked)));
    dev.json(&format!("exchange --as a1 --approval {}", id(&asked)));
    // Nobody is there: the issuer starts, asks and stops all the same.
    let dir = dev.kill();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = std::fs::read_to_string(dir.path().join("more.toml")).unwrap();
    std::fs::write(dir.path().join("more.toml"), text.replace(&url, &format!("http://{gone}/hook"))).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    let began = Instant::now();
    ask(&dev, "a1", "12.00");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t335_a_link_counts_for_one_question_until_its_end_and_shows_nothing_to_anybody_else() {
    let (url, heard) = receiver(&[]);
    let dev = house(&url);
    let link = |asked: &Value| {
        let told: Value = serde_json::from_str(body(&next(&heard))).unwrap();
        assert_eq!(told["data"]["approval_id"], asked["approval_id"]);
        told["data"]["link"].as_str().unwrap().to_owned()
    };
    let one = ask(&dev, "a1", "10.00");
    let first = link(&one);
    let two = ask(&dev, "a1", "20.00");
    let second = link(&two);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(dev.file(".mayfly/https-ca.pem").as_bytes()).unwrap();
    let http =
        reqwest::Client::builder().tls_certs_only([ca]).no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let get = async |url: &str| {
        let response = http.get(url).send().await.unwrap();
        let to = response.headers().get("location").map(|to| to.to_str().unwrap().to_owned());
        (response.status().as_u16(), to, response.text().await.unwrap())
    };
    let (page, proof) = first.split_once("?link=").unwrap();
    assert_eq!(page, one["page"]);
    // Whoever has the link signs in first, as without it, and sees nothing before.
    let (status, to, text) = get(&first).await;
    assert_eq!((status, to), (303, Some(format!("/me/sign-in?approval={}", id(&one)))));
    assert!(!text.contains("10.00"));
    // Another question, another end, another signature: nobody is sent anywhere by it.
    let (until, tag) = proof.split_once('.').unwrap();
    let later = until.parse::<u64>().unwrap() + 1;
    let unknown = format!("{}/{}", page.rsplit_once('/').unwrap().0, "0".repeat(32));
    let other = second.split_once("?link=").unwrap().0;
    let mut answers = Vec::new();
    for bad in [
        format!("{other}?link={proof}"),
        format!("{page}?link={later}.{tag}"),
        format!("{page}?link={until}."),
        format!("{page}?link={until}.{}", "A".repeat(43)),
        format!("{page}?link="),
        format!("{page}?link=x"),
        format!("{unknown}?link={proof}"),
    ] {
        let (status, to, text) = get(&bad).await;
        assert_eq!((status, to), (403, None), "{bad}");
        answers.push(text);
    }
    assert!(answers.iter().all(|text| *text == answers[0]), "it makes no difference whether there is such an approval");
    // It still counts after a restart, and for nothing that has ended.
    let dev = Dev::start_args(dev.kill(), &["--config", "more.toml"], &[]);
    assert_eq!(get(&first).await.0, 303);
    drop(dev);
}

#[test]
fn what_is_wrong_with_a_webhook_is_said_before_it_is_used() {
    let (url, _heard) = receiver(&[]);
    let dev = house(&url);
    let check = |text: &str| {
        std::fs::write(dev.path("check.toml"), format!("trust_domain = \"td.example\"\n{text}")).unwrap();
        let out = dev.run("config check check.toml");
        assert_ne!(out.status.code(), Some(0), "{text}");
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout)
    };
    for (text, part) in [
        ("[approvals.webhook]\nurl = \"http://10.0.0.1/\"\nsecret_file = \"hook.secret\"", "approvals.webhook.url"),
        ("[approvals.webhook]\nurl = \"http://localhost.example/\"\nsecret_file = \"hook.secret\"", "approvals.webhook.url"),
        ("[approvals.webhook]\nurl = \"https://x.example/\"", "approvals.webhook.secret_file: is missing"),
        ("[approvals.webhook]\nurl = \"https://x.example/\"\nsecret_file = \"nowhere\"", "does not exist"),
        ("[approvals.webhook]\nurl = \"https://x.example/\"\nsecret_file = \"check.toml\"", "approvals.webhook"),
        ("[approvals.webhook]\nurl = \"https://x.example/\"\nsecret_file = \"hook.secret\"\nx = 1", "approvals.webhook.x"),
    ] {
        let said = check(text);
        assert!(said.contains(part), "{part} not in {said}");
    }
}
