//! Small random spawns on small states, for what is decided about them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs")]
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use mayfly::acts::authorities::Change;
use mayfly::acts::spawn::{Credential, Spawn, TICKET_LIFE};
use mayfly::caller::Caller;
use mayfly::clock::SECOND;
use mayfly::config::Config;
use mayfly::journal::record::{self, Record, record::Body};
use mayfly::judge::limits::{Limit, Measure, Per};
use mayfly::judge::policy::{Asked, Class};
use mayfly::judge::{Ceiling, Chance, Judgement, Proof, Rules};
use mayfly::ledger::opened;
use mayfly::policies::Policies;
use mayfly::state::State;
use mayfly::state::authority::{Kind, Slot};
use mayfly::why::explain::change::Case;
use mayfly_verify::{AgentId, DelegationId, Mode, User, Workload};
use uuid::Uuid;

use crate::asks::{Ask, Proposal};

const START: u64 = 1_800_000_000;
const SCOPES: [&str; 3] = ["a", "b", "c"];
const AUDIENCES: [&str; 3] = ["https://x", "https://y", "https://z"];

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn some(&mut self, all: &[&str]) -> Vec<String> {
        all.iter().filter(|_| self.below(2) == 0).map(|one| (*one).to_owned()).collect()
    }
}

fn user() -> User {
    User { iss: "https://idp.example".into(), sub: "demo".into() }
}

fn workload() -> Workload {
    Workload::Own("orchestrator".parse().unwrap())
}

/// States that differ in what was revoked and how many agents live, and sets of policies.
pub struct States {
    all: Vec<State>,
    sets: Vec<Option<Arc<Policies>>>,
}

/// Scopes and conditions of policies that forbid some of the cases. The fourth cannot be evaluated.
const FORBIDDEN: [&str; 10] = [
    "forbid (principal, action == Action::\"spawn\", resource) when { context.scopes.contains(Scope::\"a\") };",
    "forbid (principal, action, resource == Class::\"worker\") when { context.lease < 100 };",
    "forbid (principal is Agent, action == Action::\"spawn\", resource);",
    "forbid (principal, action == Action::\"spawn\", resource) when { context.depth == 2 && context.lease * 9223372036854775807 > 0 };",
    "forbid (principal, action == Action::\"spawn\", resource) unless { context has user };",
    "forbid (principal, action == Action::\"mint\", resource == Audience::\"https://x\");",
    "forbid (principal, action, resource == Class::\"worker\") when { context has left && context.left < 2 };",
    "forbid (principal, action, resource) when { context.audiences.contains(Audience::\"https://y\") };",
    "forbid (principal, action == Action::\"spawn\", resource) unless { context has sign_in_age && context.sign_in_age < 300 };",
    "forbid (principal, action, resource == Class::\"worker\") when { context.live.user > 1 && context.delegated };",
];

/// A set of one to three of them; in some, all is forbidden that the last one does not permit.
fn policies(n: u64) -> Arc<Policies> {
    let mut dice = Dice(n);
    let mut text = String::new();
    for id in 0..=dice.below(3) {
        let one = FORBIDDEN[usize::try_from(dice.below(10)).unwrap()];
        text += &format!("@id(\"p{id}\") @owner(\"o\") @reason(\"r\")\n{one}\n");
    }
    let mut texts = vec![("a.cedar".to_owned(), text)];
    if n.is_multiple_of(8) {
        let permit = "permit (principal, action, resource) when { context.scopes.contains(Scope::\"b\") };";
        texts.push(("b.cedar".to_owned(), format!("@id(\"some\") @owner(\"o\") @reason(\"r\")\n{permit}\n")));
        texts.push(("set.toml".to_owned(), "default = \"deny\"\nowner = \"o\"\nreason = \"r\"\n".to_owned()));
    }
    Arc::new(Policies::of_texts(texts).unwrap())
}

impl Default for States {
    fn default() -> States {
        States::new()
    }
}

impl States {
    pub fn new() -> States {
        let all = (0..24u64).map(|n| state(n & 1 > 0, n & 2 > 0, n & 4 > 0, n / 8));
        // Half of the cases are without policies.
        let sets = (0..64u64).map(|n| (n < 32).then(|| policies(n)));
        States { all: all.collect(), sets: sets.collect() }
    }

