//! How long cuts are kept, how many there can be, and what a repeated one costs.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use mayfly::acts::authorities::Change;
use mayfly::caller::Caller;
use mayfly::clock::SECOND;
use mayfly::judge::Admission;
use mayfly::state::authority::Kind as AuthorityKind;
use mayfly::state::{Standing, State};
use mayfly_verify::{Subject, Target};

use super::asks::{Outcome, Proposal};
use super::{House, START, caller_of, code, operator, replay, rules, user};

fn revoke(target: Target, allow_new: bool) -> Proposal {
    Proposal::Revoke { target, since: None, dry: false, reason: "test".into(), allow_new }
}

/// What verifiers are told, with the second until which each cut is kept.
fn told(state: &State) -> Vec<(Subject, u64)> {
    state.all_cuts().filter(|cut| cut.subject != Target::TrustDomain.unsalted()).map(|c| (c.subject, c.keep_until)).collect()
}

/// A child of an agent.
fn child(house: &House, parent: &Admission) -> Admission {
    house.child(caller_of(parent, house.revision()), "worker").unwrap()
}

#[test]
fn t102_a_cut_is_kept_for_verifiers_until_the_last_credential_that_it_kills_has_ended() {
    let house = House::new();
    // Somebody else's delegation lasts ten years.
    let mut proof = house.proof("guest", 1);
    if let mayfly::judge::Proof::Token { ends_at, .. } = &mut proof {
        *ends_at = START + 10 * 365 * 86_400;
    }
    house.ask(house.caller.clone(), house.spawning(proof, None)).unwrap();
    let (alone, parent) = (house.admitted("demo", 2), house.admitted("demo", 3));
    child(&house, &parent);
    let skew = 120;
    for admission in [&alone, &parent] {
        house.ask(operator(), revoke(Target::Agent(admission.id().uuid), false)).unwrap();
    }
    house.ask(operator(), revoke(Target::User(user("guest")), true)).unwrap();
    let state = house.ledger.read(Clone::clone);
    let kept = told(&state);
    let until = |target: Target| kept.iter().find(|(subject, _)| *subject == state.subject(&target)).map(|(_, until)| *until);
    let svid = house.seconds() + 900;
    assert_eq!(until(Target::Agent(alone.id().uuid)), Some(svid + skew), "its own certificate");
    assert_eq!(until(Target::Agent(parent.id().uuid)), Some(svid + skew), "and those of agents below it");
    assert_eq!(until(Target::User(user("guest"))), Some(svid + skew), "and not for a day, or for ten years");
    // A token lives on after the certificate of its agent's class was shortened; its end is what counts.
    house.pass(1100);
    house.spawn("demo", 4).unwrap();
    assert_eq!(house.ledger.read(told), vec![], "then verifiers hold nothing");
    // For the issuer the user stays revoked as long as something of theirs might be presented.
    let proof = house.ledger.read(|state| state.standings_after(0).count());
    assert!(proof >= 1, "the user's standing is known");
}

#[test]
fn t102_what_has_nothing_living_below_it_is_no_cut() {
    let house = House::new();
    let agent = house.admitted("demo", 1);
    house.pass(1100);
    let head = house.revision();
    assert_eq!(code(house.ask(operator(), revoke(Target::Agent(agent.id().uuid), false))), "ok");
    assert_eq!(house.revision(), head, "an agent that has expired with all of its credentials");
}

#[test]
fn t103_repeated_cuts_are_one_and_a_later_one_replaces_the_row_of_the_earlier() {
    let house = House::new();
    house.spawn("demo", 1).map(drop).unwrap();
    let target = Target::User(user("demo"));
    house.ask(operator(), revoke(target.clone(), true)).unwrap();
    let head = house.revision();
    for _ in 0..100 {
        house.ask(operator(), revoke(target.clone(), true)).unwrap();
    }
    assert_eq!(house.revision(), head, "nothing was recorded since, so nothing new can be killed");
    // With something between them, each is a record; all but the last row are dropped.
    for n in 2..40 {
        house.spawn("guest", n).map(drop).unwrap();
        house.ask(operator(), revoke(target.clone(), true)).unwrap();
    }
    house.spawn("guest", 40).map(drop).unwrap();
    let cuts = |rows: &[(u64, Vec<u8>)]| {
        let records = rows.iter().map(|(_, body)| mayfly::journal::decode(body).unwrap());
        records.filter(|r| matches!(&r.body, Some(mayfly::journal::record::record::Body::Cut(_)))).count()
    };
    assert_eq!((cuts(&house.disk.every.lock()), cuts(&house.disk.rows.lock())), (39, 1));
    // One that closes is more than one that does not, and a closed target stays closed.
    house.ask(operator(), revoke(target.clone(), false)).unwrap();
    let closed = house.revision();
    house.ask(operator(), revoke(target.clone(), false)).unwrap();
    house.ask(operator(), revoke(target.clone(), true)).unwrap();
    assert_eq!(house.revision(), closed);
    assert_eq!(code(house.spawn("demo", 50)), "USER_CLOSED");
    house.ask(operator(), Proposal::Reopen { target: target.clone() }).unwrap();
    house.ask(operator(), revoke(target, true)).unwrap();
    assert_eq!(house.revision(), closed + 2, "a cut after a reopening is a cut");
    let (mut live, mut kept) = (house.ledger.read(Clone::clone), replay(&house.disk.rows.lock()));
    drop((live.take_obsolete(), kept.take_obsolete()));
    assert_eq!(kept.closed().count(), live.closed().count());
    assert_eq!(told(&kept), told(&live));
}

