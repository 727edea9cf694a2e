//! The journal's time under a machine's clock that leaps: at run time, at a start, and after a repair.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mayfly::clock::{Clock, SECOND};
use mayfly::judge::Admission;
use mayfly::ledger::repair::{Repaired, repair};
use mayfly::ledger::start::{self, ClockError};
use mayfly::ledger::{Bounds, Ledger, Unobserved};
use mayfly::state::authority::{Kind, Status};
use mayfly::state::{Standing, State};
use mayfly_verify::Target;

use super::asks::{Outcome, Proposal};
use super::{Disk, House, Memory, START, appoint, operator, rules, workload};

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const WEEK: Duration = Duration::from_secs(7 * DAY);

/// The excursions of which one was permanent, in seconds.
const AHEAD: [u64; 5] = [30, 16 * MINUTE, HOUR, 3 * DAY, 400 * DAY];

/// A machine: its clock, the time that really passes, and its disk.
struct Machine {
    wall: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
    right: Arc<AtomicU64>,
    disk: Arc<Disk>,
}

impl Machine {
    fn new() -> Machine {
        let at = |seconds: u64| Arc::new(AtomicU64::new(seconds * SECOND));
        Machine { wall: at(START), passed: at(1000), right: at(START), disk: Arc::default() }
    }

    fn pass(&self, seconds: u64) {
        self.wall.fetch_add(seconds * SECOND, Ordering::SeqCst);
        self.passed.fetch_add(seconds * SECOND, Ordering::SeqCst);
        self.right.fetch_add(seconds * SECOND, Ordering::SeqCst);
    }

    /// Lets the clock leap while no time passes.
    fn leap(&self, seconds: i64) {
        let micros = seconds.unsigned_abs() * SECOND;
        match seconds {
            0.. => self.wall.fetch_add(micros, Ordering::SeqCst),
            _ => self.wall.fetch_sub(micros, Ordering::SeqCst),
        };
    }

    fn now(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    /// Starts an issuer as the application does, or refuses the clock.
    fn start(&self) -> Result<(House, Clock), ClockError> {
        let mut journal = Memory(Arc::clone(&self.disk));
        let mut state = mayfly::ledger::replay(&mut journal).unwrap();
        start::check(state.at, self.now(), WEEK)?;
        let last = state.at;
        start::resume(&mut journal, &mut state, last, self.now()).unwrap();
        let clock = Clock::machine(Arc::clone(&self.wall), Arc::clone(&self.passed)).steady();
        let fatal = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&fatal);
        let fatal_call = Box::new(move |_: &str| told.store(true, Ordering::SeqCst));
        let bounds = Bounds { batch: 64 };
        let fresh = state.revision == 0;
        let rules = rules(vec![], &[], 10_000);
        let observer = Box::new(Unobserved);
        let ledger = Ledger::open(Box::new(journal), state, rules, bounds, clock.clone(), observer, fatal_call).unwrap();
        let caller = mayfly::caller::Caller::Stranger;
        let (disk, now, keys) = (Arc::clone(&self.disk), Arc::clone(&self.wall), AtomicU64::new(self.now()));
        let mut house = House { ledger, disk, now, fatal, caller, keys };
        if fresh {
            appoint(&house.ledger);
            let name: mayfly_verify::WorkloadName = "orchestrator".parse().unwrap();
            house.ask(operator(), Proposal::Ticket { workload: name, hash: [9; 32], ttl: 60 }).unwrap();
            house.ask(mayfly::caller::Caller::Stranger, Proposal::Redeem { hash: [9; 32], key: [1; 32] }).unwrap();
        }
        house.caller = workload(&house.ledger, "orchestrator", 1);
        Ok((house, clock))
    }

    fn repair(&self) -> Option<Repaired> {
        repair(&mut Memory(Arc::clone(&self.disk)), self.now()).unwrap()
    }
}

fn spawned(outcome: Result<Outcome, mayfly::denial::No>) -> Admission {
    match outcome {
        Ok(Outcome::Spawned(admission, _)) => admission,
        other => panic!("{other:?}"),
    }
}

fn cut(house: &House, admission: &Admission) {
    let target = Target::Agent(admission.id().uuid);
    let act = Proposal::Revoke { target, since: None, dry: false, reason: "test".into(), allow_new: false };
    house.ask(operator(), act).unwrap();
}

fn standing(house: &House, admission: &Admission, now: u64) -> Option<Standing> {
    house.ledger.read(|state| state.agent(&admission.id().uuid).map(|agent| state.standing(agent, now)))
}

fn is_told(state: &State, admission: &Admission) -> bool {
    let subject = Target::Agent(admission.id().uuid).unsalted();
    state.all_cuts().any(|cut| cut.subject == subject)
}

