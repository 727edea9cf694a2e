//! Every target of a revocation, with the real binary: the lines of the shell, and who may (T12, T13).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use support::{Dev, ORCHESTRATOR};

const SPAWN: &str = "spawn --class researcher --user-token demo.jwt --out";

#[test]
fn t82_every_target_can_be_revoked_from_the_shell() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let mint = |dir: &str| dev.run(&format!("mint --as {dir} --audience https://search.example")).status.code();
    for (n, (flag, closed)) in
        [("--root orchestrator", "WORKLOAD_CLOSED"), ("--class researcher", "CLASS_CLOSED")].into_iter().enumerate()
    {
        dev.json(&format!("{SPAWN} a{n}"));
        let receipt = dev.json(&format!("revoke {flag} --reason drill"));
        assert_eq!((receipt["agents_at_most"].as_u64() >= Some(1), &receipt["open_for_new"]), (true, &false.into()), "{flag}");
        assert_eq!(mint(&format!("a{n}")), Some(3), "{flag}");
        assert!(dev.fails(&format!("{SPAWN} x"), 3).contains(closed));
        dev.json(&format!("reopen {flag}"));
        dev.json(&format!("{SPAWN} b{n}"));
        assert_eq!((mint(&format!("a{n}")), mint(&format!("b{n}"))), (Some(3), Some(0)), "{flag}");
        let receipt = dev.json(&format!("revoke {flag} --allow-new"));
        assert_eq!(receipt["open_for_new"], true);
    }
    let agent = dev.json(&format!("{SPAWN} c"));
    let line = format!("revoke --delegation {}", agent["delegation_id"].as_str().unwrap());
    assert_eq!(dev.json(&line)["revision"], dev.json(&line)["revision"], "once is enough");
    assert_eq!(mint("c"), Some(3));
    assert!(dev.fails(&format!("{SPAWN} x"), 3).contains("DELEGATION_REVOKED"));
    let key = mayfly_verify::sha256(b"a key");
    let line = format!("revoke --key {}", hex::encode(key));
    assert_eq!(dev.json(&line)["revision"], dev.json(&line)["revision"]);
    assert!(dev.fails("revoke --key abc", 1).contains("KEY_MALFORMED"));
    assert!(dev.fails("revoke --class nobody", 3).contains("CLASS_UNKNOWN"));
    dev.fails("revoke --class worker --user dev/demo", 2);
}

#[test]
fn t12_t13_who_may_revoke_what() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let ids: Vec<String> = ["a", "b"].map(|d| dev.json(&format!("{SPAWN} {d}"))["agent_id"].as_str().unwrap().to_owned()).into();
    let child = dev.json("spawn --as a --class worker --out w")["agent_id"].as_str().unwrap().to_owned();
    assert!(dev.fails(&format!("revoke --as b --agent {child}"), 3).contains("AGENT_UNKNOWN"));
    assert!(dev.fails("revoke --as a --class worker", 3).contains("ROLE_NOT_ALLOWED"));
    assert!(dev.fails(&format!("revoke --as {ORCHESTRATOR} --user dev/demo"), 3).contains("ROLE_NOT_ALLOWED"));
    dev.json(&format!("revoke --as a --agent {child}"));
    dev.json(&format!("revoke --as b --agent {}", ids[1]));
    dev.json(&format!("revoke --as {ORCHESTRATOR} --agent {}", ids[0]));
    for id in [&ids[0], &ids[1], &child] {
        assert_eq!(dev.json(&format!("agents show {id}"))["state"], "revoked");
    }
}

