//! What the rooms without cryptography cost, in instructions: under valgrind's callgrind, which counts the same on any day.
//!
//! `.ci/instructions` builds it as the baseline was built, compares with `benches/rooms.baseline` and fails on 5 % more; with
//! `MAYFLY_BLESS=1` it writes a new one, with `MAYFLY_LARGE=1` it counts a cut above a million agents. It needs `valgrind`.
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing, reason = "a measurement")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use mayfly::acts::authorities::Change;
use mayfly::acts::spawn::Spawn;
use mayfly::caller::Caller;
use mayfly::clock::SECOND;
use mayfly::config::Config;
use mayfly::history::entry::{Draft, Kind as EntryKind, Outcome, Person, Sealed};
use mayfly::history::tree::{Edge, leaf_hash};
use mayfly::journal::record::{self, Record, record::Body};
use mayfly::judge::limits::{Limit, Measure, Per};
use mayfly::judge::policy::{Asked, Grant, Standing, decide_spawn};
use mayfly::judge::{Ceiling, Chance, Entry, Judgement, Proof, RequestId, Rules};
use mayfly::ledger::opened;
use mayfly::policies::Policies;
use mayfly::state::State;
use mayfly::state::authority::{Kind, Slot};
use mayfly_verify::{Cuts, Stamp, Target, User, Workload, sha256};
use prost::Message as _;
use uuid::Uuid;

#[path = "../tests/support/asks.rs"]
mod asks;
use asks::{Ask, Proposal};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/rooms.baseline");
/// What may be more, in hundredths.
const MORE: u64 = 5;
/// What a hundred policies, five of them about the class, may add to a spawn, with a policy engine that is hardly optimized, as in tests.
const POLICIES: u64 = 116_000;
/// Unix seconds.
const START: u64 = 1_800_000_000;
/// Operations in one measurement, where one alone says little.
const TIMES: u64 = 100;

const ROOMS: [(&str, fn()); 16] = [
    ("decide", decide),
    ("admit", || admit(None)),
    ("admit by 5 of 100 policies", || admit(Some(20))),
    ("admit by 100 policies", || admit(Some(1))),
    ("mint", || mint(None, false)),
    ("mint, 100 about spawns", || mint(Some(20), false)),
    ("mint again, 100 about it", || mint(Some(1), true)),
    ("apply", apply),
    ("replay", replay),
    ("cut with 1 below", || cut(1)),
    ("cut with 1000 below", || cut(1000)),
    ("cut with 100000 below", || cut(100_000)),
    ("check", check),
    ("encode record", encode_record),
    ("encode binding", encode_binding),
    ("history entry", history_entry),
];

/// Measured by hand: under valgrind a million agents take some minutes to be there.
const LARGE: (&str, fn()) = ("cut with 1000000 below", || cut(1_000_000));

