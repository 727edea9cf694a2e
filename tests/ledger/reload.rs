//! Rules that are swapped while requests come in.

use std::sync::atomic::{AtomicBool, Ordering};

use mayfly::acts::configure::{Configure, reconfigure};
use mayfly::caller::Caller;
use mayfly::denial::No;
use mayfly::journal::record::record::Body;
use mayfly::judge::Rules;

use super::asks::{Ask, commit};
use super::{House, code, operator, rules};

const SCOPES: [&str; 2] = ["files:read", "mail:send"];

/// The rules of configuration `n`: the class has one scope, and it alternates.
fn by(n: u64) -> (Configure, Rules) {
    let mut rules = rules(vec![], &[], 10_000);
    let scope = SCOPES[usize::try_from(n % 2).unwrap()];
    rules.number = n;
    rules.classes.get_mut(&"researcher".parse().unwrap()).unwrap().scopes = [scope.to_owned()].into();
    (Configure { classes: [u8::try_from(n % 2).unwrap(); 32], written: [0; 32] }, rules)
}

/// T165: what is recorded after a configuration was decided by it, whenever the request came.
#[test]
fn t165_a_spawn_is_decided_by_the_configuration_that_is_recorded_before_it() {
    let house = House::new();
    let swap = |n| {
        let (configured, rules) = by(n);
        reconfigure(&house.ledger, operator(), None, configured, rules).unwrap();
    };
    swap(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..3u8 {
            let (house, done) = (&house, &done);
            threads.spawn(move || {
                let mut n = 0u64;
                while !done.load(Ordering::SeqCst) || n < 20 {
                    let proposal = || house.spawning(house.proof("demo", 10 + thread), None);
                    let ask = || Ask { caller: house.caller.clone(), proposal: proposal() };
                    assert!(commit(&house.ledger, vec![ask(), ask()]).iter().all(Result::is_ok));
                    n += 1;
                }
            });
        }
        for n in 1..60 {
            swap(n);
            std::thread::yield_now();
        }
        done.store(true, Ordering::SeqCst);
    });
    let (mut configured, mut seen) = (usize::MAX, [0; 2]);
    for (_, row) in house.disk.every.lock().iter() {
        match mayfly::journal::decode(row).unwrap().body.unwrap() {
            Body::Configured(c) => configured = usize::from(c.classes[0]),
            Body::Admitted(a) => {
                assert_eq!(a.scopes, [SCOPES[configured]]);
                seen[configured] += 1;
            }
            _ => {}
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

/// T165: a configuration that is not recorded is not used.
#[test]
fn t165_rules_stay_when_their_record_has_no_room_or_its_caller_may_not() {
    let house = House::new();
    let (configured, rules) = by(1);
    house.disk.full.store(true, Ordering::SeqCst);
    let full = reconfigure(&house.ledger, operator(), None, configured, rules.clone());
    assert!(matches!(full, Err(No::Denial(denial)) if denial.code == "JOURNAL_FULL"));
    assert_eq!(house.ledger.rules().number, 0);
    house.disk.full.store(false, Ordering::SeqCst);
    // Whoever is nobody by the new rules cannot bring them in.
    let mut without = rules.clone();
    without.workloads.clear();
    let desk = Caller::Operator { name: "workload/orchestrator".into(), by: Some(Box::new(house.caller.clone())) };
    without.operators.clear();
    let refused = reconfigure(&house.ledger, desk, None, configured, without);
    assert!(refused.is_err() && house.ledger.rules().number == 0);
    reconfigure(&house.ledger, operator(), None, configured, rules).unwrap();
    assert_eq!(house.ledger.rules().number, 1);
}

/// T165: a token that was verified when its audience was configured is worth nothing when that has gone.
#[test]
fn t165_a_token_is_judged_by_the_audiences_that_are_configured_now() {
    let house = House::new();
    let spawn = || house.spawning(house.proof("demo", 1), None);
    let verified = spawn();
    let (configured, mut rules) = by(1);
    rules.tokens.clear();
    reconfigure(&house.ledger, operator(), None, configured, rules).unwrap();
    assert_eq!(code(house.ask(house.caller.clone(), verified)), "USER_TOKEN_AUDIENCE");
}
