//! What callers fill empties by itself: once everything has ended, a state is as small as one that has just begun.

use super::*;

/// The text of a state, without what the last records told their observers.
fn text(house: &House) -> String {
    let mut state = house.ledger.read(Clone::clone);
    drop((state.take_obsolete(), state.take_subsumed()));
    format!("{state:?}")
}

/// Everything ends, and records come on which it takes effect.
fn drain(house: &House) {
    house.pass(400 * 86_400);
    for n in 0..8 {
        house.ask(operator(), Proposal::Ticket { workload: "other".parse().unwrap(), hash: [n; 32], ttl: 60 }).unwrap();
        house.pass(7200);
    }
}

fn limits() -> Vec<Limit> {
    let limit = |name: &str, per, measure| Limit { name: name.into(), per, measure };
    vec![
        limit("rate", Per::User, Measure::Rate { period: 1000, burst: 10_000 }),
        limit("total", Per::Workload, Measure::Total { most: 10_000, window: 600 * SECOND }),
        limit("live", Per::Parent, Measure::Live(10_000)),
    ]
}

#[test]
fn t230_a_state_in_which_everything_has_ended_is_as_small_as_a_new_one() {
    let (fresh, house) = (House::with(limits()), House::with(limits()));
    let joined = |hash: u8, key: u8| {
        let name = "orchestrator".parse().unwrap();
        house.ask(operator(), Proposal::Ticket { workload: name, hash: [hash; 32], ttl: 60 }).unwrap();
        house.ask(Caller::Stranger, Proposal::Redeem { hash: [hash; 32], key: [key; 32] }).unwrap();
        workload(&house.ledger, "orchestrator", key)
    };
    for n in 0..40u8 {
        let request = RequestId { key: [n; 32], digest: [1; 32] };
        let spawning = house.spawning(house.proof(&format!("user{n}"), n), Some(request));
        let Ok(Outcome::Spawned(agent, _)) = house.ask(house.caller.clone(), spawning) else { panic!() };
        let me = caller_of(&agent, house.revision());
        let child = house.child(me.clone(), "worker").unwrap();
        let request = Some(RequestId { key: [100 + n; 32], digest: [1; 32] });
        let mint = Proposal::Mint { audiences: vec!["https://search.example".into()], request, for_agent: None };
        assert_eq!(code(house.ask(me.clone(), mint)), "ok");
        let renewed = house.renew(&me).unwrap();
        assert_eq!(house.mint(&caller_of(&renewed, house.revision())), "ok");
        let target = match n % 4 {
            0 => Target::Agent(child.id().uuid),
            1 => Target::Delegation(agent.binding().delegation.unwrap()),
            2 => Target::User(user(&format!("user{n}"))),
            _ => {
                let end = Proposal::End { agent: Some(agent.id().uuid) };
                assert_eq!(code(house.ask(operator(), end)), "ok");
                continue;
            }
        };
        // Point cuts: what an operator closes is remembered until an operator opens it.
        let revoke = Proposal::Revoke { target, since: None, dry: false, reason: "test".into(), allow_new: true };
        assert_eq!(code(house.ask(operator(), revoke)), "ok");
        let holder = joined(150 + n, 150 + n);
        assert_eq!(code(house.ask(holder, Proposal::Renew { key: house.key() })), "ok");
    }
    let full = text(&house).len();
    drain(&fresh);
    drain(&house);
    let (new, old) = (text(&fresh), text(&house));
    assert!(full > 4 * new.len(), "there was something to forget: {full} and {}", new.len());
    // Numbers have more digits by now.
    assert!(old.len() < new.len() + 200, "{} and {}: {old}", old.len(), new.len());
}