    /// A case, and the state that it is judged on.
    pub fn case(&self, seed: u64) -> (Case, &State) {
        let mut dice = Dice(seed);
        let state = &self.all[usize::try_from(dice.below(24)).unwrap()];
        let policies = self.sets[usize::try_from(dice.below(64)).unwrap()].clone();
        let class = Class {
            name: "worker".parse().unwrap(),
            owner: "ops".into(),
            scopes: dice.some(&SCOPES[..2]).into_iter().collect(),
            audiences: dice.some(&AUDIENCES[..2]).into_iter().collect(),
            svid_ttl: 900,
            max_lease: if dice.one_in(4) { 60 } else { 7200 },
            max_depth: u32::try_from(dice.below(2)).unwrap(),
            modes: [vec![Mode::Delegated], vec![Mode::Autonomous], vec![Mode::Delegated, Mode::Autonomous]]
                [usize::try_from(dice.below(3)).unwrap()]
            .clone(),
            workloads: if dice.one_in(5) { vec![] } else { vec![workload()] },
            classes: if dice.one_in(3) { vec![] } else { vec!["researcher".parse().unwrap()] },
            subject: None,
            impersonates: Default::default(),
            approve: vec![],
            budget: Default::default(),
        };
        let mut rules = rules();
        rules.policies = policies;
        rules.classes.insert(class.name.clone(), class);
        if dice.one_in(6) {
            rules.issuers = [("https://other.example".into(), "other".into())].into();
        }
        rules.limits = vec![
            Limit { name: "live".into(), per: Per::User, measure: Measure::Live(1 + dice.below(3)) },
            Limit {
                name: "total".into(),
                per: Per::Workload,
                measure: Measure::Total { most: 1 + dice.below(4), window: 600 * SECOND },
            },
        ];
        let by_agent = dice.one_in(4);
        let act = Spawn {
            class: if dice.one_in(20) { "nobody".parse().unwrap() } else { "worker".parse().unwrap() },
            credential: Credential::Ticket { nonce: [0; 16], hash: [0; 32], life: TICKET_LIFE },
            proof: if by_agent { None } else { proof(&mut dice, &mut rules) },
            asked: Asked {
                scopes: if dice.one_in(3) { vec![] } else { dice.some(&SCOPES) },
                audiences: if dice.one_in(2) { vec![] } else { dice.some(&AUDIENCES) },
                lease: [0, 30, 3000][usize::try_from(dice.below(3)).unwrap()],
                depth: if dice.one_in(4) { Some(1) } else { None },
                clip: dice.one_in(4),
                mode: [None, None, None, Some(Mode::Autonomous), Some(Mode::Delegated)][usize::try_from(dice.below(5)).unwrap()],
            },
            audience: if dice.one_in(3) { Some(AUDIENCES[usize::try_from(dice.below(3)).unwrap()].into()) } else { None },
            request: None,
        };
        let caller = if by_agent { agent(state) } else { caller() };
        (Case::new(act, caller, &rules, state, START * SECOND), state)
    }
}

fn proof(dice: &mut Dice, rules: &mut Rules) -> Option<Proof> {
    let ceiling = Ceiling {
        workloads: if dice.one_in(4) { vec![] } else { vec![workload()] },
        scopes: if dice.one_in(2) { None } else { Some(dice.some(&SCOPES)) },
        longest: 86_400,
    };
    rules.tokens = [(user().iss, [("mayfly".to_owned(), ceiling)].into())].into();
    match dice.below(4) {
        0 => None,
        1 => Some(Proof::Delegation(DelegationId([5; 32]))),
        2 => Some(Proof::Delegation(DelegationId([u8::try_from(dice.below(2)).unwrap() + 5; 32]))),
        _ => Some(Proof::Token {
            user: user(),
            proof: [1; 32],
            token: [1; 32],
            issued_at: if dice.one_in(2) { START - 100 } else { START + 1 },
            ends_at: if dice.one_in(4) { START - 1 } else { START + 1800 },
            audience: "mayfly".into(),
            acr: None,
            signed_in_at: None,
            groups: Vec::new(),
            hint: None,
        }),
    }
}

fn caller() -> Caller {
    // The state draws no other chance.
    let serial = Chance::new([7; Chance::LEN]).serial().to_vec();
    let (name, authority) = ("orchestrator".parse().unwrap(), b"x509".to_vec());
    Caller::Workload { name, key: [1; 32], serial, opened: 0, authority }
}

/// The first agent of a state, or the workload if it has none.
fn agent(state: &State) -> Caller {
    let Some(agent) = state.agents_after(None).next() else { return caller() };
    let rules = rules();
    Caller::Agent {
        id: AgentId::parse(&agent.id(&rules.trust_domain).to_string()).unwrap(),
        key: agent.current.as_ref().unwrap().key,
        serial: agent.current.as_ref().unwrap().serial.to_vec(),
        incarnation: state.incarnation,
        opened: state.revision,
        authority: b"x509".to_vec(),
    }
}

