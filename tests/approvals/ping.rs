//! CIBA in ping mode: a configured address hears that somebody has answered, and nobody else is asked for anything.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::support::Dev;
use super::{BANK, PAYMENT, error, post, prepare};

/// A receiver of pings on this machine. It answers with each of these status codes in turn, and then with 204; 0 closes the connection.
struct Hook {
    url: String,
    heard: Receiver<String>,
}

impl Hook {
    fn start(ca_file: &Path, answers: &'static [u16]) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/ciba", listener.local_addr().unwrap());
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(ca_file, made.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private).unwrap());
        let (told, heard) = channel();
        std::thread::spawn(move || {
            let mut answers = answers.iter();
            for stream in listener.incoming() {
                let tls = StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), stream.unwrap());
                let answer = answers.next().copied().unwrap_or(204);
                let _ = answered(tls, answer, &told);
            }
        });
        Hook { url, heard }
    }

    fn next(&self) -> String {
        self.heard.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

fn answered(mut tls: StreamOwned<ServerConnection, TcpStream>, status: u16, told: &Sender<String>) -> std::io::Result<()> {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let whole = String::from_utf8_lossy(&text).to_lowercase();
        let length = whole.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
        if let (Some(end), Some(length)) = (whole.find("\r\n\r\n"), length)
            && text.len() >= end + 4 + length
        {
            break;
        }
        match tls.read(&mut buffer)? {
            0 => return Ok(()),
            n => text.extend_from_slice(&buffer[..n]),
        }
    }
    told.send(String::from_utf8_lossy(&text).into_owned()).ok();
    if status > 0 {
        write!(tls, "HTTP/1.1 {status} X\r\nlocation: https://127.0.0.1:1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    }
    tls.conn.send_close_notify();
    tls.flush()
}

fn start(answers: &'static [u16]) -> (Dev, Hook) {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("hook.pem");
    let hook = Hook::start(&ca, answers);
    let dev = Dev::start_in(dir);
    // What development configures for this workload stays, and this is added.
    let text =
        format!("[[workloads]]\nname = \"orchestrator\"\nnotify = \"{}\"\nnotify_ca_file = \"{}\"\n", hook.url, ca.display());
    let dir = dev.kill();
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    prepare(&dev);
    (dev, hook)
}

async fn ask(dev: &Dev, agent: &str, more: &[(&str, &str)]) -> (u16, Value) {
    let details = format!("[{PAYMENT}]");
    let usual = [("scope", "openid"), ("login_hint", "dev|demo"), ("resource", BANK), ("authorization_details", &*details)];
    post(dev, agent, "backchannel", &[&usual[..], more].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_address_hears_that_somebody_has_answered_also_if_it_fails_first() {
    let (dev, hook) = start(&[503, 0]);
    let (status, asked) = ask(&dev, "a1", &[("client_notification_token", "8d67dc78-7faa-4d41-aabd-67707b374255")]).await;
    assert_eq!(status, 200, "{asked}");
    let id = asked["auth_req_id"].as_str().unwrap();
    dev.json(&format!("approve {id} --user-token me.jwt"));
    // Twice in vain, and then it is taken.
    for _ in 0..3 {
        let heard = hook.next();
        assert!(heard.starts_with("POST /ciba HTTP/1.1\r\n"), "{heard}");
        assert!(heard.to_lowercase().contains("authorization: bearer 8d67dc78-7faa-4d41-aabd-67707b374255\r\n"), "{heard}");
        let body: Value = serde_json::from_str(heard.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body, json!({ "auth_req_id": id }));
    }
    let poll = [("grant_type", "urn:openid:params:grant-type:ciba"), ("auth_req_id", id)];
    assert_eq!(post(&dev, "a1", "token", &poll).await.0, 200);
    // A no is told too; whoever gave no token, or asked in another way, hears nothing.
    let plain = ask(&dev, "a1", &[]).await.1;
    dev.json(&format!("approve {} --user-token me.jwt", plain["auth_req_id"].as_str().unwrap()));
    let denied = ask(&dev, "a1", &[("client_notification_token", "second")]).await.1;
    let id = denied["auth_req_id"].as_str().unwrap();
    dev.json(&format!("deny {id} --user-token me.jwt"));
    let heard = hook.next();
    assert!(heard.contains(id) && heard.to_lowercase().contains("bearer second"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t275_no_address_of_a_request_is_asked_and_a_receiver_that_refuses_is_asked_once() {
    let (dev, hook) = start(&[302]);
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let address = format!("https://{}/", elsewhere.local_addr().unwrap());
    for bad in ["a b", "a\r\nx: y", "\u{e9}", &"x".repeat(1025)] {
        assert_eq!(error(&ask(&dev, "a1", &[("client_notification_token", bad)]).await), (400, "invalid_request"), "{bad:?}");
    }
    let more = [
        ("client_notification_token", "first"),
        ("client_notification_endpoint", &*address),
        ("backchannel_client_notification_endpoint", &address),
    ];
    let asked = ask(&dev, "a1", &more).await.1;
    let first = asked["auth_req_id"].as_str().unwrap();
    dev.json(&format!("deny {first} --user-token me.jwt"));
    assert!(hook.next().contains(first));
    // It refused by a redirect, which nobody follows, and is not asked again: what comes next is the next answer.
    let asked = ask(&dev, "a1", &[("client_notification_token", "second")]).await.1;
    let second = asked["auth_req_id"].as_str().unwrap();
    dev.json(&format!("deny {second} --user-token me.jwt"));
    assert!(hook.next().contains(second));
    assert!(elsewhere.accept().is_err(), "an address of a request was asked");
    // Without an address nobody can ask so.
    let dir = dev.kill();
    std::fs::remove_file(dir.path().join("more.toml")).unwrap();
    let dev = Dev::start_in(dir);
    assert_eq!(error(&ask(&dev, "a1", &[("client_notification_token", "x")]).await), (400, "invalid_request"));
}
