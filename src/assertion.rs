//! Assertion: turns a user token into a verified [`Delegator`].
//!
//! The token is parsed once. Its issuer is found by its exact URL, its signature is checked with a key of that issuer, and only
//! then its claims are read. No content of a token or of a provider's answer makes this room connect to a host other than the
//! configured ones.

mod attest;
mod examine;
mod gate;
mod id_jag;
mod kept;
mod oidc;
mod refusal;
mod settings;
mod token;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::{User, Workload};
use serde_json::{Map, Value};

pub use crate::https::ClientError;
pub use attest::{Attestations, Attested, Rule, Unattested};
pub use gate::Presenter;
pub use jsonwebtoken::Algorithm;
pub use refusal::Refusal;

use crate::claims::Grant;
use examine::delegator;
use gate::Gate;
use oidc::Keys;
use settings::check_settings;
pub use settings::{AudienceSettings, Hint, IssuerSettings};
use token::{Parsed, Statement};

/// Longest user token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Greatest age of a token since its `iat`, unless configured otherwise.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3600);
/// The accepted algorithms, unless configured otherwise: all that use a key pair.
pub const DEFAULT_ALGS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::EdDSA,
];

/// Why issuer settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum AssertionError {
    /// The issuer or its `jwks_url` is not a plain https URL.
    #[error("issuer `{name}`: `{url}` is not an https URL without user and fragment, and without a query if it is the issuer's")]
    Url {
        /// The issuer's name.
        name: String,
        /// The URL that is refused.
        url: String,
    },
    /// Two issuers have the same name or URL.
    #[error("issuer `{0}` is configured twice: give every issuer a name and a URL of its own")]
    Twice(String),
    /// An issuer has no name.
    #[error("the issuer `{0}` has no name")]
    NoName(String),
    /// An issuer has no audience, an empty one, or the same one twice.
    #[error("issuer `{0}`: list at least one audience, each of them once, and none that is empty")]
    Audiences(String),
    /// An issuer has no algorithm, or a symmetric one.
    #[error("issuer `{0}`: list at least one algorithm, and none of HS256, HS384, HS512")]
    Algorithms(String),
    /// The CA file is unusable, or the system has no roots.
    #[error("issuer `{name}`: {cause}")]
    Client {
        /// The issuer's name.
        name: String,
        /// Why no client can be made.
        cause: ClientError,
    },
}

impl AssertionError {
    /// The stable label of this error.
    pub fn code(&self) -> &'static str {
        match self {
            AssertionError::Url { .. } => "ISSUER_URL",
            AssertionError::Twice(_) => "ISSUER_TWICE",
            AssertionError::NoName(_) => "ISSUER_NAME",
            AssertionError::Audiences(_) => "ISSUER_AUDIENCES",
            AssertionError::Algorithms(_) => "ISSUER_ALGORITHMS",
            AssertionError::Client { cause, .. } => cause.code(),
        }
    }
}

/// The verified user behind one request. Only [`Assertions::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Delegator {
    user: User,
    issued_at: u64,
    expires_at: u64,
    proof: [u8; 32],
    acr: Option<String>,
    signed_in_at: Option<u64>,
    groups: Vec<String>,
    audience: AudienceSettings,
    hint: Option<String>,
    // For audiences of operators alone.
    claims: Option<Arc<Map<String, Value>>>,
    counts_until: u64,
    id_jag: Option<Grant>,
}

impl Delegator {
    /// The user.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// When the token was issued, in Unix seconds. A token from before the user's last revocation is no proof.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// When the token expires, in Unix seconds. A delegation made from it expires no later.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Identifies the token: SHA-256 of the bytes that its signature covers (`header.payload`, as sent). The signature is left
    /// out, because anybody can turn one valid ECDSA signature into another, and the token must keep its identity.
    pub fn proof(&self) -> &[u8; 32] {
        &self.proof
    }

    /// How the user signed in: the `acr` of the token. `None` if the provider does not say.
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }

    /// When the user signed in: the `auth_time` of the token, in Unix seconds. `None` if the provider does not say.
    pub fn signed_in_at(&self) -> Option<u64> {
        self.signed_in_at
    }

    /// The groups of the user, sorted. Empty if none are configured to be read, or the provider names none.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    /// The name by which the provider knows the user in a `login_hint`, if it is a claim of the token.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The configured audience that the token names.
    pub fn audience(&self) -> &str {
        &self.audience.audience
    }

    /// The workloads that may present a token for this audience.
    pub fn workloads(&self) -> &[Workload] {
        &self.audience.workloads
    }

    /// Ceiling of the scopes that the token allows. `None` means no ceiling.
    pub fn scopes(&self) -> Option<&[String]> {
        self.audience.scopes.as_deref()
    }

    /// Whether the user can revoke their own access with the token.
    pub fn revokes(&self) -> bool {
        self.audience.revokes
    }

    /// Whether it is the answer of a person whom their provider asked for us.
    pub fn asked(&self) -> bool {
        self.audience.asks.is_some()
    }

    /// Whether the token speaks for the user themself.
    pub fn is_user(&self) -> bool {
        self.audience.user
    }

    /// All claims of the token, if it is for an audience of operators and auditors.
    pub fn claims(&self) -> Option<&Arc<Map<String, Value>>> {
        self.claims.as_ref()
    }

    /// When the token is no longer accepted, in Unix seconds: when it expires, or when it is too old.
    pub fn counts_until(&self) -> u64 {
        self.counts_until
    }

    /// The grant that an ID-JAG carries besides the user. `None` unless the token is an ID-JAG.
    pub fn id_jag(&self) -> Option<&Grant> {
        self.id_jag.as_ref()
    }

    /// Longest lease that the token allows. `None` means no ceiling.
    pub fn max_lease(&self) -> Option<Duration> {
        self.audience.max_lease
    }

    /// Makes a delegator without a token, for tests of other rooms.
    #[cfg(test)]
    pub fn for_tests(user: User, issued_at: u64, expires_at: u64, proof: [u8; 32], audience: AudienceSettings) -> Self {
        Delegator {
            user,
            issued_at,
            expires_at,
            proof,
            acr: None,
            signed_in_at: None,
            groups: Vec::new(),
            hint: None,
            audience,
            claims: None,
            id_jag: None,
            counts_until: expires_at,
        }
    }
}

