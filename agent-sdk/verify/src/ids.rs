//! Names: classes, workloads, agents, users, and whom a SPIFFE ID stands for.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use spiffe::{SpiffeId, TrustDomain};
use uuid::Uuid;

/// Longest SPIFFE ID a document may carry, in bytes (SPIFFE-ID 2.3).
pub const MAX_SPIFFE_ID: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID 2.3).
pub const MAX_TRUST_DOMAIN: usize = 255;

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not `[a-z][a-z0-9-]*`, or too long.
    #[error("`{0}` is no name: use a-z, 0-9 and `-`, begin with a letter, at most {1} characters")]
    Label(String, usize),
    /// Not a SPIFFE ID of the standard's form.
    #[error("`{0}` is no SPIFFE ID: {1}")]
    SpiffeId(String, String),
    /// Longer than [`MAX_SPIFFE_ID`].
    #[error("the SPIFFE ID has {0} bytes, and {MAX_SPIFFE_ID} are allowed")]
    TooLong(usize),
    /// A SPIFFE ID, and not of an agent of the expected trust domain.
    #[error("`{0}` is no agent: expected spiffe://<trust domain>/agent/<class>/<uuid>")]
    NotAnAgent(String),
    /// A SPIFFE ID that cannot be a workload's: without a path, or an agent's.
    #[error("`{0}` is no workload: expected a SPIFFE ID with a path, and not an agent's")]
    NotAWorkload(String),
    /// Not a hex SHA-256.
    #[error("`{0}` is no delegation id: expected 64 hex digits")]
    Delegation(String),
}

fn label(s: &str, max: usize) -> Result<String, NameError> {
    let ok = s.len() <= max
        && s.starts_with(|c: char| c.is_ascii_lowercase())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok { Ok(s.to_owned()) } else { Err(NameError::Label(s.chars().take(64).collect(), max)) }
}

macro_rules! label_type {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                label(s, $max).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label_type!(
    /// A catalogued kind of agent: `[a-z][a-z0-9-]*`, at most 32 characters.
    ClassName,
    32
);
label_type!(
    /// A long-lived program that may spawn agents: `[a-z][a-z0-9-]*`, at most 48 characters.
    WorkloadName,
    48
);

/// Parses a SPIFFE ID, strictly: nothing is normalised (clauses ID-1 to ID-8).
pub fn parse_spiffe_id(s: &str) -> Result<SpiffeId, NameError> {
    if s.len() > MAX_SPIFFE_ID {
        return Err(NameError::TooLong(s.len()));
    }
    let id = SpiffeId::new(s).map_err(|e| NameError::SpiffeId(s.chars().take(128).collect(), e.to_string()))?;
    // INVARIANT: the id is byte-equal to what was parsed; two spellings of one id never exist.
    if id.to_string() != s || id.trust_domain_name().len() > MAX_TRUST_DOMAIN {
        return Err(NameError::SpiffeId(s.chars().take(128).collect(), "not in canonical form".into()));
    }
    Ok(id)
}

/// `spiffe://<td>/workload/<name>`.
pub fn workload_id(td: &TrustDomain, name: &WorkloadName) -> String {
    format!("spiffe://{td}/workload/{name}")
}

/// Who stands at the root of a tree of agents. As text: the plain name, or the whole SPIFFE ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// A workload of our trust domain.
    Own(WorkloadName),
    /// A workload of a trusted foreign trust domain, listed by its exact SPIFFE ID. Shared: every agent below it holds it.
    Foreign(Arc<SpiffeId>),
}

impl Workload {
    /// Its SPIFFE ID, where `own` is our trust domain.
    pub fn id(&self, own: &TrustDomain) -> String {
        match self {
            Workload::Own(name) => workload_id(own, name),
            Workload::Foreign(id) => id.to_string(),
        }
    }
}

impl From<WorkloadName> for Workload {
    fn from(name: WorkloadName) -> Workload {
        Workload::Own(name)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Own(name) => name.fmt(f),
            Workload::Foreign(id) => id.fmt(f),
        }
    }
}

// An own workload looks as its name does: the digest of a configuration is made from this text.
impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Own(name) => fmt::Debug::fmt(name, f),
            Workload::Foreign(id) => write!(f, "Foreign({id})"),
        }
    }
}

impl FromStr for Workload {
    type Err = NameError;
    // No name holds a `:`, so the two forms never meet.
    fn from_str(s: &str) -> Result<Self, NameError> {
        if !s.starts_with("spiffe:") {
            return s.parse().map(Workload::Own);
        }
        let id = parse_spiffe_id(s)?;
        // XL-2; and a binding refuses an agent at its root, of whatever trust domain.
        if id.path().is_empty() || agent_of(&id).is_some() {
            return Err(NameError::NotAWorkload(s.chars().take(128).collect()));
        }
        Ok(Workload::Foreign(Arc::new(id)))
    }
}

