//! `[operator]`, `[auditor]` and `[[operators]]`: who administers the issuer, and who reads everything and changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mayfly_verify::WorkloadName;

use super::Config;
use super::attest::read_claims;
use super::reader::Reader;
use crate::assertion::{AudienceSettings, IssuerSettings};
use crate::judge::assignment::{Assignment, Office};

/// The section of operators.
pub(super) struct Operator {
    pub(super) socket: Option<PathBuf>,
    pub(super) uids: Option<Vec<u32>>,
    pub(super) workloads: Vec<WorkloadName>,
}

/// Reads `[operator]`.
pub(super) fn read_operator(o: &mut Reader) -> Operator {
    Operator { socket: o.optional("socket", |s| Ok(PathBuf::from(s))), uids: o.integers("uids"), workloads: workloads(o) }
}

/// The section of auditors.
pub(super) struct Auditor {
    pub(super) uids: Vec<u32>,
    pub(super) workloads: Vec<WorkloadName>,
}

/// Reads `[auditor]`.
pub(super) fn read_auditor(a: &mut Reader) -> Auditor {
    Auditor { uids: a.integers("uids").unwrap_or_default(), workloads: workloads(a) }
}

fn workloads(section: &mut Reader) -> Vec<WorkloadName> {
    section.list("workloads", Some(&[]), |s| s.parse::<WorkloadName>().map_err(|e| e.to_string()))
}

/// Checks that no one is both operator and auditor, and that every workload is configured.
pub(super) fn check_offices(top: &mut Reader, operator: &Operator, auditor: &Auditor, known: &[WorkloadName]) {
    for (key, listed) in [("operator.workloads", &operator.workloads), ("auditor.workloads", &auditor.workloads)] {
        if let Some(unknown) = listed.iter().find(|name| !known.contains(name)) {
            top.fault(key, &format!("workload `{unknown}` is not configured"));
        }
    }
    if let Some(both) = auditor.workloads.iter().find(|name| operator.workloads.contains(name)) {
        top.fault("auditor.workloads", &format!("`{both}` is an operator already, who reads everything too"));
    }
    if let Some(both) = auditor.uids.iter().find(|uid| operator.uids.as_ref().is_some_and(|all| all.contains(uid))) {
        top.fault("auditor.uids", &format!("`{both}` is an operator already, who reads everything too"));
    }
}

/// Reads every `[[operators]]`.
pub(super) fn read_assignments(top: &mut Reader) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for mut o in top.sections("operators") {
        let issuer = o.parsed("issuer", None, |s| Ok(s.to_owned()));
        let audience = o.parsed("audience", None, |s| {
            let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
            if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
        });
        let office = o.parsed("role", Some("operator"), |s| match s {
            "operator" => Ok(Office::Operator),
            "auditor" => Ok(Office::Auditor),
            _ => Err("write `operator` or `auditor`".into()),
        });
        let claims = read_claims(&mut o);
        let mut contains = Vec::new();
        for (name, value) in o.table("contains") {
            match value {
                toml::Value::String(text) => contains.push((name, text)),
                _ => o.fault("contains", &format!("`{name}`: write the text that is to be in the list")),
            }
        }
        if claims.is_empty() && contains.is_empty() {
            let what = "list at least one claim with its value: without any, everybody at the provider would be one of them";
            o.fault("claims", what);
        }
        if let (Some(issuer), Some(audience), Some(office)) = (issuer, audience, office) {
            assignments.push(Assignment { issuer, audience, office, claims, contains });
        }
        top.close(o);
    }
    assignments
}

/// Gives each provider the audiences of its operators. T242: such an audience is for nothing else.
pub(super) fn add_audiences(top: &mut Reader, assignments: &[Assignment], issuers: &mut [IssuerSettings]) {
    // The provider of development is added when it has started, so it is not checked here.
    let unknown = |of: &&Assignment| of.issuer != "dev" && issuers.iter().all(|issuer| issuer.name != of.issuer);
    if let Some(Assignment { issuer, .. }) = assignments.iter().find(unknown) {
        top.fault("operators", &format!("`{issuer}` is the name of no `[[issuers]]`"));
    }
    for issuer in issuers {
        for made in audiences(assignments, &issuer.name) {
            if issuer.audiences.iter().any(|known| known.audience == made.audience) {
                let AudienceSettings { audience, .. } = &made;
                let what = format!("tokens for `{audience}` speak for users already: give operators an audience of their own");
                top.fault("operators", &what);
            }
            issuer.audiences.push(made);
        }
    }
}

/// The audiences of the operators at a provider, each once.
fn audiences(assignments: &[Assignment], issuer: &str) -> Vec<AudienceSettings> {
    let names: BTreeSet<&str> = assignments.iter().filter(|of| of.issuer == issuer).map(|of| of.audience.as_str()).collect();
    names.into_iter().map(|name| AudienceSettings { operates: true, ..AudienceSettings::new(name) }).collect()
}

impl Config {
    /// The audiences of tokens that make operators and auditors at the provider with this name, each once.
    pub fn operator_audiences(&self, issuer: &str) -> Vec<AudienceSettings> {
        audiences(&self.assignments, issuer)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const START: &str = "trust_domain = \"a.example\"\n[[workloads]]\nname = \"w\"\n[[issuers]]\nname = \"corp\"\n\
                         issuer = \"https://corp.example\"\n[[issuers.audiences]]\naudience = \"mine\"\nuser = true\n";

    fn read(more: &str) -> Result<Config, String> {
        Config::parse(&format!("{START}{more}"), "f").map_err(|faults| faults.to_string())
    }

    #[test]
    fn t242_an_audience_of_operators_is_for_nothing_else_and_asks_for_claims() {
        let fine = "[[operators]]\nissuer = \"corp\"\naudience = \"ops\"\ncontains = { groups = \"ops\" }\n";
        let config =
            read(&format!("{fine}{}", fine.replace("{ groups", "{ roles").replace("audience", "role = \"auditor\"\naudience")))
                .unwrap();
        assert_eq!(config.assignments.iter().map(|a| a.office).collect::<Vec<_>>(), [Office::Operator, Office::Auditor]);
        let made: Vec<_> = config.issuers[0].audiences.iter().filter(|a| a.operates).collect();
        assert_eq!(made.len(), 1, "two assignments by one audience");
        assert!(!made[0].user && !made[0].revokes && made[0].workloads.is_empty());
        for (more, told) in [
            (fine.replace("ops\"\nc", "mine\"\nc"), "speak for users"),
            (fine.replace("corp", "other"), "the name of no `[[issuers]]`"),
            (fine.replace("contains = { groups = \"ops\" }", ""), "list at least one claim"),
            (fine.replace("contains = { groups = \"ops\" }", "claims = {}"), "list at least one claim"),
            (fine.replace("\"ops\" }", "[\"ops\"] }"), "`groups`: write the text"),
            (fine.replace("audience", "role = \"root\"\naudience"), "write `operator` or `auditor`"),
            (fine.replace("contains", "contain"), "did you mean `contains`"),
            ("[operator]\nuids = [7]\n[auditor]\nuids = [7]".into(), "auditor.uids: `7` is an operator"),
            ("[operator]\nworkloads = [\"w\"]\n[auditor]\nworkloads = [\"w\"]".into(), "`w` is an operator"),
            ("[auditor]\nworkloads = [\"x\"]".into(), "workload `x` is not configured"),
        ] {
            let faults = read(&more).err().unwrap_or_default();
            assert!(faults.contains(told), "{more}: {faults}");
        }
    }
}
