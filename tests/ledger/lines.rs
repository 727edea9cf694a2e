//! Clones of workloads: each identity is a line of certificates, and a line has one holder.

use std::collections::BTreeSet;

use mayfly_verify::{Target, Workload};

use super::*;

/// The next certificate of a workload, as it shows it on a new connection.
fn renewed(house: &House, of: &Caller) -> Result<Caller, &'static str> {
    match house.ask(of.clone(), Proposal::Renew { key: house.key() }) {
        Ok(Outcome::Certified(permit)) => {
            let (name, certificate) = (permit.workload().clone(), permit.certificate());
            let (key, serial) = (certificate.key, certificate.serial.to_vec());
            Ok(Caller::Workload { name, key, serial, opened: house.revision(), authority: b"x509".to_vec() })
        }
        other => Err(code(other)),
    }
}

/// The same certificate on a connection that is opened now.
fn anew(house: &House, caller: &Caller) -> Caller {
    let mut caller = caller.clone();
    if let Caller::Workload { opened, .. } = &mut caller {
        *opened = house.revision();
    }
    caller
}

fn shows(house: &House, caller: &Caller) -> &'static str {
    code(house.ask(caller.clone(), Proposal::Present))
}

fn joins(house: &House, hash: u8, key: u8) -> Caller {
    let name = "orchestrator".parse().unwrap();
    house.ask(operator(), Proposal::Ticket { workload: name, hash: [hash; 32], ttl: 60 }).unwrap();
    house.ask(Caller::Stranger, Proposal::Redeem { hash: [hash; 32], key: [key; 32] }).unwrap();
    workload(&house.ledger, "orchestrator", key)
}

fn spawns(house: &House, caller: &Caller, n: u8) -> Result<Admission, &'static str> {
    match house.ask(caller.clone(), house.spawning(house.proof("demo", n), None)) {
        Ok(Outcome::Spawned(admission, _)) => Ok(admission),
        other => Err(code(other)),
    }
}

#[test]
fn t226_two_holders_of_one_identity_are_noticed_at_a_renewal_and_both_lose_it() {
    let house = House::new();
    let first = anew(&house, &house.caller);
    let replica = joins(&house, 30, 30);
    let (agent, other) = (spawns(&house, &first, 1).unwrap(), spawns(&house, &replica, 2).unwrap());
    // The thief renews and goes on; the rightful holder renews what it has. It is the same the other way round.
    let thiefs = renewed(&house, &first).unwrap();
    assert_eq!(shows(&house, &thiefs), "ok");
    let by_thief = spawns(&house, &thiefs, 3).unwrap();
    assert_eq!(renewed(&house, &anew(&house, &first)).unwrap_err(), "CREDENTIAL_REUSED");
    for holder in [&first, &thiefs] {
        assert_eq!(shows(&house, &anew(&house, holder)), "KEY_REVOKED");
        assert_eq!(renewed(&house, holder).unwrap_err(), "KEY_REVOKED");
        let Caller::Workload { key, .. } = holder else { panic!() };
        let subject = Target::Key(*key).unsalted();
        assert!(house.ledger.read(|state| state.all_cuts().any(|cut| cut.subject == subject)), "verifiers are told");
    }
    // Nobody can tell whose agents are whose.
    for admission in [&agent, &other, &by_thief] {
        assert_eq!(house.standing(admission), Standing::Cut);
    }
    // The workload is open: what joined by itself goes on, and this identity joins again.
    let root = Target::Workload(Workload::Own("orchestrator".parse().unwrap()));
    assert!(!house.ledger.read(|state| state.closed().any(|target| *target == root)));
    house.pass(1);
    assert!(spawns(&house, &anew(&house, &replica), 4).is_ok());
    assert!(spawns(&house, &joins(&house, 31, 31), 5).is_ok());
    house.check();
}

#[test]
fn t226_a_renewal_that_was_replaced_before_its_use_shows_a_copy_once_another_was_used() {
    let house = House::new();
    let first = anew(&house, &house.caller);
    let (mine, thiefs) = (renewed(&house, &first).unwrap(), renewed(&house, &first).unwrap());
    assert_eq!(shows(&house, &mine), "GENERATION_REPLACED", "nothing was used, so a reply may have been lost");
    assert_eq!(shows(&house, &first), "ok");
    assert_eq!(shows(&house, &thiefs), "ok");
    assert_eq!(renewed(&house, &anew(&house, &mine)).unwrap_err(), "CREDENTIAL_REUSED");
    assert_eq!(shows(&house, &anew(&house, &thiefs)), "KEY_REVOKED");
    house.check();
}

#[test]
fn t227_programs_that_know_of_no_renewal_are_no_thieves() {
    let house = House::new();
    let pooled = anew(&house, &house.caller);
    let second = renewed(&house, &pooled).unwrap();
    assert_eq!(shows(&house, &pooled), "ok", "it counts until the renewed one is used");
    assert_eq!(shows(&house, &second), "ok");
    // Connections from before go on, and renew nothing; a program that has read the folder just before has some seconds.
    assert!(spawns(&house, &pooled, 1).is_ok());
    assert_eq!(renewed(&house, &pooled).unwrap_err(), "GENERATION_PAST");
    let late = anew(&house, &pooled);
    house.pass(9);
    assert!(spawns(&house, &late, 2).is_ok());
    house.pass(2);
    // Later it is refused, whatever it asks and however often, and nobody loses anything.
    for n in 3..6 {
        assert_eq!(spawns(&house, &late, n).unwrap_err(), "GENERATION_PAST");
    }
    let agent = spawns(&house, &pooled, 6).unwrap();
    let third = renewed(&house, &anew(&house, &second)).unwrap();
    assert_eq!((shows(&house, &third), house.standing(&agent)), ("ok", Standing::Live));
    assert_eq!(shows(&house, &pooled), "ok", "what counts is when its own certificate was past");
    house.check();
}