#[test]
fn t104_an_agent_that_loses_too_many_is_taken_with_them_and_its_neighbours_stay() {
    let house = House::bounded(vec![], 3);
    let (noisy, calm) = (house.admitted("demo", 1), house.admitted("demo", 2));
    let by = |parent: &Admission| caller_of(parent, house.revision());
    let spared = child(&house, &calm);
    let revoked: Vec<Admission> = (0..3).map(|_| child(&house, &noisy)).collect();
    for child in &revoked {
        house.ask(by(&noisy), revoke(Target::Agent(child.id().uuid), false)).unwrap();
    }
    assert_eq!(house.ledger.read(|state| told(state).len()), 3);
    let last = child(&house, &noisy);
    house.ask(by(&noisy), revoke(Target::Agent(last.id().uuid), false)).unwrap();
    // The three cuts and the fourth are one.
    let state = house.ledger.read(Clone::clone);
    let subjects: HashSet<Subject> = told(&state).into_iter().map(|(subject, _)| subject).collect();
    assert_eq!(subjects, HashSet::from([Target::Agent(noisy.id().uuid).unsalted()]));
    let standing = |admission: &Admission| {
        let agent = state.agent(&admission.id().uuid).unwrap();
        state.standing(agent, house.now.load(Ordering::SeqCst))
    };
    for dead in revoked.iter().chain([&last, &noisy]) {
        assert_eq!(standing(dead), Standing::Cut);
    }
    assert_eq!((standing(&calm), standing(&spared)), (Standing::Live, Standing::Live));
    assert_eq!(code(house.ask(by(&noisy), revoke(Target::Agent(last.id().uuid), false))), "AGENT_REVOKED");
    // The same from the records.
    let mut live = state.clone();
    let mut every = replay(&house.disk.every.lock());
    drop((live.take_obsolete(), every.take_obsolete()));
    assert!(live == every);
    assert_eq!(told(&replay(&house.disk.rows.lock())), told(&live));
    // The count goes down again as what was revoked is forgotten.
    let again = house.admitted("demo", 3);
    let child = child(&house, &again);
    house.ask(by(&again), revoke(Target::Agent(child.id().uuid), false)).unwrap();
    let taken = |house: &House| house.ledger.read(|s| s.agent(&again.id().uuid).map(|a| a.rare.taken_back.len()));
    assert_eq!(taken(&house), Some(1));
    house.now.fetch_add(8000 * SECOND, Ordering::SeqCst);
    house.spawn("guest", 9).unwrap();
    assert!(matches!(taken(&house), Some(0) | None), "{:?}", taken(&house));
}

fn end(house: &House, by: Caller, whom: &Admission) -> Option<u64> {
    match house.ask(by, Proposal::End { agent: Some(whom.id().uuid) }) {
        Ok(Outcome::Ended { accepted_until, .. }) => accepted_until,
        other => panic!("{other:?}"),
    }
}

#[test]
fn t150_verifiers_are_told_of_every_end_until_the_last_credential_has_expired() {
    let house = House::new();
    let parent = house.admitted("demo", 1);
    let [by_operator, by_workload, by_parent, by_itself] =
        [2, 3, 4, 5].map(|n| if n == 4 { child(&house, &parent) } else { house.admitted("demo", n) });
    let ends = [
        (operator(), &by_operator),
        (house.caller.clone(), &by_workload),
        (caller_of(&parent, house.revision()), &by_parent),
        (caller_of(&by_itself, house.revision()), &by_itself),
    ];
    for (by, whom) in ends {
        let (before, cuts) = (house.revision(), house.ledger.read(told).len());
        assert_eq!(end(&house, by, whom), None, "verifiers are told");
        assert_eq!((house.revision(), house.standing(whom)), (before + 1, Standing::Ended), "one record");
        assert_eq!(house.ledger.read(told).len(), cuts + 1, "and one cut");
    }
    let until = house.seconds() + 900 + 120;
    let state = house.ledger.read(Clone::clone);
    for whom in [&by_operator, &by_workload, &by_parent, &by_itself] {
        let subject = Target::Agent(whom.id().uuid).unsalted();
        assert!(told(&state).contains(&(subject, until)), "{whom:?}");
        assert!(mayfly_verify::check_cuts(whom.binding(), &state.cuts()).is_err());
    }
    house.check();
    // What can be accepted by nobody is told to nobody.
    house.pass(1100);
    house.spawn("guest", 9).unwrap();
    assert_eq!(house.ledger.read(told), vec![]);
    house.check();
}

