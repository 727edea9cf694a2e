//! Fetches a bundle document once: from a file, or over HTTPS in one of the two profiles.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mayfly_agent::tls::ServerVerifier;
use mayfly_verify::{SpiffeId, TrustDomain};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::task::spawn_blocking;

use super::Source;
use super::document::{DocumentError, bounded, read};
use super::newest::Newest;
use crate::clock::Clock;
use crate::https::{ClientError, Renewing, https_client_over, with_causes};

/// Most redirects in one fetch.
const REDIRECTS: usize = 3;
/// Time limit for one fetch.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);

/// A source, prepared for fetching.
pub(super) enum Way {
    File(PathBuf),
    Web { client: Arc<Renewing>, url: Url },
    Spiffe { url: Url, id: SpiffeId, bootstrap: Arc<Newest>, clock: Clock },
}

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("`{0}`: {1}")]
    Url(String, String),
    #[error("`{0}` cannot be fetched: {1}")]
    Connection(String, String),
    #[error("`{0}` answered {1}")]
    Status(String, StatusCode),
    #[error("`{0}` redirects to a URL that is not an endpoint's: {1}")]
    Redirect(String, String),
    #[error("more than {REDIRECTS} redirects")]
    TooManyRedirects,
    #[error("it took longer than {} seconds", TOTAL_TIMEOUT.as_secs())]
    TimedOut,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the bootstrap bundle `{0}`: {1}")]
    Bootstrap(PathBuf, String),
    #[error("{0}")]
    Stopped(String),
}

/// Parses the URL of an endpoint: https, without a user (FE-8).
pub fn endpoint_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    // Parts that the URL parser would silently drop are refused too.
    let authority = text.split_once("//").map_or("", |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let dropped =
        text.chars().any(|c| c.is_control() || c.is_whitespace()) || authority.contains(['@', '\\']) || authority.is_empty();
    if dropped || !is_endpoint(&url) { Err("write an https URL without a user".into()) } else { Ok(url) }
}

fn is_endpoint(url: &Url) -> bool {
    url.scheme() == "https" && url.has_host() && url.username().is_empty() && url.password().is_none()
}

impl Way {
    pub(super) fn new(of: &TrustDomain, source: &Source, clock: &Clock) -> Result<Way, FetchError> {
        let parsed = |url: &str| endpoint_url(url).map_err(|e| FetchError::Url(url.to_owned(), e));
        Ok(match source {
            Source::File(path) => Way::File(path.clone()),
            Source::Web { url, ca_file } => Way::Web { client: Arc::new(Renewing::new(ca_file.as_deref())?), url: parsed(url)? },
            Source::Spiffe { url, id, bootstrap } => {
                let unusable = |e: String| FetchError::Bootstrap(bootstrap.clone(), e);
                let text = read(bootstrap)?;
                let first = Newest::after(None, of, &text).map_err(|e| unusable(e.to_string()))?;
                let first = Arc::new(first.ok_or_else(|| unusable("it is empty".into()))?);
                Way::Spiffe { url: parsed(url)?, id: id.clone(), bootstrap: first, clock: clock.clone() }
            }
        })
    }

    /// The current document.
    pub(super) async fn fetch(&self, newest: Option<Arc<Newest>>) -> Result<Vec<u8>, FetchError> {
        match self {
            Way::File(path) => {
                let path = path.clone();
                Ok(spawn_blocking(move || read(&path)).await.map_err(|e| FetchError::Stopped(e.to_string()))??)
            }
            Way::Web { client, url } => get(&client.client().await, url).await,
            Way::Spiffe { url, id, bootstrap, clock } => {
                // FC-3: the newest bundle verifies the endpoint. The bootstrap bundle does at first, or if somebody provided a
                // later one.
                let later = |n: &Arc<Newest>| n.bundle().sequence() >= bootstrap.bundle().sequence();
                let by = newest.filter(later).unwrap_or_else(|| Arc::clone(bootstrap));
                // A client for this fetch alone, because no connection may outlive the bundle that verified it.
                let verifier = ServerVerifier::new(by.bundle().clone(), id.clone());
                let tls = verifier.client_config(Arc::new(clock.clone())).map_err(|e| ClientError::Tls(e.to_string()))?;
                get(&https_client_over(tls)?, url).await
            }
        }
    }
}

async fn get(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    tokio::time::timeout(TOTAL_TIMEOUT, follow(client, url)).await.unwrap_or(Err(FetchError::TimedOut))
}

/// FC-7: every redirect is temporary, so each fetch begins at the configured URL. The client verifies every hop in the same way:
/// by its host name, or by the one SPIFFE ID.
async fn follow(client: &Client, start: &Url) -> Result<Vec<u8>, FetchError> {
    let mut url = start.clone();
    for _ in 0..=REDIRECTS {
        let failed = |e: reqwest::Error| FetchError::Connection(url.to_string(), with_causes(&e.without_url()));
        let answer = client.get(url.clone()).header("accept", "application/json").send().await.map_err(failed)?;
        match answer.status().as_u16() {
            200 => return body(answer, &url).await,
            301 | 302 | 303 | 307 | 308 => url = target(&url, &answer)?,
            _ => return Err(FetchError::Status(url.to_string(), answer.status())),
        }
    }
    Err(FetchError::TooManyRedirects)
}

fn target(from: &Url, answer: &Response) -> Result<Url, FetchError> {
    let location = answer.headers().get("location").and_then(|l| l.to_str().ok()).unwrap_or_default();
    let bad = || {
        let shown = location.chars().take(256).flat_map(char::escape_default).collect();
        FetchError::Redirect(from.to_string(), shown)
    };
    let to = from.join(location).map_err(|_| bad())?;
    if location.is_empty() || !is_endpoint(&to) { Err(bad()) } else { Ok(to) }
}

async fn body(mut answer: Response, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut text = Vec::new();
    let failed = |e: reqwest::Error| FetchError::Connection(url.to_string(), with_causes(&e.without_url()));
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        text.extend_from_slice(&chunk);
        text = bounded(text)?;
    }
    Ok(text)
}
