//! Sign-in of a person at their OIDC provider, for the commands of this binary. It uses no code of the issuer, which verifies the
//! token again in each request.
//!
//! [`code`] is for a machine with a browser, [`device`] for one without; [`kept`] stores the tokens and refreshes them. [`site`] is for the
//! issuer's own page, to which people come in a browser, and [`ciba`] asks them through their provider.

pub mod ciba;
pub mod code;
pub mod device;
pub mod kept;
pub mod site;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::https::{ClientError, https_client, with_causes};
use crate::keys::keystore::read_private;

/// Longest answer of a provider that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest text of a provider that a person is shown, in characters.
const MAX_SHOWN: usize = 200;

/// The provider where a person signs in, and the client id. An attacker who controls it gets the tokens of those who sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Its `iss`: an https URL.
    pub issuer: String,
    /// The id of a client there, for native programs.
    pub client: String,
    /// File with the secret of that client, which only its owner may read. `None` means a public client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// PEM file with the only roots of its TLS certificate. `None` means the roots of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The scopes that are asked for. `None` means `openid`, and `offline_access` if the provider has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The resource for which an access token is requested (RFC 8707). `None` means that the ID token is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No HTTPS client can be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The provider cannot be reached, or not over TLS that is trusted.
    #[error("the provider `{0}` cannot be reached: {1}")]
    Unreachable(String, String),
    /// The provider's answer does not follow the standards.
    #[error("the provider's answer cannot be used: {0}")]
    Answer(String),
    /// The provider refused, with an error code and a text of its own.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The person did not finish in time.
    #[error("nobody signed in within {0} seconds: start `mayfly login` again")]
    Late(u64),
    /// There is no token, or it has expired and cannot be refreshed.
    #[error("{0}: sign in with `mayfly login`")]
    NotSignedIn(String),
    /// The machine has no randomness, no free port, or no room for a file.
    #[error("{0}")]
    Machine(String),
}

/// The endpoints of a provider, from its discovery document.
#[derive(Clone, Deserialize)]
struct Endpoints {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    backchannel_authentication_endpoint: Option<String>,
    #[serde(default)]
    authorization_details_types_supported: Vec<String>,
    // RFC 8414 2: `client_secret_basic` where it says nothing.
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    scopes_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// A provider with its endpoints, and a client to reach it.
struct Found<'a> {
    provider: &'a Provider,
    endpoints: Endpoints,
    client: Client,
}

/// What was found of a provider, for another sign-in.
#[derive(Clone)]
struct Discovered {
    endpoints: Endpoints,
    client: Client,
}

/// The tokens from a sign-in.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The token that identifies the person: a JWT.
    pub token: String,
    /// The refresh token. `None` if there is none.
    pub refresh: Option<String>,
}

/// The answer of a token endpoint.
#[derive(Deserialize)]
struct Granted {
    id_token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

/// The error of a token endpoint.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// The claims of a token that a client may read. Nothing is verified here: it came from the provider itself, over TLS (OpenID Connect
/// Core 3.1.3.7), and the issuer verifies it.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())?;
    serde_json::from_slice(&payload).ok()
}

