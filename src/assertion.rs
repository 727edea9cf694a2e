//! Room 2: turns a user token into a verified [`Delegator`].
//!
//! A token is taken apart once, its issuer found by exact name, its signature checked with a key of that issuer, and
//! only then its claims read. Nothing a token or a provider says makes this room connect to another host than the
//! configured ones.

mod jwks;
mod oidc;
mod refusal;
mod token;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mayfly_verify::{User, Workload};

pub use jsonwebtoken::Algorithm;
pub use oidc::ClientError;
pub use refusal::Refusal;

pub(crate) use oidc::{https_client, https_client_over, with_causes};

use oidc::Keys;
use token::{Parsed, Statement};

/// Longest user token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;
/// How long ago a token may have been issued, unless configured otherwise.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3600);
/// The algorithms accepted, unless configured otherwise: all that use a key pair.
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

/// An OIDC provider whose tokens count. An attacker who controls this configuration can speak for every user.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// What the operator calls it, in logs and metrics.
    pub name: String,
    /// Its `iss`, byte for byte: an https URL.
    pub issuer: String,
    /// Where its keys are, if not where its discovery document says. Then no discovery document is read.
    pub jwks_url: Option<String>,
    /// PEM file with the only roots its TLS certificate may lead to; `None`: the roots of the system.
    pub ca_file: Option<PathBuf>,
    /// The audiences accepted from it, at least one.
    pub audiences: Vec<AudienceSettings>,
    /// How long ago a token may have been issued.
    pub max_age: Duration,
    /// The algorithms accepted; symmetric ones are refused.
    pub allowed_algs: Vec<Algorithm>,
}

impl IssuerSettings {
    /// An issuer with the defaults and no audience yet.
    pub fn new(name: impl Into<String>, issuer: impl Into<String>) -> Self {
        IssuerSettings {
            name: name.into(),
            issuer: issuer.into(),
            jwks_url: None,
            ca_file: None,
            audiences: Vec::new(),
            max_age: DEFAULT_MAX_AGE,
            allowed_algs: DEFAULT_ALGS.to_vec(),
        }
    }
}

/// What a token for one audience is good for, and in whose hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudienceSettings {
    /// The `aud`, byte for byte.
    pub audience: String,
    /// The workloads that may present it.
    pub workloads: Vec<Workload>,
    /// The most it can allow; `None`: no ceiling.
    pub scopes: Option<Vec<String>>,
    /// The longest lease it can allow; `None`: no ceiling.
    pub max_lease: Option<Duration>,
    /// Whether its users revoke what is theirs with it: the audience of a client that only they use.
    pub revokes: bool,
}

/// Why issuer settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum AssertionError {
    /// The issuer, or its `jwks_url`, is no plain https URL.
    #[error("issuer `{name}`: `{url}` is no https URL without user, query and fragment")]
    Url {
        /// The issuer's name.
        name: String,
        /// The offending URL.
        url: String,
    },
    /// Two issuers share a name or a URL.
    #[error("issuer `{0}` is configured twice: give every issuer a name and a URL of its own")]
    Twice(String),
    /// An issuer without a name.
    #[error("the issuer `{0}` has no name")]
    NoName(String),
    /// No audience, an empty one, or the same one twice.
    #[error("issuer `{0}`: list at least one audience, each once, none empty")]
    Audiences(String),
    /// No algorithm, or a symmetric one.
    #[error("issuer `{0}`: list at least one algorithm, and none of HS256, HS384, HS512")]
    Algorithms(String),
    /// The CA file cannot be used, or the system has no roots.
    #[error("issuer `{name}`: {cause}")]
    Client {
        /// The issuer's name.
        name: String,
        /// What is wrong.
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
    audience: AudienceSettings,
}

impl Delegator {
    /// Who it is.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// When the token was issued, in Unix seconds; it must lie after the user's last cut.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// When the token ends, in Unix seconds; no delegation made from it lives longer.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Which token it was: SHA-256 of what its signature covers (`header.payload`, as sent). The signature is left out
    /// because a second good one can be made from the first without the key, and this must stay the same token.
    pub fn proof(&self) -> &[u8; 32] {
        &self.proof
    }

    /// The audience the token names.
    pub fn audience(&self) -> &str {
        &self.audience.audience
    }

    /// The workloads that may present a token for this audience.
    pub fn workloads(&self) -> &[Workload] {
        &self.audience.workloads
    }

    /// The most it can allow; `None`: no ceiling.
    pub fn scopes(&self) -> Option<&[String]> {
        self.audience.scopes.as_deref()
    }

