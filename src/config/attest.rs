//! `[[workload_issuers]]` and `attest` of a workload: platforms whose tokens prove workloads.

use std::path::PathBuf;

use mayfly_verify::{ClassName, WorkloadName};
use serde_json::Map;
use toml::Value;

use super::issuers::https;
use super::reader::Reader;
use crate::assertion::{AudienceSettings, DEFAULT_ALGS, Hint, IssuerSettings, Rule};

/// Levels of objects and lists in an expected claim.
const DEPTH: usize = 8;

/// Reads every `[[workload_issuers]]`. None of them may be an issuer of users, which are `users`.
pub(super) fn read_workload_issuers(top: &mut Reader, users: &[IssuerSettings]) -> Vec<IssuerSettings> {
    let mut issuers: Vec<IssuerSettings> = Vec::new();
    for mut i in top.sections("workload_issuers") {
        if let Some(issuer) = read_issuer(&mut i) {
            if issuers.iter().any(|o| o.name == issuer.name || o.issuer == issuer.issuer) {
                i.fault("name", "another workload issuer has the same name or URL");
            }
            if users.iter().any(|user| user.issuer == issuer.issuer) {
                i.fault("issuer", "its tokens prove users already: a token that proves a workload must not be a user's too");
            }
            issuers.push(issuer);
        }
        top.close(i);
    }
    issuers
}

fn read_issuer(i: &mut Reader) -> Option<IssuerSettings> {
    let name = i.parsed("name", None, |s| s.parse::<ClassName>().map(|n| n.to_string()).map_err(|e| e.to_string()));
    let issuer = i.parsed("issuer", None, https);
    let jwks_url = i.optional("jwks_url", https);
    let ca_file = i.optional("ca_file", |s| Ok(PathBuf::from(s)));
    let audience = i.parsed("audience", None, |s| {
        let ok = (1..=256).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic());
        if ok { Ok(s.to_owned()) } else { Err("an audience has 1 to 256 visible ASCII characters".into()) }
    });
    let max_age = i.duration("max_age", "10m", 10, 86_400);
    let audience = AudienceSettings::new(audience?);
    Some(IssuerSettings {
        name: name?,
        issuer: issuer?,
        jwks_url,
        ca_file,
        audiences: vec![audience],
        max_age,
        groups: None,
        hint: Hint::Sub,
        allowed_algs: DEFAULT_ALGS.to_vec(),
    })
}

/// Reads `attest` of one workload.
pub(super) fn read_rules(w: &mut Reader, workload: Option<&WorkloadName>, rules: &mut Vec<Rule>) {
    for mut a in w.sections("attest") {
        let issuer = a.parsed("issuer", None, |s| Ok(s.to_owned()));
        let claims = read_claims(&mut a);
        if claims.is_empty() {
            a.fault(
                "claims",
                "list at least one claim with its value: without any, everybody at the issuer would be this workload",
            );
        }
        if let Some((workload, issuer)) = workload.zip(issuer) {
            rules.push(Rule { workload: workload.clone(), issuer, claims });
        }
        w.close(a);
    }
}

/// Reads the claims with the values that a token must have. Empty without `claims`.
pub(super) fn read_claims(a: &mut Reader) -> Map<String, serde_json::Value> {
    let mut claims = Map::new();
    for (name, value) in a.table("claims") {
        match expected(value, DEPTH) {
            Ok(value) => drop(claims.insert(name, value)),
            Err(what) => a.fault("claims", &format!("`{name}`: {what}")),
        }
    }
    claims
}

/// Checks that each rule names a configured issuer.
pub(super) fn check_rules(top: &mut Reader, rules: &[Rule], issuers: &[IssuerSettings]) {
    for rule in rules.iter().filter(|rule| issuers.iter().all(|issuer| issuer.name != rule.issuer)) {
        let what = format!("`{}` attests by `{}`, which is no `[[workload_issuers]]`", rule.workload, rule.issuer);
        top.fault("workloads", &what);
    }
}

/// Converts an expected claim to the JSON that a token would have.
fn expected(value: Value, depth: usize) -> Result<serde_json::Value, String> {
    if depth == 0 {
        return Err(format!("it has more than {DEPTH} levels"));
    }
    Ok(match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Boolean(yes) => yes.into(),
        Value::Array(all) => all.into_iter().map(|value| expected(value, depth - 1)).collect::<Result<_, _>>()?,
        Value::Table(all) if all.is_empty() => return Err("an empty table says nothing".into()),
        Value::Table(all) => {
            let all = all.into_iter().map(|(name, value)| Ok((name, expected(value, depth - 1)?)));
            serde_json::Value::Object(all.collect::<Result<_, String>>()?)
        }
        Value::Float(_) | Value::Datetime(_) => return Err("write a text, an integer, `true`, `false`, a list or a table".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    const ISSUER: &str = "[[workload_issuers]]\nname = \"github\"\nissuer = \"https://token.actions.githubusercontent.com\"\naudience = \"mayfly\"\n";

    fn faults(text: &str) -> Vec<String> {
        let text = format!("trust_domain = \"prod.example.org\"\n{text}");
        Config::parse(&text, "f").err().map(|f| f.0).unwrap_or_default()
    }

    #[test]
    fn every_fault_of_an_attestation_is_told() {
        let with = |attest: &str| format!("{ISSUER}[[workloads]]\nname = \"ci\"\n[[workloads.attest]]\n{attest}");
        assert_eq!(
            faults(&with("issuer = \"github\"\nclaims = { repository_id = \"1\", \"kubernetes.io\" = { namespace = \"a\" } }")),
            [""; 0]
        );
        for (text, part) in [
            (with("issuer = \"github\""), "list at least one claim"),
            (with("issuer = \"gitlab\"\nclaims = { a = \"b\" }"), "`ci` attests by `gitlab`, which is no `[[workload_issuers]]`"),
            (with("issuer = \"github\"\nclaims = { a = {} }"), "an empty table says nothing"),
            (with("issuer = \"github\"\nclaims = { a = 1.5 }"), "write a text"),
            (with("issuer = \"github\"\nclaim = { a = \"b\" }"), "did you mean `claims`"),
            (format!("{ISSUER}max_age = \"2d\""), "not from 10 to 86400"),
            (format!("{ISSUER}{ISSUER}"), "the same name or URL"),
            (ISSUER.replace("https", "http"), "https URL"),
            (
                format!(
                    "{ISSUER}[[issuers]]\nname = \"corp\"\nissuer = \"https://token.actions.githubusercontent.com\"\n[[issuers.audiences]]\n\
                     audience = \"x\"\nrevokes = true\n"
                ),
                "prove users already",
            ),
        ] {
            let found = faults(&text);
            assert!(found.iter().any(|f| f.contains(part)), "{part} not in {found:#?}");
        }
    }
}