/// The configured issuers with their published keys.
pub struct Assertions {
    issuers: Vec<Issuer>,
    gate: Arc<Gate>,
}

struct Issuer {
    settings: IssuerSettings,
    keys: Arc<Keys>,
}

/// An issuer of tokens: its name, its URL, and the result of the last attempt to fetch its keys. `None` if there was no attempt.
pub type Provider = (String, String, Option<Result<(), String>>);

impl Assertions {
    /// Checks the settings and makes an HTTPS client for each issuer. It opens no connection.
    pub fn new(settings: Vec<IssuerSettings>) -> Result<Self, AssertionError> {
        check_settings(&settings)?;
        let issuers = settings.into_iter().map(|settings| {
            let keys = Keys::new(&settings).map_err(|cause| AssertionError::Client { name: settings.name.clone(), cause })?;
            Ok(Issuer { settings, keys })
        });
        Ok(Assertions { issuers: issuers.collect::<Result<_, AssertionError>>()?, gate: Arc::default() })
    }

    /// The same for other settings. An issuer whose keys have the same source keeps those that were fetched.
    pub fn again(&self, settings: Vec<IssuerSettings>) -> Result<Self, AssertionError> {
        check_settings(&settings)?;
        let source = |s: &IssuerSettings| (s.name.clone(), s.issuer.clone(), s.jwks_url.clone(), s.ca_file.clone());
        let issuers = settings.into_iter().map(|settings| {
            if let Some(known) = self.issuers.iter().find(|known| source(&known.settings) == source(&settings)) {
                return Ok(Issuer { settings, keys: Arc::clone(&known.keys) });
            }
            let keys = Keys::new(&settings).map_err(|cause| AssertionError::Client { name: settings.name.clone(), cause })?;
            Ok(Issuer { settings, keys })
        });
        Ok(Assertions { issuers: issuers.collect::<Result<_, AssertionError>>()?, gate: Arc::clone(&self.gate) })
    }

    /// Stores the keys of each issuer in a folder from now on, and loads those that are stored there. Blocks while it reads them.
    pub fn keep(&self, dir: &Path) {
        self.issuers.iter().for_each(|i| i.keys.keep(dir));
    }

    /// Verifies a user token at `now`, in Unix seconds. Fetches the provider's keys if they are missing, old, or lack the token's
    /// key. The signature is verified outside of the async runtime, when it is the presenter's turn.
    pub async fn verify(&self, token: &str, now: u64, presenter: Presenter) -> Result<Delegator, Refusal> {
        let (issuer, statement) = self.stated(token, now, presenter).await?;
        delegator(issuer, statement)
    }

    /// The claims of a token whose signature and claims are valid, with its issuer.
    async fn stated(&self, token: &str, now: u64, presenter: Presenter) -> Result<(&IssuerSettings, Statement<'_>), Refusal> {
        // 1. Shape. The token is parsed once, so that all steps below read the same bytes.
        let parsed = Parsed::of(token)?;
        // 2. Issuer, by its exact URL.
        let iss = parsed.issuer()?;
        let issuer = self.issuers.iter().find(|i| i.settings.issuer == iss).ok_or(Refusal::IssuerUnknown)?;
        if !issuer.settings.allowed_algs.contains(&parsed.alg()) {
            return Err(Refusal::Algorithm);
        }
        // 3. Signature, with a key of that issuer.
        let signed = issuer.keys.check(parsed, now, &self.gate, presenter).await?;
        // 4. Claims.
        Ok((&issuer.settings, signed.check(&issuer.settings, now)?))
    }

    /// The members of `may_act` (RFC 8693 4.4): whom the token lets act. `None` if it has none. Nothing is verified here: the token
    /// must have been before.
    pub fn may_act(token: &str) -> Result<Option<Map<String, Value>>, Refusal> {
        Parsed::of(token)?.may_act()
    }

    /// Whether the header of a token says that it is an ID-JAG. Nothing is verified.
    pub fn is_id_jag(token: &str) -> bool {
        Parsed::of(token).is_ok_and(|parsed| parsed.is_id_jag())
    }

    /// Each issuer whose keys were asked for, by its name, and why they cannot be fetched if the last attempt failed.
    pub fn reachable(&self) -> Vec<(String, Result<(), String>)> {
        self.providers().into_iter().filter_map(|(name, _, reachable)| Some((name, reachable?))).collect()
    }

    /// Each issuer by its name, with its URL and the result of the last attempt to fetch its keys. `None` if there was no attempt.
    pub fn providers(&self) -> Vec<Provider> {
        self.issuers.iter().map(|i| (i.settings.name.clone(), i.settings.issuer.clone(), i.keys.reachable())).collect()
    }

    /// Fetches the keys of each issuer that was not asked yet or whose last attempt failed, in the background. `now` is in Unix
    /// seconds.
    pub fn look(&self, now: u64) {
        self.issuers.iter().for_each(|i| i.keys.look(now));
    }

    #[cfg(test)]
    fn with_keys(settings: Vec<(IssuerSettings, Arc<Keys>)>) -> Self {
        let issuers = settings.into_iter().map(|(settings, keys)| Issuer { settings, keys }).collect();
        Assertions { issuers, gate: Arc::default() }
    }
}
