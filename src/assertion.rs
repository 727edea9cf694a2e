//! Room 2: whom a user token proves. ID tokens and RFC 9068 access tokens of configured issuers; nothing else is a proof.

mod jwks;
mod token;

use std::path::PathBuf;
use std::time::Duration;

use mayfly_verify::{User, WorkloadName, sha256};

pub use token::Refusal;

use jwks::Keys;

/// An OIDC provider whose tokens count.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// How operators call it.
    pub name: String,
    /// `https` URL, exactly as in `iss`.
    pub issuer: String,
    /// Where its keys are, when discovery is not to say; may be on another origin.
    pub jwks_url: Option<String>,
    /// PEM of the CA that its server certificate comes from; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// Who may present tokens of which audience.
    pub audiences: Vec<AudienceSettings>,
    /// How long ago a token may have been issued.
    pub max_age: Duration,
}

/// An audience of an issuer's tokens.
#[derive(Clone, Debug)]
pub struct AudienceSettings {
    /// Exactly as in `aud`.
    pub audience: String,
    /// Who may present such tokens.
    pub workloads: Vec<WorkloadName>,
    /// Ceiling of scopes; none: no ceiling of its own.
    pub scopes: Option<Vec<String>>,
    /// Ceiling of the time a delegation lasts.
    pub max_lease: Option<Duration>,
}

/// The verified user behind one request.
#[derive(Clone, Debug)]
pub struct Delegator {
    user: User,
    issued_at: u64,
    expires_at: u64,
    workloads: Vec<WorkloadName>,
    scopes: Option<Vec<String>>,
}

impl Delegator {
    /// Who.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// Unix seconds.
    pub fn issued_at(&self) -> u64 {
        self.issued_at
    }

    /// Unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Workloads that may present the token.
    pub fn workloads(&self) -> &[WorkloadName] {
        &self.workloads
    }

    /// Ceiling of scopes; none: no ceiling of its own.
    pub fn scopes(&self) -> Option<&[String]> {
        self.scopes.as_deref()
    }
}

/// Every configured issuer with its keys.
pub struct Assertions {
    issuers: Vec<(IssuerSettings, Keys)>,
}

impl Assertions {
    /// Prepares the issuers; connects to none yet.
    pub fn new(issuers: Vec<IssuerSettings>) -> Result<Assertions, String> {
        let issuers = issuers
            .into_iter()
            .map(|settings| {
                let keys = Keys::new(&settings).map_err(|e| format!("issuer `{}`: {e}", settings.name))?;
                Ok((settings, keys))
            })
            .collect::<Result<_, String>>()?;
        Ok(Assertions { issuers })
    }

    /// The URL of an issuer by its configured name.
    pub fn issuer_url(&self, name: &str) -> Option<&str> {
        self.issuers.iter().find(|(s, _)| s.name == name).map(|(s, _)| s.issuer.as_str())
    }

    /// Verifies a token at `now` (unix seconds).
    pub async fn verify(&self, token: &str, now: u64) -> Result<Delegator, Refusal> {
        // 1. Parse once; what is used below is what the signature covers (T05).
        let parsed = token::parse(token)?;
        // 2. T08, T09: the issuer is one of ours, compared as an exact string; a token cannot name where its keys are.
        let (settings, keys) = self.issuers.iter().find(|(s, _)| s.issuer == parsed.claims.iss).ok_or(Refusal::IssuerUnknown)?;
        // 3. The signature, by a key of that issuer.
        let mut candidates = keys.find(parsed.kid.as_deref(), now).await?;
        if candidates.is_empty() {
            candidates = keys.refetch(parsed.kid.as_deref(), now).await?;
        }
        parsed.check_signature(&candidates)?;
        // 4. The claims.
        let audience = parsed.check_claims(settings, now)?;
        let ends = parsed.claims.exp.min(audience.max_lease.map_or(u64::MAX, |most| now.saturating_add(most.as_secs())));
        Ok(Delegator {
            user: User { iss: parsed.claims.iss, sub: parsed.claims.sub },
            issued_at: parsed.claims.iat,
            expires_at: ends,
            workloads: audience.workloads.clone(),
            scopes: audience.scopes.clone(),
        })
    }
}

/// SHA-256 of a token's exact bytes.
pub fn proof(token: &str) -> [u8; 32] {
    sha256(token.as_bytes())
}
