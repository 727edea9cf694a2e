//! Folders that are kept: nothing needs a person at night, whatever is killed at whatever moment.
#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_agent::folder::{identity, issuer};
use mayfly_agent::identity::{Identity, IdentityError, Over};
use mayfly_agent::tls::CurrentIdentity;
use support::{BIN, Dev, ORCHESTRATOR};

/// Certificates as short as a class may have them.
const CONFIG: &str = r#"
[[classes]]
name = "researcher"
owner = "tests"
scopes = ["search:read"]
audiences = ["https://search.example"]
svid_ttl = "10s"
max_lease = "10m"
max_depth = 2
modes = ["delegated"]
spawners = ["workload/orchestrator"]
"#;
const MINT: &str = "mint --audience https://search.example --as";
const PATIENCE: Duration = Duration::from_secs(10);

fn dev() -> Dev {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    dev
}

fn start(dev: &Dev, line: &str) -> Child {
    let mut command = Command::new(BIN);
    command.args(line.split(' ')).current_dir(dev.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn stop(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Whether key and certificate in a folder belong together, for our readers and for those that read two files.
fn fits(dev: &Dev, folder: &str) -> bool {
    CurrentIdentity::new(identity(&dev.path(folder)).unwrap()).is_ok()
}

fn ends_at(dev: &Dev, folder: &str) -> i64 {
    let chain = identity(&dev.path(folder)).unwrap().chain;
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    leaf.validity().not_after.timestamp()
}

fn agent(dev: &Dev, folder: &str) -> String {
    dev.json(&format!("whoami --as {folder}"))["spiffe_id"].as_str().unwrap().to_owned()
}

#[test]
fn t154_keepers_keep_one_folder_together_while_some_are_killed_and_an_agent_lives_past_its_certificate() {
    let dev = dev();
    assert_eq!(dev.json("keep a1 --once")["renewed"], false, "half of its life has not passed");
    let mut keepers: Vec<Child> = (0..4).map(|_| start(&dev, "keep a1")).collect();
    let first = ends_at(&dev, "a1");
    // Until two certificates later: the first one has expired by then. Three of them are killed again and again, at whatever they do.
    let began = Instant::now();
    for look in 0.. {
        if ends_at(&dev, "a1") >= first + 10 {
            break;
        }
        assert!(fits(&dev, "a1"));
        assert!(began.elapsed() < Duration::from_secs(60), "it is renewed");
        std::thread::sleep(Duration::from_millis(50));
        if look % 13 == 12 {
            stop(std::mem::replace(&mut keepers[1 + look / 13 % 3], start(&dev, "keep a1")));
        }
    }
    keepers.into_iter().for_each(stop);
    assert!(dev.run(&format!("{MINT} a1")).status.success(), "and it works");
    let agents = dev.json("agents list --all");
    assert_eq!(agents["agents"][0]["state"], "live", "nobody was taken for a thief");
}

#[test]
fn t154_renewals_that_are_killed_at_any_moment_leave_a_folder_that_works() {
    let dev = dev();
    dev.json("spawn --class worker --user-token demo.jwt --out w1");
    let mut wait = 0;
    for round in 0..40u64 {
        // Two at once, killed after 0 to 120 milliseconds.
        let line = if round % 2 == 0 { "renew --as w1".to_owned() } else { format!("renew --as {ORCHESTRATOR}") };
        let both = [start(&dev, &line), start(&dev, &line)];
        wait = (wait + 37) % 120;
        std::thread::sleep(Duration::from_millis(wait));
        both.into_iter().for_each(stop);
        assert!(fits(&dev, "w1") && fits(&dev, ORCHESTRATOR), "round {round}");
    }
    dev.json("renew --as w1");
    assert!(dev.run(&format!("{MINT} w1")).status.success());
    assert_eq!(dev.json(&format!("whoami --as {ORCHESTRATOR}"))["kind"], "workload");
    assert_eq!(dev.json("whoami --as w1")["state"], "live");
}

#[test]
fn t226_a_copied_folder_of_a_workload_is_noticed_when_both_renew_and_a_stale_reader_is_only_refused() {
    let dev = dev();
    dev.json("spawn --class worker --user-token demo.jwt --out w1");
    let copy = |to: &str| {
        std::fs::create_dir(dev.path(to)).unwrap();
        for file in ["svid.pem", "key.pem", "bundle.pem", "bundle.json"] {
            std::fs::copy(dev.path(ORCHESTRATOR).join(file), dev.path(to).join(file)).unwrap();
        }
    };
    let whoami = |folder: &str| dev.json(&format!("whoami --as {folder} --server {}", dev.text("grpc")))["kind"].clone();
    copy("stale");
    dev.json(&format!("renew --as {ORCHESTRATOR}"));
    // T227: it was in use a moment ago, or is refused.
    let stale = dev.run("whoami --as stale");
    assert!(stale.status.success() || String::from_utf8_lossy(&stale.stderr).contains("GENERATION_PAST"));
    assert_eq!(dev.json(&format!("renew --as {ORCHESTRATOR}"))["spiffe_id"], "spiffe://dev.mayfly.test/workload/orchestrator");
    assert!(dev.run(&format!("{MINT} w1")).status.success(), "nobody lost anything");
    let old = dev.fails("renew --as stale", 3);
    assert!(old.contains("CREDENTIAL_REUSED") && old.contains("join again"), "{old}");
    assert!(dev.fails("whoami --as stale", 3).contains("KEY_REVOKED"));
    assert!(dev.fails(&format!("{MINT} w1"), 3).contains("AGENT_REVOKED"));
    // Another ticket, another identity.
    std::fs::write(dev.path("ticket"), dev.run("join orchestrator").stdout).unwrap();
    dev.json("redeem --ticket-file ticket --out again");
    assert_eq!(whoami("again"), "workload");
}

#[test]
fn t154_a_keeper_says_what_it_cannot_keep_and_keeps_the_others() {
    let dev = dev();
    let address = issuer(&dev.path("a1")).unwrap();
    assert_eq!(address, dev.text("grpc"), "the folder says where its issuer is");
    std::fs::create_dir(dev.path("empty")).unwrap();
    let out = dev.run(&format!("keep empty missing {ORCHESTRATOR} --once"));
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!((out.status.code(), text.lines().count()), (Some(1), 3), "{text}");
    assert!(text.contains("empty/key.pem") && text.lines().last().unwrap().contains("not due"), "{text}");
    assert!(!dev.path("missing").exists(), "a keeper makes no folder");
    dev.fails("keep", 2);
    // A folder is not overwritten by accident.
    assert!(dev.fails("spawn --class worker --user-token demo.jwt --out a1", 2).contains("--force"));
    dev.json("spawn --class worker --user-token demo.jwt --out a1 --force");
}

#[test]
fn t282_a_keeper_gives_up_what_is_refused_for_good_and_keeps_the_others() {
    let dev = dev();
    dev.json("spawn --class researcher --user-token demo.jwt --out a2");
    let keeper = |line: &str| {
        let mut command = Command::new(BIN);
        command.args(line.split(' ')).current_dir(dev.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let ended = agent(&dev, "a1");
    dev.json(&format!("end {ended}"));
    let first = ends_at(&dev, "a2");
    let both = keeper("keep a1 a2");
    // It renews the other one past what it had.
    let began = Instant::now();
    while ends_at(&dev, "a2") <= first {
        assert!(began.elapsed() < Duration::from_secs(60), "it is renewed");
        std::thread::sleep(Duration::from_millis(50));
    }
    dev.json(&format!("revoke --agent {}", agent(&dev, "a2")));
    // Nothing is left that could be kept, and it ends by itself.
    let out = both.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(3), "{text}");
    assert!(text.contains("AGENT_ENDED") && text.contains("AGENT_REVOKED") && text.contains("get another identity"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t154_a_program_that_starts_again_goes_on_with_what_it_had() {
    let dev = dev();
    dev.json("spawn --class worker --user-token demo.jwt --out w1");
    for folder in ["w1", ORCHESTRATOR] {
        let path = dev.path(folder);
        let address = dev.text("grpc");
        let mut last = identity(&path).unwrap().chain;
        for _ in 0..3 {
            let kept = Identity::keep(&path, Some(&address), PATIENCE).await.unwrap();
            let written = identity(&path).unwrap().chain;
            assert!(written != last && fits(&dev, folder) && written == kept.current().chain());
            last = written;
            // No end: the process dies, and the folder stays.
            drop(kept);
        }
    }
    // An agent's folder names its issuer; one that says nothing needs an address.
    drop(Identity::keep(&dev.path("w1"), None, PATIENCE).await.unwrap());
    dev.json("end --as w1");
    let ended = Identity::keep(&dev.path("w1"), None, PATIENCE).await.err().unwrap();
    assert!(matches!(&ended, IdentityError::Over(Over::Revoked { reason, .. }) if reason == "AGENT_ENDED"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t154_what_a_program_renews_stands_in_its_folder_also_beside_a_keeper() {
    let dev = dev();
    let path = dev.path("a1");
    let kept = Identity::keep(&path, None, PATIENCE).await.unwrap();
    let keeper = start(&dev, "keep a1");
    let first = kept.current().expires_at();
    let mut changed = kept.changed();
    let renewed = tokio::time::timeout(Duration::from_secs(60), changed.wait_for(|c| c.expires_at() > first));
    drop(renewed.await.unwrap().unwrap());
    assert!(fits(&dev, "a1") && kept.over().borrow().is_none());
    stop(keeper);
    assert_eq!(dev.json("agents list")["agents"][0]["state"], "live");
}

#[cfg(target_os = "linux")]
#[test]
fn t154_a_service_runs_with_its_own_identity_and_starts_again() {
    let dev = dev();
    // A join token is for the first start; later ones go on with the folder.
    std::fs::write(dev.path("ticket"), dev.run("join orchestrator").stdout).unwrap();
    for start in 0..3 {
        let out = dev.run("run --ticket ticket --as service -- env");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success() && text.contains("SPIFFE_ENDPOINT_SOCKET=unix:"), "start {start}: {out:?}");
    }
    assert!(dev.run("run --as service -- true").status.success());
    assert_eq!(dev.json("whoami --as service")["kind"], "workload");
    // Also an agent's folder: the agent is there after the command.
    assert!(dev.run("run --as a1 -- true").status.success());
    assert_eq!(dev.json("whoami --as a1")["state"], "live");
    // With a class it spawns, as before, and that agent ends.
    assert!(dev.run("run --as service --class researcher --user-token demo.jwt -- true").status.success());
    let states = dev.json("agents list --all");
    let ended = states["agents"].as_array().unwrap().iter().filter(|agent| agent["state"] == "ended").count();
    assert_eq!(ended, 1);
    dev.fails("run -- true", 2);
}

#[test]
#[ignore = "long: MAYFLY_KEEP_SECONDS=960 cargo test --test keep -- --ignored --nocapture (a day of renewals at half of 15 minutes)"]
fn t154_four_keepers_keep_one_folder_for_a_day_of_renewals_while_they_are_killed() {
    let seconds = std::env::var("MAYFLY_KEEP_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(960);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), CONFIG.replace("\"10m\"", "\"7h\"")).unwrap();
    let dev = Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    dev.token("demo", "demo.jwt");
    dev.json("spawn --class researcher --user-token demo.jwt --out a1");
    let mut keepers: Vec<Child> = (0..4).map(|_| start(&dev, "keep a1")).collect();
    let (began, mut renewed, mut last, mut killed, mut chance) = (Instant::now(), 0, ends_at(&dev, "a1"), 0, 7u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((chance >> 33) % 300));
        assert!(fits(&dev, "a1"), "a pair that does not match after {:?}, {renewed} renewals, {killed} kills", began.elapsed());
        let ends = ends_at(&dev, "a1");
        renewed += u32::from(ends != last);
        last = ends;
        let which = usize::try_from((chance >> 20) % 4).unwrap();
        let killed_one = std::mem::replace(&mut keepers[which], start(&dev, "keep a1"));
        stop(killed_one);
        killed += 1;
    }
    keepers.into_iter().for_each(stop);
    println!("{renewed} renewals, {killed} keepers killed, in {:?}", began.elapsed());
    assert!(renewed > 0 && dev.run(&format!("{MINT} a1")).status.success(), "nothing to repair by hand");
    assert_eq!(dev.json("agents list --all")["agents"][0]["state"], "live", "nobody was taken for a thief");
}
