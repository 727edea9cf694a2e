//! A workload's proof: the OIDC token of the platform that it runs on, such as that of a Kubernetes service account or of a job in
//! GitHub Actions.
//!
//! It is verified like a user's token. The issuers of the two are kept apart, so that no token proves both a user and a workload
//! (T120).

use std::path::Path;

use mayfly_verify::WorkloadName;
use serde_json::{Map, Value};

use super::{AssertionError, Assertions, IssuerSettings, Presenter, Provider, Refusal};
use crate::claims::holds_all;

/// Which tokens prove a workload: all that have these claims. Somebody who can change them can be the workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The workload.
    pub workload: WorkloadName,
    /// Configured name of the issuer.
    pub issuer: String,
    /// Claims with their exact values, at least one. If a value is an object, its members must be in the token's object; a list
    /// must be equal.
    pub claims: Map<String, Value>,
}

/// A verified token of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The workload.
    pub workload: WorkloadName,
    /// URL of the issuer.
    pub iss: String,
    /// Whom the issuer names.
    pub sub: String,
    /// SHA-256 of the bytes that the signature covers. It identifies the token even if its signature is replaced by an equivalent
    /// one.
    pub proof: [u8; 32],
    /// Unix seconds.
    pub issued_at: u64,
    /// When it is no longer accepted, in Unix seconds: when it expires, or when it is too old.
    pub ends_at: u64,
}

/// Why a token proves no workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unattested {
    /// The token is refused, or cannot be verified now.
    Token(Refusal),
    /// It has the claims of no workload, or not of the one that was asked for.
    Unmatched,
    /// It has the claims of several workloads, and none was asked for.
    Ambiguous,
}

/// The issuers of workloads, with their published keys.
pub struct Attestations {
    tokens: Assertions,
    rules: Vec<Rule>,
}

impl Attestations {
    /// Checks the settings of the issuers. It opens no connection.
    pub fn new(issuers: Vec<IssuerSettings>, rules: Vec<Rule>) -> Result<Attestations, AssertionError> {
        Ok(Attestations { tokens: Assertions::new(issuers)?, rules })
    }

    /// The same for other settings, with the keys that were fetched.
    pub fn again(&self, issuers: Vec<IssuerSettings>, rules: Vec<Rule>) -> Result<Attestations, AssertionError> {
        Ok(Attestations { tokens: self.tokens.again(issuers)?, rules })
    }

    /// As [`Assertions::keep`].
    pub fn keep(&self, dir: &Path) {
        self.tokens.keep(dir);
    }

    /// As [`Assertions::reachable`].
    pub fn reachable(&self) -> Vec<(String, Result<(), String>)> {
        self.tokens.reachable()
    }

    /// As [`Assertions::providers`].
    pub fn providers(&self) -> Vec<Provider> {
        self.tokens.providers()
    }

    /// As [`Assertions::look`].
    pub fn look(&self, now: u64) {
        self.tokens.look(now);
    }

    /// Verifies a token at `now`, in Unix seconds, and finds the one workload that it proves. `asked` names it where the token may
    /// prove several.
    pub async fn verify(&self, token: &str, now: u64, asked: Option<&WorkloadName>) -> Result<Attested, Unattested> {
        let (issuer, statement) = self.tokens.stated(token, now, Presenter::Stranger).await.map_err(Unattested::Token)?;
        // A token for several audiences could be presented here by another of its receivers.
        if statement.claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() != 1) {
            return Err(Unattested::Token(Refusal::Audience));
        }
        let mut proved: Vec<&WorkloadName> = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.issuer == issuer.name && holds_all(&rule.claims, &statement.claims)) {
            if !proved.contains(&&rule.workload) {
                proved.push(&rule.workload);
            }
        }
        let workload = match (asked, proved.as_slice()) {
            (Some(asked), all) if all.contains(&asked) => asked,
            (Some(_), _) | (None, []) => return Err(Unattested::Unmatched),
            (None, [one]) => one,
            (None, _) => return Err(Unattested::Ambiguous),
        };
        Ok(Attested {
            workload: workload.clone(),
            iss: issuer.issuer.clone(),
            sub: statement.sub,
            proof: statement.proof,
            issued_at: statement.issued_at,
            // Its use is remembered for exactly as long as the token would be accepted again.
            ends_at: statement.expires_at.min(statement.issued_at.saturating_add(issuer.max_age.as_secs())),
        })
    }
}