impl<'a> Found<'a> {
    /// Reads the discovery document of a provider.
    async fn of(provider: &'a Provider) -> Result<Found<'a>, LoginError> {
        let client = https_client(provider.ca_file.as_deref())?;
        let url = format!("{}/.well-known/openid-configuration", provider.issuer.trim_end_matches('/'));
        let answer = client.get(url).send().await.map_err(|e| unreachable(provider, &e))?;
        let endpoints: Endpoints = read(provider, answer).await?;
        // Discovery 4.3: otherwise one provider could pass for another.
        if endpoints.issuer != provider.issuer {
            let shown = shown(&endpoints.issuer);
            return Err(LoginError::Answer(format!("it calls itself `{shown}`, and not `{}`", provider.issuer)));
        }
        Ok(Found { provider, endpoints, client })
    }

    /// The same for a later sign-in, without asking again.
    fn again(provider: &'a Provider, Discovered { endpoints, client }: Discovered) -> Found<'a> {
        Found { provider, endpoints, client }
    }

    fn discovered(self) -> Discovered {
        Discovered { endpoints: self.endpoints, client: self.client }
    }

    /// Who answers an authorization request.
    fn expected(&self) -> code::Expected {
        let names_itself = self.endpoints.authorization_response_iss_parameter_supported;
        code::Expected { issuer: self.provider.issuer.clone(), names_itself }
    }

    fn scope(&self) -> String {
        let offline = self.endpoints.scopes_supported.iter().any(|scope| scope == "offline_access");
        let usual = || if offline { "openid offline_access" } else { "openid" }.to_owned();
        self.provider.scope.clone().unwrap_or_else(usual)
    }

    /// Sends a form to an endpoint, as the client: with its name, or with its secret where it has one (RFC 6749 2.3.1).
    async fn send(&self, endpoint: &str, mut form: Vec<(&str, &str)>) -> Result<Response, LoginError> {
        let client = self.provider.client.as_str();
        let secret = self.provider.secret_file.as_deref().map(secret).transpose()?;
        let mut request = self.client.post(endpoint);
        let methods = self.endpoints.token_endpoint_auth_methods_supported.as_deref();
        let basic = methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        match &secret {
            Some(secret) if basic => request = request.header(AUTHORIZATION, credentials(client, secret)?),
            Some(secret) => form.extend([("client_id", client), ("client_secret", secret.as_str())]),
            None => form.push(("client_id", client)),
        }
        request.form(&form).send().await.map_err(|e| unreachable(self.provider, &e))
    }

    /// Calls the token endpoint. `Ok(Err)` is a refusal with an error code.
    async fn grant(&self, mut form: Vec<(&str, &str)>) -> Result<Result<Granted, Refusal>, LoginError> {
        form.extend(self.provider.resource.as_deref().map(|resource| ("resource", resource)));
        let answer = self.send(&self.endpoints.token_endpoint, form).await?;
        if answer.status().is_client_error() {
            return Ok(Err(bounded(self.provider, answer).await.and_then(|bytes| json(&bytes))?));
        }
        Ok(Ok(read(self.provider, answer).await?))
    }

    /// Ends a sign-in at the provider: no token comes for this refresh token any more (RFC 7009). Returns whether the provider does that.
    async fn revoke(&self, refresh: &str) -> Result<bool, LoginError> {
        let Some(endpoint) = &self.endpoints.revocation_endpoint else { return Ok(false) };
        let answer = self.send(endpoint, vec![("token", refresh), ("token_type_hint", "refresh_token")]).await?;
        let status = answer.status();
        if status.is_client_error() {
            return Err(refused(&bounded(self.provider, answer).await.and_then(|bytes| json(&bytes))?));
        }
        if status.is_success() { Ok(true) } else { Err(LoginError::Answer(format!("it answered {status}"))) }
    }

    /// The requested token, if it is for us. `nonce` is that of an authorization request.
    fn wanted(&self, granted: Granted, nonce: Option<&str>) -> Result<Tokens, LoginError> {
        let wrong = |what: &str| LoginError::Answer(what.to_owned());
        let resource = self.provider.resource.is_some();
        let token = if resource { granted.access_token } else { granted.id_token };
        let kind = if resource { "access token" } else { "ID token" };
        let token = token.ok_or_else(|| wrong(&format!("it has no {kind}")))?;
        let claims = claims(&token).ok_or_else(|| wrong(&format!("its {kind} is no JWT, so the issuer could not verify it")))?;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.provider.issuer) {
            return Err(wrong("its token is from another provider"));
        }
        let ours = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.provider.client,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&self.provider.client)),
            _ => false,
        };
        if !resource && !ours {
            return Err(wrong("its ID token is for another client"));
        }
        // T243: the token must be from this sign-in.
        if !resource && nonce.is_some() && claims.get("nonce").and_then(Value::as_str) != nonce {
            return Err(wrong("its ID token is from another sign-in"));
        }
        Ok(Tokens { token, refresh: granted.refresh_token })
    }
}

/// The secret of a client.
fn secret(file: &Path) -> Result<Zeroizing<String>, LoginError> {
    let machine = |e: String| LoginError::Machine(format!("the secret of the client: {e}"));
    let text = read_private(file).map_err(|e| machine(e.to_string()))?;
    let text = text.ok_or_else(|| machine(format!("`{}` does not exist", file.display())))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Name and secret for `client_secret_basic`: each is form-encoded first.
fn credentials(client: &str, secret: &str) -> Result<HeaderValue, LoginError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let both = Zeroizing::new(format!("{}:{}", encoded(client), encoded(secret)));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(both.as_bytes())))
        .map_err(|_| LoginError::Machine("the secret of the client cannot be sent".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn refused(refusal: &Refusal) -> LoginError {
    let Refusal { error, error_description } = refusal;
    let text = if error_description.is_empty() { error.clone() } else { format!("{error}: {error_description}") };
    LoginError::Refused(shown(&text))
}

fn unreachable(provider: &Provider, e: &reqwest::Error) -> LoginError {
    LoginError::Unreachable(provider.issuer.clone(), with_causes(&e))
}

/// The JSON of a successful answer.
async fn read<T: DeserializeOwned>(provider: &Provider, answer: Response) -> Result<T, LoginError> {
    let status = answer.status();
    let bytes = bounded(provider, answer).await?;
    if !status.is_success() {
        return Err(LoginError::Answer(format!("it answered {status}")));
    }
    json(&bytes)
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LoginError> {
    serde_json::from_slice(bytes).map_err(|e| LoginError::Answer(e.to_string()))
}

async fn bounded(provider: &Provider, mut answer: Response) -> Result<Vec<u8>, LoginError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| unreachable(provider, &e))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(LoginError::Answer(format!("it has more than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A text of the provider in a form that is safe to show to a person.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

/// 256 bits of randomness, as a text of 43 characters.
fn random() -> Result<String, LoginError> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginError::Machine("the system gave no randomness".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
