//! Identifiers: SPIFFE IDs, agents, and the principal that a SPIFFE ID names. Other names are in the files beside this one.

mod delegation;
mod label;
mod workload;

use std::fmt;

use spiffe::{SpiffeId, TrustDomain};
use uuid::Uuid;

pub use delegation::{DelegationId, Mode, User};
pub use label::{ClassName, WorkloadName};
pub use workload::{Workload, workload_id};

/// Longest SPIFFE ID a document may carry, in bytes (SPIFFE-ID 2.3).
pub const MAX_SPIFFE_ID: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID 2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It does not match `[a-z][a-z0-9-]*`, or is too long.
    #[error("`{0}` is not a name: use a-z, 0-9 and `-`, begin with a letter, at most {1} characters")]
    Label(String, usize),
    /// It does not have the form of a SPIFFE ID.
    #[error("`{0}` is no SPIFFE ID: {1}")]
    SpiffeId(String, String),
    /// It is longer than [`MAX_SPIFFE_ID`].
    #[error("the SPIFFE ID has {0} bytes, and {MAX_SPIFFE_ID} are allowed")]
    TooLong(usize),
    /// It is a SPIFFE ID, but not an agent's.
    #[error("`{0}` is not an agent: expected spiffe://<trust domain>/agent/<class>/<uuid>")]
    NotAnAgent(String),
    /// It is a SPIFFE ID that cannot be a workload's: it has no path, or it is an agent's.
    #[error("`{0}` is no workload: expected a SPIFFE ID with a path, and not an agent's")]
    NotAWorkload(String),
    /// It is not a SHA-256 in hex.
    #[error("`{0}` is not a delegation id: expected 64 hex digits")]
    Delegation(String),
}

/// Parses a SPIFFE ID strictly: nothing is normalized (clauses ID-1 to ID-8).
pub fn parse_spiffe_id(s: &str) -> Result<SpiffeId, NameError> {
    if s.len() > MAX_SPIFFE_ID {
        return Err(NameError::TooLong(s.len()));
    }
    let id = SpiffeId::new(s).map_err(|e| NameError::SpiffeId(s.chars().take(128).collect(), e.to_string()))?;
    // INVARIANT: the id is byte-equal to the input, so that no id has two spellings.
    let spelled = s.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(id.trust_domain_name()));
    if spelled != Some(id.path()) || id.trust_domain_name().len() > MAX_TRUST_DOMAIN {
        return Err(NameError::SpiffeId(s.chars().take(128).collect(), "not in canonical form".into()));
    }
    Ok(id)
}

/// `spiffe://<td>/issuer`: the SPIFFE ID in the issuer's own server certificate.
pub fn issuer_id(td: &TrustDomain) -> String {
    format!("spiffe://{td}/issuer")
}

/// One instance of a class: `spiffe://<td>/agent/<class>/<UUIDv7>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentId {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The class.
    pub class: ClassName,
    /// Unique among all agents, ever.
    pub uuid: Uuid,
}

impl AgentId {
    /// Parses the SPIFFE ID of an agent. The UUID must be lower-case and hyphenated.
    pub fn parse(s: &str) -> Result<AgentId, NameError> {
        let id = parse_spiffe_id(s)?;
        agent_of(&id).ok_or_else(|| NameError::NotAnAgent(s.to_owned()))
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/agent/{}/{}", self.trust_domain, self.class, self.uuid)
    }
}

/// What a SPIFFE ID names, seen from one trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An agent of this trust domain.
    Agent(AgentId),
    /// A workload of this trust domain.
    Workload(WorkloadName),
    /// The issuer of this trust domain.
    Issuer,
    /// Anything else: an id of another trust domain, or a path that has no meaning to Mayfly.
    Other,
}

impl Principal {
    /// Classifies an id. A path under `/agent/` or `/workload/` that is not exactly of that form is `Other`.
    pub fn of(id: &SpiffeId, own: &TrustDomain) -> Principal {
        if id.trust_domain_name() != own.as_str() {
            return Principal::Other;
        }
        if let Some(agent) = agent_of(id) {
            return Principal::Agent(agent);
        }
        if id.path() == "/issuer" {
            return Principal::Issuer;
        }
        id.path().strip_prefix("/workload/").and_then(|name| name.parse().ok()).map_or(Principal::Other, Principal::Workload)
    }
}

