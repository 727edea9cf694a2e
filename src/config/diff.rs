//! The differences between two configurations, and which of them a running issuer applies.
//!
//! Files are compared as they are written, key by key; the items of a list of sections are found by their names.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_verify::sha256;
use toml::{Table, Value};

use super::Config;

/// The sections, and the keys of sections, that a reload applies. Everything else is kept until a restart.
const RELOADED: [&str; 17] = [
    "actions",
    "approvals",
    "audiences",
    "auditor.workloads",
    "classes",
    "credentials.jwt_ttl",
    "credentials.workload_ttl",
    "foreign",
    "issuers",
    "limits",
    "log.filter",
    "operator.workloads",
    "operators",
    "policy",
    "workload_issuers",
    "workloads",
    "writes",
];

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path, such as `classes.worker.scopes`.
    pub key: String,
    /// Its value as TOML before. Empty if it was not written.
    pub before: String,
    /// Its value as TOML after. Empty if it is not written any more.
    pub after: String,
    /// Whether a reload keeps it as it was.
    pub needs_restart: bool,
}

/// Every key that differs, in order.
pub fn differences(before: &Config, after: &Config) -> Vec<Difference> {
    let (old, new) = (flat(&before.written), flat(&after.written));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let of = |all: &BTreeMap<String, String>, key: &str| all.get(key).cloned().unwrap_or_default();
    let differs = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differs
        .map(|key| Difference {
            key: key.clone(),
            before: of(&old, key),
            after: of(&new, key),
            needs_restart: !RELOADED.iter().any(|reloaded| is_below(key, reloaded)),
        })
        .collect()
}

impl Config {
    /// This configuration with the parts of another that a running issuer applies.
    pub fn reloaded(&self, new: Config) -> Config {
        Config {
            workloads: new.workloads,
            workload_issuers: new.workload_issuers,
            attest: new.attest,
            serves: new.serves,
            notified: new.notified,
            foreign: new.foreign,
            issuers: new.issuers,
            classes: new.classes,
            audiences: new.audiences,
            actions: new.actions,
            waiting: new.waiting,
            webhook: new.webhook,
            policies: new.policies,
            shadow: new.shadow,
            limits: new.limits,
            writes: new.writes,
            taken_back: new.taken_back,
            operators: new.operators,
            auditors: new.auditors,
            assignments: new.assignments,
            log_filter: new.log_filter,
            jwt_ttl: new.jwt_ttl,
            workload_ttl: new.workload_ttl,
            written: new.written,
            ..self.clone()
        }
    }

    /// SHA-256 of everything that is written, key by key in their order.
    pub fn digest_of_written(&self) -> [u8; 32] {
        let lines: Vec<String> = flat(&self.written).into_iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        sha256(lines.concat().as_bytes())
    }
}

fn is_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The values of a table by their paths.
fn flat(table: &Table) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (key, value) in table {
        flatten(key.clone(), value, &mut found);
    }
    found
}

fn flatten(path: String, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                flatten(format!("{path}.{key}"), value, found);
            }
        }
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_table) => {
            for (n, item) in items.iter().enumerate() {
                // Audiences within an issuer have no name of their own.
                let name = ["name", "trust_domain", "audience"].iter().find_map(|key| item.get(key)?.as_str());
                let path = name.map_or_else(|| format!("{path}[{n}]"), |name| format!("{path}.{name}"));
                flatten(path, item, found);
            }
        }
        other => {
            found.insert(path, other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::config::{EXAMPLE, Source};

    #[test]
    fn a_difference_names_its_key_and_whether_it_needs_a_restart() {
        let source = Source::File("f".into());
        let before = source.parse(EXAMPLE, "f").unwrap();
        assert_eq!(differences(&before, &before), []);
        let text =
            EXAMPLE.replacen("svid_ttl = \"15m\"", "svid_ttl = \"10m\"", 1).replacen("# queue_max = 4096", "queue_max = 77", 1);
        let after = source.parse(&text, "f").unwrap();
        let found = differences(&before, &after);
        let [class, journal] = found.as_slice() else { panic!("{found:#?}") };
        assert!(class.key.starts_with("classes.") && class.key.ends_with(".svid_ttl") && !class.needs_restart, "{class:?}");
        assert_eq!((class.before.as_str(), class.after.as_str()), ("\"15m\"", "\"10m\""));
        assert!(journal.key == "journal.queue_max" && journal.needs_restart, "{journal:?}");
        let mixed = before.reloaded(after.clone());
        assert_eq!(
            (mixed.queue, mixed.digest()),
            (before.queue, after.digest()),
            "what needs a restart is kept, the rest is taken over"
        );
    }

    #[test]
    fn the_digest_changes_with_each_value_and_not_with_their_order() {
        let of = |text: &str| Config::parse(text, "f").map(|config| config.digest_of_written());
        let one = of("trust_domain = \"a.example\"\nhome = \"/x\"").unwrap();
        assert_eq!(one, of("home = \"/x\" # a comment\ntrust_domain = \"a.example\"").unwrap());
        assert_ne!(one, of("trust_domain = \"a.example\"\nhome = \"/y\"").unwrap());
    }
}
