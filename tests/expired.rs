//! T152: an identity that is out of time is told so before any connection is made: the same way by every command and by the SDK.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::time::Duration;

use mayfly_agent::channel::{ChannelSettings, ConnectError, Trust, connect};
use mayfly_agent::folder::{identity, roots};
use mayfly_agent::identity::{Identity, Issuer, Saved};
use rcgen::{CertificateParams, KeyPair, SanType};
use support::run_in;
use time::{Duration as Time, OffsetDateTime};

const AGENT: &str = "spiffe://dev.mayfly.internal/agent/worker/01a21a87-c951-7000-8000-000000000001";
const WORKLOAD: &str = "spiffe://dev.mayfly.internal/workload/search-service";
/// Nobody listens there. If a command tried, it would say so.
const NOWHERE: &str = "127.0.0.1:1";

/// A folder with a certificate that is valid from `begin` to `end`, counted from now.
fn folder(dir: &Path, id: &str, begin: Time, end: Time) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now + begin, now + end);
    let certificate = params.self_signed(&key).unwrap().pem();
    std::fs::create_dir(dir).unwrap();
    for (name, text) in [("svid.pem", &certificate), ("bundle.pem", &certificate), ("key.pem", &key.serialize_pem())] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dir.join("key.pem"), mode).unwrap();
}

#[test]
fn t152_every_command_says_since_when_and_what_to_do_with_one_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let ago = |minutes| -Time::minutes(minutes);
    folder(&dir.path().join("old"), AGENT, ago(60), ago(4));
    folder(&dir.path().join("service"), WORKLOAD, ago(600), ago(150));
    folder(&dir.path().join("early"), AGENT, Time::hours(2), Time::hours(3));
    let mut commands = vec![
        "mint --audience https://search.example",
        "renew",
        "spawn --class worker --out x",
        "end",
        "revoke --agent 01a21a87-c951-7000-8000-000000000001",
        "reopen --class worker",
        "cuts list",
        "whoami",
        "relay",
    ];
    if cfg!(target_os = "linux") {
        commands.push("run --class worker");
    }
    for command in commands {
        let tail = if command.starts_with("run") { "-- true" } else { "" };
        let told = |folder: &str| {
            let out = run_in(dir.path(), &format!("{command} --as {folder} --server {NOWHERE} {tail}"));
            let text = String::from_utf8(out.stderr).unwrap();
            assert_eq!((out.status.code(), out.stdout.is_empty()), (Some(4), true), "{command} as {folder}: {text}");
            text
        };
        let (old, service, early) = (told("old"), told("service"), told("early"));
        assert!(old.contains("the certificate in `old` expired 4 minutes ago, at 20"), "{old}");
        assert!(old.contains("spawn another agent"), "{old}");
        assert!(service.contains("expired 2 hours ago") && service.contains("`mayfly join search-service`"), "{service}");
        assert!(early.contains("the clock of this machine says") && early.contains("set the clock"), "{early}");
        assert!(!early.contains("expired"), "{early}");
    }
}

#[tokio::test]
async fn t152_the_sdk_makes_no_connection_with_a_certificate_that_is_out_of_time() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    for (name, begin, end, code) in [("old", -60, -4, "expired"), ("early", 120, 180, "clock"), ("good", -60, 60, "unreachable")]
    {
        let path = dir.path().join(name);
        folder(&path, AGENT, Time::minutes(begin), Time::minutes(end));
        let settings = ChannelSettings {
            address: NOWHERE.into(),
            trust_domain: mayfly_verify::TrustDomain::new("dev.mayfly.internal").unwrap(),
            trust: Trust::Roots(roots(&path).unwrap()),
            identity: Some(identity(&path).unwrap()),
            connect_timeout: Duration::from_secs(5),
        };
        let error = connect(settings).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(matches!(error, ConnectError::OutOfTime(_)), name != "good");
    }
    let refused = |name: &str| Saved::from_folder(&dir.path().join(name)).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused("old").contains("expired 4 minutes ago"), "{}", refused("old"));
    assert!(refused("early").contains("set the clock"), "{}", refused("early"));
    let saved = Saved::from_folder(&dir.path().join("good")).unwrap();
    let trust_domain = saved.trust_domain().clone();
    let at = Issuer { address: NOWHERE.into(), trust_domain, connect_timeout: Duration::from_secs(1) };
    assert!(Identity::take_over(&saved, at).await.is_err());
}
