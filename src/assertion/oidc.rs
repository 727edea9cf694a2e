//! Fetches an issuer's keys: discovery over HTTPS, and a cache with bounds on age, size and traffic.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;

use super::gate::{Gate, Presenter};
use super::kept::{Origin, Place};
use super::token::{Parsed, Signed};
use super::{IssuerSettings, Refusal};
use crate::https::{self, ClientError, Renewing, with_causes};
use crate::jose::{Key, KeySet, KeySetError, Mismatch};

/// Longest document of a provider, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;

/// Age in seconds from which on keys are refreshed in the background, while they are still used.
const REFRESH_AFTER: u64 = 5 * 60;
/// Age in seconds from which on a request waits for fresh keys, unless the last attempt to fetch them failed.
const STALE_AFTER: u64 = 10 * 60;
/// Age in seconds from which on keys are no longer used.
const DEAD_AFTER: u64 = 60 * 60;
/// Least seconds between two attempts that tokens with unknown keys cause.
const UNKNOWN_KEY_PACE: u64 = 10;
/// Least seconds between two attempts while the provider fails.
const FAILURE_PACE: u64 = 2;

/// Least seconds between two attempts that no token causes.
const LOOK_PACE: u64 = 30;

/// Whether `url` is an https URL with a host, and without user and fragment. Only the URL of keys may have a query.
pub(super) fn plain_https(url: &str, query: bool) -> bool {
    // URLs are compared byte for byte, so characters that URL parsers silently drop are refused.
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    Url::parse(url).is_ok_and(|u| {
        u.scheme() == "https"
            && u.has_host()
            && u.username().is_empty()
            && u.password().is_none()
            && (query || u.query().is_none())
            && u.fragment().is_none()
    })
}

/// Why the provider's keys could not be fetched. This is for the log; callers do not see it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    #[error("`{0}` cannot be read: {1}")]
    Connection(String, String),
    #[error("`{0}` answered {1}; redirects are not followed")]
    Status(String, StatusCode),
    #[error("`{0}` answered with more than {MAX_DOCUMENT} bytes")]
    TooLarge(String),
    #[error("the provider took longer than {} seconds", https::TIMEOUT.as_secs())]
    TimedOut,
    #[error("the discovery document of `{0}` is malformed")]
    Discovery(String),
    #[error("the discovery document of `{0}` names another issuer, `{1}`")]
    OtherIssuer(String, String),
    #[error("the discovery document of `{0}` names keys at another origin, `{1}`: configure `jwks_url` if that is right")]
    OtherOrigin(String, String),
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    #[error("none of the published keys can be used: {0}")]
    NoKeys(String),
}

/// The keys of one issuer.
pub(super) struct Keys {
    name: String,
    source: Source,
    /// Guards the cached keys and the outcome of the last attempt. It is held for a copy, never across an await.
    state: Mutex<State>,
    /// The file that keeps them for the next start, if they are kept.
    place: OnceLock<Arc<Place>>,
    /// Held by the one task that fetches from the provider.
    flight: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Default)]
struct State {
    fetched: Option<Arc<Fetched>>,
    /// The last attempt that ended. An attempt that is still running is not recorded here, so that requests wait for it.
    attempt: Option<Attempt>,
    /// Why that failed; empty if it did not.
    trouble: String,
    /// Number of attempts that have ended.
    ended: u64,
}

struct Fetched {
    set: KeySet,
    /// Unix seconds.
    at: u64,
}

#[derive(Clone, Copy)]
struct Attempt {
    /// Unix seconds.
    at: u64,
    failed: bool,
}

enum Source {
    Web {
        client: Arc<Renewing>,
        origin: Origin,
    },
    #[cfg(test)]
    Fake(Arc<super::tests::FakeSource>),
}

impl Keys {
    /// Makes the HTTPS client. It opens no connection.
    pub(super) fn new(settings: &IssuerSettings) -> Result<Arc<Keys>, ClientError> {
        let client = Arc::new(Renewing::new(settings.ca_file.as_deref())?);
        let IssuerSettings { issuer, jwks_url, ca_file, .. } = settings.clone();
        let source = Source::Web { client, origin: Origin { issuer, jwks_url, ca_file } };
        Ok(Keys::from(settings.name.clone(), source))
    }

    /// Keys that come from a fake instead of the network.
    #[cfg(test)]
    pub(super) fn fake(name: &str, fake: Arc<super::tests::FakeSource>) -> Arc<Keys> {
        Keys::from(name.to_owned(), Source::Fake(fake))
    }

    fn from(name: String, source: Source) -> Arc<Keys> {
        Arc::new(Keys { name, source, state: Mutex::default(), place: OnceLock::new(), flight: Arc::default() })
    }

