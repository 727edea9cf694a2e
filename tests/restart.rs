//! How long a restart takes: as long as what lives, and no longer for what is over (T80).
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mayfly::acts::authorities::Change;
use mayfly::acts::spawn::Spawn;
use mayfly::caller::Caller;
use mayfly::clock::{Clock, SECOND};
use mayfly::config::Config;
use mayfly::journal::Journal;
use mayfly::journal::sqlite::Sqlite;
use mayfly::judge::policy::Asked;
use mayfly::judge::{Ceiling, Proof, Rules};
use mayfly::ledger::{Bounds, Ledger, Unobserved, replay};
use mayfly::state::State;
use mayfly::state::authority::{Kind, Slot};
use mayfly_verify::{Target, User, sha256};

const START: u64 = 1_800_000_000;

#[path = "support/asks.rs"]
mod asks;
use asks::{Ask, Outcome, Proposal, commit};

fn open(path: &Path, now: &Arc<AtomicU64>) -> Ledger {
    let config = Config::dev(Path::new("/nowhere"), "127.0.0.1:0".parse().unwrap(), None).unwrap();
    let workloads = config.workloads.iter().cloned().map(mayfly_verify::Workload::Own).collect();
    let ceiling = Ceiling { workloads, scopes: None, longest: u64::MAX };
    let rules = Rules {
        trust_domain: config.trust_domain.clone(),
        classes: config.classes.clone(),
        workloads: config.workloads,
        audiences: Default::default(),
        issuers: [("https://idp.example".into(), "idp".into())].into(),
        tokens: [("https://idp.example".into(), [("mayfly".into(), ceiling)].into())].into(),
        number: 0,
        client_audience: None,
        serves: std::collections::BTreeMap::new(),
        actions: config.actions.clone(),
        waiting: config.waiting,
        operators: vec![],
        auditors: vec![],
        assignments: vec![],
        limits: vec![],
        workload_ttl: 1_000_000,
        jwt_ttl: 300,
        publish_ahead: 60,
        taken_back: 10_000,
        policies: None,
        shadow: None,
        gateways: Vec::new(),
    };
    let mut journal = Sqlite::open(path, None).unwrap();
    let state = replay(&mut journal).unwrap();
    Ledger::open(
        Box::new(journal),
        state,
        rules,
        Bounds { batch: 1024 },
        Clock::set(Arc::clone(now)),
        Box::new(Unobserved),
        Box::new(|cause| panic!("{cause}")),
    )
    .unwrap()
}

fn rows(path: &Path) -> usize {
    let mut count = 0;
    let mut count_one = |_: u64, _: &[u8]| {
        count += 1;
        Ok(())
    };
    Sqlite::open(path, None).unwrap().replay(&mut count_one).unwrap();
    count
}

/// Seconds of a restart with `live` agents, and when all of them are over; agents known and rows kept.
fn restarts(live: u64) -> [(f64, usize, usize); 2] {
    let dir = tempfile::tempdir().unwrap();
    let (path, now) = (dir.path().join("journal.db"), Arc::new(AtomicU64::new(START * SECOND)));
    let ledger = open(&path, &now);
    let one = |caller: Caller, proposal| commit(&ledger, vec![Ask { caller, proposal }]).pop().unwrap().unwrap();
    for kind in [Kind::X509, Kind::Jwt] {
        let slot = Slot::new(kind, hex::encode(kind.as_str()).into(), vec![4; 65], START + 90 * 86_400);
        one(Caller::Stranger, Proposal::Authorities(Change::Prepare(slot)));
        one(Caller::Stranger, Proposal::Authorities(Change::Activate { kind, id: None, early: false }));
    }
    let name: mayfly_verify::WorkloadName = "orchestrator".parse().unwrap();
    let operator = Caller::Operator { name: "uid:0".into(), by: None };
    one(operator, Proposal::Ticket { workload: name.clone(), hash: [9; 32], ttl: 60 });
    one(Caller::Stranger, Proposal::Redeem { hash: [9; 32], key: [1; 32] });
    let serial = ledger.read(|state| state.line(&[1; 32]).and_then(|(_, line)| line.current()).map(|serial| serial.to_vec()));
    let caller = Caller::Workload { name, key: [1; 32], serial: serial.unwrap(), opened: 0, authority: b"x509".to_vec() };
    let proof = Proof::Token {
        user: User { iss: "https://idp.example".into(), sub: "demo".into() },
        proof: [1; 32],
        token: [1; 32],
        issued_at: START,
        ends_at: START + 3600,
        audience: "mayfly".into(),
        acr: None,
        signed_in_at: None,
        groups: Vec::new(),
        hint: None,
    };
    let spawn = |n: u64| Ask {
        caller: caller.clone(),
        proposal: Proposal::Spawn(Box::new(Spawn {
            class: "researcher".parse().unwrap(),
            credential: asks::key(sha256(&n.to_be_bytes())),
            proof: Some(proof.clone()),
            asked: Asked::default(),
            audience: None,
            request: None,
        })),
    };
    for first in (0..live).step_by(1000) {
        let answers = commit(&ledger, (first..(first + 1000).min(live)).map(spawn).collect());
        assert!(answers.iter().all(|a| matches!(a, Ok(Outcome::Spawned(..)))));
    }
    ledger.stop();
    drop(ledger);

    let timed = || {
        let started = Instant::now();
        let ledger = open(&path, &now);
        let took = started.elapsed().as_secs_f64();
        (took, ledger.read(State::agent_count), ledger)
    };
    let (full, known, ledger) = timed();
    // A day later: each commit drops some of what is over.
    now.fetch_add(86_400 * SECOND, Ordering::SeqCst);
    for n in 0..live.div_ceil(500) + 8 {
        let user = User { iss: "https://idp.example".into(), sub: format!("nobody-{}", n % 3) };
        let proposal =
            Proposal::Revoke { target: Target::User(user), since: None, dry: false, reason: String::new(), allow_new: true };
        let ask = Ask { caller: Caller::Operator { name: "uid:0".into(), by: None }, proposal };
        commit(&ledger, vec![ask]).pop().unwrap().unwrap();
        now.fetch_add(120 * SECOND, Ordering::SeqCst);
    }
    ledger.stop();
    drop(ledger);
    let kept = rows(&path);
    let (empty, left, ledger) = timed();
    ledger.stop();
    [(full, known, usize::try_from(live).unwrap()), (empty, left, kept)]
}