#[test]
fn t227_a_renewal_that_is_lost_on_its_way_costs_nothing() {
    let house = House::new();
    let first = anew(&house, &house.caller);
    // Killed between the answer and the write, again and again; the issuer is started again in between.
    let lost: Vec<Caller> = (0..16).map(|_| renewed(&house, &anew(&house, &first)).unwrap()).collect();
    assert_eq!(renewed(&house, &first).unwrap_err(), "RENEWALS_UNUSED");
    let (again, _) = open(&house.disk, &house.now, vec![]);
    let ask = |caller: &Caller, proposal| code(commit(&again, vec![Ask { caller: caller.clone(), proposal }]).pop().unwrap());
    assert_eq!(ask(&lost[14], Proposal::Present), "GENERATION_REPLACED");
    assert_eq!(ask(&first, Proposal::Present), "ok", "the one that was never lost");
    assert_eq!(ask(&lost[15], Proposal::Present), "ok", "the last one arrived after all");
    assert_eq!(ask(&lost[15], Proposal::Renew { key: [90; 32] }), "ok");
    assert_eq!(ask(&first, Proposal::Present), "ok", "on its connection from before");
    assert_eq!(ask(&first, Proposal::Renew { key: [91; 32] }), "GENERATION_PAST");
}

#[test]
fn t226_an_operator_that_is_a_workload_uses_its_renewed_certificate_and_is_held_to_it() {
    let mut rules = rules(vec![], &[], 10_000);
    rules.operators.push("orchestrator".parse().unwrap());
    let house = House::by(rules);
    let first = anew(&house, &house.caller);
    let second = renewed(&house, &first).unwrap();
    let by = |caller: &Caller| Caller::Operator { name: caller.scope(), by: Some(Box::new(caller.clone())) };
    let ticket = |hash| Proposal::Ticket { workload: "other".parse().unwrap(), hash: [hash; 32], ttl: 60 };
    assert_eq!(code(house.ask(by(&second), ticket(50))), "ok");
    house.pass(11);
    assert_eq!(code(house.ask(by(&anew(&house, &first)), ticket(51))), "GENERATION_PAST");
    assert_eq!(code(house.ask(by(&second), ticket(52))), "ok");
    let used = |(_, row): &(u64, Vec<u8>)| {
        let record = mayfly::journal::decode(row).unwrap();
        matches!(record.body, Some(mayfly::journal::record::record::Body::WorkloadUsed(_))).then_some(record.operator)
    };
    let by: Vec<String> = house.disk.rows.lock().iter().filter_map(used).collect();
    assert_eq!(by, [""], "the workload used it, once, and no operator");
    house.check();
}

/// A hostile workload may be revoked as a clone as often as it can join: nothing of that is remembered for ever.
#[test]
fn t228_what_was_revoked_as_a_clone_is_forgotten_with_its_certificates() {
    let mut rules = rules(vec![], &[], 10_000);
    rules.workload_ttl = 600;
    let house = House::by(rules);
    for n in 0..20 {
        let first = joins(&house, 60 + n, 60 + n);
        let second = renewed(&house, &first).unwrap();
        assert_eq!(shows(&house, &second), "ok");
        assert_eq!(renewed(&house, &anew(&house, &first)).unwrap_err(), "CREDENTIAL_REUSED");
        let Caller::Workload { key, .. } = second else { panic!() };
        assert!(house.ledger.read(|state| state.key_revoked(&key)));
    }
    house.pass(40 * 86_400);
    for n in 0..3 {
        house.ask(operator(), Proposal::Ticket { workload: "other".parse().unwrap(), hash: [200 + n; 32], ttl: 60 }).unwrap();
    }
    assert_eq!(house.ledger.read(|state| state.standings_after(0).count()), 0);
    assert!(house.ledger.read(|state| state.line(&[60; 32]).is_none() && state.owner(&[60; 32]).is_none()));
    // The key is known to nobody, and still no ticket lets it in twice.
    assert_eq!(house.ledger.read(|state| state.all_cuts().count()), 1, "that of the trust domain's beginning");
}

/// A workload renews for years: what its line leaves behind is bounded, and a replay finds the same.
#[test]
fn t228_a_line_that_is_renewed_for_ever_takes_no_more_room() {
    let mut rules = rules(vec![], &[], 10_000);
    rules.workload_ttl = 600;
    let house = House::by(rules);
    let (mut holder, mut most, mut seen) = (anew(&house, &house.caller), 0, BTreeSet::new());
    for round in 0..300u64 {
        house.pass(300);
        let next = renewed(&house, &anew(&house, &holder)).unwrap();
        // One renewal of four is lost, and made again.
        if round % 4 == 0 {
            house.pass(1);
            holder = renewed(&house, &anew(&house, &holder)).unwrap();
        } else {
            holder = next;
        }
        assert_eq!(shows(&house, &holder), "ok");
        let Caller::Workload { serial, .. } = &holder else { panic!() };
        assert!(seen.insert(serial.clone()));
        if round > 40 {
            most = most.max(house.disk.rows.lock().len());
        }
        if round % 30 == 0 {
            let (mut now, mut then) = (house.ledger.read(Clone::clone), replay(&house.disk.rows.lock()));
            let mut left = [now.take_obsolete(), then.take_obsolete()];
            left.iter_mut().for_each(|rows| rows.sort_unstable());
            assert_eq!(left[0], left[1]);
            drop((now.take_subsumed(), then.take_subsumed()));
            assert_eq!(now, then);
        }
    }
    // An hour and ten minutes of certificates, each with its use, and what the house began with.
    assert!(most < 80, "{most} rows");
}
