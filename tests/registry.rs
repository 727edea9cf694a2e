//! The registry against a journal that fails: each fault lost, and persisted anyway; and the records against themselves.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mayfly::caller::Caller;
use mayfly::clock::{Clock, SECOND};
use mayfly::config::Config;
use mayfly::denial::{Kind, No};
use mayfly::policy::Asked;
use mayfly::registry::{
    AppendError, Ask, Each, Heartbeat, Journal, Limits, Outcome, Proof, Proposal, Registry, RequestId, Rules, Spawn, State,
};
use mayfly_verify::User;
use parking_lot::Mutex;

const START: u64 = 1_800_000_000;

#[derive(Default)]
struct Disk {
    rows: Mutex<Vec<(u64, Vec<u8>)>>,
    every: Mutex<Vec<(u64, Vec<u8>)>>,
    full: AtomicBool,
    broken: AtomicBool,
    written_though_broken: AtomicBool,
}

struct Memory(Arc<Disk>);

impl Journal for Memory {
    fn replay(&mut self, each: Each<'_>) -> Result<(), String> {
        self.0.rows.lock().iter().try_for_each(|(revision, body)| each(*revision, body))
    }

    fn append(&mut self, first: u64, records: &[Vec<u8>], drop: &[u64]) -> Result<(), AppendError> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(AppendError::Full("no room".into()));
        }
        let broken = self.0.broken.load(Ordering::SeqCst);
        if !broken || self.0.written_though_broken.load(Ordering::SeqCst) {
            let rows: Vec<_> = (first..).zip(records.iter().cloned()).collect();
            self.0.every.lock().extend(rows.clone());
            let mut kept = self.0.rows.lock();
            kept.extend(rows);
            kept.retain(|(revision, _)| !drop.contains(revision));
        }
        if broken { Err(AppendError::Fatal("fsync failed".into())) } else { Ok(()) }
    }

    fn backup(&mut self, _: &Path) -> Result<u64, String> {
        Err("not here".into())
    }
}

struct Silent;

impl Heartbeat for Silent {
    fn beat(&mut self, _: uuid::Uuid, _: u64, _: u64) {}
}

struct House {
    registry: Registry,
    disk: Arc<Disk>,
    now: Arc<AtomicU64>,
    fatal: Arc<AtomicBool>,
    caller: Caller,
    keys: AtomicU64,
}

fn open(disk: &Arc<Disk>, now: &Arc<AtomicU64>) -> (Registry, Arc<AtomicBool>) {
    let config = Config::dev(Path::new("/nowhere"), "127.0.0.1:0".parse().unwrap(), None).unwrap();
    let rules = Rules {
        trust_domain: config.trust_domain.clone(),
        classes: config.classes.clone(),
        workloads: config.workloads.into_iter().chain(["other".parse().unwrap()]).collect(),
        workload_ttl: 1_000_000,
        jwt_ttl: 300,
        authority_ends_at: START + 90 * 86_400,
    };
    let fatal = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fatal);
    let (registry, _) = Registry::open(
        Box::new(Memory(Arc::clone(disk))),
        rules,
        Limits { batch: 64, queue: 64 },
        Clock::set(Arc::clone(now)),
        Box::new(Silent),
        Box::new(move |_| told.store(true, Ordering::SeqCst)),
    )
    .unwrap();
    (registry, fatal)
}

impl House {
    fn new() -> House {
        let (disk, now) = (Arc::new(Disk::default()), Arc::new(AtomicU64::new(START * SECOND)));
        let (registry, fatal) = open(&disk, &now);
        let name: mayfly_verify::WorkloadName = "orchestrator".parse().unwrap();
        let house = House {
            registry,
            disk,
            now,
            fatal,
            caller: Caller::Workload { name: name.clone(), key: [1; 32] },
            keys: AtomicU64::new(2),
        };
        house.ask(operator(), Proposal::Ticket { workload: name, hash: [9; 32], ttl: 60 }).unwrap();
        house.ask(Caller::Stranger, Proposal::Redeem { hash: [9; 32], key: [1; 32] }).unwrap();
        house
    }