fn state(user_closed: bool, class_closed: bool, delegation_revoked: bool, agents: u64) -> State {
    let (rules, mut state) = (rules(), State::default());
    state.apply(1, &opened(&rules.trust_domain, START * SECOND).unwrap()).unwrap();
    let take = |state: &mut State, caller: Caller, proposal: Proposal| {
        let ask = Ask { caller, proposal };
        let mut judgement = Judgement::new(state, &rules, START * SECOND);
        let verdict = judgement.verdict(&ask.proposal, &ask.caller, &Chance::new([7; Chance::LEN]));
        verdict.result.unwrap();
        for entry in judgement.finish().0 {
            let next = state.revision + 1;
            state.apply_with(next, &entry.record, entry.agent).unwrap();
        }
    };
    for kind in [Kind::X509, Kind::Jwt] {
        let slot = Slot::new(kind, hex::encode(kind.as_str()).into(), vec![4; 65], START + 90 * 86_400);
        take(&mut state, Caller::Stranger, Proposal::Authorities(Change::Prepare(slot)));
        take(&mut state, Caller::Stranger, Proposal::Authorities(Change::Activate { kind, id: None, early: false }));
    }
    let operator = || Caller::Operator { name: "uid:0".into(), by: None };
    take(&mut state, operator(), Proposal::Ticket { workload: "orchestrator".parse().unwrap(), hash: [9; 32], ttl: 60 });
    take(&mut state, Caller::Stranger, Proposal::Redeem { hash: [9; 32], key: [1; 32] });
    let mut put = |body: Body| {
        let next = state.revision + 1;
        state.apply(next, &Record { at: START * SECOND, operator: String::new(), body: Some(body) }).unwrap();
    };
    put(Body::Delegated(record::Delegated {
        id: vec![5; 32],
        iss: user().iss,
        sub: user().sub,
        workload: "orchestrator".into(),
        proof: vec![6; 32],
        scopes_limited: true,
        scopes: vec!["a".into()],
        ends_at: (START + 2000) * SECOND,
        token: vec![6; 32],
        ..Default::default()
    }));
    for n in 0..agents {
        put(Body::Admitted(admitted(n)));
    }
    let cut = |target, closes| Body::Cut(record::Cut { target: Some(target), closes, ..Default::default() });
    if user_closed {
        put(cut(record::cut::Target::User(record::User { iss: user().iss, sub: user().sub }), true));
    }
    if class_closed {
        put(cut(record::cut::Target::Class("worker".into()), true));
    }
    if delegation_revoked {
        put(cut(record::cut::Target::Delegation(vec![5; 32]), true));
    }
    state
}

fn admitted(n: u64) -> record::Admitted {
    let uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(n));
    record::Admitted {
        agent: uuid.as_bytes().to_vec(),
        class: "researcher".into(),
        workload: "orchestrator".into(),
        delegation: vec![5; 32],
        key: vec![u8::try_from(20 + n).unwrap(); 32],
        scopes: vec!["a".into(), "b".into()],
        audiences: vec!["https://x".into()],
        depth_left: u32::try_from(n % 2 + 1).unwrap(),
        lease_ends_at: START + 3600,
        svid_ends_at: START + 900,
        svid_begins_at: START,
        serial: vec![0x41; 16],
        ..Default::default()
    }
}

/// The rules of every case before anything of it differs. They are made once, because reading a configuration takes milliseconds.
fn rules() -> Rules {
    static RULES: LazyLock<Rules> = LazyLock::new(made);
    RULES.clone()
}

fn made() -> Rules {
    let config = Config::dev(Path::new("/nowhere"), "127.0.0.1:0".parse().unwrap(), None).unwrap();
    Rules {
        trust_domain: config.trust_domain.clone(),
        classes: BTreeMap::new(),
        workloads: config.workloads,
        audiences: BTreeMap::new(),
        issuers: [("https://idp.example".into(), "idp".into())].into(),
        tokens: BTreeMap::new(),
        number: 0,
        actions: config.actions,
        waiting: config.waiting,
        policies: None,
        shadow: None,
        gateways: vec![],
        client_audience: None,
        serves: BTreeMap::new(),
        operators: vec![],
        auditors: vec![],
        assignments: vec![],
        limits: vec![],
        workload_ttl: 1_000_000,
        jwt_ttl: 300,
        publish_ahead: 60,
        taken_back: 10_000,
    }
}
