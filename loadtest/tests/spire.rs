//! The comparison with SPIRE, against a server and an agent that speak its API and are none: what the load tester counts is what
//! they did.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod fake;
mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::{loadtest, run};

/// By method and outcome, of SPIRE's methods alone: its issuer counts nothing for us to compare.
fn counted(report: &Value) -> BTreeMap<(String, String), u64> {
    let text = |call: &Value, name: &str| call[name].as_str().unwrap().to_owned();
    let calls = report["calls"].as_array().unwrap().iter().filter(|call| call["metrics"].is_null());
    calls.map(|call| ((text(call, "method"), text(call, "outcome")), call["here"].as_u64().unwrap())).collect()
}

#[test]
fn calls_and_errors_are_those_of_the_server_and_nothing_stays_there() {
    let fake = fake::Spire::start();
    let dir = tempfile::tempdir().unwrap();
    let (server, agent) = (fake.socket("server.sock"), fake.socket("agent.sock"));
    let report = loadtest("spire", dir.path(), &["--spire-socket", &server, "--spire-agent-socket", &agent]);
    assert_eq!(counted(&report), fake.calls(), "what we counted, and what the server did");
    assert_eq!(fake.entries(), 0, "entries that were left behind");

    let rows: BTreeMap<&str, &Value> =
        report["rows"].as_array().unwrap().iter().map(|row| (row["scenario"].as_str().unwrap(), row)).collect();
    let number = |row: &str, name: &str| rows[row][name].as_f64().unwrap();
    for (ours, theirs) in
        [("mayfly spawn", "spire MintX509SVID"), ("mayfly jwt", "spire MintJWTSVID"), ("mayfly revoke", "spire entry deletion")]
    {
        for row in [ours, theirs] {
            for name in ["achieved_per_second", "done", "floor_of_op_us"] {
                assert!(number(row, name) > 0.0, "{row}, {name}: {report:#}");
            }
        }
        assert!(rows[ours]["facts"]["speed_to_spire"].as_f64().unwrap() > 0.0, "{ours}: {report:#}");
        assert_eq!(rows[ours]["errors"], 0, "{ours}: {report:#}");
    }
    for theirs in ["spire MintX509SVID", "spire entry deletion"] {
        assert_eq!(rows[theirs]["errors"], 0, "{theirs}: {report:#}");
    }
    // The server's process is found by its socket: it is this one.
    assert!(number("spire MintX509SVID", "server_cpu_us_per_op") > 0.0, "{report:#}");
    assert!(number("spire MintX509SVID", "floor_ratio") > 0.0, "{report:#}");
    // A refusal of the call, and one inside its answer.
    for (row, method, why) in [
        ("spire MintJWTSVID", "SVID/MintJWTSVID", "SVID/MintJWTSVID: ResourceExhausted: enough"),
        (
            "spire entry",
            "Entry/BatchCreateEntry",
            "Entry/BatchCreateEntry: Internal: an entry was not created: the store is full",
        ),
    ] {
        let refused = fake.calls()[&(method.to_owned(), fake::outcome(method).to_owned())];
        let errors = rows[row]["errors"].as_u64().unwrap();
        // The warm-up is not in the row.
        assert!(errors > 0 && errors <= refused, "{row}: {errors} of {refused}");
        assert_eq!(rows[row]["first_error"], why, "{row}");
    }
    let calls = fake.calls();
    let sum = |method: &str| calls.iter().filter(|((name, _), _)| name == method).map(|(_, count)| *count).sum::<u64>();
    assert!(number("spire MintX509SVID", "done") <= sum("SVID/MintX509SVID") as f64, "{report:#}");

    // One at a time, and as late as the agent is.
    for row in ["spire entry to usable", "spire deletion to gone"] {
        assert_eq!((rows[row]["done"].as_u64(), rows[row]["errors"].as_u64()), (Some(5), Some(0)), "{row}: {report:#}");
        assert!(rows[row]["latency_ms"]["p50"].as_f64().unwrap() >= fake::LATE.as_secs_f64() * 1e3, "{row}: {report:#}");
    }
    for row in ["mayfly spawn to usable", "mayfly revoke to refused"] {
        assert_eq!((rows[row]["done"].as_u64(), rows[row]["errors"].as_u64()), (Some(100), Some(0)), "{row}: {report:#}");
    }
    assert!(std::fs::read_to_string(dir.path().join("r.html")).unwrap().contains("spire MintX509SVID"));
}

#[test]
fn without_a_spire_server_the_error_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let told = |socket: &str| {
        let done = run("spire", dir.path(), &["--spire-socket", socket]);
        assert!(!done.status.success() && !dir.path().join("r.json").exists());
        String::from_utf8(done.stderr).unwrap()
    };
    let nobody = told("nobody.sock");
    assert!(nobody.contains("`spire-server run -config FILE`") && nobody.contains("nobody.sock"), "{nobody}");
    // The agent's socket is the likely mistake.
    let fake = fake::Spire::start();
    let another = told(&fake.socket("agent.sock"));
    assert!(another.contains("is not the admin socket of a SPIRE server"), "{another}");
}
