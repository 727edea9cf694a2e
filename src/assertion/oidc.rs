//! Where an issuer's keys come from: discovery over HTTPS, and a cache with bounds in time, size and traffic.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder, StatusCode, Url, redirect};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::jwks::{KeySet, KeySetError};
use super::token::{Parsed, Signed};
use super::{IssuerSettings, Refusal};

/// Longest document a provider may answer with, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one request; and once more for discovery and keys together.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// From this age on, in seconds, keys are refreshed while they still serve.
const REFRESH_AFTER: u64 = 5 * 60;
/// From this age on a request waits for fresh keys, unless the last attempt to get them failed.
const STALE_AFTER: u64 = 10 * 60;
/// From this age on keys no longer count.
const DEAD_AFTER: u64 = 60 * 60;
/// Seconds between two attempts that tokens with unknown keys may cause.
const UNKNOWN_KEY_PACE: u64 = 10;
/// Seconds between two attempts while the provider fails.
const FAILURE_PACE: u64 = 2;

/// Why no HTTPS client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The CA file cannot be read.
    #[error("the CA file `{0}` cannot be read: {1}")]
    Read(PathBuf, std::io::Error),
    /// The CA file holds no usable certificate.
    #[error("the CA file `{0}` holds no usable certificate: put the provider's root there, as PEM")]
    NoRoots(PathBuf),
    /// TLS cannot be set up, for instance because the system has no root certificates.
    #[error("no TLS client can be made: {0}")]
    Tls(String),
}

impl ClientError {
    /// The stable label of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ClientError::Read(..) => "CA_FILE_UNREADABLE",
            ClientError::NoRoots(_) => "CA_FILE_EMPTY",
            ClientError::Tls(_) => "TLS_CLIENT",
        }
    }
}

/// An HTTPS client that follows no redirect, uses no proxy, and trusts `ca_file` alone, or else the roots of the system.
pub(crate) fn https_client(ca_file: Option<&Path>) -> Result<Client, ClientError> {
    if let Some(file) = ca_file {
        return https_client_over(tls_with_roots(file)?);
    }
    // The system verifier takes the process's provider, and would panic without one. An earlier one stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    built(bounds())
}

/// The same over TLS settings of the caller's own.
pub(crate) fn https_client_over(tls: rustls::ClientConfig) -> Result<Client, ClientError> {
    built(bounds().tls_backend_preconfigured(tls))
}

fn bounds() -> ClientBuilder {
    Client::builder()
        .https_only(true)
        .no_proxy()
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TOTAL_TIMEOUT)
}

fn built(builder: ClientBuilder) -> Result<Client, ClientError> {
    builder.build().map_err(|e| ClientError::Tls(with_causes(&e)))
}

