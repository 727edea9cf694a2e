//! The workload at the root of a tree of agents.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use spiffe::{SpiffeId, TrustDomain};

use super::{NameError, WorkloadName, agent_of, parse_spiffe_id};

/// Returns `spiffe://<td>/workload/<name>`.
pub fn workload_id(td: &TrustDomain, name: &WorkloadName) -> String {
    format!("spiffe://{td}/workload/{name}")
}

/// The root workload of a tree of agents. As text it is a plain name, or a whole SPIFFE ID.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    /// A workload of our trust domain.
    Own(WorkloadName),
    /// A workload of a trusted foreign trust domain, listed by its exact SPIFFE ID. All agents below the workload share one
    /// allocation of the ID.
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

// A workload of our own prints like its name: the digest of a configuration is made from this text.
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
    // A name contains no `:`, so the two forms are never confused.
    fn from_str(s: &str) -> Result<Self, NameError> {
        if !s.starts_with("spiffe:") {
            return s.parse().map(Workload::Own);
        }
        let id = parse_spiffe_id(s)?;
        // XL-2: a leaf's id has a path. And no binding accepts an agent as its root, of whatever trust domain.
        if id.path().is_empty() || agent_of(&id).is_some() {
            return Err(NameError::NotAWorkload(s.chars().take(128).collect()));
        }
        Ok(Workload::Foreign(Arc::new(id)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

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
        // A million agents hold one each, so its size matters.
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
}
