//! The conventions of the shell: help that teaches, exit codes, results on stdout and everything else on stderr.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

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
fn errors_for_programs_are_json_with_a_code_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = |out: std::process::Output| -> serde_json::Value {
        assert!(out.stdout.is_empty());
        let text = String::from_utf8(out.stderr).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("`{text}`: {e}"))["error"].take()
    };
    let usage = error(run_in(dir.path(), "spawn --clas x -o json"));
    assert_eq!((usage["code"].as_str(), usage["exit_code"].as_u64()), (Some("USAGE"), Some(2)));
    let away = error(run_in(dir.path(), "agents list -o json"));
    assert_eq!((away["code"].as_str(), away["exit_code"].as_u64()), (Some("UNREACHABLE"), Some(5)));
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let denied = error(dev.run("spawn --class nobody --user-token demo.jwt --out x -o json"));
    assert_eq!((denied["code"].as_str(), denied["exit_code"].as_u64()), (Some("CLASS_UNKNOWN"), Some(3)));
    assert!(denied["hint"].as_str().unwrap().contains("owner of the class"), "{denied}");
    // A length of time is written as in the configuration.
    let agent = dev.json("spawn --class worker --user-token demo.jwt --lease 90s --out a1");
    assert!(agent["lease_expires_at"].is_string());
    assert!(dev.fails("spawn --class worker --user-token demo.jwt --lease tomorrow --out a2", 2).contains("`8h`"));
    // What is in the home is not for a repository.
    assert_eq!(dev.file(".mayfly/.gitignore"), "*");
}

#[test]
fn a_shell_completes_and_each_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let out = run_in(dir.path(), &format!("completion {shell}"));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && text.contains("mayfly") && text.contains("revoke"), "{shell}");
        std::fs::write(dir.path().join(shell), text).unwrap();
        // The shell itself reads it, where it is installed.
        if let Ok(read) = Command::new(shell).arg("-n").arg(dir.path().join(shell)).status() {
            assert!(read.success(), "{shell}");
        }
    }
    assert!(run_in(dir.path(), "man pages").status.success());
    for page in ["mayfly.1", "mayfly-spawn.1", "mayfly-config-diff.1"] {
        let text = std::fs::read_to_string(dir.path().join("pages").join(page)).unwrap();
        assert!(text.contains(".SH"), "{page}");
    }
    let version = String::from_utf8(run_in(dir.path(), "--version").stdout).unwrap();
    assert!(version.starts_with(concat!("mayfly ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
}

#[test]
fn what_nobody_reads_ends_and_an_interrupted_batch_leaves_nobody_without_a_folder() {
    let dev = Dev::start();
    dev.token("demo", "demo.jwt");
    let mut watch = Command::new(BIN).arg("watch").current_dir(dev.dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    drop(watch.stdout.take());
    assert!(watch.wait().unwrap().success(), "a closed pipe ends it");

    let spawn = "spawn --class researcher --user-token demo.jwt --count 300 --out many";
    let mut child = Command::new(BIN)
        .args(spawn.split(' '))
        .current_dir(dev.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut first).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    let folders = std::fs::read_dir(dev.path("many")).unwrap().count();
    // The batch may have been faster than the interrupt.
    assert!(out.status.code() == Some(130) || folders == 300, "{told}");
    let live = dev.json("agents list")["agents"].as_array().unwrap().len();
    assert_eq!(folders, live, "{told}");
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