#[test]
fn t80_what_is_over_is_not_replayed() {
    let [(_, known, _), (_, left, kept)] = restarts(5_000);
    assert_eq!((known, left), (5_000, 0));
    assert!(kept < 1_000, "{kept} rows are kept of 5,000 agents that are over");
}

#[test]
#[ignore = "long: a million agents; cargo test --release --test restart -- --ignored --nocapture"]
fn t80_a_million_live_agents_and_none() {
    let [(full, known, _), (empty, left, kept)] = restarts(1_000_000);
    println!("{known} live: ready after {full:.2} s; all over: {left} known, {kept} rows, ready after {empty:.3} s");
    assert_eq!((known, left), (1_000_000, 0));
    assert!(empty < full / 20.0, "time follows what lives");
}

/// A backup is the journal as of one revision, however much is recorded and dropped while it is copied.
#[test]
fn a_backup_is_of_one_moment_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (path, now) = (dir.path().join("journal.db"), Arc::new(AtomicU64::new(START * SECOND)));
    let ledger = open(&path, &now);
    let operator = Caller::Operator { name: "uid:0".into(), by: None };
    let cut = |n: u64| {
        let user = User { iss: "https://idp.example".into(), sub: format!("nobody-{}", n % 7) };
        let proposal =
            Proposal::Revoke { target: Target::User(user), since: None, dry: false, reason: String::new(), allow_new: true };
        commit(&ledger, vec![Ask { caller: operator.clone(), proposal }]).pop().unwrap().unwrap();
        // A later revocation of the same user makes the earlier one's row obsolete, after a day.
        now.fetch_add(3600 * SECOND, Ordering::SeqCst);
    };
    (0..3000).for_each(cut);
    let copy = dir.path().join("copy.db");
    let (head, bytes) = std::thread::scope(|scope| {
        let backup = scope.spawn(|| ledger.backup(&copy).unwrap());
        let mut meanwhile = 3000;
        while !backup.is_finished() {
            cut(meanwhile);
            meanwhile += 1;
        }
        backup.join().unwrap()
    });
    assert!(bytes > 0 && head <= ledger.read(|state| state.revision));
    let copied = replay(&mut Sqlite::open(&copy, None).unwrap()).unwrap();
    assert_eq!(copied.revision, head);
    // The rows of the copy are all the rows that the journal has up to that revision, and perhaps some that were dropped since.
    let rows = |path: &Path, up_to: u64| {
        let mut found = std::collections::BTreeSet::new();
        let mut each = |revision: u64, _: &[u8]| {
            found.extend((revision <= up_to).then_some(revision));
            Ok(())
        };
        Sqlite::open(path, None).unwrap().replay(&mut each).unwrap();
        found
    };
    assert!(ledger.backup(&copy).is_err(), "a file that exists is not overwritten");
    ledger.stop();
    drop(ledger);
    assert!(rows(&path, head).is_subset(&rows(&copy, u64::MAX)));
}