    /// Stores the keys in a folder from now on, and loads those that are stored there if none were fetched. Blocks.
    pub(super) fn keep(&self, dir: &Path) {
        let place = Arc::new(Place::new(dir, self.source.origin()));
        if self.place.set(Arc::clone(&place)).is_err() || self.state.lock().fetched.is_some() {
            return;
        }
        if let Some((set, at)) = place.load() {
            self.state.lock().fetched.get_or_insert(Arc::new(Fetched { set, at }));
        }
    }

    /// Checks the token's signature, at the gate. If its key is not known, fetches the keys once more. `now` is in Unix seconds.
    pub(super) async fn check(
        self: &Arc<Self>,
        token: Parsed<'_>,
        now: u64,
        gate: &Gate,
        presenter: Presenter,
    ) -> Result<Signed, Refusal> {
        let keys = self.current(now).await?;
        let mut outcome = check(&keys.set, &token, gate, presenter).await;
        if might_be_new(&token, outcome) {
            let paced = self.state.lock().attempt.is_some_and(|a| a.at.abs_diff(now) < UNKNOWN_KEY_PACE);
            if !paced {
                self.refresh(now).await;
            }
            let State { fetched, attempt, .. } = self.state.lock().clone();
            if let Some(newer) = fetched.filter(|newer| !Arc::ptr_eq(newer, &keys)) {
                outcome = check(&newer.set, &token, gate, presenter).await;
            }
            // After a failed attempt the key must not be called unknown, because it may have been published since.
            let unsure = attempt.is_some_and(|a| a.failed);
            if unsure && outcome == Err(Refusal::KeyUnknown) {
                return Err(Refusal::IssuerUnavailable);
            }
        }
        token.signed_by(|_| outcome)
    }

    /// Keys below `DEAD_AFTER`. Fails with `IssuerUnavailable` if there are none and they cannot be fetched.
    async fn current(self: &Arc<Self>, now: u64) -> Result<Arc<Fetched>, Refusal> {
        let State { fetched, attempt, .. } = self.state.lock().clone();
        let failing = attempt.is_some_and(|a| a.failed);
        let paced = failing && attempt.is_some_and(|a| a.at.abs_diff(now) < FAILURE_PACE);
        // A clock that went back makes keys old, not fresh.
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

    /// Why the last attempt failed. `None` if there was none.
    pub(super) fn reachable(&self) -> Option<Result<(), String>> {
        let state = self.state.lock();
        state.attempt.as_ref().map(|attempt| if attempt.failed { Err(state.trouble.clone()) } else { Ok(()) })
    }

    /// Fetches the keys if that was never done, or if it failed a while ago.
    pub(super) fn look(self: &Arc<Self>, now: u64) {
        let attempt = self.state.lock().attempt;
        if attempt.is_none_or(|attempt| attempt.failed && attempt.at.abs_diff(now) >= LOOK_PACE) {
            self.refresh_behind(false, now);
        }
    }

    /// Starts an attempt in the background, unless one is running.
    fn refresh_behind(self: &Arc<Self>, paced: bool, now: u64) {
        if paced {
            return;
        }
        if let Ok(guard) = Arc::clone(&self.flight).try_lock_owned() {
            let keys = Arc::clone(self);
            tokio::spawn(async move { keys.attempt(guard, now).await });
        }
    }

    /// Waits for an attempt: the one that is running, or a new one.
    async fn refresh(self: &Arc<Self>, now: u64) {
        let before = self.state.lock().ended;
        let guard = Arc::clone(&self.flight).lock_owned().await;
        // All waiters share the outcome of one attempt, so a hundred waiters cause one request to the provider.
        if self.state.lock().ended != before {
            return;
        }
        // The attempt runs in its own task, so that a caller that hangs up does not stop it for the others.
        let keys = Arc::clone(self);
        let _ = tokio::spawn(async move { keys.attempt(guard, now).await }).await;
    }

    async fn attempt(&self, _flight: tokio::sync::OwnedMutexGuard<()>, now: u64) {
        let outcome = tokio::time::timeout(https::TIMEOUT, self.source.fetch()).await.unwrap_or(Err(Unavailable::TimedOut));
        let label = if outcome.is_ok() { "ok" } else { "failed" };
        metrics::counter!("mayfly_oidc_fetches_total", "issuer" => self.name.clone(), "outcome" => label).increment(1);
        let trouble = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let fetched = match outcome {
            Ok((set, document)) => {
                tracing::debug!(issuer = self.name, keys = set.len(), "fetched the provider's keys");
                self.tell_left_out(&set);
                if let Some(place) = self.place.get().map(Arc::clone) {
                    // Requests do not wait for the disk, and `store` logs a failure.
                    drop(tokio::task::spawn_blocking(move || place.store(&document, now)));
                }
                Some(Arc::new(Fetched { set, at: now }))
            }
            Err(cause) => {
                tracing::warn!(issuer = self.name, %cause, "the provider's keys cannot be fetched");
                None
            }
        };
        let mut state = self.state.lock();
        state.attempt = Some(Attempt { at: now, failed: fetched.is_none() });
        state.trouble = trouble;
        state.ended = state.ended.wrapping_add(1);
        state.fetched = fetched.or(state.fetched.take());
    }

    /// Logs the keys that cannot be used, once for each change.
    fn tell_left_out(&self, set: &KeySet) {
        let before = self.state.lock().fetched.clone();
        if !set.left_out().is_empty() && before.is_none_or(|before| before.set.left_out() != set.left_out()) {
            let left_out = set.left_out().join("; ");
            tracing::warn!(issuer = self.name, left_out, "some of the provider's keys cannot be used");
        }
    }
}

/// Whether newer keys could change the outcome: the token's key is not known, there is a newer key of the same name, or the token
/// names no key.
fn might_be_new(token: &Parsed<'_>, outcome: Result<(), Refusal>) -> bool {
    match outcome {
        Ok(()) | Err(Refusal::Busy) => false,
        Err(Refusal::KeyUnknown | Refusal::Signature) => true,
        Err(_) => token.kid().is_none(),
    }
}

impl Source {
    fn origin(&self) -> Origin {
        match self {
            Source::Web { origin, .. } => origin.clone(),
            #[cfg(test)]
            Source::Fake(_) => Origin { issuer: "fake".into(), jwks_url: None, ca_file: None },
        }
    }