fn tls_with_roots(file: &Path) -> Result<rustls::ClientConfig, ClientError> {
    let pem = std::fs::read(file).map_err(|e| ClientError::Read(file.to_owned(), e))?;
    let mut roots = rustls::RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(&pem) {
        let added = cert.map(|cert| roots.add(cert));
        if !matches!(added, Ok(Ok(()))) {
            return Err(ClientError::NoRoots(file.to_owned()));
        }
    }
    if roots.is_empty() {
        return Err(ClientError::NoRoots(file.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::Tls(e.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Whether `url` is https with a host, and without user, query and fragment.
pub(super) fn plain_https(url: &str) -> bool {
    // Exact names are compared byte for byte, so what URL parsers quietly drop must not be there.
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    Url::parse(url).is_ok_and(|u| {
        u.scheme() == "https"
            && u.has_host()
            && u.username().is_empty()
            && u.password().is_none()
            && u.query().is_none()
            && u.fragment().is_none()
    })
}

/// Why the provider's keys could not be read; for the operator, never for the caller.
#[derive(Debug, thiserror::Error)]
enum Unavailable {
    #[error("`{0}` cannot be read: {1}")]
    Connection(String, String),
    #[error("`{0}` answered {1}; redirects are not followed")]
    Status(String, StatusCode),
    #[error("`{0}` answered with more than {MAX_DOCUMENT} bytes")]
    TooLarge(String),
    #[error("the provider took longer than {} seconds", TOTAL_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the discovery document of `{0}` is not well-formed")]
    Discovery(String),
    #[error("the discovery document of `{0}` names another issuer, `{1}`")]
    OtherIssuer(String, String),
    #[error("the keys of `{0}` would be at another origin, `{1}`: configure `jwks_url` if that is right")]
    OtherOrigin(String, String),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[error("none of the published keys can be used")]
    NoKeys,
}

/// The keys of one issuer.
pub(super) struct Keys {
    name: String,
    source: Source,
    /// Guards the cached keys and the outcome of the last attempt; held for a copy, never across an await.
    state: Mutex<State>,
    /// Held by the one task that talks to the provider.
    flight: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Default)]
struct State {
    fetched: Option<Arc<Fetched>>,
    /// The last attempt that ended; one under way does not show here, so that requests join it.
    attempt: Option<Attempt>,
    /// How many attempts have ended.
    ended: u64,
}

struct Fetched {
    set: KeySet,
    at: u64,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: u64,
    failed: bool,
}

enum Source {
    Web {
        client: Client,
        issuer: String,
        jwks_url: Option<String>,
    },
    #[cfg(test)]
    Fake(Arc<super::tests::FakeSource>),
}

impl Keys {
    /// Prepares; opens no connection.
    pub(super) fn new(settings: &IssuerSettings) -> Result<Arc<Keys>, ClientError> {
        let client = https_client(settings.ca_file.as_deref())?;
        let source = Source::Web { client, issuer: settings.issuer.clone(), jwks_url: settings.jwks_url.clone() };
        Ok(Keys::from(settings.name.clone(), source))
    }

    /// Keys from a fake instead of the network.
    #[cfg(test)]
    pub(super) fn fake(name: &str, fake: Arc<super::tests::FakeSource>) -> Arc<Keys> {
        Keys::from(name.to_owned(), Source::Fake(fake))
    }

    fn from(name: String, source: Source) -> Arc<Keys> {
        Arc::new(Keys { name, source, state: Mutex::default(), flight: Arc::default() })
    }

    /// Checks the token's signature; asks the provider once more when its key is not known.
    pub(super) async fn check(self: &Arc<Self>, token: Parsed<'_>, now: u64) -> Result<Signed, Refusal> {
        let mut keys = self.current(now).await?;
        if might_be_new(&token, keys.set.check(&token)) {
            let paced = self.state.lock().attempt.is_some_and(|a| a.at.abs_diff(now) < UNKNOWN_KEY_PACE);
            if !paced {
                self.refresh(now).await;
            }
            let State { fetched, attempt, .. } = self.state.lock().clone();
            keys = fetched.unwrap_or(keys);
            // Who cannot ask must not say "unknown": the key may have been published since.
            let unsure = attempt.is_some_and(|a| a.failed);
            if unsure && keys.set.check(&token) == Err(Refusal::KeyUnknown) {
                return Err(Refusal::IssuerUnavailable);
            }
        }
        token.signed_by(|token| keys.set.check(token))
    }

    /// Keys young enough to count.
    async fn current(self: &Arc<Self>, now: u64) -> Result<Arc<Fetched>, Refusal> {
        let State { fetched, attempt, .. } = self.state.lock().clone();
        let failing = attempt.is_some_and(|a| a.failed);
        let paced = failing && attempt.is_some_and(|a| a.at.abs_diff(now) < FAILURE_PACE);
        // A clock that went back makes keys old, not young.
        let age = fetched.as_ref().map_or(u64::MAX, |f| f.at.abs_diff(now));
        match (fetched, age) {
            (Some(keys), 0..REFRESH_AFTER) => Ok(keys),
            (Some(keys), REFRESH_AFTER..STALE_AFTER) => {
                self.refresh_behind(paced, now);
                Ok(keys)
            }
            (Some(keys), STALE_AFTER..DEAD_AFTER) if failing => {
                self.refresh_behind(paced, now);
                Ok(keys)
            }
            _ => {
                if !paced {
                    self.refresh(now).await;
                }
                let fetched = self.state.lock().fetched.clone();
                fetched.filter(|f| f.at.abs_diff(now) < DEAD_AFTER).ok_or(Refusal::IssuerUnavailable)
            }
        }
    }

    /// Starts an attempt nobody waits for, unless one is under way.
    fn refresh_behind(self: &Arc<Self>, paced: bool, now: u64) {
        if paced {
            return;
        }
        if let Ok(guard) = Arc::clone(&self.flight).try_lock_owned() {
            let keys = Arc::clone(self);
            tokio::spawn(async move { keys.attempt(guard, now).await });
        }
    }

    /// Waits for an attempt: the one under way, or else its own.
    async fn refresh(self: &Arc<Self>, now: u64) {
        let before = self.state.lock().ended;
        let guard = Arc::clone(&self.flight).lock_owned().await;
        // Whoever waited shares the outcome, good or bad; a hundred waiters are one request to the provider.
        if self.state.lock().ended != before {
            return;
        }
        // In a task of its own: a caller that hangs up stops no attempt that others wait for.
        let keys = Arc::clone(self);
        let _ = tokio::spawn(async move { keys.attempt(guard, now).await }).await;
    }

    async fn attempt(&self, _flight: tokio::sync::OwnedMutexGuard<()>, now: u64) {
        let outcome = tokio::time::timeout(TOTAL_TIMEOUT, self.source.fetch()).await.unwrap_or(Err(Unavailable::TimedOut));
        let label = if outcome.is_ok() { "ok" } else { "failed" };
        metrics::counter!("mayfly_oidc_fetches_total", "issuer" => self.name.clone(), "outcome" => label).increment(1);
        let fetched = match outcome {
            Ok(set) => {
                tracing::debug!(issuer = self.name, keys = set.len(), "read the provider's keys");
                Some(Arc::new(Fetched { set, at: now }))
            }
            Err(cause) => {
                tracing::warn!(issuer = self.name, %cause, "the provider's keys cannot be read");
                None
            }
        };
        let mut state = self.state.lock();
        state.attempt = Some(Attempt { at: now, failed: fetched.is_none() });
        state.ended = state.ended.wrapping_add(1);
        state.fetched = fetched.or(state.fetched.take());
    }
}

/// Whether newer keys could change the outcome: the key is not known, or the token names none.
fn might_be_new(token: &Parsed<'_>, outcome: Result<(), Refusal>) -> bool {
    match outcome {
        Ok(()) => false,
        Err(Refusal::KeyUnknown) => true,
        Err(_) => token.kid().is_none(),
    }
}

impl Source {
    async fn fetch(&self) -> Result<KeySet, Unavailable> {
        let document = match self {
            Source::Web { client, issuer, jwks_url } => {
                let url = match jwks_url {
                    Some(url) => url.clone(),
                    None => discover(client, issuer).await?,
                };
                get(client, &url).await?
            }
            #[cfg(test)]
            Source::Fake(fake) => fake.fetch().await.ok_or(Unavailable::TimedOut)?,
        };
        let set = KeySet::parse(&document)?;
        // An empty set would turn every user away for minutes; what we have is better.
        if set.len() == 0 { Err(Unavailable::NoKeys) } else { Ok(set) }
    }
}

/// Reads where the keys are (OIDC Discovery 4).
async fn discover(client: &Client, issuer: &str) -> Result<String, Unavailable> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let document = get(client, &url).await?;
    let found: Discovery = serde_json::from_slice(&document).map_err(|_| Unavailable::Discovery(issuer.to_owned()))?;
    if found.issuer != issuer {
        return Err(Unavailable::OtherIssuer(issuer.to_owned(), found.issuer.chars().take(256).collect()));
    }
    // An address learned at run time may be any host inside our network: only the issuer's own is followed.
    let same = match (Url::parse(&found.jwks_uri), Url::parse(issuer)) {
        (Ok(keys), Ok(own)) => keys.scheme() == "https" && keys.username().is_empty() && keys.origin() == own.origin(),
        _ => false,
    };
    if same {
        Ok(found.jwks_uri)
    } else {
        Err(Unavailable::OtherOrigin(issuer.to_owned(), found.jwks_uri.chars().take(256).collect()))
    }
}

async fn get(client: &Client, url: &str) -> Result<Vec<u8>, Unavailable> {
    let failed = |e: reqwest::Error| Unavailable::Connection(url.to_owned(), with_causes(&e.without_url()));
    let mut answer = client.get(url).header("accept", "application/json").send().await.map_err(failed)?;
    if answer.status() != StatusCode::OK {
        return Err(Unavailable::Status(url.to_owned(), answer.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(Unavailable::TooLarge(url.to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with everything that caused it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
