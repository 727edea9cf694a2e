//! Whoever may, from anywhere: a workload that is an operator finds, judges, revokes and confirms from a folder without a home.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use serde_json::Value;
use support::{Dev, run_in};

fn dev() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    let more = "[operator]\nworkloads = [\"desk\"]\n[[workloads]]\nname = \"desk\"\n[[workloads]]\nname = \"other\"\n";
    std::fs::write(dir.path().join("more.toml"), more).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    for name in ["desk", "other"] {
        std::fs::write(dev.path("ticket"), dev.run(&format!("join {name}")).stdout).unwrap();
        dev.json(&format!("redeem --ticket-file ticket --out {name}"));
    }
    dev
}

#[test]
fn t155_an_operator_without_a_home_finds_judges_revokes_and_confirms() {
    let dev = dev();
    // Another machine: a copy of the desk's folder, and nothing else.
    let away = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-r").arg(dev.path("desk")).arg(away.path()).status().unwrap();
    assert!(copied.success());
    let run = |line: &str| run_in(away.path(), line);
    let json = |line: &str| -> Value {
        let out = run(&format!("{line} --as desk -o json"));
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --out a")["agent_id"].as_str().unwrap().to_owned();
    dev.json("spawn --as a --class worker --out w");
    // Find: the folder says where the issuer is.
    assert_eq!(json("agents list")["agents"].as_array().unwrap().len(), 2);
    assert_eq!(json("agents list --class worker --user demo --root orchestrator")["agents"].as_array().unwrap().len(), 1);
    assert_eq!(json("agents list --user alice")["agents"].as_array().unwrap().len(), 0);
    let uuid = agent.rsplit('/').next().unwrap();
    assert_eq!(json(&format!("agents show {}", &uuid[..30]))["agent_id"], agent.as_str());
    assert_eq!(json(&format!("verify --agent {uuid}"))["state"], "live");
    let short = format!("researcher/{uuid}");
    assert_eq!(json(&format!("agents show {short}"))["agent_id"], agent.as_str());
    assert!(!run(&format!("agents show worker/{uuid} --as desk")).status.success(), "every part must be the agent's");
    let table = String::from_utf8(run("agents list --as desk").stdout).unwrap();
    assert!(table.starts_with("AGENT") && table.lines().count() == 3, "{table}");
    // What else an operator asks for.
    assert!(json("authority list")["authorities"].as_array().unwrap().len() >= 2);
    assert!(json("join other")["token"].is_string());
    assert!(run("bundle --as desk --format pem").status.success());
    std::fs::copy(dev.path("a/svid.pem"), away.path().join("rogue.pem")).unwrap();
    std::fs::copy(dev.path("a/bundle.json"), away.path().join("bundle.json")).unwrap();
    assert!(run("verify rogue.pem --live --as desk").status.success());
    // Judge, revoke and confirm, by the name that people know.
    assert_eq!(json("revoke --user dev/demo --dry-run")["agents"], 2);
    let receipt = json("revoke --user dev/demo --reason INC-43 --wait");
    assert_eq!(
        (&receipt["all_heard"], &receipt["heard"], &receipt["not_heard"]),
        (&true.into(), &Value::Array(vec![]), &Value::Array(vec![]))
    );
    assert_eq!((&receipt["agents"], &receipt["unknown_user"]), (&2.into(), &false.into()));
    assert_eq!(run("verify rogue.pem --live --as desk").status.code(), Some(6));
    let confirmed = run(&format!("verify --agent {uuid} --as desk"));
    let told = String::from_utf8_lossy(&confirmed.stderr).into_owned();
    assert!(confirmed.status.code() == Some(6) && told.contains("by workload/desk: INC-43"), "{told}");
    let shown = json(&format!("agents show {uuid}"));
    assert_eq!((&shown["state"], &shown["over_by"]), (&"revoked".into(), &"workload/desk".into()));
    assert!(shown["over_at"].as_str().is_some_and(|at| at.starts_with("20")) && shown["over_reason"] == "INC-43");
    json("reopen --user dev/demo");
    // A name that is wrong is said: of the provider, and of the user.
    let wrong = run("revoke --as desk --user corp/demo");
    assert!(
        wrong.status.code() == Some(3) && String::from_utf8_lossy(&wrong.stderr).contains("USER_ISSUER_UNKNOWN"),
        "{wrong:?}"
    );
    let nobody = json("revoke --user dev/bobb --allow-new");
    assert_eq!((&nobody["unknown_user"], &nobody["agents"]), (&true.into(), &0.into()));
    // Everything from before a time in which nothing was recorded ends nobody, and says so.
    dev.token("demo", "demo.jwt");
    let second = dev.json("spawn --class researcher --user-token demo.jwt --out b")["agent_id"].as_str().unwrap().to_owned();
    assert_eq!(json("revoke --before 2020-01-01T00:00:00Z")["agents"], 0);
    json(&format!("end {second}"));
    let shown = json(&format!("agents show {second}"));
    assert_eq!((&shown["state"], &shown["over_by"]), (&"ended".into(), &"workload/desk".into()));
}

#[test]
fn t155_who_decided_and_why_is_for_operators_and_the_rest_is_for_nobody_else() {
    let dev = dev();
    let id = dev.json("spawn --class researcher --user-token demo.jwt --out a")["agent_id"].as_str().unwrap().to_owned();
    dev.json(&format!("revoke --agent {id} --reason secret"));
    let seen = dev.json(&format!("agents show {id} --as .mayfly/workloads/orchestrator"));
    assert!(seen["over_at"].is_string() && seen["over_by"].is_null() && seen["over_reason"].is_null(), "{seen}");
    for line in ["authority list", "join other", "cuts list", "revoke --user dev/demo"] {
        assert!(dev.fails(&format!("{line} --as other"), 3).contains("ROLE_NOT_ALLOWED"), "{line}");
    }
    assert_eq!(dev.json("agents list --all --as other")["agents"].as_array().unwrap().len(), 0);
    assert!(dev.fails(&format!("agents show {id} --as other"), 3).contains("AGENT_UNKNOWN"));
    assert!(dev.fails("agents show 01a2ffff --as other", 1).contains("none that you may see"));
    dev.fails("verify", 2);
}