    /// Whether the user may revoke what is theirs with it.
    pub fn revokes(&self) -> bool {
        self.audience.revokes
    }

    /// The longest lease it can allow; `None`: no ceiling.
    pub fn max_lease(&self) -> Option<Duration> {
        self.audience.max_lease
    }

    /// A delegator out of thin air, for tests of other rooms.
    #[cfg(test)]
    #[doc(hidden)]
    pub fn for_tests(user: User, issued_at: u64, expires_at: u64, proof: [u8; 32], audience: AudienceSettings) -> Self {
        Delegator { user, issued_at, expires_at, proof, audience }
    }
}

/// The configured issuers, and the keys they publish.
pub struct Assertions {
    issuers: Vec<Issuer>,
}

struct Issuer {
    settings: IssuerSettings,
    keys: Arc<Keys>,
}

impl Assertions {
    /// Checks the settings and prepares a client per issuer; opens no connection.
    pub fn new(settings: Vec<IssuerSettings>) -> Result<Self, AssertionError> {
        check_settings(&settings)?;
        let issuers = settings.into_iter().map(|settings| {
            let keys = Keys::new(&settings).map_err(|cause| AssertionError::Client { name: settings.name.clone(), cause })?;
            Ok(Issuer { settings, keys })
        });
        Ok(Assertions { issuers: issuers.collect::<Result<_, AssertionError>>()? })
    }

    /// Verifies a user token at `now` (Unix seconds). Reads the provider's keys when they are missing or old.
    pub async fn verify(&self, token: &str, now: u64) -> Result<Delegator, Refusal> {
        // 1. Shape: taken apart once, everything below reads the same bytes.
        let parsed = Parsed::of(token)?;
        // 2. Issuer, by exact name.
        let iss = parsed.issuer()?;
        let issuer = self.issuers.iter().find(|i| i.settings.issuer == iss).ok_or(Refusal::IssuerUnknown)?;
        if !issuer.settings.allowed_algs.contains(&parsed.alg()) {
            return Err(Refusal::Algorithm);
        }
        // 3. Signature, by a key of that issuer.
        let signed = issuer.keys.check(parsed, now).await?;
        // 4. Claims.
        let Statement { sub, issued_at, expires_at, proof, audience } = signed.check(&issuer.settings, now)?;
        let user = User { iss: issuer.settings.issuer.clone(), sub };
        Ok(Delegator { user, issued_at, expires_at, proof, audience: audience.clone() })
    }

    /// The configured name of an issuer, by its exact URL.
    pub fn issuer_name(&self, iss: &str) -> Option<&str> {
        self.issuers.iter().find(|i| i.settings.issuer == iss).map(|i| i.settings.name.as_str())
    }

    /// The URL of an issuer, by its configured name.
    pub fn issuer_url(&self, name: &str) -> Option<&str> {
        self.issuers.iter().find(|i| i.settings.name == name).map(|i| i.settings.issuer.as_str())
    }

    #[cfg(test)]
    fn with_keys(settings: Vec<(IssuerSettings, Arc<Keys>)>) -> Self {
        Assertions { issuers: settings.into_iter().map(|(settings, keys)| Issuer { settings, keys }).collect() }
    }
}

fn check_settings(all: &[IssuerSettings]) -> Result<(), AssertionError> {
    for (at, one) in all.iter().enumerate() {
        let name = || one.name.clone();
        if one.name.is_empty() {
            return Err(AssertionError::NoName(one.issuer.clone()));
        }
        if all.iter().take(at).any(|other| other.name == one.name || other.issuer == one.issuer) {
            return Err(AssertionError::Twice(name()));
        }
        for url in [Some(&one.issuer), one.jwks_url.as_ref()].into_iter().flatten() {
            if !oidc::plain_https(url) {
                return Err(AssertionError::Url { name: name(), url: url.clone() });
            }
        }
        let repeated = |(at, a): (usize, &AudienceSettings)| {
            a.audience.is_empty() || one.audiences.iter().take(at).any(|other| other.audience == a.audience)
        };
        if one.audiences.is_empty() || one.audiences.iter().enumerate().any(repeated) {
            return Err(AssertionError::Audiences(name()));
        }
        if one.allowed_algs.is_empty() || one.allowed_algs.iter().any(|alg| !DEFAULT_ALGS.contains(alg)) {
            return Err(AssertionError::Algorithms(name()));
        }
    }
    Ok(())
}
