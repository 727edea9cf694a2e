//! A question about all agents, beside the spawns that go on meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mayfly::clock::SECOND;
use mayfly::why::governance::is_idle;
use mayfly::why::who_can::{Question, now};

use super::asks::{Ask, Outcome, commit};
use super::{House, caller_of};

/// Agents that are added at once.
const GROUP: u64 = 1000;
/// Pairs of a time without questions and a time with them.
const ROUNDS: usize = 6;

/// The 99th percentile.
fn p99(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// How long who-can takes over so many live agents, and the time of the 99th of a hundred spawns without it and beside it.
fn asked_beside_spawns(agents: u64) -> (Duration, Duration, Duration) {
    let house = House::new();
    let proof = house.proof("demo", 10);
    let ask = || Ask { caller: house.caller.clone(), proposal: house.spawning(proof.clone(), None) };
    for _ in 0..agents / GROUP {
        assert!(commit(&house.ledger, (0..GROUP).map(|_| ask()).collect()).iter().all(Result::is_ok));
    }
    // As a disk of a server.
    house.disk.takes.store(1000, Ordering::SeqCst);
    let question = Question { scope: "search:read".to_owned(), ..Question::default() };
    let rules = house.ledger.rules();
    let (asking, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut took = Vec::new();
    let (mut alone, mut beside) = std::thread::scope(|threads| {
        let (house, asking, done) = (&house, &asking, &done);
        let spawning = threads.spawn(move || {
            let (mut alone, mut beside) = (Vec::new(), Vec::new());
            while !done.load(Ordering::SeqCst) {
                let began = Instant::now();
                assert!(commit(&house.ledger, vec![ask()]).iter().all(Result::is_ok));
                if asking.load(Ordering::SeqCst) { &mut beside } else { &mut alone }.push(began.elapsed());
                // As requests come, and not one upon the other.
                std::thread::sleep(Duration::from_micros(500));
            }
            (alone, beside)
        });
        for _ in 0..ROUNDS {
            std::thread::sleep(Duration::from_millis(500));
            asking.store(true, Ordering::SeqCst);
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(500) {
                let asked = Instant::now();
                let found = now(&house.ledger, &rules, house.seconds() * SECOND, &question, || true);
                took.push(asked.elapsed());
                // An assertion here would leave the other thread without an end.
                done.store(found.is_err(), Ordering::SeqCst);
            }
            asking.store(false, Ordering::SeqCst);
        }
        done.store(true, Ordering::SeqCst);
        spawning.join().unwrap()
    });
    let found = now(&house.ledger, &rules, house.seconds() * SECOND, &question, || true).unwrap();
    assert!(found.exact && found.agents.len() as u64 >= agents, "{} of {agents}", found.agents.len());
    (took.into_iter().max().unwrap(), p99(&mut alone), p99(&mut beside))
}

#[test]
fn t321_who_can_is_answered_beside_spawns() {
    let (took, ..) = asked_beside_spawns(3_000);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
#[ignore = "long: a million agents; cargo test --release --test ledger -- --ignored --nocapture --test-threads 1 t321"]
fn t321_who_can_over_a_million_agents_takes_seconds_and_slows_no_spawn() {
    let (took, alone, beside) = asked_beside_spawns(1_000_000);
    println!("who-can over a million: {took:?}; the 99th of 100 spawns {alone:?} alone, {beside:?} beside it");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert!(beside <= alone * 12 / 10, "{alone:?} alone, {beside:?} beside");
}

/// Reported as unused is what an agent had for an hour and did nothing with.
#[test]
fn t323_an_agent_is_idle_after_an_hour_without_a_child_or_a_token() {
    let house = House::new();
    let spawn = || match house.spawn("demo", 1).unwrap() {
        Outcome::Spawned(admission, _) => admission,
        other => panic!("{other:?}"),
    };
    let (idle, active, parent) = (spawn(), spawn(), spawn());
    house.child(caller_of(&parent, 0), "worker").unwrap();
    let used: BTreeSet<_> = [active.id().uuid].into();
    let found = |since: u64, now: u64| {
        house.ledger.read(|state| {
            let all = [&idle, &active, &parent].map(|of| state.agent(&of.id().uuid).unwrap().clone());
            all.into_iter().filter(|agent| is_idle(agent, &used, since, now)).map(|agent| agent.uuid).collect::<Vec<_>>()
        })
    };
    let began = house.ledger.read(|state| state.agent(&idle.id().uuid).unwrap().admitted_at);
    assert!(found(0, began + 3599 * SECOND).is_empty());
    assert_eq!(found(0, began + 3601 * SECOND), [idle.id().uuid]);
    // What was used before the history that was read is not known.
    assert!(found(began + SECOND, began + 7200 * SECOND).is_empty());
}