/// Rooms in which blocks of the index by key are split, and what that may cost in percent. The index is seeded by chance, so where a
/// block is full differs from run to run; one split in the middle of a count is a tenth of `apply`.
const SPLITS: [(&str, u64); 2] = [("apply", 20), ("replay", 10)];

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("--measure") {
        let name = args.next().unwrap();
        return ROOMS.iter().chain([&LARGE]).find(|(room, _)| *room == name).unwrap().1();
    }
    if std::env::var_os("MAYFLY_LARGE").is_some() {
        return println!("{} {}", instructions(LARGE.0), LARGE.0);
    }
    let fewest = |room: &str| (0..3).map(|_| instructions(room)).min().unwrap();
    let found: BTreeMap<&str, u64> = ROOMS.iter().map(|(room, _)| (*room, fewest(room))).collect();
    let added = found["admit by 5 of 100 policies"].saturating_sub(found["admit"]) / (16 * TIMES / 10);
    assert!(added <= POLICIES, "a hundred policies add {added} instructions to a spawn");
    let (one, many) = (found["cut with 1 below"], found["cut with 100000 below"]);
    assert!(many * 10 <= one * 12, "a cut costs {one} instructions with one agent below, and {many} with 100,000");
    if std::env::var_os("MAYFLY_BLESS").is_some() {
        let lines: String = found.iter().map(|(room, count)| format!("{count:>9} {room}\n")).collect();
        std::fs::write(BASELINE, lines).unwrap();
    }
    let text = std::fs::read_to_string(BASELINE).unwrap();
    let known = |line: &str| line.trim().split_once(' ').map(|(count, room)| (room.to_owned(), count.parse::<u64>().unwrap()));
    let known: BTreeMap<String, u64> = text.lines().filter_map(known).collect();
    let mut worse = Vec::new();
    println!("{:<24} {:>12} {:>12} {:>8}", "instructions", "baseline", "now", "change");
    for (room, now) in found {
        let before = *known.get(room).unwrap_or_else(|| panic!("`{room}` is not in the baseline: bless a new one"));
        let change = 100.0 * (f64::from(u32::try_from(now).unwrap()) / f64::from(u32::try_from(before).unwrap()) - 1.0);
        println!("{room:<24} {before:>12} {now:>12} {change:>+7.1}%");
        let more = MORE + SPLITS.iter().find(|(of, _)| *of == room).map_or(0, |(_, more)| *more);
        if now * 100 > before * (100 + more) {
            worse.push(room);
        }
    }
    assert!(worse.is_empty(), "over {MORE} % more instructions: {}; MAYFLY_BLESS=1 accepts that", worse.join(", "));
}

/// Instructions between entering and leaving `measured`, in a process of its own.
fn instructions(room: &str) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--toggle-collect=*rooms*measured*"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    let done = valgrind.arg(std::env::current_exe().unwrap()).args(["--measure", room]).output();
    let done = done.unwrap_or_else(|e| panic!("`valgrind`, which this needs: {e}"));
    assert!(done.status.success(), "{room}: {}", String::from_utf8_lossy(&done.stderr));
    let text = std::fs::read_to_string(out).unwrap();
    let totals = text.lines().find_map(|l| l.strip_prefix("totals:")).unwrap();
    let count = totals.trim().parse().unwrap();
    assert!(count > 0, "{room}: nothing was counted");
    count
}

#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

/// What the history does with one record, on a thread of its own: both parts, the commitment, the line, and the tree.
fn history_entry() {
    let mut draft = Draft::new(EntryKind::Admission, START * SECOND, Outcome::Recorded);
    draft.leaf.agent_id = "spiffe://prod.example.org/agent/researcher/01a21cd4-22f7-7fd5-981c-a7c79b313ebf".into();
    draft.leaf.class = "researcher".into();
    draft.leaf.root_id = "spiffe://prod.example.org/workload/orchestrator".into();
    draft.leaf.key = "ab".repeat(32);
    draft.leaf.serial = "cd".repeat(16);
    draft.leaf.decision_id = "r1204".into();
    draft.opening.caller = "workload/orchestrator".into();
    draft.opening.user = Some(Person { iss: "https://login.example.org".into(), sub: "alice".into() });
    draft.opening.delegation_id = "ef".repeat(32);
    draft.opening.scopes = vec!["search:read".into(), "mail:send".into()];
    draft.opening.audiences = vec!["https://search.example.org".into(), "https://mail.example.org".into()];
    draft.opening.peer = "192.0.2.17".into();
    draft.opening.method = "Identities/Spawn".into();
    draft.opening.request_id = "run-4711-0001".into();
    let (mut edge, mut lines) = (Edge::default(), Vec::with_capacity(1 << 20));
    let mut once = |index: u64| {
        let sealed = Sealed::seal(draft.clone(), index, 1204, [7; 32]).unwrap();
        sealed.line(&mut lines);
        edge.push(leaf_hash(sealed.leaf.as_bytes()));
    };
    once(0);
    measured(|| (1..=TIMES).for_each(&mut once));
}

fn decide() {
    let rules = rules();
    let class = &rules.classes[&"researcher".parse().unwrap()];
    let (workload, user) = (workload(), user());
    let grant = Grant { user: &user, scopes: None, ends_at: START + 3600 };
    let asked = Asked { scopes: vec!["files:read".into()], audiences: vec!["https://mail.example".into()], ..Asked::default() };
    let standing = Standing::Workload(&workload, Some(grant));
    let once = || decide_spawn(class, black_box(&standing), &asked, START).unwrap();
    once();
    measured(|| (0..TIMES).for_each(|_| drop(black_box(once()))));
}