#[test]
fn t150_an_agent_that_ends_many_below_it_fills_no_feed_and_lives_on() {
    let house = House::bounded(vec![], 3);
    let (parent, calm) = (house.admitted("demo", 1), house.admitted("demo", 2));
    let by = |of: &Admission| caller_of(of, house.revision());
    let told_of = |whom: &Admission| house.ledger.read(told).iter().any(|(s, _)| *s == Target::Agent(whom.id().uuid).unsalted());
    for _ in 0..3 {
        let ended = child(&house, &parent);
        assert_eq!(end(&house, by(&parent), &ended), None);
    }
    // The answer says what verifiers do instead. A repeated end says the same.
    let fourth = child(&house, &parent);
    let until = house.seconds() + 900;
    for _ in 0..2 {
        assert_eq!(end(&house, by(&parent), &fourth), Some(until));
    }
    assert!(!told_of(&fourth) && house.standing(&fourth) == Standing::Ended && house.standing(&parent) == Standing::Live);
    house.check();
    // Neither others nor those who pay for it themselves are bound by what one agent did.
    let (of_calm, fifth, sixth) = (child(&house, &calm), child(&house, &parent), child(&house, &parent));
    assert_eq!(end(&house, by(&calm), &of_calm), None);
    assert_eq!((end(&house, operator(), &fifth), end(&house, house.caller.clone(), &sixth)), (None, None));
    assert!(told_of(&of_calm) && told_of(&fifth) && told_of(&sixth));
    // A revocation still is one, of what had ended untold too, and takes nobody above with it.
    house.ask(by(&parent), revoke(Target::Agent(fourth.id().uuid), false)).unwrap();
    assert!(told_of(&fourth) && house.standing(&parent) == Standing::Live);
    // The count goes down when the certificates have expired; agents that live long renew.
    let counted = || house.ledger.read(|s| s.agent(&parent.id().uuid).map(|a| a.rare.ended_below));
    assert_eq!(counted(), Some(5));
    house.pass(901);
    house.spawn("guest", 3).unwrap();
    assert_eq!(counted(), Some(0));
    house.check();
}

/// T150: what verifiers hold is bounded by the rate of ends and by how long a credential lasts, and does not grow after that.
#[test]
fn t150_what_verifiers_hold_of_ends_does_not_grow_with_time() {
    let house = House::new();
    let mut most = 0;
    for minute in 0..60 {
        let agents: Vec<Admission> = (0..10).map(|_| house.admitted("demo", 1)).collect();
        for agent in &agents {
            assert_eq!(end(&house, house.caller.clone(), agent), None);
        }
        most = most.max(house.ledger.read(told).len());
        assert!(most <= 10 * 18, "minute {minute}: {most} cuts for 10 ends a minute that matter for 17 minutes");
        house.pass(60);
    }
    assert!(most >= 10 * 16, "{most}");
    house.check();
}

/// T104: two children that lose many each do not bring down the parent that they share.
#[test]
fn t104_children_do_not_bring_down_their_parent_together() {
    let mut nesting = rules(vec![], &[], 8);
    let researcher = "researcher".parse().unwrap();
    nesting.classes.get_mut(&researcher).unwrap().classes.push(researcher.clone());
    let house = House::by(nesting);
    let parent = house.admitted("demo", 1);
    let by = |of: &Admission| caller_of(of, house.revision());
    let nested = |of: &Admission| house.child(by(of), "researcher").unwrap();
    let (a, b) = (nested(&parent), nested(&parent));
    for n in 0..10 {
        let noisy = if n % 2 == 0 { &a } else { &b };
        let child = house.child(by(noisy), "worker").unwrap();
        house.ask(by(noisy), revoke(Target::Agent(child.id().uuid), false)).unwrap();
        if house.standing(&a) == Standing::Cut {
            break;
        }
    }
    assert_eq!((house.standing(&a), house.standing(&parent)), (Standing::Cut, Standing::Live));
    assert_eq!(house.standing(&b), Standing::Live);
    assert!(house.ledger.read(|state| told(state).len()) <= 8);
    house.check();
}

