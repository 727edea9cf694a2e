//! A configuration that is read again while the issuer runs: whole or not at all, and told before and after.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{BIN, Dev};

const CLASS: &str = "[[classes]]\nname = \"scout\"\nowner = \"us\"\nscopes = [\"search:read\"]\naudiences = [\"https://search.example\"]\n\
                     svid_ttl = \"15m\"\nmax_lease = \"1h\"\nmax_depth = 0\nmodes = [\"delegated\"]\nspawners = [\"workload/orchestrator\"]\n";

fn start(text: &str) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("more.toml"), text).unwrap();
    Dev::start_args(dir, &["--config", "more.toml"], &[])
}

fn keys(told: &Value) -> Vec<&str> {
    told["changes"].as_array().unwrap().iter().map(|change| change["key"].as_str().unwrap()).collect()
}

#[test]
fn t165_a_reload_takes_over_what_is_new_and_a_broken_file_changes_nothing() {
    let dev = start("");
    dev.token("demo", "demo.jwt");
    let scout = "spawn --class scout --user-token demo.jwt --out";
    assert!(dev.fails(&format!("{scout} s1"), 3).contains("CLASS_UNKNOWN"));
    std::fs::write(dev.path("more.toml"), CLASS).unwrap();
    let reloaded = dev.json("reload");
    assert!(keys(&reloaded).contains(&"classes.scout.scopes"), "{reloaded}");
    let first = dev.json(&format!("{scout} s1"));
    assert!(first["revision"].as_u64() > reloaded["revision"].as_u64(), "what is recorded after it is judged by it");
    // Who may present the tokens of the development provider follows from the classes and workloads: also of those that came later.
    let history = dev.json("history --kind configuration");
    let entries = history["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["revision"] == reloaded["revision"]).unwrap();
    assert!(entry["caller"].as_str().unwrap().starts_with("uid:"), "{entry}");

    // Broken in syntax, in a value, and in what it names: the one from before stays, and the message says what is wrong.
    let unreadable = "[[issuers]]\nname = \"corp\"\nissuer = \"https://idp.example\"\nca_file = \"none.pem\"\n[[issuers.audiences]]\naudience = \"x\"\nworkloads = [\"orchestrator\"]\n";
    for (text, part) in [
        ("[[classes", "more.toml"),
        ("surprise = 1", "surprise"),
        (unreadable, "none.pem"),
        ("[log]\nfilter = \"a=b=c\"", "a=b=c"),
    ] {
        std::fs::write(dev.path("more.toml"), text).unwrap();
        let told = dev.fails("reload", 3);
        assert!(told.contains("CONFIGURATION_REFUSED") && told.contains(part), "{part}: {told}");
        dev.json(&format!("{scout} again --force"));
    }
    // A key that needs a restart is named, and the rest is taken over.
    std::fs::write(dev.path("more.toml"), "[journal]\nqueue_max = 77\n").unwrap();
    let told = dev.json("reload");
    let kept = told["changes"].as_array().unwrap().iter().find(|change| change["key"] == "journal.queue_max").unwrap();
    assert_eq!(kept["needs_restart"], true);
    assert!(dev.fails(&format!("{scout} s2"), 3).contains("CLASS_UNKNOWN"), "the class has gone with the file");
}

/// T165: a pipe that nobody writes to in the place of the file.
#[test]
fn t165_a_file_that_is_never_read_holds_up_no_later_reload() {
    let dev = start("");
    let file = dev.path("more.toml");
    std::fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let told = dev.fails("reload", 3);
    assert!(told.contains("CONFIGURATION_REFUSED") && told.contains("were not read"), "{told}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, CLASS).unwrap();
    assert!(keys(&dev.json("reload")).contains(&"classes.scout.scopes"));
}

#[test]
fn a_difference_is_told_before_with_the_agents_that_lose_something() {
    let dev = start("");
    dev.token("demo", "demo.jwt");
    let agent = dev.json("spawn --class researcher --user-token demo.jwt --scope mail:send --scope search:read --out a1");
    let less = CLASS.replace("scout", "researcher");
    std::fs::write(dev.path("new.toml"), &less).unwrap();
    let told = dev.json("config diff new.toml");
    assert!(keys(&told).contains(&"classes.researcher.scopes"), "{told}");
    assert_eq!((told["agents_affected"].as_u64(), &told["agents"][0]["agent_id"]), (Some(1), &agent["agent_id"]));
    let loses = told["agents"][0]["loses"].as_array().unwrap();
    assert!(loses.contains(&"scope:mail:send".into()) && !loses.contains(&"scope:search:read".into()), "{told}");
    assert_eq!(keys(&dev.json("reload")), [""; 0], "nothing was changed by that");
    // And it is so.
    std::fs::write(dev.path("more.toml"), &less).unwrap();
    dev.json("reload");
    assert!(dev.fails("mint --as a1 --audience https://mail.example", 3).contains("AUDIENCE_NOT_ALLOWED"));
    // Two files, and no issuer.
    std::fs::write(dev.path("old.toml"), "trust_domain = \"a.example\"\n").unwrap();
    std::fs::write(dev.path("next.toml"), "trust_domain = \"a.example\"\n[limits]\n").unwrap();
    assert!(dev.fails("config diff next.toml --against old.toml", 1).contains("limits"), "a faulty file is no difference");
    std::fs::write(dev.path("next.toml"), "trust_domain = \"a.example\"\n[http]\nlisten = \"127.0.0.1:9\"\n").unwrap();
    assert_eq!(keys(&dev.json("config diff next.toml --against old.toml")), ["http.listen"]);
}

#[test]
fn a_hangup_reloads_and_the_service_manager_hears_of_each_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let heard = UnixDatagram::bind(&path).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let config =
        "trust_domain = \"a.example\"\nhome = \"home\"\n[server]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(dir.path().join("mayfly.toml"), config).unwrap();
    let mut child = Command::new(BIN)
        .args(["serve", "--config", "mayfly.toml"])
        .current_dir(dir.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let hears = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = heard.recv(&mut buffer).unwrap_or_else(|e| panic!("no `{wanted}`: {e}"));
            if String::from_utf8_lossy(&buffer[..length]).starts_with(wanted) {
                return;
            }
        }
    };
    let kill = |signal: &str| assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    hears("READY=1");
    hears("WATCHDOG=1");
    kill("-HUP");
    hears("RELOADING=1\nMONOTONIC_USEC=");
    hears("READY=1");
    kill("-TERM");
    hears("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn config_check_fails_where_serve_would_fail_and_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let base = "trust_domain = \"a.example\"\nhome = \"home\"\n";
    let issuer = "[[issuers]]\nname = \"corp\"\nissuer = \"https://idp.example\"\nca_file = \"none.pem\"\n[[issuers.audiences]]\naudience = \"x\"\nworkloads = []\n";
    let web = "[https]\nlisten = \"127.0.0.1:0\"\nissuer = \"https://a.example\"\ncertificate = \"web.crt\"\nkey = \"web.key\"\n";
    let root = "[authorities]\nroot_certificate = \"root.crt\"\nroot_key = \"root.key\"\n";
    for (text, parts) in [
        (issuer, ["none.pem", "cannot be read"]),
        ("[log]\nfilter = \"blah=foo=bar\"\n", ["log.filter", "blah=foo=bar"]),
        (web, ["https", "web.crt"]),
        (root, ["authorities", "root.crt"]),
        ("[audit]\nfile = \"/nowhere/audit.jsonl\"\non_failure = \"refuse\"\n", ["audit", "/nowhere"]),
    ] {
        std::fs::write(dir.path().join("mayfly.toml"), format!("{base}{text}")).unwrap();
        let out = support::run_in(dir.path(), "config check mayfly.toml");
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(1) && parts.iter().all(|part| told.contains(part)), "{text}: {told}");
    }
    assert!(!dir.path().join("home").exists());
    std::fs::write(dir.path().join("mayfly.toml"), base).unwrap();
    assert!(support::run_in(dir.path(), "config check mayfly.toml").status.success());
}