/// As many sets of policies as there are classes: a hundred policies that allow it, each about one class and one scope. The first class is
/// the one that is spawned.
fn policies(classes: usize) -> Arc<Policies> {
    let actions = if classes == 1 { "action" } else { "action == Action::\"spawn\"" };
    let one = |n: usize| {
        let class = if n.is_multiple_of(classes) { "researcher".to_owned() } else { format!("class{}", n % classes) };
        let about = if classes == 1 { "resource".to_owned() } else { format!("resource == Class::\"{class}\"") };
        let when = format!("context.scopes.contains(Scope::\"s{n}:read\") && (context.time.hour < 5 || context.depth > 3)");
        format!("@id(\"p{n}\") @owner(\"o\") @reason(\"r\") forbid(principal, {actions}, {about}) when {{ {when} }};\n")
    };
    Arc::new(Policies::of_texts(vec![("a.cedar".to_owned(), (0..100).map(one).collect())]).unwrap())
}

/// 160 spawns. With policies, a number of classes over which a hundred of them are spread.
fn admit(classes: Option<usize>) {
    let mut world = World::new(10_000, 0);
    world.rules.policies = classes.map(policies);
    let group: Vec<Ask> = (1..=16).map(spawn).collect();
    // Not counted: where randomness comes from starts up.
    assert_eq!(world.record(&group).len(), 17);
    measured(|| (0..TIMES / 10).for_each(|_| drop(black_box(world.record(&group)))));
}

/// A token for an agent, once more each time: as a new request, or as the retry of one.
fn mint(classes: Option<usize>, retried: bool) {
    let mut world = World::new(10_000, 0);
    world.rules.policies = classes.map(policies);
    let agent = world.state.agent(&world.top).unwrap();
    let caller = Caller::Agent {
        id: agent.id(&world.rules.trust_domain),
        key: agent.current.as_ref().unwrap().key,
        serial: agent.current.as_ref().unwrap().serial.to_vec(),
        incarnation: world.state.incarnation,
        opened: world.state.revision,
        authority: b"x509".to_vec(),
    };
    let request = retried.then_some(RequestId { key: [7; 32], digest: [8; 32] });
    let proposal = Proposal::Mint { audiences: vec!["https://search.example".into()], request, for_agent: None };
    let ask = Ask { caller, proposal };
    if retried {
        world.take(&ask);
    } else {
        assert_eq!(world.record(std::slice::from_ref(&ask)).len(), 1);
    }
    measured(|| (0..TIMES).for_each(|_| drop(black_box(world.record(std::slice::from_ref(&ask))))));
}

fn apply() {
    let mut world = World::new(10_000, 0);
    let entries = world.record(&(1..=TIMES).map(spawn).collect::<Vec<_>>());
    let first = world.state.revision + 1;
    measured(|| {
        for (revision, Entry { record, agent, .. }) in (first..).zip(entries) {
            world.state.apply_with(revision, &record, agent).unwrap();
        }
    });
}

/// As at a start, where the record is all there is.
fn replay() {
    let mut world = World::new(10_000, 0);
    let entries = world.record(&(1..=TIMES).map(spawn).collect::<Vec<_>>());
    let first = world.state.revision + 1;
    measured(|| (first..).zip(&entries).for_each(|(revision, entry)| world.state.apply(revision, &entry.record).unwrap()));
}

/// Judged and applied, as one: with so many agents below whom it is about.
fn cut(below: u64) {
    let mut world = World::new(10, below);
    let revoke = |uuid| Ask {
        caller: Caller::Operator { name: "uid:0".into(), by: None },
        proposal: Proposal::Revoke {
            target: Target::Agent(uuid),
            since: None,
            dry: false,
            reason: String::new(),
            allow_new: false,
        },
    };
    let (other, top) = (world.others[0], world.top);
    world.take(&revoke(other));
    let ask = revoke(top);
    measured(|| world.take(&ask));
}

