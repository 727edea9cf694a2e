//! Notifications: a word to an address that the configuration names, so that its program need not ask again and again. No request waits
//! for one, and none is owed: what is said can be asked too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Url};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::https::{https_client, open_client};
use crate::process;

/// Notices that wait to be sent.
const WAITING: usize = 4096;
/// Notices that are sent at once.
const AT_ONCE: usize = 8;
/// How long each next attempt waits. The client bounds an attempt itself.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(8)];

/// Where notices go. An attacker who controls it hears when approvals are answered, by ids that say nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An https URL, or an http URL on loopback.
    pub url: String,
    /// PEM file with the only roots of its TLS certificate. `None` means the roots of the system.
    pub ca_file: Option<PathBuf>,
}

/// One notice.
pub struct Notice {
    /// Where it goes.
    pub to: Endpoint,
    /// By what its receiver knows it.
    pub proof: Proof,
    /// JSON.
    pub body: String,
}

/// By what a receiver knows a notice.
pub enum Proof {
    /// A bearer token that the receiver chose.
    Bearer(Zeroizing<String>),
    /// A signature over its id, the time and its body, with a key that both have: the headers of Standard Webhooks 1.0.
    Signed {
        /// Its id, the same at each attempt.
        id: String,
        /// The key.
        key: Zeroizing<Vec<u8>>,
    },
}

impl Proof {
    /// The headers of an attempt at `now` (Unix seconds).
    fn headers(&self, body: &str, now: u64) -> Vec<(&'static str, Zeroizing<String>)> {
        match self {
            Proof::Bearer(token) => vec![("authorization", Zeroizing::new(format!("Bearer {}", token.as_str())))],
            Proof::Signed { id, key } => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, key);
                let tag = STANDARD.encode(hmac::sign(&key, format!("{id}.{now}.{body}").as_bytes()));
                let headers = [
                    ("webhook-id", id.clone()),
                    ("webhook-timestamp", now.to_string()),
                    ("webhook-signature", format!("v1,{tag}")),
                ];
                headers.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).collect()
            }
        }
    }
}

/// Sends notices, counted under the name of a metric.
pub struct Notifier(mpsc::Sender<Notice>, &'static str);

impl Notifier {
    /// A notifier, and the task that sends until `stop`.
    pub fn start(metric: &'static str, mut stop: watch::Receiver<bool>) -> (Notifier, JoinHandle<()>) {
        let (sender, mut notices) = mpsc::channel::<Notice>(WAITING);
        let sending = process::task(metric, async move {
            let (places, mut clients) = (Arc::new(Semaphore::new(AT_ONCE)), HashMap::new());
            let mut sent = tokio::task::JoinSet::new();
            loop {
                let notice = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    _ = sent.join_next(), if !sent.is_empty() => continue,
                    notice = notices.recv() => notice,
                };
                let Some(notice) = notice else { return };
                let place = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    place = Arc::clone(&places).acquire_owned() => place,
                };
                let Ok(place) = place else { return };
                let Some(client) = client(&mut clients, &notice.to) else {
                    metrics::counter!(metric, "outcome" => "failed").increment(1);
                    continue;
                };
                sent.spawn(async move {
                    let outcome = if deliver(&client, &notice).await { "ok" } else { "failed" };
                    metrics::counter!(metric, "outcome" => outcome).increment(1);
                    drop(place);
                });
            }
        });
        (Notifier(sender, metric), sending)
    }

    /// Sends a notice soon. It is dropped if too many wait.
    pub fn send(&self, notice: Notice) {
        if self.0.try_send(notice).is_err() {
            metrics::counter!(self.1, "outcome" => "dropped").increment(1);
        }
    }
}

/// The client for an endpoint: one for each file of roots, of which the configuration has a few.
fn client(known: &mut HashMap<(bool, Option<PathBuf>), Client>, to: &Endpoint) -> Option<Client> {
    let key = (on_loopback(&to.url), to.ca_file.clone());
    if let Some(client) = known.get(&key) {
        return Some(client.clone());
    }
    let made = if key.0 { open_client(to.ca_file.as_deref()) } else { https_client(to.ca_file.as_deref()) };
    match made {
        Ok(client) => {
            known.insert(key, client.clone());
            Some(client)
        }
        Err(cause) => {
            tracing::warn!(url = to.url, %cause, "a notification cannot be sent");
            None
        }
    }
}

/// Whether a URL is one without TLS on this machine.
pub fn on_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // The URL stands in the log, so it holds no secret.
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    url.scheme() == "http" && local && plain
}

/// Whether the receiver took the notice. What it refuses is not sent again; redirects are not followed.
async fn deliver(client: &Client, notice: &Notice) -> bool {
    for pause in [None].into_iter().chain(PAUSES.map(Some)) {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let request = client.post(&notice.to.url).header("content-type", "application/json");
        let headers = notice.proof.headers(&notice.body, now);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value.as_str()));
        let request = request.body(notice.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => return true,
            Ok(answer) if !answer.status().is_server_error() && answer.status() != reqwest::StatusCode::TOO_MANY_REQUESTS => {
                tracing::warn!(url = notice.to.url, status = %answer.status(), "a notification was refused");
                return false;
            }
            Ok(answer) => tracing::info!(url = notice.to.url, status = %answer.status(), "a notification is sent again"),
            Err(cause) => tracing::info!(url = notice.to.url, %cause, "a notification is sent again"),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_vector_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap_or_default();
        let proof = Proof::Signed { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(), key: Zeroizing::new(key) };
        let headers = proof.headers(r#"{"test": 2432232314}"#, 1_614_265_330);
        let signature = headers.iter().find(|(name, _)| *name == "webhook-signature").map(|(_, value)| value.as_str());
        assert_eq!(signature, Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn t334_without_tls_only_this_machine_is_told() {
        for good in ["http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost:8080"] {
            assert!(on_loopback(good), "{good}");
        }
        for bad in [
            "https://127.0.0.1",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "http://10.0.0.1",
            "x",
            "ftp://localhost",
        ] {
            assert!(!on_loopback(bad), "{bad}");
        }
    }
}