fn pipe(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn t209_a_pipe_in_the_place_of_a_file_holds_up_no_check_no_difference_no_start_and_no_stop() {
    let dev = start("");
    pipe(&dev.path("pipe"));
    // A file that the configuration names.
    let issuer = "[[issuers]]\nname = \"corp\"\nissuer = \"https://idp.example\"\nca_file = \"pipe\"\n\
                  [[issuers.audiences]]\naudience = \"x\"\nworkloads = []\n";
    let whole = format!("trust_domain = \"a.example\"\n{issuer}");
    std::fs::write(dev.path("named.toml"), whole).unwrap();
    // Each waits for five seconds.
    std::thread::scope(|scope| {
        for line in [
            "config check pipe",
            "config diff pipe",
            "config diff more.toml --against pipe",
            "config check named.toml",
            "serve --config pipe",
            "serve --config named.toml",
        ] {
            let dev = &dev;
            scope.spawn(move || assert!(dev.fails(line, 1).contains("was not read within"), "{line}"));
        }
    });
    std::fs::write(dev.path("more.toml"), issuer.replace("[]", "[\"orchestrator\"]")).unwrap();
    let told = dev.fails("reload", 3);
    assert!(told.contains("CONFIGURATION_REFUSED") && told.contains("were not read"), "{told}");
    // Nobody waits for the thread that reads.
    assert!(Command::new("kill").args(["-TERM", &dev.pid().to_string()]).status().unwrap().success());
    let mut dev = dev;
    assert_eq!(dev.wait(), Some(0));
}