#[test]
fn t150_verifiers_refuse_what_has_ended_whoever_ended_it() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let ids: Vec<String> =
        ["a", "b", "c"].map(|d| dev.json(&format!("{SPAWN} {d}"))["agent_id"].as_str().unwrap().to_owned()).into();
    dev.json("spawn --as c --class worker --out w");
    for dir in ["a", "b", "c", "w"] {
        assert!(dev.run(&format!("verify {dir}/svid.pem --live")).status.success(), "{dir}");
    }
    let ended = dev.json(&format!("end {}", ids[0]));
    assert_eq!(ended["accepted_until"], serde_json::Value::Null);
    dev.json(&format!("end --as {ORCHESTRATOR} {}", ids[1]));
    dev.json("end --as w");
    for dir in ["a", "b", "w"] {
        dev.fails(&format!("verify {dir}/svid.pem --live"), 6);
    }
    assert!(dev.run("verify c/svid.pem --live").status.success(), "the parent goes on");
    // `mayfly run` ends its agent with the command: a copy of its certificate is worth nothing.
    #[cfg(target_os = "linux")]
    {
        let run = dev.run("run --class researcher --user-token demo.jwt --files pem -- cp pem/svid.pem copy.pem");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        dev.fails("verify copy.pem --bundle c/bundle.json --live", 6);
    }
}

#[test]
fn a_dry_run_counts_what_would_end_and_ends_nothing() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.token("guest", "guest.jwt");
    let a = dev.json(&format!("{SPAWN} a"))["agent_id"].as_str().unwrap().to_owned();
    dev.json("spawn --as a --class worker --out w");
    dev.json("spawn --class worker --user-token guest.jwt --out g");
    let dry = |target: &str| {
        let got = dev.json(&format!("revoke {target} --dry-run"));
        let of = |list: &str, name: &str| {
            let counts = got[list].as_array().unwrap().iter();
            counts.map(|c| format!("{} {}", c[name].as_str().unwrap(), c["agents"])).collect::<Vec<_>>().join(", ")
        };
        (got["agents"].as_u64().unwrap(), of("by_class", "class"), of("by_user", "sub"))
    };
    let words = |n, classes: &str, users: &str| (n, classes.to_owned(), users.to_owned());
    assert_eq!(dry(&format!("--subtree {a}")), words(2, "researcher 1, worker 1", "demo 2"));
    assert_eq!(dry("--user dev/guest"), words(1, "worker 1", "guest 1"));
    assert_eq!(dry("--class worker"), words(2, "worker 2", "demo 1, guest 1"));
    assert_eq!(dry("--before now"), words(3, "researcher 1, worker 2", "demo 2, guest 1"));
    assert_eq!(dry("--before 2020-01-01T00:00:00Z"), words(0, "", ""));
    // The same decision as the cut itself, and no record.
    assert!(dev.fails("revoke --class nobody --dry-run", 3).contains("CLASS_UNKNOWN"));
    assert!(dev.fails("revoke --as w --class worker --dry-run", 3).contains("ROLE_NOT_ALLOWED"));
    let cuts = dev.json("cuts list")["cuts"].as_array().unwrap().len();
    assert_eq!((cuts, dev.json("agents list")["agents"].as_array().unwrap().len()), (0, 3));
}

