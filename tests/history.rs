//! The history: what happened is there, exactly, after incidents, restarts and 30 days; it loses nothing and shows nobody else's.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mayfly::acts::history::{Wanted, list};
use mayfly::acts::{reopen, revoke};
use mayfly::app::{self, Running};
use mayfly::caller::Caller;
use mayfly::clock::{Clock, SECOND};
use mayfly::config::Config;
use mayfly::history::entry::Draft;
use mayfly::history::verify::verify;
use mayfly::state::authority::Kind as AuthorityKind;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::identities_client::IdentitiesClient;
use mayfly_verify::{Target, User};
use serde_json::Value;
use support::{Dev, ORCHESTRATOR, channel};

const AUDIENCE: &str = "https://search.example";

fn entries(dev: &Dev, filters: &str) -> Vec<Value> {
    dev.json(&format!("history {filters}"))["entries"].as_array().unwrap().clone()
}

fn spawn(dev: &Dev, out: &str) -> String {
    dev.token("demo", "demo.jwt");
    dev.json(&format!("spawn --class researcher --user-token demo.jwt --audience {AUDIENCE} --out {out}"));
    dev.json(&format!("whoami --as {out}"))["spiffe_id"].as_str().unwrap().to_owned()
}

#[test]
fn each_record_denial_and_look_has_its_entry() {
    let dev = Dev::start();
    let agent = spawn(&dev, "a");
    dev.json(&format!("mint --as a --audience {AUDIENCE}"));
    dev.fails("spawn --as a --class nosuch --out b", 3);
    dev.json("agents list");
    dev.json("revoke --user dev/demo --reason INC-43");

    let of_agent = entries(&dev, &format!("--agent {agent}"));
    let kinds: Vec<_> = of_agent.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["admission", "mint", "mint", "denial"], "{of_agent:#?}");
    for entry in &of_agent {
        assert_eq!(entry["user"]["sub"], "demo");
        assert_eq!(entry["root_id"], "spiffe://dev.mayfly.test/workload/orchestrator");
        assert_eq!(entry["peer"], "127.0.0.1", "{entry:#?}");
    }
    let [admission, first, second, denial] = of_agent.as_slice() else { panic!("{of_agent:#?}") };
    assert_eq!((&admission["caller"], &admission["class"]), (&"workload/orchestrator".into(), &"researcher".into()));
    assert_eq!(admission["decision_id"], first["decision_id"], "a spawn with its token is one decision");
    assert_ne!(first["decision_id"], second["decision_id"]);
    assert_eq!(second["caller"], agent.as_str());
    assert_eq!((&denial["reason_code"], &denial["outcome"]), (&"CLASS_UNKNOWN".into(), &"denied".into()));
    assert!(denial["revision"].is_null() && admission["revision"].as_u64().is_some());
    let delegation = entries(&dev, "--kind delegation");
    assert_eq!(delegation[0]["delegation_id"], admission["delegation_id"], "who consented is found by the id that the agent has");

    let shown = dev.json(&format!("delegations show {}", admission["delegation_id"].as_str().unwrap()));
    assert_eq!((&shown["user"]["sub"], &shown["has_ended"]), (&"demo".into(), &false.into()));
    assert_eq!(shown["revocations"][0]["reason"], "INC-43");
    let token = hex::encode(mayfly_verify::sha256(dev.file("demo.jwt").as_bytes()));
    assert_eq!(shown["token"], format!("sha256:{token}"), "whoever has the token can tell that it was this one");
    assert_eq!(dev.json("delegations list")["delegations"].as_array().unwrap().len(), 1);
    let listed = dev.json("workloads list");
    let orchestrator = |one: &&Value| one["workload_id"] == "spiffe://dev.mayfly.test/workload/orchestrator";
    let joined = listed["workloads"].as_array().unwrap().iter().find(orchestrator).unwrap();
    assert!(joined["certificate_expires_at"].as_str().unwrap() > joined["joined_at"].as_str().unwrap());

    let looks = entries(&dev, "--kind look");
    assert!(
        looks
            .iter()
            .any(|look| look["method"] == "Inspection/ListAgents" && look["caller"].as_str().unwrap().starts_with("uid:"))
    );
    let revocations = entries(&dev, "--since 1h --user dev/demo --reason INC-43");
    let [revocation] = revocations.as_slice() else { panic!("{revocations:#?}") };
    assert_eq!(revocation["kind"], "revocation");
    let shown = dev.json(&format!("history show {}", revocation["decision_id"].as_str().unwrap()));
    assert_eq!(shown["entries"][0]["reason"], "INC-43");
    assert!(shown["entries"][0]["opening"].as_str().unwrap().contains("INC-43"));
    assert!(!shown["entries"][0]["leaf"].as_str().unwrap().contains("INC-43"));
    // What is asked wrongly is told how to ask.
    assert!(dev.fails("history show nonsense!", 1).contains("DECISION_MALFORMED"));
    assert!(dev.fails("history show r999999", 3).contains("DECISION_UNKNOWN"));
    assert!(dev.fails("history --kind spawn", 1).contains("admission"));
    let lines = dev.run("history export");
    let lines = String::from_utf8(lines.stdout).unwrap();
    assert!(lines.lines().count() > 10 && lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn t129_a_workload_and_an_agent_see_what_is_below_them_and_nothing_else() {
    let dev = Dev::start();
    let (one, two) = (spawn(&dev, "one"), spawn(&dev, "two"));
    dev.json(&format!("spawn --as one --class worker --audience {AUDIENCE} --out child"));
    let child = dev.json("whoami --as child")["spiffe_id"].as_str().unwrap().to_owned();
    dev.json(&format!("revoke --agent {child} --reason secret-reason"));
    let seen = |who: &str| entries(&dev, &format!("--as {who}"));
    let about = |entries: &[Value]| -> std::collections::BTreeSet<String> {
        entries.iter().map(|e| e["agent_id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(about(&seen("one")), [one.clone(), child.clone()].into());
    assert_eq!(about(&seen("two")), [two.clone()].into());
    let workload = seen(ORCHESTRATOR);
    assert!(about(&workload).is_superset(&[one, two.clone(), child].into()));
    assert!(workload.iter().all(|e| e["root_id"] == "spiffe://dev.mayfly.test/workload/orchestrator"), "{workload:#?}");
    // That a child was revoked is theirs to know; why and by whom is not.
    for entries in [seen("one"), workload] {
        let revocation = entries.iter().find(|e| e["kind"] == "revocation").unwrap();
        assert!(revocation["reason"].is_null() && revocation["caller"].is_null() && revocation["peer"].is_null());
    }
    dev.json("agents list");
    let decision = entries(&dev, "--kind look")[0]["decision_id"].as_str().unwrap().to_owned();
    assert!(dev.fails(&format!("history show {decision} --as one"), 3).contains("DECISION_UNKNOWN"));
    assert!(dev.fails("history prove r1 --as one", 3).contains("DECISION_UNKNOWN"));
    assert_eq!(entries(&dev, &format!("--agent {two} --as one")), Vec::<Value>::new());
}

fn checkpoint_covers_all(dev: &Dev) {
    let started = Instant::now();
    // Of each record: they are written some milliseconds behind the answers.
    loop {
        let now = dev.json("status");
        if now["history"]["revision"].as_u64().unwrap() >= now["revision"].as_u64().unwrap() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "the history is behind: {now}");
        std::thread::sleep(Duration::from_millis(50));
    }
    loop {
        let out = dev.run("history verify -o json");
        if out.status.success() && serde_json::from_slice::<Value>(&out.stdout).unwrap()["unsigned"] == 0 {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no checkpoint: {}", String::from_utf8_lossy(&out.stderr));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[test]
fn t131_one_flipped_byte_anywhere_is_named() {
    let dev = Dev::start();
    spawn(&dev, "a");
    checkpoint_covers_all(&dev);
    let vkey = dev.file(".mayfly/history/vkey");
    let all = dev.path("copy");
    copy(&dev.path(".mayfly/history"), &all);
    let held = verify(&all, Some(&vkey)).unwrap();
    assert!(held.opened > 8 && held.first == 0);
    // The public part alone holds too.
    let public = dev.path("public");
    copy(&all, &public);
    std::fs::remove_dir_all(public.join("segments")).unwrap();
    assert_eq!(verify(&public, Some(&vkey)).unwrap().checkpoint, held.checkpoint);
    let size = held.checkpoint.size;
    let files = [
        "segments/00000000000000000000.jsonl".to_owned(),
        format!("tile/0/000.p/{size}"),
        format!("tile/entries/000.p/{size}"),
        "checkpoint".into(),
    ];
    for file in files {
        let path = all.join(&file);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            let refused = verify(&all, Some(&vkey));
            assert!(refused.is_err(), "{file}: byte {at}: {refused:?}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    // An entry that was changed, and one that was taken out, are named.
    let path = all.join("segments/00000000000000000000.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"demo\"", "\"eve0\"")).unwrap();
    let refused = verify(&all, Some(&vkey)).unwrap_err();
    assert!(refused.starts_with("entry ") && refused.contains("commits to"), "{refused}");
    let without: String = text.split_inclusive('\n').enumerate().filter(|(n, _)| *n != 5).map(|(_, line)| line).collect();
    std::fs::write(&path, without).unwrap();
    assert!(verify(&all, Some(&vkey)).unwrap_err().starts_with("entry 5 "));
    std::fs::write(&path, text).unwrap();
    assert!(verify(&all, Some("other+00000000+AA==")).is_err());
    assert!(verify(&all, Some(&vkey)).is_ok());
}

#[test]
fn t130_a_history_or_a_journal_that_was_rolled_back_is_refused() {
    let dev = Dev::start();
    checkpoint_covers_all(&dev);
    let dir = dev.kill();
    let home = dir.path().join(".mayfly");
    let (older, newer, journal) = (dir.path().join("older"), dir.path().join("newer"), dir.path().join("older-journal"));
    copy(&home.join("history"), &older);
    std::fs::create_dir(&journal).unwrap();
    let rows = |to: &Path, from: &Path| {
        for file in ["journal.db", "journal.db-wal", "heartbeat.json"] {
            let _ = std::fs::remove_file(to.join(file));
            let _ = std::fs::copy(from.join(file), to.join(file));
        }
    };
    rows(&journal, &home);
    let dev = Dev::start_in(dir);
    spawn(&dev, "a");
    checkpoint_covers_all(&dev);
    let dir = dev.kill();
    let refused = || {
        let out = Command::new(support::BIN).args(["dev"]).current_dir(dir.path()).env_remove("MAYFLY_HOME").output().unwrap();
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    copy(&home.join("history"), &newer);
    copy(&older, &home.join("history"));
    let said = refused();
    assert!(said.contains("last signed checkpoint"), "{said}");
    // Without its folder it is behind too.
    std::fs::remove_dir_all(home.join("history")).unwrap();
    assert!(refused().contains("last signed checkpoint"));
    copy(&newer, &home.join("history"));
    // The journal alone, with a watermark as old as it is.
    let now = dir.path().join("newer-journal");
    std::fs::create_dir(&now).unwrap();
    rows(&now, &home);
    rows(&home, &journal);
    let said = refused();
    assert!(said.contains("the history holds"), "{said}");
    rows(&home, &now);
    let dev = Dev::start_in(dir);
    assert_eq!(entries(&dev, "--kind admission").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t127_kill_9_loses_no_entry_of_a_record() {
    killed(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: MAYFLY_KILLS=1000 cargo test --release --test history -- --ignored --nocapture t127"]
async fn t127_kill_9_a_thousand_times_loses_no_entry_of_a_record() {
    killed(std::env::var("MAYFLY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)).await;
}

/// Kills an issuer while it records, so many times, and looks at the history at the end.
async fn killed(rounds: usize) {
    // Each start certifies a key of the development workload, which may have a thousand that have not expired.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("extra.toml"), "[credentials]\nworkload_ttl = \"60s\"\n").unwrap();
    let start = |dir| Dev::start_args(dir, &["--config", "extra.toml"], &[]);
    let mut dev = start(dir);
    let mut answered: Vec<(String, u64)> = Vec::new();
    for round in 0..rounds {
        dev.token("demo", "demo.jwt");
        let token = dev.file("demo.jwt");
        let channel = channel(&dev, Some(ORCHESTRATOR)).await;
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..24 {
            let (mut client, csr) = (IdentitiesClient::new(channel.clone()), mayfly::folder::Key::new().unwrap().csr);
            let request_id = format!("k{round}-{n}");
            let request =
                v1::SpawnRequest { request_id, class: "worker".into(), csr, user_token: token.clone(), ..Default::default() };
            calls.spawn(async move { client.spawn(request).await.ok().map(tonic::Response::into_inner) });
        }
        let mut got = 0;
        // Somewhere in the middle: while records are durable in the journal and not in the history yet.
        while got < 4 * (round % 6) + 1 {
            let Some(answer) = calls.join_next().await else { break };
            got += 1;
            answered.extend(answer.unwrap().map(|r| (r.agent.unwrap().agent_id, r.revision)));
        }
        let dir = dev.kill();
        while let Some(answer) = calls.join_next().await {
            answered.extend(answer.unwrap().map(|r| (r.agent.unwrap().agent_id, r.revision)));
        }
        dev = start(dir);
    }
    println!("{} spawns were answered, between {rounds} kills", answered.len());
    let held = entries(&dev, "");
    let mut admissions: HashMap<&str, Vec<&Value>> = HashMap::new();
    for entry in held.iter().filter(|entry| entry["kind"] == "admission") {
        admissions.entry(entry["agent_id"].as_str().unwrap()).or_default().push(entry);
    }
    for (agent, revision) in &answered {
        let of = admissions.get(agent.as_str()).cloned().unwrap_or_default();
        assert_eq!(of.len(), 1, "{agent}: {of:#?}");
        assert_eq!(of[0]["revision"].as_u64(), Some(*revision));
        assert_eq!(of[0]["user"]["sub"], "demo");
    }
    assert!(answered.len() >= 40, "{}", answered.len());
    // Every revision once, and none is missing.
    let revisions: Vec<u64> = held.iter().filter_map(|e| e["revision"].as_u64()).collect();
    assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>());
    checkpoint_covers_all(&dev);
}

/// An issuer in this process, by a clock that the test sets.
async fn start(home: &Path, at: &Arc<AtomicU64>) -> Running {
    // Keys rotate by a clock that runs; this one stands between the steps of the test.
    start_with(home, at, 365 * 86_400).await
}

/// The same, whose authorities sign for so many seconds.
async fn start_with(home: &Path, at: &Arc<AtomicU64>, rotate: u64) -> Running {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = Config::dev(home, "127.0.0.1:0".parse().unwrap(), None).unwrap();
    (config.rotate_x509, config.rotate_jwt) = (rotate, rotate);
    let started = Instant::now();
    loop {
        match app::start(config.clone(), true, Clock::set(Arc::clone(at))).await {
            Ok(running) => return running,
            // The threads of the one before give the journal back as they end.
            Err(e) if e.contains("locked") || e.contains("in use") => {
                assert!(started.elapsed() < Duration::from_secs(20), "{e}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

async fn wanted(running: &Running, wanted: Wanted) -> Vec<Draft> {
    let operator = Caller::Operator { name: "uid:0".into(), by: None };
    list(&running.issuer, &operator, wanted, 1000, "").await.unwrap().entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t128_after_thirty_days_each_revocation_is_told_and_the_second_erases_nothing() {
    const DAY: u64 = 86_400 * SECOND;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = Arc::new(AtomicU64::new(u64::try_from(now.as_micros()).unwrap()));
    let running = start(&home, &at).await;
    let alice = User { iss: "https://login.example".into(), sub: "alice".into() };
    let by = |name: &str| Caller::Operator { name: name.into(), by: None };
    let cut = |running: &Running, caller: Caller, reason: &str| {
        let (issuer, target) = (Arc::clone(&running.issuer), revoke::What::Target(Target::User(alice.clone())));
        let how = revoke::How { reason: reason.into(), allow_new: false };
        async move { revoke::revoke(&issuer, caller, target, how).await.unwrap() }
    };
    cut(&running, by("uid:1000"), "INC-43: laptop stolen").await;
    at.fetch_add(SECOND, Ordering::SeqCst);
    reopen::reopen(&running.issuer, by("uid:1000"), Target::User(alice.clone())).await.unwrap();
    at.fetch_add(SECOND, Ordering::SeqCst);
    cut(&running, by("uid:1001"), "lost my phone").await;
    let incident = at.load(Ordering::SeqCst);
    running.stop().await;
    // A month with a restart every week; something is recorded every time, so that the journal drops its rows.
    for days in [1, 8, 15, 22, 30] {
        at.store(incident + days * DAY, Ordering::SeqCst);
        let running = start(&home, &at).await;
        let told = wanted(&running, Wanted { user: Some(alice.clone()), ..Wanted::default() }).await;
        let told: Vec<_> =
            told.iter().map(|e| (e.leaf.kind.as_str(), e.opening.caller.as_str(), e.opening.reason.as_str())).collect();
        let expected = [
            ("revocation", "uid:1000", "INC-43: laptop stolen"),
            ("reopening", "uid:1000", ""),
            ("revocation", "uid:1001", "lost my phone"),
        ];
        assert_eq!(told, expected, "{days} days later");
        let known =
            wanted(&running, Wanted { since: incident - 10 * SECOND, until: incident + SECOND, ..Wanted::default() }).await;
        assert!(known.iter().all(|e| e.leaf.at <= incident), "what was asked for, by time");
        running.stop().await;
        verify(&home.join("history"), None).unwrap();
    }
    // Kept for ninety days: after that the incident is gone, with all of its segment, and the rest still holds.
    for days in (37..=121).step_by(14) {
        at.store(incident + days * DAY, Ordering::SeqCst);
        start(&home, &at).await.stop().await;
    }
    at.store(incident + 130 * DAY, Ordering::SeqCst);
    let running = start(&home, &at).await;
    let started = Instant::now();
    while !wanted(&running, Wanted { user: Some(alice.clone()), ..Wanted::default() }).await.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing is dropped");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.stop().await;
    let held = verify(&home.join("history"), None).unwrap();
    assert!(held.first > 0 && held.opened > 0, "{held:?}");
}

#[test]
fn t125_denials_of_strangers_are_told_and_counted() {
    let dev = Dev::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let stranger = channel(&dev, None).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let mut client = IdentitiesClient::new(stranger.clone());
            calls.spawn(async move {
                for _ in 0..250 {
                    client.whoami(v1::WhoamiRequest {}).await.unwrap_err();
                }
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    });
    let denials = entries(&dev, "--kind denial --reason CERTIFICATE_NEEDED");
    assert!(denials.iter().all(|e| e["peer"] == "127.0.0.1" && e["method"] == "Identities/Whoami"));
    let started = Instant::now();
    // A gap is told within a second or two.
    let counted = || entries(&dev, "--kind gap").iter().map(|gap| gap["count"].as_u64().unwrap()).sum::<u64>();
    while denials.len() as u64 + counted() < 1500 {
        assert!(started.elapsed() < Duration::from_secs(20), "{} + {}", denials.len(), counted());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!((1000..1100).contains(&denials.len()), "{}", denials.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t283_an_issuer_that_was_down_for_longer_than_its_authorities_last_starts_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = Arc::new(AtomicU64::new(u64::try_from(now.as_micros()).unwrap()));
    let mut before: Vec<String> = Vec::new();
    for _ in 0..3 {
        let running = start_with(&home, &at, 3600).await;
        let seconds = at.load(Ordering::SeqCst) / SECOND;
        let active: Vec<(String, u64)> = running.issuer.ledger.read(|state| {
            let slot = |kind| state.authorities.active(kind).map(|slot| (slot.id.to_string(), slot.ends_at));
            [AuthorityKind::X509, AuthorityKind::Jwt].into_iter().filter_map(slot).collect()
        });
        assert_eq!(active.len(), 2);
        assert!(active.iter().all(|(id, ends_at)| *ends_at > seconds && !before.contains(id)), "{active:?}");
        before.extend(active.into_iter().map(|(id, _)| id));
        running.stop().await;
        at.fetch_add(10 * 86_400 * SECOND, Ordering::SeqCst);
    }
}

/// A witness that keeps the rules but for one, on a port of its own: it says how many entries it has seen, and signs what comes after them.
struct Witness {
    url: String,
    vkey: String,
    seen: Arc<AtomicU64>,
    forges: Arc<AtomicBool>,
}

impl Witness {
    fn start() -> Witness {
        let key = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let public = key.public_key().as_ref().to_vec();
        let id = mayfly_verify::sha256(&[b"w.example\n\x04", public.as_slice()].concat())[..4].to_vec();
        let vkey = format!("w.example+{}+{}", hex::encode(&id), BASE64.encode([&[4], public.as_slice()].concat()));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, forges) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (its_seen, its_forges) = (Arc::clone(&seen), Arc::clone(&forges));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut head, mut line) = (String::new(), String::new());
                while stream.read_line(&mut line).unwrap_or(0) > 2 {
                    head.push_str(&line.to_lowercase());
                    line.clear();
                }
                let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let body = String::from_utf8(body).unwrap();
                let (asked, note) = body.split_once("\n\n").unwrap();
                let old: u64 = asked.lines().next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
                let text = format!("{}\n", note.split("\n\n").next().unwrap());
                let size: u64 = text.lines().nth(1).unwrap().parse().unwrap();
                let known = its_seen.load(Ordering::SeqCst);
                let (status, answer) = if old != known || size < known {
                    (409, format!("{known}\n"))
                } else {
                    its_seen.store(size, Ordering::SeqCst);
                    let signed = if its_forges.load(Ordering::SeqCst) { "another text\n" } else { &text };
                    let signature = key.sign(format!("cosignature/v1\ntime 1800000000\n{signed}").as_bytes());
                    let bytes = [id.as_slice(), &1_800_000_000u64.to_be_bytes(), signature.as_ref()].concat();
                    (200, format!("\u{2014} w.example {}\n", BASE64.encode(bytes)))
                };
                let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}", answer.len());
                let _ = write!(stream.get_mut(), "{head}\r\n\r\n{answer}");
            }
        });
        Witness { url, vkey, seen, forges }
    }

    fn config(&self) -> String {
        format!("[[history.witnesses]]\nurl = \"{}\"\nvkey = \"{}\"\n", self.url, self.vkey)
    }
}

/// Looks until it is so.
fn until(what: &str, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn t280_a_witness_cosigns_what_grows_and_tells_of_a_history_that_was_put_back_and_none_waits_for_another() {
    let witness = Witness::start();
    let dir = tempfile::tempdir().unwrap();
    // One is not there, and one never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let of = |name: &str, at: std::net::SocketAddr| {
        let key = [&[4], [5; 32].as_slice()].concat();
        let id = mayfly_verify::sha256(&[name.as_bytes(), b"\n", &key].concat());
        let vkey = format!("{name}+{}+{}", hex::encode(&id[..4]), BASE64.encode(key));
        format!("[[history.witnesses]]\nurl = \"http://{at}\"\nvkey = \"{vkey}\"\n")
    };
    let more = [of("silent.example", silent.local_addr().unwrap()), of("away.example", away), witness.config()].concat();
    std::fs::write(dir.path().join("more.toml"), more).unwrap();
    let dev = Dev::start_args(dir, &["--config", "more.toml"], &[]);
    let cosigned = |dev: &Dev| {
        let file = format!(".mayfly/history/cosigned-{}", witness.vkey.split('+').nth(1).unwrap());
        let note = std::fs::read_to_string(dev.path(&file)).unwrap_or_default();
        note.lines().nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0)
    };
    dev.token("demo", "demo.jwt");
    spawn(&dev, "a");
    until("the first checkpoint is cosigned", || cosigned(&dev) > 3);
    let before = cosigned(&dev);
    assert!(dev.run("spawn --as a --class worker --count 300 --out many").status.success());
    until("a later one is", || cosigned(&dev) >= before + 300);
    let verified = dev.json(&format!("history verify --witness {}", witness.vkey));
    assert!(verified["cosigned"][0]["entries"].as_u64().unwrap() >= 300, "{verified}");
    assert_eq!(verified["cosigned"][0]["at"], "2027-01-15T08:00:00Z");
    // Another witness's key, and one whose signature does not hold.
    let other = "example.org+e4b5ba10+BO0Fd4vHZtTsd2bmx1oF3hzXoPqHXWEJXH6JeXGN0Bo=";
    dev.fails(&format!("history verify --witness {other}"), 1);
    let get = |path: &str| {
        let mut stream = std::net::TcpStream::connect(dev.text("http")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let ready = || get("/readyz?verbose");
    until("who is away is told", || ready().contains("witness away.example: "));
    let counted = get("/metrics");
    let failures = counted.lines().find_map(|line| line.strip_prefix("mayfly_history_witness_failures_total "));
    assert!(failures.unwrap().parse::<f64>().unwrap() > 0.0, "and counted");
    witness.forges.store(true, Ordering::SeqCst);
    let before = cosigned(&dev);
    dev.json("revoke --class worker");
    until("a forged signature is told", || ready().contains("witness w.example: its signature does not hold"));
    assert_eq!(cosigned(&dev), before, "and is not kept");
    witness.forges.store(false, Ordering::SeqCst);
    // It has seen more than there is: the home was put back, or another copy of it runs.
    witness.seen.store(1_000_000, Ordering::SeqCst);
    dev.json("reopen --class worker");
    until("a history that is behind is told", || ready().contains("it has seen 1000000 entries"));
    assert!(ready().starts_with("HTTP/1.1 200"), "revocations go on");
}