    /// Fetches the keys once, with the document that they come from. Fails also if none of them is usable.
    async fn fetch(&self) -> Result<(KeySet, Vec<u8>), Unavailable> {
        let document = match self {
            Source::Web { client, origin: Origin { issuer, jwks_url, .. } } => {
                let client = &client.client().await;
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
        // An empty set would refuse every user for minutes; the keys that we have are better.
        if set.len() == 0 { Err(Unavailable::NoKeys(set.left_out().join("; "))) } else { Ok((set, document)) }
    }
}

/// The URL of the keys, from the discovery document (OIDC Discovery 4).
async fn discover(client: &Client, issuer: &str) -> Result<String, Unavailable> {
    let url = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    keys_url(issuer, &get(client, &url).await?)
}

/// What a discovery document says.
pub(super) fn keys_url(issuer: &str, document: &[u8]) -> Result<String, Unavailable> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let found: Discovery = serde_json::from_slice(document).map_err(|_| Unavailable::Discovery(issuer.to_owned()))?;
    if found.issuer != issuer {
        return Err(Unavailable::OtherIssuer(issuer.to_owned(), found.issuer.chars().take(256).collect()));
    }
    // A URL learned at run time could point to any host in our network, so only the issuer's own origin is accepted.
    match (Url::parse(&found.jwks_uri), Url::parse(issuer)) {
        (Ok(keys), Ok(own)) if keys.scheme() == "https" && keys.username().is_empty() && keys.origin() == own.origin() => {
            // The parsed URL is requested and not the text, because the parser changes odd spellings and the parsed URL was
            // compared.
            Ok(keys.into())
        }
        _ => Err(Unavailable::OtherOrigin(issuer.to_owned(), found.jwks_uri.chars().take(256).collect())),
    }
}

/// Fetches a document of at most `MAX_DOCUMENT` bytes.
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

/// Checks a token's signature with the keys of a document.
pub(super) fn examine(document: &[u8], token: Parsed<'_>) -> Result<Signed, Refusal> {
    let set = KeySet::parse(document).map_err(|_| Refusal::IssuerUnavailable)?;
    let keys = candidates(&set, &token)?;
    let (alg, (signed, signature)) = (token.alg(), token.signature());
    let outcome = if keys.iter().any(|key| key.made(alg, signed, signature)) { Ok(()) } else { Err(Refusal::Signature) };
    token.signed_by(|_| outcome)
}

/// The keys that can have made the token's signature.
fn candidates(set: &KeySet, token: &Parsed<'_>) -> Result<Vec<Arc<Key>>, Refusal> {
    set.candidates(token.kid(), token.alg()).map_err(|mismatch| match mismatch {
        Mismatch::KeyUnknown => Refusal::KeyUnknown,
        Mismatch::Algorithm => Refusal::Algorithm,
        Mismatch::Unnamed => Refusal::KeyUnnamed,
    })
}

/// Checks that one of the keys made the token's signature. Only a key that can have made it is tried.
async fn check(set: &KeySet, token: &Parsed<'_>, gate: &Gate, presenter: Presenter) -> Result<(), Refusal> {
    let keys = candidates(set, token)?;
    let (alg, (signed, signature)) = (token.alg(), token.signature());
    let (signed, signature) = (signed.to_owned(), signature.to_owned());
    let work = move || if keys.iter().any(|key| key.made(alg, &signed, &signature)) { Ok(()) } else { Err(Refusal::Signature) };
    gate.pass(presenter, work).await
}
