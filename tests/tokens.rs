//! `mayfly run --jwt` and `--for`: tokens as files, for programs that read nothing else.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use support::{BIN, Dev};

/// Tokens that are replaced every five seconds.
const SHORT: &str = "[credentials]\njwt_ttl = \"10s\"\n";
const SEARCH: &str = "https://search.example";

fn dev(config: &str) -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), config).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    std::fs::write(dev.path("bundle.json"), dev.run("bundle").stdout).unwrap();
    dev
}

fn command(dev: &Dev, options: &str, script: &str) -> Command {
    let mut command = Command::new(BIN);
    command.args("run --class researcher --user-token demo.jwt".split(' ')).args(options.split_whitespace());
    command.args(["--", "sh", "-c", script]).current_dir(dev.dir.path()).env_remove("MAYFLY_HOME").stdin(Stdio::null());
    command
}

fn run(dev: &Dev, options: &str, script: &str) -> Output {
    command(dev, options, script).output().unwrap()
}

fn told(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// What a token says. It may have expired meanwhile.
fn claims(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[test]
fn a_token_is_there_before_the_command_is_replaced_at_half_of_its_life_and_removed_at_the_end() {
    let dev = dev(SHORT);
    let script = "cp tok first; stat -c %a tok > mode; while cmp -s tok first; do sleep 0.1; done; cp tok second; \
                  ls -A sub > inside";
    let out = run(&dev, &format!("--jwt {SEARCH}=tok --jwt https://mail.example=sub/mail"), script);
    assert_eq!(out.status.code(), Some(0), "{}", told(&out));
    assert_eq!((dev.file("mode"), dev.file("inside")), ("600".into(), "mail".into()));
    let claims = ["first", "second"].map(|file| claims(&dev.file(file)));
    assert!(claims.iter().all(|claims| claims.get("aud").unwrap() == &serde_json::json!([SEARCH])), "{claims:?}");
    let [first, second] = claims.map(|claims| claims.get("jti").unwrap().to_string());
    assert_ne!(first, second);
    assert!(!dev.path("tok").exists() && !dev.path("sub/mail").exists(), "they are removed");
    assert_eq!(std::fs::read_dir(dev.path("sub")).unwrap().count(), 0, "nothing half written is left");
}

#[test]
fn t118_without_its_token_a_command_does_not_start() {
    let dev = dev("");
    for (options, code, part) in [
        (format!("--jwt {SEARCH}=tok --jwt https://evil.example=evil"), 3, "AUDIENCE_NOT_ALLOWED"),
        (format!("--jwt {SEARCH}=tok --jwt https://mail.example=sub/../demo.jwt/x"), 1, "demo.jwt"),
        (format!("--jwt {SEARCH}=tok --jwt https://mail.example=tok"), 2, "two tokens cannot be in one file"),
        (format!("--jwt {SEARCH}"), 2, "AUDIENCE=FILE"),
        ("--for aws --for aws=x".into(), 2, "given twice"),
        ("--for azure".into(), 2, "set AZURE_CLIENT_ID"),
    ] {
        let out = run(&dev, &options, "echo > started");
        assert_eq!(out.status.code(), Some(code), "{options}: {}", told(&out));
        assert!(told(&out).contains(part), "{options}: {}", told(&out));
        assert!(!dev.path("started").exists() && !dev.path("tok").exists(), "{options}");
    }
}

#[test]
fn t118_a_token_that_cannot_be_replaced_is_told_and_the_old_one_stays() {
    let dev = dev(SHORT);
    let pid = dev.pid();
    // The issuer is gone for the first replacement, after five seconds.
    let script = format!("cp tok first; kill -9 {pid}; sleep 7; cmp tok first && echo > same");
    let out = run(&dev, &format!("--jwt {SEARCH}=tok"), &script);
    assert!(told(&out).contains(&format!("no token for `{SEARCH}` in `tok`")), "{}", told(&out));
    assert!(told(&out).contains("the old one stays, next attempt in 1 seconds"), "{}", told(&out));
    assert!(dev.path("same").exists() && !dev.path("tok").exists());
}

#[test]
fn t118_a_revoked_agent_loses_its_token_files_at_once() {
    let dev = dev("");
    let script =
        "trap 'while test -e tok; do sleep 0.05; done; echo > gone; exit 0' TERM; echo > up; while :; do sleep 0.1; done";
    let mut child = command(&dev, &format!("--jwt {SEARCH}=tok --grace 20"), script).spawn().unwrap();
    while !dev.path("up").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(dev.path("tok").exists());
    dev.json("revoke --class researcher");
    child.wait().unwrap();
    assert!(dev.path("gone").exists(), "while the command is stopped");
}

#[test]
fn t118_a_token_is_written_through_no_link_and_nobody_elses_file_is_removed() {
    let dev = dev("");
    std::fs::write(dev.path("mine"), "mine").unwrap();
    std::os::unix::fs::symlink("mine", dev.path("tok")).unwrap();
    // In the place of the link there is a file; what another program puts there stays.
    let script = "test -L tok && echo > link; rm tok; echo other > tok";
    assert_eq!(run(&dev, &format!("--jwt {SEARCH}=tok"), script).status.code(), Some(0));
    assert_eq!((dev.file("mine"), dev.file("tok")), ("mine".into(), "other".into()));
    assert!(!dev.path("link").exists());
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("skipped: only root can run a command as another user");
        return;
    }
    // For another user: through no link of theirs, and into nobody else's folder.
    std::fs::set_permissions(dev.dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
    for (dir, uid) in [("theirs", 65534), ("victims", 65533)] {
        std::fs::create_dir(dev.path(dir)).unwrap();
        std::os::unix::fs::chown(dev.path(dir), Some(uid), Some(uid)).unwrap();
    }
    std::os::unix::fs::symlink(dev.path("victims"), dev.path("theirs/up")).unwrap();
    for file in ["victims/tok", "theirs/up/tok"] {
        let out = run(&dev, &format!("--uid 65534:65534 --jwt {SEARCH}={file}"), "exit 0");
        assert_eq!(out.status.code(), Some(1), "{file}: {}", told(&out));
    }
    assert_eq!(std::fs::read_dir(dev.path("victims")).unwrap().count(), 0);
    let script = "stat -c '%u %a' theirs/tok; stat -c '%u %a' $AWS_WEB_IDENTITY_TOKEN_FILE; wc -c < $AWS_WEB_IDENTITY_TOKEN_FILE";
    let out = run(&dev, &format!("--uid 65534:65534 --jwt {SEARCH}=theirs/tok --for aws"), script);
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(shown.starts_with("65534 600\n65534 600\n"), "{shown} {}", told(&out));
}

#[test]
fn a_preset_sets_what_the_sdks_of_a_system_read() {
    let dev = dev("");
    let script =
        "env; cp $AWS_WEB_IDENTITY_TOKEN_FILE aws; cp $AZURE_FEDERATED_TOKEN_FILE azure; echo $AWS_WEB_IDENTITY_TOKEN_FILE > at";
    let mut command = command(&dev, "--for aws --for azure=https://files.example --for vault", script);
    for (name, value) in
        [("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t"), ("AWS_ACCESS_KEY_ID", "AKIA"), ("VAULT_TOKEN", "s.x")]
    {
        command.env(name, value);
    }
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", told(&out));
    assert!(told(&out).contains("--for aws: AWS_ROLE_ARN is not set"), "{}", told(&out));
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    let var = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!((var("AWS_ACCESS_KEY_ID"), var("VAULT_TOKEN"), var("AZURE_CLIENT_ID")), (None, None, Some("c")));
    let aws = dev.json("verify aws --audience sts.amazonaws.com");
    let id = aws.get("spiffe_id").unwrap().as_str().unwrap().to_owned();
    assert!(id.ends_with(var("AWS_ROLE_SESSION_NAME").unwrap()), "{id}");
    dev.json("verify azure --audience https://files.example");
    assert!(!std::path::Path::new(&dev.file("at")).parent().unwrap().exists(), "the folder is removed");
}

#[test]
fn an_agent_with_a_ticket_gets_token_files_and_a_workload_has_none() {
    let dev = dev("");
    dev.json("spawn --class researcher --user-token demo.jwt --ticket --out t1");
    let run = |file: &str| {
        let line = format!("run --ticket {file} --jwt {SEARCH}=tok -- cp tok copy");
        dev.run(&line)
    };
    let out = run("t1/ticket");
    assert!(out.status.success(), "{}", told(&out));
    dev.json(&format!("verify copy --audience {SEARCH}"));
    let token = dev.json("join orchestrator");
    std::fs::write(dev.path("join"), token.get("token").unwrap().as_str().unwrap()).unwrap();
    let refused = run("join");
    assert!(refused.status.code() == Some(3) && told(&refused).contains("ROLE_NOT_ALLOWED"), "{}", told(&refused));
}