    fn ask(&self, caller: Caller, proposal: Proposal) -> Result<Outcome, No> {
        self.registry.commit(vec![Ask { caller, proposal }]).pop().unwrap()
    }

    fn seconds(&self) -> u64 {
        self.now.load(Ordering::SeqCst) / SECOND
    }

    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds * SECOND, Ordering::SeqCst);
    }

    fn key(&self) -> [u8; 32] {
        let mut key = [7; 32];
        key[..8].copy_from_slice(&self.keys.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        key
    }

    fn proof(&self, sub: &str, n: u8) -> Proof {
        let name: mayfly_verify::WorkloadName = "orchestrator".parse().unwrap();
        Proof::Token {
            user: user(sub),
            proof: [n; 32],
            token: [n; 32],
            issued_at: self.seconds(),
            ends_at: self.seconds() + 3600,
            workloads: vec![name],
            scopes: None,
        }
    }

    fn spawning(&self, proof: Proof, request: Option<RequestId>) -> Proposal {
        let class = "researcher".parse().unwrap();
        Proposal::Spawn(Box::new(Spawn {
            class,
            key: self.key(),
            proof: Some(proof),
            asked: Asked::default(),
            audience: None,
            request,
        }))
    }

    fn spawn(&self, sub: &str, n: u8) -> Result<Outcome, No> {
        self.ask(self.caller.clone(), self.spawning(self.proof(sub, n), None))
    }
}

fn operator() -> Caller {
    Caller::Operator { name: "uid:0".into() }
}

fn user(sub: &str) -> User {
    User { iss: "https://idp.example".into(), sub: sub.into() }
}

fn code(result: Result<Outcome, No>) -> &'static str {
    match result {
        Err(No::Denial(denial)) => denial.code,
        Err(No::Fault(_)) => "fault",
        Ok(_) => "ok",
    }
}

fn replay(rows: &[(u64, Vec<u8>)]) -> State {
    let mut state = State::default();
    for (revision, body) in rows {
        state.apply(*revision, &mayfly::journal::decode(body).unwrap()).unwrap();
    }
    state
}

#[test]
fn t73_a_full_disk_denies_and_recovers() {
    let house = House::new();
    house.spawn("demo", 1).map(drop).unwrap();
    let before = house.registry.read(Clone::clone);
    house.disk.full.store(true, Ordering::SeqCst);
    match house.spawn("demo", 2) {
        Err(No::Denial(denial)) => assert_eq!((denial.kind, denial.code), (Kind::Exhausted, "JOURNAL_FULL")),
        other => panic!("{other:?}"),
    }
    assert_eq!(house.registry.read(Clone::clone), before, "nothing of the batch is left");
    house.disk.full.store(false, Ordering::SeqCst);
    house.spawn("demo", 2).map(drop).unwrap();
    assert!(!house.fatal.load(Ordering::SeqCst));
}