fn check() {
    let world = World::new(10, 10);
    let mut cuts = Cuts::new(world.state.incarnation);
    (0..10_000u64).for_each(|n| cuts.cut(Target::Agent(Uuid::from_u128(u128::from(n) << 64)).unsalted(), u64::MAX));
    let stamps: Vec<Stamp> = world.state.agent(&world.last).unwrap().stamps().collect();
    assert!(cuts.killing(&stamps).is_none() && stamps.len() > 6);
    let dead = || cuts.killing(black_box(&stamps)).is_some();
    measured(|| (0..TIMES).for_each(|_| assert!(!dead())));
}

fn encode_record() {
    let world = World::new(10, 0);
    let records = world.record(&[spawn(1)]);
    let once = || records.iter().map(|entry| black_box(&entry.record).encode_to_vec().len()).sum::<usize>();
    measured(|| (0..TIMES).for_each(|_| assert!(black_box(once()) > 0)));
}

fn encode_binding() {
    let world = World::new(10, 10);
    let agent = world.state.agent(&world.last).unwrap();
    let td = rules().trust_domain;
    measured(|| {
        for _ in 0..TIMES {
            let binding = agent.binding(&td, world.state.incarnation, agent.revision, &agent.mandate.scopes);
            drop(black_box((binding.to_der().unwrap(), binding.to_claim().unwrap())));
        }
    });
}

/// A state with agents of the workload, and a tree.
struct World {
    state: State,
    rules: Rules,
    others: Vec<Uuid>,
    top: Uuid,
    last: Uuid,
}

impl World {
    fn new(alone: u64, below: u64) -> World {
        let (rules, mut state) = (rules(), State::default());
        state.apply(1, &opened(&rules.trust_domain, START * SECOND).unwrap()).unwrap();
        let mut world = World { state, rules, others: Vec::new(), top: Uuid::nil(), last: Uuid::nil() };
        let stranger = |proposal| Ask { caller: Caller::Stranger, proposal };
        for kind in [Kind::X509, Kind::Jwt] {
            let slot = Slot::new(kind, hex::encode(kind.as_str()).into(), vec![4; 65], START + 90 * 86_400);
            world.take(&stranger(Proposal::Authorities(Change::Prepare(slot))));
            world.take(&stranger(Proposal::Authorities(Change::Activate { kind, id: None, early: false })));
        }
        let operator = Caller::Operator { name: "uid:0".into(), by: None };
        let ticket = Proposal::Ticket { workload: "orchestrator".parse().unwrap(), hash: [9; 32], ttl: 60 };
        world.take(&Ask { caller: operator, proposal: ticket });
        world.take(&stranger(Proposal::Redeem { hash: [9; 32], key: [1; 32] }));
        let delegation = record::Delegated {
            id: vec![5; 32],
            iss: user().iss,
            sub: user().sub,
            workload: "orchestrator".into(),
            proof: vec![6; 32],
            scopes_limited: false,
            scopes: Vec::new(),
            ends_at: (START + 7200) * SECOND,
            token: vec![6; 32],
            ..Default::default()
        };
        world.put(Body::Delegated(delegation));
        world.others = (0..alone).map(|n| world.agent(n, "researcher", None)).collect();
        world.top = world.agent(alone, "researcher", None);
        world.last = world.top;
        for n in 0..below {
            world.last = world.agent(alone + 1 + n, "worker", Some(world.top));
        }
        world
    }

    /// Judges requests, without their denials. Nothing is durable.
    fn record(&self, asks: &[Ask]) -> Vec<Entry> {
        let mut judgement = Judgement::new(&self.state, &self.rules, START * SECOND);
        for (n, ask) in (1u64..).zip(asks) {
            let mut random = [0; Chance::LEN];
            // Enough to tell their ids apart.
            random[..8].copy_from_slice(&n.to_be_bytes());
            drop(judgement.verdict(&ask.proposal, &ask.caller, &Chance::new(random)));
        }
        judgement.finish().0
    }

