//! The settings of issuers: whether they fit together, what they are called, and at which of them people sign in or are asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mayfly_verify::Workload;

use super::{Algorithm, AssertionError, Assertions, DEFAULT_ALGS, DEFAULT_MAX_AGE, oidc};

/// An OIDC provider whose tokens prove a user. An attacker who controls this configuration can act for every user.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// The operator's name for it, used in logs and metrics.
    pub name: String,
    /// Its `iss`, compared byte for byte: an https URL.
    pub issuer: String,
    /// URL of its JWK Set. `None` means the URL in its discovery document, which is not read otherwise.
    pub jwks_url: Option<String>,
    /// PEM file with the only roots that its TLS certificate may lead to. `None` means the roots of the system.
    pub ca_file: Option<PathBuf>,
    /// Its accepted audiences, at least one.
    pub audiences: Vec<AudienceSettings>,
    /// Greatest age of a token since its `iat`.
    pub max_age: Duration,
    /// The claim that names the groups of the user. `None` reads none.
    pub groups: Option<String>,
    /// How it is told whom to ask.
    pub hint: Hint,
    /// The accepted algorithms, at least one. Symmetric ones are refused.
    pub allowed_algs: Vec<Algorithm>,
}

impl IssuerSettings {
    /// An issuer with defaults, and without audiences.
    pub fn new(name: impl Into<String>, issuer: impl Into<String>) -> Self {
        IssuerSettings {
            name: name.into(),
            issuer: issuer.into(),
            jwks_url: None,
            ca_file: None,
            audiences: Vec::new(),
            max_age: DEFAULT_MAX_AGE,
            groups: None,
            hint: Hint::Sub,
            allowed_algs: DEFAULT_ALGS.to_vec(),
        }
    }
}

/// How a provider is told which of its users to ask: the `login_hint` of a request to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// Their subject.
    #[default]
    Sub,
    /// A JSON object with issuer and subject (RFC 9493, 3.2.3).
    IssSub,
    /// A claim of their tokens, such as `preferred_username`.
    Claim(String),
}

/// What a token for one audience allows, and which workloads may present it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudienceSettings {
    /// The `aud`, compared byte for byte.
    pub audience: String,
    /// The workloads that may present such a token.
    pub workloads: Vec<Workload>,
    /// Ceiling of the scopes that the token allows. `None` means no ceiling.
    pub scopes: Option<Vec<String>>,
    /// Longest lease that the token allows. `None` means no ceiling.
    pub max_lease: Option<Duration>,
    /// Whether users can revoke their own access with such a token. Its client must be one that only the users themselves use.
    pub revokes: bool,
    /// Whether such a token speaks for the user themself, who sees and stops what acts for them, and reopens what they closed. Its
    /// client must be one that only the users themselves use.
    pub user: bool,
    /// Whether people sign in at the issuer's page as the client with this name.
    pub sign_in: bool,
    /// The file with the secret of the client with this name, by which the provider asks people for their approval (CIBA). Its tokens are for
    /// nothing else. `None` if it asks nobody.
    pub asks: Option<PathBuf>,
    /// Whether such a token makes somebody an operator or an auditor, by its claims, and does nothing else.
    pub operates: bool,
    /// Whether its tokens are ID-JAGs and nothing else. The audience is then the URL of this issuer.
    pub id_jag: bool,
}

impl AudienceSettings {
    /// An audience without ceilings, and without workloads that may present its tokens.
    pub fn new(audience: impl Into<String>) -> Self {
        AudienceSettings {
            audience: audience.into(),
            workloads: Vec::new(),
            scopes: None,
            max_lease: None,
            revokes: false,
            user: false,
            sign_in: false,
            asks: None,
            operates: false,
            id_jag: false,
        }
    }
}

impl Assertions {
    /// Where people sign in for the issuer's page: providers, each with the id of a client there.
    pub fn sign_ins(&self) -> impl Iterator<Item = (&IssuerSettings, &str)> {
        self.issuers.iter().filter_map(|issuer| {
            let client = issuer.settings.audiences.iter().find(|audience| audience.sign_in)?;
            Some((&issuer.settings, client.audience.as_str()))
        })
    }

    /// Which providers ask people for their approval: each with the id of a client there, and the file with its secret.
    pub fn asking(&self) -> impl Iterator<Item = (&IssuerSettings, &str, &Path)> {
        self.issuers.iter().filter_map(|issuer| {
            let asks = |audience: &'_ AudienceSettings| audience.asks.is_some();
            let client = issuer.settings.audiences.iter().find(|audience| asks(audience))?;
            Some((&issuer.settings, client.audience.as_str(), client.asks.as_deref()?))
        })
    }

    /// The configured name of the issuer with this exact URL. Returns `None` if it is not configured.
    pub fn issuer_name(&self, iss: &str) -> Option<&str> {
        self.issuers.iter().find(|i| i.settings.issuer == iss).map(|i| i.settings.name.as_str())
    }

    /// The URL of the issuer with this configured name. Returns `None` if it is not configured.
    pub fn issuer_url(&self, name: &str) -> Option<&str> {
        self.issuers.iter().find(|i| i.settings.name == name).map(|i| i.settings.issuer.as_str())
    }
}

pub(super) fn check_settings(all: &[IssuerSettings]) -> Result<(), AssertionError> {
    for (at, one) in all.iter().enumerate() {
        let name = || one.name.clone();
        if one.name.is_empty() {
            return Err(AssertionError::NoName(one.issuer.clone()));
        }
        if all.iter().take(at).any(|other| other.name == one.name || other.issuer == one.issuer) {
            return Err(AssertionError::Twice(name()));
        }
        for (url, query) in [(Some(&one.issuer), false), (one.jwks_url.as_ref(), true)] {
            let Some(url) = url else { continue };
            if !oidc::plain_https(url, query) {
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