#[test]
fn t72_a_failed_sync_stops_the_writer_whether_or_not_the_records_are_there() {
    for persisted in [false, true] {
        let house = House::new();
        house.spawn("demo", 1).map(drop).unwrap();
        house.disk.written_though_broken.store(persisted, Ordering::SeqCst);
        house.disk.broken.store(true, Ordering::SeqCst);
        assert_eq!(code(house.spawn("demo", 2)), "fault");
        // The answer and the call to stop race; in a process the stop wins or the client hears a fault.
        for _ in 0..200 {
            if house.fatal.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(house.fatal.load(Ordering::SeqCst), "the process is told to stop");
        house.disk.broken.store(false, Ordering::SeqCst);
        assert_eq!(code(house.spawn("demo", 3)), "STOPPING", "no later success");
        // The next start takes what is durable, whatever that is.
        let (again, _) = open(&house.disk, &house.now);
        assert_eq!(again.read(State::agent_count), if persisted { 2 } else { 1 });
        assert_eq!(again.read(Clone::clone), replay(&house.disk.rows.lock()));
    }
}

#[test]
fn state_is_what_the_records_say_also_after_old_ones_are_dropped() {
    let house = House::new();
    for round in 0..40u8 {
        let who = if round % 3 == 0 { "guest" } else { "demo" };
        let _ = house.spawn(who, round);
        let _ = house.spawn(who, round);
        match round % 7 {
            3 => drop(
                house.ask(operator(), Proposal::RevokeUser { user: user(who), reason: String::new(), allow_new: round % 2 == 0 }),
            ),
            5 => drop(house.ask(operator(), Proposal::Reopen { user: user(who) })),
            6 => {
                let some = house.registry.read(|s| s.agents_after(None).next().map(|a| a.uuid));
                drop(house.ask(operator(), Proposal::End { agent: some }));
            }
            _ => {}
        }
        house.pass(if round % 5 == 0 { 7200 } else { 61 });
        let mut live = house.registry.read(Clone::clone);
        let mut every = replay(&house.disk.every.lock());
        // What was dropped already is told again by a replay of everything.
        drop((live.take_obsolete(), every.take_obsolete()));
        assert!(live == every, "round {round}: replay of every record");
        let kept = replay(&house.disk.rows.lock());
        for agent in live.agents_after(None) {
            assert_eq!(kept.agent(&agent.uuid), Some(agent), "round {round}: what lives survives the dropping of old records");
        }
        assert_eq!((kept.revision, kept.incarnation), (live.revision, live.incarnation));
        assert_eq!(kept.cuts().len(), live.cuts().len(), "round {round}");
        assert_eq!(kept.closed_users().collect::<Vec<_>>().len(), live.closed_users().collect::<Vec<_>>().len(), "round {round}");
    }
    assert!(house.disk.rows.lock().len() < house.disk.every.lock().len(), "retention is bounded");
}

#[test]
fn t82_what_is_granted_after_a_cut_lives_and_what_was_before_is_dead() {
    let house = House::new();
    let Ok(Outcome::Spawned(old, _)) = house.spawn("demo", 1) else { panic!() };
    house.pass(5);
    house.ask(operator(), Proposal::RevokeUser { user: user("demo"), reason: String::new(), allow_new: false }).unwrap();
    assert_eq!(code(house.spawn("demo", 2)), "USER_CLOSED");
    house.ask(operator(), Proposal::Reopen { user: user("demo") }).unwrap();
    // A token from the very second of the reopening may be from before it.
    assert_eq!(code(house.spawn("demo", 3)), "USER_TOKEN_TOO_EARLY");
    assert_eq!(code(house.spawn("demo", 1)), "DELEGATION_REVOKED");
    house.pass(1);
    let Ok(Outcome::Spawned(new, _)) = house.spawn("demo", 4) else { panic!() };
    let cuts = house.registry.read(State::cuts);
    assert!(mayfly_verify::check_cuts(old.binding(), &cuts).is_err());
    assert!(mayfly_verify::check_cuts(new.binding(), &cuts).is_ok());
}

#[test]
fn t85_in_one_batch_the_order_of_requests_decides() {
    let house = House::new();
    house.pass(1);
    let spawn = |n| Ask { caller: house.caller.clone(), proposal: house.spawning(house.proof("demo", n), None) };
    let cut = Ask {
        caller: operator(),
        proposal: Proposal::RevokeUser { user: user("demo"), reason: String::new(), allow_new: false },
    };
    let answers = house.registry.commit(vec![spawn(1), cut, spawn(1), spawn(2)]);
    let [before, receipt, after, other] = <[_; 4]>::try_from(answers).unwrap();
    let Ok(Outcome::Spawned(admission, _)) = before else { panic!() };
    let Ok(Outcome::Revoked { agents_at_most, .. }) = receipt else { panic!() };
    assert_eq!(agents_at_most, 1);
    assert_eq!((code(after), code(other)), ("USER_CLOSED", "USER_CLOSED"));
    assert!(mayfly_verify::check_cuts(admission.binding(), &house.registry.read(State::cuts)).is_err());
}

#[test]
fn a_request_id_is_one_record_and_never_another_request() {
    let house = House::new();
    let request = RequestId { key: [4; 32], digest: [5; 32] };
    let first = house.spawning(house.proof("demo", 1), Some(request));
    let ids = [first.clone(), first].map(|proposal| match house.ask(house.caller.clone(), proposal) {
        Ok(Outcome::Spawned(admission, _)) => (admission.id().to_string(), admission.agent().serial.clone()),
        other => panic!("{other:?}"),
    });
    assert_eq!(ids[0], ids[1]);
    let other = house.spawning(house.proof("demo", 1), Some(RequestId { key: [4; 32], digest: [6; 32] }));
    assert_eq!(code(house.ask(house.caller.clone(), other)), "REQUEST_ID_REUSED");
    assert_eq!(house.registry.read(State::agent_count), 1);
}

#[test]
fn a_token_and_a_key_belong_to_the_first_who_brings_them() {
    let house = House::new();
    let proposal = house.spawning(house.proof("demo", 1), None);
    house.ask(house.caller.clone(), proposal.clone()).map(drop).unwrap();
    assert_eq!(code(house.ask(house.caller.clone(), proposal)), "KEY_IN_USE");
    // Another workload is no caller here at all, with whatever key.
    let stranger = Caller::Workload { name: "orchestrator".parse().unwrap(), key: [2; 32] };
    assert_eq!(code(house.ask(stranger, house.spawning(house.proof("demo", 1), None))), "WORKLOAD_UNKNOWN");
}

#[test]
fn a_token_signed_a_second_time_is_the_same_token() {
    let house = House::new();
    let other: mayfly_verify::WorkloadName = "other".parse().unwrap();
    house.ask(operator(), Proposal::Ticket { workload: other.clone(), hash: [8; 32], ttl: 60 }).unwrap();
    house.ask(Caller::Stranger, Proposal::Redeem { hash: [8; 32], key: [3; 32] }).unwrap();
    let mut proof = house.proof("demo", 1);
    house.ask(house.caller.clone(), house.spawning(proof.clone(), None)).map(drop).unwrap();
    // An ECDSA signature (r, s) has a twin (r, -s) that anybody can make: other bytes, the same proof.
    if let Proof::Token { token, workloads, .. } = &mut proof {
        *token = [99; 32];
        workloads.push(other.clone());
    }
    let thief = Caller::Workload { name: other, key: [3; 32] };
    assert_eq!(code(house.ask(thief, house.spawning(proof, None))), "USER_TOKEN_OF_ANOTHER");
}

#[test]
fn t16_t79_no_lease_moves_later_and_no_clock_runs_back() {
    let house = House::new();
    let Ok(Outcome::Spawned(admission, _)) = house.spawn("demo", 1) else { panic!() };
    let agent = admission.agent().clone();
    assert!(agent.svid_ends_at <= agent.lease_ends_at && agent.lease_ends_at <= START + 3600, "the delegation's end bounds both");
    house.now.fetch_sub(3600 * SECOND, Ordering::SeqCst);
    let Ok(Outcome::Spawned(later, _)) = house.spawn("demo", 1) else { panic!() };
    assert!(later.agent().admitted_at >= agent.admitted_at, "record time never goes back");
    assert_eq!(later.agent().lease_ends_at, agent.lease_ends_at);
    // A millisecond after its last certificate the agent has expired.
    house.now.store(agent.svid_ends_at * SECOND, Ordering::SeqCst);
    let id = admission.id().clone();
    let caller = Caller::Agent { id, key: agent.key, incarnation: admission.binding().incarnation };
    let mint = Proposal::Mint { audience: "https://search.example".into(), request: None };
    assert_eq!(code(house.ask(caller.clone(), mint.clone())), "AGENT_EXPIRED");
    house.now.fetch_sub(SECOND, Ordering::SeqCst);
    assert_eq!(code(house.ask(caller, mint)), "ok", "record time stood still: the denial recorded nothing");
}