pub(crate) fn agent_of(id: &SpiffeId) -> Option<AgentId> {
    let (class, uuid) = id.path().strip_prefix("/agent/")?.split_once('/')?;
    let parsed = Uuid::try_parse(uuid).ok()?;
    // The UUID parser accepts several spellings; an id has one.
    if parsed.hyphenated().to_string() != uuid {
        return None;
    }
    Some(AgentId { trust_domain: TrustDomain::new(id.trust_domain_name()).ok()?, class: class.parse().ok()?, uuid: parsed })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn id1_to_id5_malformed_ids_are_refused() {
        for bad in [
            "",
            "https://td/a",
            "spiffe:///a",
            "spiffe://td/a?x=1",
            "spiffe://td/a#f",
            "spiffe://u@td/a",
            "spiffe://td:8080/a",
            "spiffe://td:/a",
            "spiffe://Td/a",
            "spiffe://t$d/a",
            "spiffe://t%41d/a",
            "spiffe://[::1]/a",
            "spiffe://td/a//b",
            "spiffe://td/./a",
            "spiffe://td/../a",
            "spiffe://td/a/",
            "spiffe://td/%41",
            "spiffe://td/a!b",
            "Spiffe://td/a",
            "spiffe://td/a\0",
            "spiffe://td/a\u{2024}b",
            "spiffe://td/a\\b",
        ] {
            assert!(parse_spiffe_id(bad).is_err(), "accepted {bad}");
        }
    }

    #[test]
    fn id4_a_trust_domain_may_look_like_anything() {
        for ok in ["spiffe://1.2.3.4/a", "spiffe://a_b/a", "spiffe://-x/a"] {
            assert!(parse_spiffe_id(ok).is_ok(), "refused {ok}");
        }
    }

    #[test]
    fn id6_id7_2048_bytes_are_supported_and_2049_refused() {
        let prefix = "spiffe://td/";
        let longest = format!("{prefix}{}", "a".repeat(MAX_SPIFFE_ID - prefix.len()));
        assert_eq!(parse_spiffe_id(&longest).unwrap().to_string(), longest);
        assert!(matches!(parse_spiffe_id(&format!("{longest}a")), Err(NameError::TooLong(2049))));
        assert!(parse_spiffe_id(&format!("spiffe://{}/a", "t".repeat(255))).is_ok());
        assert!(parse_spiffe_id(&format!("spiffe://{}/a", "t".repeat(256))).is_err());
    }

    #[test]
    fn id8_paths_are_case_sensitive() {
        assert_ne!(parse_spiffe_id("spiffe://td/A").unwrap(), parse_spiffe_id("spiffe://td/a").unwrap());
    }

    #[test]
    fn a_principal_is_read_only_from_its_exact_form() {
        let td = TrustDomain::new("td").unwrap();
        let of = |s: &str| Principal::of(&parse_spiffe_id(s).unwrap(), &td);
        let uuid = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
        assert!(matches!(of(&format!("spiffe://td/agent/worker/{uuid}")), Principal::Agent(a) if a.uuid.to_string() == uuid));
        assert_eq!(of("spiffe://td/workload/orchestrator"), Principal::Workload("orchestrator".parse().unwrap()));
        assert_eq!(of("spiffe://td/issuer"), Principal::Issuer);
        for other in [
            format!("spiffe://other/agent/worker/{uuid}"),
            format!("spiffe://td/agent/worker/{}", uuid.to_uppercase()),
            format!("spiffe://td/agent/worker/{}", uuid.replace('-', "")),
            format!("spiffe://td/agent/worker/{uuid}/x"),
            "spiffe://td/workload/a/b".into(),
            "spiffe://td/issuer/x".into(),
            "spiffe://td".into(),
        ] {
            assert_eq!(of(&other), Principal::Other, "{other}");
        }
    }
}
