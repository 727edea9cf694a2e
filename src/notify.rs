//! Notifications: a word to an address that the configuration names, so that its program need not ask again and again. No request waits
//! for one, and none is owed: what is said can be asked too.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::https::https_client;
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
    /// An https URL.
    pub url: String,
    /// PEM file with the only roots of its TLS certificate. `None` means the roots of the system.
    pub ca_file: Option<PathBuf>,
}

/// One notice.
pub struct Notice {
    /// Where it goes.
    pub to: Endpoint,
    /// The bearer token by which its receiver knows it.
    pub token: Zeroizing<String>,
    /// JSON.
    pub body: String,
}

/// Sends notices.
pub struct Notifier(mpsc::Sender<Notice>);

impl Notifier {
    /// A notifier, and the task that sends until `stop`.
    pub fn start(mut stop: watch::Receiver<bool>) -> (Notifier, JoinHandle<()>) {
        let (sender, mut notices) = mpsc::channel::<Notice>(WAITING);
        let sending = process::task("notifications", async move {
            let (places, mut clients) = (Arc::new(Semaphore::new(AT_ONCE)), HashMap::new());
            let mut sent = tokio::task::JoinSet::new();
            loop {
                let notice = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    _ = sent.join_next(), if !sent.is_empty() => continue,
                    notice = notices.recv() => notice,
                };
                let Some(notice) = notice else { return };
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let Some(client) = client(&mut clients, &notice.to) else { continue };
                sent.spawn(async move {
                    let outcome = if deliver(&client, &notice).await { "ok" } else { "failed" };
                    metrics::counter!("mayfly_notifications_total", "outcome" => outcome).increment(1);
                    drop(place);
                });
            }
        });
        (Notifier(sender), sending)
    }

    /// Sends a notice soon. It is dropped if too many wait.
    pub fn send(&self, notice: Notice) {
        if self.0.try_send(notice).is_err() {
            metrics::counter!("mayfly_notifications_total", "outcome" => "dropped").increment(1);
        }
    }
}

/// The client for an endpoint: one for each file of roots, of which the configuration has a few.
fn client(known: &mut HashMap<Option<PathBuf>, Client>, to: &Endpoint) -> Option<Client> {
    if let Some(client) = known.get(&to.ca_file) {
        return Some(client.clone());
    }
    match https_client(to.ca_file.as_deref()) {
        Ok(client) => {
            known.insert(to.ca_file.clone(), client.clone());
            Some(client)
        }
        Err(cause) => {
            tracing::warn!(url = to.url, %cause, "a notification cannot be sent");
            metrics::counter!("mayfly_notifications_total", "outcome" => "failed").increment(1);
            None
        }
    }
}

/// Whether the receiver took the notice. What it refuses is not sent again; redirects are not followed.
async fn deliver(client: &Client, notice: &Notice) -> bool {
    for pause in [None].into_iter().chain(PAUSES.map(Some)) {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let request = client.post(&notice.to.url).bearer_auth(notice.token.as_str());
        let request = request.header("content-type", "application/json").body(notice.body.clone());
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