/// R1 at run time: the clock leaps, records are made, and the clock is set right again.
#[test]
fn t132_nothing_ends_and_nothing_revives_when_the_clock_leaps_for_a_moment() {
    for leap in AHEAD.map(u64::cast_signed).into_iter().chain([5, -5, -3600, -2 * 86_400]) {
        let machine = Machine::new();
        let (mut house, clock) = machine.start().unwrap();
        // The clock of the identity provider is right.
        house.now = Arc::clone(&machine.right);
        let (live, revoked) = (spawned(house.spawn("demo", 1)), spawned(house.spawn("demo", 2)));
        cut(&house, &revoked);
        machine.pass(10);
        machine.leap(leap);
        assert_eq!(clock.lead() != 0, leap.abs() > 5, "it is told: {leap}");
        let during = spawned(house.spawn("demo", 3));
        machine.pass(3);
        machine.leap(-leap);
        let now = machine.now();
        assert_eq!((clock.lead(), clock.now()), (0, now), "it heals: {leap}");
        let at = house.ledger.read(|state| state.at);
        assert!(at <= now + 5 * SECOND, "{leap}: the journal is {} ahead", at.saturating_sub(now) / SECOND);
        let after = spawned(house.spawn("demo", 4));
        for admission in [&live, &during, &after] {
            assert_eq!(standing(&house, admission, now), Some(Standing::Live), "{leap}");
            let begins_at = admission.certificate().unwrap().begins_at;
            assert!(begins_at <= now / SECOND, "{leap}: a credential is usable at once");
        }
        assert_eq!(standing(&house, &revoked, now), Some(Standing::Cut), "{leap}");
        assert!(house.ledger.read(|state| is_told(state, &revoked)), "{leap}: verifiers still hear of it");
        assert!(house.ledger.read(|state| state.owner(&[1; 32]).is_some()), "{leap}: the workload is known");
        // And the same after a restart.
        drop(house);
        machine.pass(20);
        let (house, _) = machine.start().unwrap();
        assert_eq!(standing(&house, &live, machine.now()), Some(Standing::Live), "{leap}");
        assert_eq!(standing(&house, &revoked, machine.now()), Some(Standing::Cut), "{leap}");
    }
}

/// R1 at a start: the issuer is started once under a clock that is ahead, and then under a right one.
#[test]
fn t133_t134_a_start_under_a_clock_that_was_ahead_is_repaired_and_what_was_revoked_stays_revoked() {
    for ahead in AHEAD {
        let machine = Machine::new();
        let (house, _) = machine.start().unwrap();
        let (live, revoked) = (spawned(house.spawn("demo", 1)), spawned(house.spawn("demo", 2)));
        cut(&house, &revoked);
        drop(house);
        machine.pass(20);
        machine.leap(ahead.cast_signed());
        match machine.start() {
            Err(refused) => {
                assert!(ahead > 7 * DAY, "{refused}");
                assert_eq!(refused, ClockError::Ahead((ahead + 20) * SECOND, 7 * DAY * SECOND));
                machine.leap(-ahead.cast_signed());
                let (house, _) = machine.start().unwrap();
                assert_eq!(standing(&house, &live, machine.now()), Some(Standing::Live));
                continue;
            }
            Ok((house, _)) => {
                assert!(ahead <= 7 * DAY);
                // The schedule rotates, somebody spawns, and others expire; rows would be dropped with it.
                for kind in [Kind::X509, Kind::Jwt] {
                    house.prepare(kind, "later", START + 100 * DAY).unwrap();
                    house.activate(kind, true).unwrap();
                }
                // The workload's certificate has ended by this clock: it joins again.
                let name: mayfly_verify::WorkloadName = "orchestrator".parse().unwrap();
                house.ask(operator(), Proposal::Ticket { workload: name, hash: [8; 32], ttl: 60 }).unwrap();
                house.ask(mayfly::caller::Caller::Stranger, Proposal::Redeem { hash: [8; 32], key: [3; 32] }).unwrap();
                let mut house = house;
                house.caller = match workload(&house.ledger, "orchestrator", 3) {
                    mayfly::caller::Caller::Workload { name, key, serial, opened, .. } => {
                        mayfly::caller::Caller::Workload { name, key, serial, opened, authority: b"later".to_vec() }
                    }
                    other => other,
                };
                let during: Vec<Admission> = (10..20).map(|n| spawned(house.spawn("demo", n))).collect();
                drop(house);
                machine.pass(3);
                machine.leap(-ahead.cast_signed());
                let refused = machine.start().map(drop);
                assert!(matches!(refused, Err(ClockError::Behind(_))), "{ahead}: {refused:?}");
                let done = machine.repair().unwrap();
                assert!(!done.everything && done.revoked == 11, "{ahead}: {done:?}");
                assert_eq!(machine.repair(), None, "once is enough");
                let (house, _) = machine.start().unwrap();
                let now = machine.now();
                assert_eq!(standing(&house, &live, now), Some(Standing::Live), "{ahead}");
                assert_eq!(standing(&house, &revoked, now), Some(Standing::Cut), "{ahead}");
                assert!(house.ledger.read(|state| is_told(state, &revoked)), "{ahead}: verifiers hear of it again");
                for admission in &during {
                    assert_eq!(standing(&house, admission, now), Some(Standing::Cut), "{ahead}");
                }
                assert!(house.ledger.read(|state| state.owner(&[1; 32]).is_some()), "{ahead}: the workload is known");
                assert!(house.ledger.read(|state| state.key_revoked(&[3; 32])), "{ahead}");
                house.ledger.read(|state| {
                    for (kind, id, later) in
                        [(Kind::X509, hex::encode("x509"), hex::encode("later")), (Kind::Jwt, "jwt".into(), "later".into())]
                    {
                        assert_eq!(state.authorities.active(kind).map(|slot| slot.id.to_string()), Some(id), "{ahead}");
                        let later = state.authorities.slots.iter().find(|slot| *slot.id == *later).map(|slot| slot.status);
                        assert_eq!(later, Some(Status::Tainted), "{ahead}");
                    }
                });
                house.keys.store(machine.now() + 1000, Ordering::SeqCst);
                let mut house = house;
                house.caller = workload(&house.ledger, "orchestrator", 1);
                let after = spawned(house.spawn("demo", 30));
                assert!(after.certificate().unwrap().begins_at <= now / SECOND, "{ahead}");
                // A backup's reader and the next start see the same.
                assert_eq!(
                    house.ledger.read(Clone::clone),
                    mayfly::ledger::replay(&mut Memory(Arc::clone(&machine.disk))).unwrap()
                );
                // Later revisions have later times again: a point in time finds its revision.
                machine.pass(60);
                let late = house.spawn("demo", 31);
                assert!(late.is_ok());
                let head = house.ledger.read(|state| state.revision);
                assert!(house.ledger.revision_at(machine.now() - 30 * SECOND).unwrap() <= head);
                assert!(house.ledger.revision_at(machine.now() - 30 * SECOND).unwrap() > done.head);
            }
        }
    }
}

