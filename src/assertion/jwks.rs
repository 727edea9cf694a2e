//! An issuer's keys: fetched over HTTPS from its own origin, one by one, and fetched again only so often.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use reqwest::Url;
use serde_json::Value;

use super::{IssuerSettings, Refusal};

/// Largest document that is read, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
/// Keys of an issuer that are looked at.
const MAX_KEYS: usize = 100;
/// Seconds after which keys are fetched again.
const FRESH: u64 = 600;
/// Seconds for which keys count when their issuer does not answer.
const STALE: u64 = 3600;
/// Seconds between two fetches: a stranger's made-up key ids cost the provider nothing more.
const PAUSE: u64 = 10;

/// A key, and the algorithms that fit it.
#[derive(Clone)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Key {
    // T47: decided by the key; the header must agree.
    pub(super) fn allows(&self, alg: Algorithm) -> bool {
        self.algorithms.contains(&alg)
    }

    fn read(value: &Value) -> Option<Key> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::RSA(rsa) if URL_SAFE_NO_PAD.decode(&rsa.n).ok()?.len() >= 256 => {
                vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
            }
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            _ => return None,
        };
        if let Some(named) = value.get("alg") {
            let named = named.as_str()?;
            algorithms.retain(|a| format!("{a:?}") == named);
        }
        Some(Key { kid: jwk.common.key_id.clone(), key: DecodingKey::from_jwk(&jwk).ok()?, algorithms })
    }
}

#[derive(Clone, Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    fetched_at: u64,
    tried_at: u64,
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    jwks_url: Option<String>,
    client: reqwest::Client,
    // Guards what was fetched last; swapped whole.
    known: RwLock<Known>,
    // One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

impl Keys {
    pub(super) fn new(settings: &IssuerSettings) -> Result<Keys, String> {
        let mut client = reqwest::Client::builder()
            .tls_backend_rustls()
            .https_only(true)
            .no_proxy()
            // T08: a redirect could lead anywhere.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(5));
        if let Some(path) = &settings.ca_file {
            let pem = std::fs::read(path).map_err(|e| format!("`{}`: {e}", path.display()))?;
            let certs = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| format!("`{}`: {e}", path.display()))?;
            client = client.tls_certs_only(certs);
        }
        let client = client.build().map_err(|e| e.to_string())?;
        Ok(Keys {
            issuer: settings.issuer.clone(),
            jwks_url: settings.jwks_url.clone(),
            client,
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::new(()),
        })
    }

    /// Keys of that id, or all when the token names none.
    pub(super) async fn find(&self, kid: Option<&str>, now: u64) -> Result<Vec<Key>, Refusal> {
        let known = self.known.read().clone();
        if known.fetched_at == 0 || now.saturating_sub(known.fetched_at) > FRESH {
            return self.refetch(kid, now).await;
        }
        Ok(fitting(&known.keys, kid))
    }

    /// The same after fetching again, if that is not too soon.
    pub(super) async fn refetch(&self, kid: Option<&str>, now: u64) -> Result<Vec<Key>, Refusal> {
        let _one = self.fetching.lock().await;
        let known = self.known.read().clone();
        if known.tried_at != 0 && now.saturating_sub(known.tried_at) < PAUSE {
            return if known.fetched_at == 0 {
                Err(Refusal::IssuerUnavailable("its last answer could not be used".into()))
            } else {
                Ok(fitting(&known.keys, kid))
            };
        }
        self.known.write().tried_at = now;
        match self.fetch().await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *self.known.write() = Known { keys: Arc::clone(&keys), fetched_at: now, tried_at: now };
                Ok(fitting(&keys, kid))
            }
            Err(cause) => {
                tracing::warn!(issuer = %self.issuer, %cause, "cannot fetch the keys of an issuer");
                if known.fetched_at != 0 && now.saturating_sub(known.fetched_at) <= STALE {
                    return Ok(fitting(&known.keys, kid));
                }
                Err(Refusal::IssuerUnavailable(cause))
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let document = self.get(&url).await?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or("the key set has no `keys`")?;
        // One by one: a key that we cannot read takes none of the others with it.
        Ok(keys.iter().take(MAX_KEYS).filter_map(Key::read).collect())
    }

    // OpenID Connect Discovery 4: the document names exactly the issuer it was asked for.
    async fn discover(&self) -> Result<String, String> {
        let document = self.get(&format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'))).await?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).ok_or(format!("the document has no `{name}`"));
        if text("issuer")? != self.issuer {
            return Err("the document names another issuer".into());
        }
        let url = Url::parse(text("jwks_uri")?).map_err(|e| e.to_string())?;
        let own = Url::parse(&self.issuer).map_err(|e| e.to_string())?;
        if url.scheme() != "https" || url.origin() != own.origin() {
            return Err("its keys are on another origin: configure `jwks_url` if that is meant".into());
        }
        Ok(url.into())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let mut response = self.client.get(url).send().await.map_err(|e| cause_of(&e))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("it answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| cause_of(&e))? {
            if body.len() + chunk.len() > MAX_DOCUMENT {
                return Err("its answer is over 256 KiB".into());
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|e| e.to_string())
    }
}

fn fitting(keys: &[Key], kid: Option<&str>) -> Vec<Key> {
    // T49: exact look-up. A key without an id may be meant by any token.
    keys.iter().filter(|k| kid.is_none() || k.kid.is_none() || k.kid.as_deref() == kid).take(20).cloned().collect()
}

fn cause_of(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