/// `spiffe://<td>/issuer`: what the issuer's own server certificate carries.
pub fn issuer_id(td: &TrustDomain) -> String {
    format!("spiffe://{td}/issuer")
}

/// One instance of a class: `spiffe://<td>/agent/<class>/<UUIDv7>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentId {
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Its class.
    pub class: ClassName,
    /// What tells it from every other agent, ever.
    pub uuid: Uuid,
}

impl AgentId {
    /// Parses the SPIFFE ID of an agent; the UUID must be in lower-case hyphenated form.
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

/// Whom a SPIFFE ID stands for, seen from one trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An agent of this trust domain.
    Agent(AgentId),
    /// A workload of this trust domain.
    Workload(WorkloadName),
    /// The issuer of this trust domain.
    Issuer,
    /// Anything else: a foreign id, or a path that Mayfly gives no meaning to.
    Other,
}

impl Principal {
    /// Reads an id. A path under `/agent/` or `/workload/` that is not exactly of its form is `Other`.
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

fn agent_of(id: &SpiffeId) -> Option<AgentId> {
    let (class, uuid) = id.path().strip_prefix("/agent/")?.split_once('/')?;
    let parsed = Uuid::try_parse(uuid).ok()?;
    // Uuid parses several spellings; an id has one.
    if parsed.hyphenated().to_string() != uuid {
        return None;
    }
    Some(AgentId { trust_domain: TrustDomain::new(id.trust_domain_name()).ok()?, class: class.parse().ok()?, uuid: parsed })
}

/// A person, as their OIDC provider names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Issuer URL, exactly as in the token.
    pub iss: String,
    /// Subject at that issuer.
    pub sub: String,
}

/// SHA-256 of a delegation's canonical JSON; 64 lower-case hex digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DelegationId(pub [u8; 32]);

impl fmt::Display for DelegationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for DelegationId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let mut id = [0u8; 32];
        let lower = s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match hex::decode_to_slice(s, &mut id) {
            Ok(()) if lower => Ok(DelegationId(id)),
            _ => Err(NameError::Delegation(s.chars().take(80).collect())),
        }
    }
}

/// By which right an agent exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// For a user, under a delegation.
    Delegated,
    /// For nobody; only where the class allows it.
    Autonomous,
}

impl Mode {
    /// `delegated` or `autonomous`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Delegated => "delegated",
            Mode::Autonomous => "autonomous",
        }
    }
}

impl FromStr for Mode {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        match s {
            "delegated" => Ok(Mode::Delegated),
            "autonomous" => Ok(Mode::Autonomous),
            _ => Err(NameError::Label(s.chars().take(64).collect(), 10)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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
    fn t01_hostile_names_never_become_part_of_an_id() {
        for bad in ["..", ".", "a/b", "a//b", "%2e%2e", "a%2Fb", "a\\b", "a\0", "a\u{2024}b", "A", "", "-a", "1a", "ä"] {
            assert!(bad.parse::<ClassName>().is_err(), "class {bad}");
            assert!(bad.parse::<WorkloadName>().is_err(), "workload {bad}");
        }
        assert!("a".repeat(33).parse::<ClassName>().is_err());
        assert!("a".repeat(2049).parse::<WorkloadName>().is_err());
    }

    #[test]
    fn a_workload_is_a_name_or_a_whole_spiffe_id_and_nothing_else() {
        let own: Workload = "orchestrator".parse().unwrap();
        let name: WorkloadName = "orchestrator".parse().unwrap();
        assert_eq!((own.to_string(), format!("{own:?}")), (name.to_string(), format!("{name:?}")));
        assert_eq!(own, Workload::Own(name));
        let text = "spiffe://spire.example.org/ns/x/sa/y";
        let foreign: Workload = text.parse().unwrap();
        let td = TrustDomain::new("td").unwrap();
        assert_eq!((foreign.to_string(), foreign.id(&td)), (text.to_owned(), text.to_owned()));
        assert_eq!(own.id(&td), "spiffe://td/workload/orchestrator");
        // A million agents hold one each.
        assert_eq!(size_of::<Workload>(), size_of::<WorkloadName>());
        for bad in [
            "spiffe://spire.example.org",
            "spiffe://spire.example.org/ns/*",
            "spiffe://Spire.example.org/ns/x",
            "spiffe:/x",
            "https://spire.example.org/ns/x",
            "spiffe://spire.example.org/agent/worker/0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee",
            "workload/x",
        ] {
            assert!(bad.parse::<Workload>().is_err(), "{bad}");
        }
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
