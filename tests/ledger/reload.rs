//! Rules that are swapped while requests come in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use mayfly::acts::configure::{Configure, reconfigure};
use mayfly::caller::Caller;
use mayfly::denial::No;
use mayfly::journal::record::record::Body;
use mayfly::judge::{Presented, Rules};
use mayfly::policies::Policies;
use mayfly::why::replay::{Past, Replayed};

use super::asks::{Ask, Outcome, Proposal, commit};
use super::{House, caller_of, code, operator, rules};

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

/// Two sets of policies. Each forbids one of the scopes.
static SETS: LazyLock<[Arc<Policies>; 2]> = LazyLock::new(|| {
    SCOPES.map(|scope| {
        let text = format!(
            "@id(\"no\") @owner(\"o\") @reason(\"r\") forbid(principal, action == Action::\"spawn\", resource) \
             when {{ context.scopes.contains(Scope::\"{scope}\") }};"
        );
        Arc::new(Policies::of_texts(vec![("a.cedar".to_owned(), text)]).unwrap())
    })
});

/// Swaps the sets while so many spawns come in, and looks at each record. Returns how many of each scope were admitted.
fn swapped_while(spawns: u64) -> [u64; 2] {
    let (house, base) = (House::new(), rules(vec![], &[], 10_000));
    let swap = |n: u64| {
        let mut rules = base.clone();
        rules.number = n;
        rules.policies = Some(Arc::clone(&SETS[usize::try_from(n % 2).unwrap()]));
        reconfigure(&house.ledger, operator(), None, Configure { classes: [7; 32], written: [0; 32] }, rules).unwrap();
    };
    swap(0);
    let (asked, denied) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for thread in 0..3u8 {
            let (house, asked, denied) = (&house, &asked, &denied);
            threads.spawn(move || {
                while asked.fetch_add(32, Ordering::SeqCst) < spawns {
                    let ask = |n: usize| {
                        let mut proposal = house.spawning(house.proof("demo", 10 + thread), None);
                        if let Proposal::Spawn(spawn) = &mut proposal {
                            spawn.asked.scopes = vec![SCOPES[n % 2].to_owned()];
                        }
                        Ask { caller: house.caller.clone(), proposal }
                    };
                    for outcome in commit(&house.ledger, (0..32).map(ask).collect()) {
                        if outcome.is_err() {
                            assert_eq!(code(outcome), "POLICY_DENIED");
                            denied.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
        let mut n = 0;
        while asked.load(Ordering::SeqCst) < spawns {
            n += 1;
            swap(n);
            std::thread::yield_now();
        }
    });
    let (mut in_force, mut seen) = (None, [0; 2]);
    for (_, row) in house.disk.every.lock().iter() {
        match mayfly::journal::decode(row).unwrap().body.unwrap() {
            Body::Configured(c) => in_force = SETS.iter().position(|set| set.digest().as_slice() == c.policies),
            Body::Admitted(a) => {
                // The one that the set in force forbids is never among them.
                let other = 1 - in_force.unwrap();
                assert_eq!(a.scopes, [SCOPES[other]]);
                seen[other] += 1;
            }
            _ => {}
        }
    }
    assert!(denied.load(Ordering::SeqCst) > 0);
    seen
}

#[test]
fn t254_no_spawn_is_recorded_under_policies_that_are_not_in_force_any_more() {
    let seen = swapped_while(3_000);
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[test]
#[ignore = "long: a million spawns, minutes"]
fn t254_no_spawn_is_recorded_under_policies_that_are_not_in_force_any_more_long() {
    let seen = swapped_while(1_000_000);
    assert!(seen[0] > 100_000 && seen[1] > 100_000, "{seen:?}");
}

/// Policies that forbid none of what follows, and look at what differs between the moments before and after a decision.
fn permissive() -> Arc<Policies> {
    let text = r#"
@id("late") @owner("o") @reason("r")
forbid (principal, action in [Action::"mint", Action::"exchange"], resource)
when { context has first_use && !context.first_use && context.lease < 5 };
@id("many") @owner("o") @reason("r")
forbid (principal, action, resource) when { context.live.siblings > 1000000000 || context.depth > 9 };
@id("nothing") @owner("o") @reason("r")
forbid (principal, action == Action::"spawn", resource == Class::"researcher") when { context.scopes.contains(Scope::"nothing") };
"#;
    Arc::new(Policies::of_texts(vec![("a.cedar".to_owned(), text.to_owned())]).unwrap())
}

const SEARCH: &str = "https://search.example";

/// Thirty-two agents, half of them with a first token. Of each fourth, a token and an access token, and then a renewal.
fn live_a_little(house: &House, thread: u8) {
    let ask = |n: usize| {
        let mut proposal = house.spawning(house.proof("demo", 10 + thread), None);
        if let Proposal::Spawn(spawn) = &mut proposal {
            spawn.audience = n.is_multiple_of(2).then(|| SEARCH.to_owned());
        }
        Ask { caller: house.caller.clone(), proposal }
    };
    let spawned = commit(&house.ledger, (0..32).map(ask).collect());
    let agents = spawned.into_iter().step_by(4).map(|outcome| {
        let Ok(Outcome::Spawned(admission, _)) = outcome else { panic!("{outcome:?}") };
        caller_of(&admission, house.ledger.read(|state| state.revision))
    });
    let agents: Vec<Caller> = agents.collect();
    let each = |proposal: &dyn Fn(&Caller) -> Proposal| {
        let asks = agents.iter().map(|agent| Ask { caller: agent.clone(), proposal: proposal(agent) });
        let answers = commit(&house.ledger, asks.collect());
        assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    };
    for audience in [SEARCH, "https://files.example"] {
        each(&|_| Proposal::Mint { audiences: vec![audience.to_owned()], request: None, for_agent: None });
        each(&|_| Proposal::Exchange(Box::new(super::exchanged::exchange(audience, vec![], Presented::Nothing))));
    }
    each(&|agent| {
        let Caller::Agent { key, .. } = agent else { panic!("{agent:?}") };
        Proposal::Renew { key: *key }
    });
}

/// Records at least so many decisions, and decides each of them again.
fn decided_again(decisions: u64) -> Replayed {
    let house = House::by(Rules { policies: Some(permissive()), ..rules(vec![], &[], 10_000) });
    std::thread::scope(|threads| {
        for thread in 0..3u8 {
            let house = &house;
            // 32 agents, 16 first tokens, 16 tokens, 16 access tokens and 8 renewals.
            threads.spawn(move || (0..decisions.div_ceil(3 * 88)).for_each(|_| live_a_little(house, thread)));
        }
    });
    let authorities = house.ledger.read(|state| Arc::clone(&state.authorities));
    let mut past = Past::new(&house.ledger.rules(), 0, authorities);
    for (revision, row) in house.disk.every.lock().iter() {
        past.take(*revision, mayfly::journal::decode(row).unwrap()).unwrap();
    }
    past.settle().unwrap();
    past.replayed
}

fn without_a_difference(decisions: u64) {
    let replayed = decided_again(decisions);
    println!("{} decided, {} of them tokens and renewals, {} different", replayed.decided, replayed.tokens, replayed.different);
    assert!(replayed.decided >= decisions && replayed.different == 0, "{:?}", replayed.differences.first());
    assert!(replayed.tokens * 2 > replayed.decided);
}

#[test]
fn t320_what_was_decided_is_decided_again_without_a_difference() {
    without_a_difference(3_000);
}

#[test]
#[ignore = "long: a million decisions, minutes; cargo test --release --test ledger -- --ignored --nocapture t320"]
fn t320_what_was_decided_is_decided_again_without_a_difference_long() {
    without_a_difference(std::env::var("DECISIONS").map_or(1_000_000, |n| n.parse().unwrap()));
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
