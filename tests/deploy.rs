//! The files that `mayfly deploy` prints. What foreign tools say of them is in `tests/oracles/deploy`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use mayfly::config::Config;
use mayfly::deploy::Deployed;
use mayfly::telemetry::CATALOGUE;
use mayfly_agent::reason::REASONS;

/// Every name of a metric in a text, without the endings of a histogram's series.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let metrics = words.filter(|word| word.starts_with("mayfly_") || word.starts_with("process_"));
    metrics.map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)).collect()
}

#[test]
fn each_metric_that_a_query_names_exists_with_the_labels_that_it_asks_for() {
    for (deployed, least) in [(Deployed::Grafana, 20), (Deployed::Prometheus, 12)] {
        let text = deployed.text();
        let found = names(text);
        assert!(found.len() >= least, "{deployed:?} names metrics: {found:?}");
        for name in found {
            let Some((_, kind, labels, _)) = CATALOGUE.iter().find(|(known, ..)| *known == name) else {
                panic!("{deployed:?}: no metric is called {name}");
            };
            // A matcher right after the name, and a rate of what only grows.
            for after in text.split(name).skip(1) {
                if let Some(matcher) = after.strip_prefix("_bucket").unwrap_or(after).strip_prefix('{') {
                    let label = matcher.split(['=', '!']).next().unwrap();
                    assert!(labels.split(", ").any(|known| known == label), "{deployed:?}: {name} has no label {label}");
                }
            }
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let rated = ["rate(", "increase("].iter().any(|rate| text.split(&format!("{rate}{name}")).skip(1).any(ends));
            assert!(!rated || *kind != "gauge", "{deployed:?}: {name} is a gauge, and has no rate");
        }
        // A reason in a query is one that there is.
        for code in text.split("reason=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(code == "full" || REASONS.iter().any(|reason| reason.code == code), "{deployed:?}: {code}");
        }
    }
}

#[test]
fn the_dashboard_is_json_and_its_panels_do_not_overlap() {
    let board: serde_json::Value = serde_json::from_str(Deployed::Grafana.text()).unwrap();
    let (mut cells, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in board.get("panels").unwrap().as_array().unwrap() {
        let at = |key: &str| panel.pointer(&format!("/gridPos/{key}")).unwrap().as_u64().unwrap();
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(x < 24 && cells.insert((x, y)), "{}", panel.get("title").unwrap());
        }
        assert!(ids.insert(panel.get("id").unwrap().as_u64().unwrap()));
        assert!(!panel.get("targets").unwrap().as_array().unwrap().is_empty());
    }
}

#[test]
fn the_configuration_in_the_manifests_is_one() {
    let text = Deployed::Kubernetes.text();
    let block = text.split("mayfly.toml: |\n").nth(1).unwrap();
    let lines: Vec<&str> = block.lines().map_while(|line| line.strip_prefix("    ")).collect();
    let config = Config::parse(&lines.join("\n"), "manifest").unwrap();
    // The service's name is in the certificate, and the state is where the volume is.
    assert!(config.names.iter().any(|name| name == "mayfly.mayfly.svc"));
    assert!(config.home.starts_with("/var/lib/mayfly"));
    assert_eq!((config.listen.port(), config.http.port()), (8443, 9464));
}

#[test]
fn metrics_are_served_to_the_network_only_where_that_is_said() {
    let with =
        |more: &str| Config::parse(&format!("trust_domain = \"a.example\"\n[http]\nlisten = \"0.0.0.0:9464\"\n{more}"), "f");
    assert!(with("").unwrap_err().to_string().contains("network = true"));
    assert_eq!(with("network = true").unwrap().http.port(), 9464);
}