/// Records of an earlier version do not say that a start was unsure of its clock, and rows may be missing.
#[test]
fn t134_where_revocations_may_be_forgotten_everything_is_revoked() {
    let machine = Machine::new();
    let (house, _) = machine.start().unwrap();
    let live = spawned(house.spawn("demo", 1));
    drop(house);
    machine.pass(20);
    machine.leap((3 * DAY).cast_signed());
    let (house, _) = machine.start().unwrap();
    // The row that announced it is gone, as it is when the excursion lasted too long.
    machine.disk.rows.lock().pop();
    house.prepare(Kind::X509, "later", START + 100 * DAY).unwrap();
    drop(house);
    machine.leap(-(3 * DAY).cast_signed());
    let done = machine.repair().unwrap();
    assert!(done.everything, "{done:?}");
    let (house, _) = machine.start().unwrap();
    assert_eq!(standing(&house, &live, machine.now()), Some(Standing::Cut));
    assert!(house.ledger.read(|state| state.authorities.active(Kind::X509).is_none()), "workloads join again");
}

/// While the clock of a start is not proven no row is dropped; afterwards they are.
#[test]
fn t133_rows_are_kept_for_as_long_as_the_issuer_was_away() {
    let machine = Machine::new();
    let (house, _) = machine.start().unwrap();
    for n in 1..=20 {
        spawned(house.spawn("demo", n));
    }
    drop(house);
    machine.pass(6 * HOUR);
    let (house, _) = machine.start().unwrap();
    let configure = |n: u8| house.ask(operator(), Proposal::Configure { classes: [n; 32] });
    let kept = |n: u8| {
        configure(n).unwrap();
        machine.disk.rows.lock().len()
    };
    let before = kept(1);
    assert!(before > 20);
    machine.pass(5 * HOUR);
    assert!(kept(2) > before, "nothing is dropped yet");
    machine.pass(HOUR + 1);
    kept(3);
    assert!(kept(4) < before - 20, "then all of it is");
}

/// T214: nothing is asked any more, and what has ended is forgotten all the same, with its rows.
#[test]
fn t214_what_has_ended_is_forgotten_though_nothing_is_recorded() {
    let house = House::new();
    for n in 0..20 {
        house.admitted("demo", n + 1);
    }
    let (agents, rows) = (house.ledger.read(|state| state.agent_count()), house.disk.rows.lock().len());
    house.ledger.tend();
    assert_eq!(house.disk.rows.lock().len(), rows, "nothing is due, and nothing is recorded");
    // Past every lease, and past the time for which what has ended is known.
    for _ in 0..5 {
        house.pass(86_400);
        house.ledger.tend();
    }
    assert!(agents >= 20 && house.ledger.read(|state| state.agent_count()) == 0);
    assert!(house.disk.rows.lock().len() < rows, "their rows are gone");
    let head = house.revision();
    house.ledger.tend();
    assert_eq!(house.revision(), head, "one word for all that was due");
    house.check();
}