#[test]
fn t82_before_a_time_kills_what_was_recorded_before_it_and_no_more() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.json(&format!("{SPAWN} old"));
    std::fs::write(dev.path("ticket"), dev.run("join orchestrator").stdout).unwrap();
    let second = || std::thread::sleep(std::time::Duration::from_millis(1100));
    second();
    let time = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    dev.token("demo", "demo.jwt");
    dev.json(&format!("{SPAWN} new"));
    let state = |dir: &str| dev.run(&format!("mint --as {dir} --audience https://search.example")).status.code();
    assert_eq!((state("old"), state("new")), (Some(0), Some(0)));
    // Between the two: who was recorded after that time lives on.
    dev.json(&format!("revoke --before {time} --reason stolen"));
    assert_eq!((state("old"), state("new")), (Some(3), Some(0)));
    dev.fails("redeem --ticket-file ticket --out x", 3);
    assert!(dev.run("verify new/svid.pem --live").status.success());
    dev.fails("verify old/svid.pem --live", 6);
    let cut = dev.json("cuts list")["cuts"][0].clone();
    assert_eq!((&cut["target"], &cut["reason"], &cut["kept_until"]), (&"before".into(), &"stolen".into(), &().into()));
    // Once is enough; an earlier time is part of it.
    let revision = cut["revision"].clone();
    assert_eq!(dev.json("revoke --before 2020-01-01T00:00:00Z")["revision"], revision);
    assert_eq!(dev.json(&format!("revoke --before {time}"))["revision"], revision);
    assert!(dev.fails("revoke --before 2999-01-01T00:00:00Z", 1).contains("TIME_IN_FUTURE"));
    dev.fails("revoke --before noon", 2);
    // No time is not now: it would void every user token.
    assert!(dev.fails("revoke --before 1970-01-01T00:00:00Z", 1).contains("TIME_MALFORMED"));
    // A user token from before does not count, whether or not it recorded a delegation.
    dev.token("guest", "guest.jwt");
    second();
    dev.json("revoke --before now");
    assert!(dev.fails("spawn --class worker --user-token guest.jwt --out g", 3).contains("USER_TOKEN_TOO_EARLY"));
    assert!(dev.fails(&format!("{SPAWN} x"), 3).contains("DELEGATION_REVOKED"));
    second();
    dev.token("guest", "guest.jwt");
    dev.json("spawn --class worker --user-token guest.jwt --out g");
    // And all of that after a restart.
    let dev = Dev::start_in(dev.kill());
    let state = |dir: &str| dev.run(&format!("mint --as {dir} --audience https://search.example")).status.code();
    assert_eq!((state("old"), state("new"), state("g")), (Some(3), Some(3), Some(0)));
    assert_eq!(dev.json("cuts list")["cuts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_user_takes_back_what_is_theirs_and_nothing_else() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    dev.token("guest", "guest.jwt");
    for who in ["demo", "guest"] {
        let out = dev.run(&format!("token {who} --audience mayfly-dev-revoke"));
        std::fs::write(dev.path(&format!("{who}.own")), out.stdout).unwrap();
    }
    let spawn = |who: &str, dir: &str| dev.json(&format!("spawn --class worker --user-token {who}.jwt --out {dir}"));
    let (mine, other) = (spawn("demo", "a"), spawn("guest", "b"));
    let of = |agent: &serde_json::Value, name: &str| agent[name].as_str().unwrap().to_owned();
    let revoke = |target: &str| format!("revoke --user-token demo.own {target}");
    // T13: what is another's looks as if it were not there.
    assert!(dev.fails(&revoke(&format!("--agent {}", of(&other, "agent_id"))), 3).contains("AGENT_UNKNOWN"));
    assert!(dev.fails(&revoke(&format!("--delegation {}", of(&other, "delegation_id"))), 3).contains("DELEGATION_UNKNOWN"));
    for target in ["--user dev/guest", "--class worker", "--root orchestrator", "--before now"] {
        assert!(dev.fails(&revoke(target), 3).contains("ROLE_NOT_ALLOWED"), "{target}");
    }
    // The token with which an orchestrator acts for the user does not, nor does the one of the user spawn anything.
    assert!(dev.fails("revoke --user-token demo.jwt --user dev/demo", 3).contains("USER_TOKEN_AUDIENCE"));
    assert!(dev.fails("spawn --class worker --user-token demo.own --out x", 3).contains("USER_TOKEN_AUDIENCE"));
    std::fs::write(dev.path("forged"), dev.file("demo.own").replace("ey", "ez")).unwrap();
    dev.fails("revoke --user-token forged --user dev/demo", 3);
    assert_eq!(dev.json("agents list")["agents"].as_array().unwrap().len(), 2);
    let line = revoke(&format!("--agent {}", of(&mine, "agent_id")));
    assert_eq!(dev.json(&line)["revision"], dev.json(&line)["revision"]);
    spawn("demo", "c");
    dev.json(&revoke(&format!("--delegation {}", of(&mine, "delegation_id"))));
    dev.fails("mint --as c --audience https://search.example", 3);
    assert_eq!(dev.json(&revoke("--user dev/demo --dry-run"))["agents"], 0);
    let receipt = dev.json(&revoke("--user dev/demo --reason lost-laptop"));
    assert_eq!(receipt["open_for_new"], false);
    let last = dev.json("cuts list")["cuts"][2].clone();
    let by = format!("user demo of {}", dev.text("oidc"));
    assert_eq!((&last["target"], &last["by"], &last["closed"]), (&"user".into(), &by.into(), &true.into()));
    assert!(dev.run("mint --as b --audience https://search.example").status.success(), "another's agent lives");
}

#[test]
fn a_workload_that_is_configured_for_it_is_an_operator_and_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[operator]\nworkloads = [\"desk\"]\n[[workloads]]\nname = \"desk\"\n[[workloads]]\nname = \"other\"\n";
    std::fs::write(dir.path().join("more.toml"), more).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    for name in ["desk", "other"] {
        std::fs::write(dev.path("ticket"), dev.run(&format!("join {name}")).stdout).unwrap();
        dev.json(&format!("redeem --ticket-file ticket --out {name}"));
    }
    dev.json(&format!("{SPAWN} a"));
    assert!(dev.fails("revoke --as other --user dev/demo", 3).contains("ROLE_NOT_ALLOWED"));
    assert!(dev.fails("cuts list --as other", 3).contains("ROLE_NOT_ALLOWED"));
    assert_eq!(dev.json("revoke --as desk --user dev/demo --dry-run")["agents"], 1);
    dev.json("revoke --as desk --user dev/demo");
    dev.fails("mint --as a --audience https://search.example", 3);
    let cut = dev.json("cuts list --as desk")["cuts"][0].clone();
    assert_eq!((&cut["by"], &cut["target"]), (&"workload/desk".into(), &"user".into()), "each act names its operator");
    assert!(dev.fails("reopen --as other --user dev/demo", 3).contains("ROLE_NOT_ALLOWED"));
    dev.json("reopen --as desk --user dev/demo");
    // It stays a workload where operators have no business, and is nobody once its key is cut.
    dev.json("renew --as desk");
    dev.json(&format!("revoke --key {}", key_of(&dev, "desk")));
    assert!(dev.fails("revoke --as desk --user dev/demo", 3).contains("KEY_REVOKED"));
}

fn key_of(dev: &Dev, dir: &str) -> String {
    let chain = mayfly::folder::certificates(&dev.path(&format!("{dir}/svid.pem"))).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    hex::encode(mayfly_verify::sha256(leaf.public_key().raw))
}

/// Reasons of users and scopes of agents, on an operator's terminal and in the log.
#[test]
fn t93_what_others_wrote_forges_no_line_and_commands_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut child = std::process::Command::new(support::BIN)
        .args(["dev", "--home", "home"])
        .current_dir(dir.path())
        .env("MAYFLY_LOG", "info")
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(support::BIN);
        command.args(["--home", "home"]).args(arguments).current_dir(dir.path()).output().unwrap()
    };
    let started = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        dir.path().join("home/endpoint.json").exists()
    });
    let evil = "x\n2026-11-27T07:00:00Z ERROR forged\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}";
    let revoked = run(&["revoke", "--class", "worker", "--reason", evil]);
    let denied = run(&["revoke", "--subtree", evil]);
    let (listed, json) = (run(&["cuts", "list"]), run(&["cuts", "list", "-o", "json"]));
    let _ = (child.kill(), child.wait());
    assert!(started && revoked.status.success() && listed.status.success(), "{revoked:?}");
    assert!(!denied.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().count() == 2 && listed.contains("x\\n2026-11-27T07:00:00Z ERROR forged\\u{1b}[2J"), "{listed:?}");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["cuts"][0]["reason"], evil, "programs get what was written");
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("AGENT_MALFORMED"), "{log}");
    for text in [&log, &listed, &String::from_utf8(denied.stderr).unwrap()] {
        assert!(!text.lines().any(|line| line.starts_with("2026-11-27T07:00:00Z ERROR")), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
    }
}