    /// Judges a request and applies what it records, which must be something.
    fn take(&mut self, ask: &Ask) {
        let entries = self.record(std::slice::from_ref(ask));
        assert!(!entries.is_empty(), "nothing was recorded");
        for Entry { record, agent, .. } in entries {
            self.state.apply_with(self.state.revision + 1, &record, agent).unwrap();
        }
    }

    fn put(&mut self, body: Body) {
        let record = Record { at: START * SECOND, operator: String::new(), body: Some(body) };
        self.state.apply(self.state.revision + 1, &record).unwrap();
    }

    fn agent(&mut self, n: u64, class: &str, parent: Option<Uuid>) -> Uuid {
        let digest = sha256(&(n + 1_000_000).to_be_bytes());
        let mut id = [0; 10];
        id.copy_from_slice(&digest[..10]);
        let uuid = uuid::Builder::from_unix_timestamp_millis(START * 1000, &id).into_uuid();
        self.put(Body::Admitted(record::Admitted {
            agent: uuid.as_bytes().to_vec(),
            class: class.into(),
            workload: "orchestrator".into(),
            parent: parent.map(|p| p.as_bytes().to_vec()).unwrap_or_default(),
            delegation: vec![5; 32],
            key: digest.to_vec(),
            scopes: vec!["files:read".into(), "search:read".into()],
            audiences: vec!["https://files.example".into(), "https://search.example".into()],
            depth_left: u32::from(parent.is_none()),
            lease_ends_at: START + 3600,
            svid_ends_at: START + 900,
            svid_begins_at: START,
            serial: vec![0x41; 16],
            request: None,
            clipped: Vec::new(),
            ticket: Vec::new(),
            charges: Vec::new(),
            ticket_nonce: Vec::new(),
            keyless: false,
        }));
        uuid
    }
}

fn rules() -> Rules {
    let config = Config::dev(Path::new("/nowhere"), "127.0.0.1:0".parse().unwrap(), None).unwrap();
    let ceiling = Ceiling { workloads: vec![workload()], scopes: None, longest: u64::MAX };
    let limit = |name: &str, per, measure| Limit { name: name.into(), per, measure };
    Rules {
        trust_domain: config.trust_domain.clone(),
        classes: config.classes.clone(),
        workloads: config.workloads,
        audiences: Default::default(),
        issuers: [("https://idp.example".into(), "idp".into())].into(),
        tokens: [("https://idp.example".into(), [("mayfly".into(), ceiling)].into())].into(),
        number: 0,
        client_audience: None,
        serves: BTreeMap::new(),
        actions: config.actions.clone(),
        waiting: config.waiting,
        operators: vec![],
        auditors: vec![],
        assignments: vec![],
        limits: vec![
            limit("live", Per::User, Measure::Live(1_000_000_000)),
            limit("rate", Per::Workload, Measure::Rate { period: 1, burst: 1_000_000 }),
            limit("total", Per::Class, Measure::Total { most: 1_000_000_000, window: 3600 * SECOND }),
        ],
        workload_ttl: 1_000_000,
        jwt_ttl: 300,
        publish_ahead: 60,
        taken_back: 10_000,
        policies: None,
        shadow: None,
        gateways: Vec::new(),
    }
}

fn user() -> User {
    User { iss: "https://idp.example".into(), sub: "demo".into() }
}

fn workload() -> Workload {
    Workload::Own("orchestrator".parse().unwrap())
}

/// One agent of the workload, for a user whose token is new.
fn spawn(n: u64) -> Ask {
    // That of the redemption, which was one request alone.
    let mut random = [0; Chance::LEN];
    random[..8].copy_from_slice(&1u64.to_be_bytes());
    let (name, serial) = ("orchestrator".parse().unwrap(), Chance::new(random).serial().to_vec());
    let caller = Caller::Workload { name, key: [1; 32], serial, opened: 0, authority: b"x509".to_vec() };
    let proof = Proof::Token {
        user: user(),
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
    let spawn = Spawn {
        class: "researcher".parse().unwrap(),
        credential: asks::key(sha256(&n.to_be_bytes())),
        proof: Some(proof),
        asked: Asked::default(),
        audience: None,
        request: None,
    };
    Ask { caller, proposal: Proposal::Spawn(Box::new(spawn)) }
}
