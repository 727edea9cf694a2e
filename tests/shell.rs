//! The conventions of the shell: help that teaches, exit codes, results on stdout and everything else on stderr.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::process::{Command, Stdio};

use support::{BIN, Dev, run_in};

/// The subcommands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = commands.lines().take_while(|l| !l.is_empty());
    lines
        .filter_map(|l| l.strip_prefix("  ")?.split(' ').next())
        .filter(|c| !c.is_empty())
        .filter(|c| *c != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_teaches() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = vec![String::new()];
    let mut seen = Vec::new();
    while let Some(command) = open.pop() {
        let out = run_in(dir.path(), &format!("{command} --help"));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{command}");
        assert!(text.contains("Usage: mayfly") && text.contains("--output"), "{command}: {text}");
        let about = text.lines().next().unwrap_or_default();
        assert!(about.split_whitespace().count() >= 3, "{command} says what it does: {about}");
        open.extend(listed(&text).into_iter().map(|sub| format!("{command} {sub}").trim().to_owned()));
        seen.push(command);
    }
    for command in "dev serve config join spawn run redeem mint renew end revoke reopen bundle verify token backup".split(' ') {
        assert!(seen.iter().any(|s| s == command), "{command}");
    }
    assert!(seen.iter().any(|s| s == "agents tree") && seen.iter().any(|s| s == "config check"));
}

#[test]
fn wrong_usage_is_2_and_nobody_there_is_5() {
    let dir = tempfile::tempdir().unwrap();
    for line in ["", "spwan", "spawn --class", "revoke", "mint --audience x", "dev --listen 0.0.0.0:0", "verify", "agents"] {
        let out = run_in(dir.path(), line);
        assert_eq!(out.status.code(), Some(2), "{line}");
        assert!(!out.stderr.is_empty() && out.stdout.is_empty(), "{line}");
    }
    for line in ["agents list", "join orchestrator", "token demo", "bundle", "revoke --user dev/demo"] {
        let out = run_in(dir.path(), line);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(5) && text.contains("mayfly dev"), "{line} says what to do: {text}");
    }
    let dir = Dev::start().kill();
    assert_eq!(run_in(dir.path(), "agents list").status.code(), Some(5), "an issuer that has stopped");
}

#[test]
fn results_for_programs_are_json() {
    let dev = Dev::start();
    let token = dev.json("token demo");
    std::fs::write(dev.path("demo.jwt"), token["token"].as_str().unwrap()).unwrap();
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let id = agent["agent_id"].as_str().unwrap();
    for line in [
        "mint --as a1 --audience https://mail.example",
        "agents list",
        "agents tree",
        &format!("agents show {id}"),
        "verify a1/svid.pem",
        "join orchestrator",
        "bundle",
        "bundle --format jwks",
        "backup --out copy.db",
        "renew --as a1",
        "end --as a1",
        "revoke --user dev/demo",
        "reopen --user dev/demo",
    ] {
        assert!(dev.json(line).is_object(), "{line}");
    }
    // Secrets come by file or stdin.
    let mut child = Command::new(BIN)
        .args("spawn --class researcher --user-token - --out a2".split(' '))
        .current_dir(dev.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let fresh = dev.run("token demo").stdout;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &fresh).unwrap();
    assert!(child.wait().unwrap().success());
    let mut files: Vec<_> = std::fs::read_dir(dev.path("a2")).unwrap().map(|f| f.unwrap().file_name()).collect();
    files.sort();
    // What begins with a dot makes key and certificate switch together.
    files.retain(|name| !name.to_string_lossy().starts_with('.'));
    assert_eq!(files, ["bundle.json", "bundle.pem", "issuer", "key.pem", "svid.pem"]);
    // Exit 4: a credential that does not hold. One byte of its signature differs; the bundle is another's.
    let pem = std::fs::read_to_string(dev.path("a2/svid.pem")).unwrap();
    let end = pem.find("\n-----END").unwrap() - 12;
    let other = if pem.as_bytes()[end] == b'A' { "B" } else { "A" };
    std::fs::write(dev.path("a2/bad.pem"), format!("{}{other}{}", &pem[..end], &pem[end + 1..])).unwrap();
    dev.fails("verify a2/bad.pem", 4);
    let foreign = Dev::start();
    let bundle = foreign.run("bundle").stdout;
    std::fs::write(dev.path("foreign.json"), bundle).unwrap();
    dev.fails("verify a2/svid.pem --bundle foreign.json", 4);
}

#[test]
fn dev_takes_classes_and_limits_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let class = "[[classes]]\nname = \"scout\"\nowner = \"me\"\nscopes = [\"look\"]\naudiences = [\"https://s.example\"]\n\
                 spawners = [\"workload/orchestrator\"]\n[[limits]]\nname = \"few\"\nper = \"class\"\nlive = 2\n";
    std::fs::write(dir.path().join("more.toml"), class).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    dev.token("demo", "demo.jwt");
    for n in 0..2 {
        dev.json(&format!("spawn --class scout --user-token demo.jwt --out s{n}"));
    }
    let text = dev.fails("spawn --class scout --user-token demo.jwt --out s2", 3);
    assert!(text.contains("LIMIT_REACHED") && text.contains("`few`") && text.contains("2 of 2"), "{text}");
    dev.json("end --as s0");
    dev.json("spawn --class scout --user-token demo.jwt --out s2");
    dev.json("spawn --class researcher --user-token demo.jwt --out r1");
    let dir = dev.kill();
    std::fs::write(dir.path().join("more.toml"), class.replace("live = 2", "live = 2\nrate = \"x\"\nfast = 1")).unwrap();
    let out = run_in(dir.path(), "dev --config more.toml");
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(1) && text.contains("more.toml: limits[0]") && text.contains("fast"), "{text}");
}

#[test]
fn a_port_is_taken_as_it_is_said() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dev = Dev::start_args(tempfile::tempdir().unwrap(), &["--listen", &free.to_string()], &[]);
    assert_eq!(dev.text("grpc"), free.to_string());
}