/// The cut of a tainted authority ends for verifiers when its certificate does.
#[test]
fn t102_the_cut_of_an_authority_ends_with_its_certificate() {
    let house = House::new();
    house.prepare(AuthorityKind::X509, "x510", START + 80 * 86_400).unwrap();
    house.activate(AuthorityKind::X509, true).unwrap();
    house.change(Change::Taint { id: hex::encode("x509") }).unwrap();
    let kept = house.ledger.read(told);
    let (_, until) = kept.first().unwrap();
    assert!((START..START + 400 * 86_400).contains(until), "{until} is in seconds");
}

#[test]
fn t107_what_ends_together_ends_in_slices() {
    let house = House::new();
    // All of them expire at one moment, and are forgotten at one moment an hour later.
    let count = 3 * mayfly::state::AT_ONCE;
    for first in (0..count).step_by(512) {
        let asks = (first..count.min(first + 512))
            .map(|_| super::asks::Ask { caller: house.caller.clone(), proposal: house.spawning(house.proof("demo", 1), None) });
        for outcome in super::asks::commit(&house.ledger, asks.collect()) {
            outcome.unwrap();
        }
    }
    let live = |state: &State| state.seats(mayfly::state::Seat(mayfly::state::Count::OfClass, state.subject(&researcher())));
    assert_eq!(house.ledger.read(|state| live(state)), i64::try_from(count).unwrap());
    house.now.fetch_add(1000 * SECOND, Ordering::SeqCst);
    let mut before = i64::MAX;
    let mut commits = 0;
    while before > 0 {
        house.ask(operator(), Proposal::Ticket { workload: "other".parse().unwrap(), hash: [commits; 32], ttl: 60 }).unwrap();
        let after = house.ledger.read(|state| live(state));
        let most = i64::try_from(mayfly::state::AT_ONCE).unwrap();
        assert!(before == i64::MAX || before - after <= most, "{before} {after}");
        (before, commits) = (after, commits + 1);
        assert!(commits < 50, "all of them end");
    }
    assert!(commits > 1, "not all at once");
    // Whatever is left is left to later records, and the end is the same.
    for n in 100..120 {
        house.now.fetch_add(3600 * SECOND, Ordering::SeqCst);
        house.ask(operator(), Proposal::Ticket { workload: "other".parse().unwrap(), hash: [n; 32], ttl: 60 }).unwrap();
    }
    assert_eq!(house.ledger.read(State::agent_count), 0);
    let (mut live, mut every) = (house.ledger.read(Clone::clone), replay(&house.disk.every.lock()));
    drop((live.take_obsolete(), every.take_obsolete()));
    assert!(live == every);
}

fn researcher() -> Target {
    Target::Class("researcher".parse().unwrap())
}

/// A journal of an earlier version has no salt: what it revoked stays revoked, and its credentials stay what they were.
#[test]
fn t229_a_journal_without_a_salt_goes_on_without_one_until_a_restore() {
    use mayfly::journal::record::record::Body;
    use prost::Message as _;

    let house = House::new();
    let old = house.admitted("demo", 1);
    let unsalted = |admission: &Admission| {
        let subjects: Vec<Subject> = admission.binding().stamps.iter().map(|stamp| stamp.subject).collect();
        [
            Target::User(user("demo")),
            Target::Issuer(user("demo").iss),
            researcher(),
            Target::Workload("orchestrator".parse().unwrap()),
        ]
        .map(|target| subjects.contains(&target.unsalted()))
    };
    assert_eq!(unsalted(&old), [false; 4]);
    // The same journal, as the version before wrote it.
    {
        let mut rows = house.disk.rows.lock();
        let mut record = mayfly::journal::decode(&rows[0].1).unwrap();
        let Some(Body::Opened(opened)) = &mut record.body else { panic!() };
        assert_eq!(std::mem::take(&mut opened.salt).len(), 32);
        rows[0].1 = record.encode_to_vec();
    }
    let (ledger, _) = super::open(&house.disk, &house.now, vec![]);
    let house = House { ledger, ..house };
    let new = house.admitted("demo", 1);
    assert_eq!(unsalted(&new), [true; 4]);
    house.ask(operator(), revoke(Target::User(user("demo")), false)).unwrap();
    let cuts = house.ledger.read(State::cuts);
    assert!(mayfly_verify::check_cuts(new.binding(), &cuts).is_err());
    assert!(cuts.before(Target::User(user("demo")).unsalted()).is_some());
}
