//! Random trees against a small model: spawns, tickets, renewals, ends, cuts of every target, authorities, limits, with crashes, commits that fail and
//! commits that fail and persist anyway, retries, thieves, and a clock that steps both ways.

use super::*;

use std::collections::BTreeMap;

use mayfly::acts::budget::{Left, Release, Reserve, Spend};
use mayfly::judge::bound::Proved;
use mayfly::judge::keyless::ForAgent;
use mayfly::state::{Agent, Unit};

/// Live agents of one user, and below one agent.
const PER_USER: u64 = 16;
const PER_PARENT: u64 = 3;

/// SplitMix64: the same seed, the same walk.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap())
    }
}

/// An agent as the model knows it: from answers alone.
#[derive(Clone, Debug)]
struct Known {
    user: String,
    parent: Option<uuid::Uuid>,
    scopes: Vec<String>,
    lease: u64,
    /// Unix seconds until which it holds its seat.
    until: u64,
    /// Ended, or cut by itself.
    over: bool,
    /// Under a cut of something that it relies on; for good.
    dead: bool,
    class: &'static str,
    delegation: Option<mayfly_verify::DelegationId>,
    /// Its certificates: in use, and renewed but unused.
    current: Option<Admission>,
    next: Option<Admission>,
    /// Certificates from before the one in use.
    past: Vec<Admission>,
    ticket: Option<[u8; 32]>,
    /// It has neither key nor ticket.
    keyless: bool,
}

impl Known {
    fn end(&mut self, now: u64) {
        self.over = true;
        // State forgets it an hour after its last token, however long its lease would have been.
        if self.keyless {
            self.until = self.until.min(now);
        }
    }
}

/// What the connection of a parent proves, until `ends_at` in Unix seconds.
fn held(certificate_ends_at: u64) -> Proved {
    Proved { held: mayfly_verify::Possession { key: None, certificate: Some([9; 32]) }, certificate_ends_at }
}

struct Simulation {
    house: House,
    chance: Chance,
    agents: BTreeMap<uuid::Uuid, Known>,
    /// As they came: ids are chance that the seed does not know.
    order: Vec<uuid::Uuid>,
    closed: BTreeMap<String, bool>,
    /// Closed targets that are no users.
    shut: Vec<Target>,
    cut_keys: std::collections::HashSet<[u8; 32]>,
    tainted: std::collections::HashSet<String>,
    /// Authorities that have signed and do no longer.
    retired: Vec<String>,
    proofs: BTreeMap<String, (u64, Proof)>,
    count: u64,
    retry: Option<(Proposal, uuid::Uuid)>,
    /// What each agent spent with everything below it.
    spent: BTreeMap<uuid::Uuid, u64>,
    /// Reservations: for whom, how much is left, and the Unix microseconds of their end.
    holds: BTreeMap<u64, (uuid::Uuid, u64, u64)>,
    /// A spend or reservation that was answered, and when; and the accounts as they were left.
    budgeted: Option<(Caller, Proposal, u64, u64)>,
    /// How often each thing came about: a walk that never meets a limit proves nothing about it.
    tally: BTreeMap<&'static str, u64>,
}

fn limits() -> Vec<Limit> {
    vec![
        Limit { name: "user".into(), per: Per::User, measure: Measure::Live(PER_USER) },
        Limit { name: "parent".into(), per: Per::Parent, measure: Measure::Live(PER_PARENT) },
    ]
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let house = House::with(limits());
        Simulation {
            house,
            chance: Chance(seed),
            agents: BTreeMap::new(),
            order: Vec::new(),
            closed: BTreeMap::new(),
            shut: Vec::new(),
            cut_keys: Default::default(),
            tainted: Default::default(),
            retired: Vec::new(),
            proofs: BTreeMap::new(),
            count: 0,
            retry: None,
            spent: BTreeMap::new(),
            holds: BTreeMap::new(),
            budgeted: None,
            tally: BTreeMap::new(),
        }
    }

    fn told(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// Record time, in unix seconds: the clock, but never below the last record.
    fn now(&self) -> u64 {
        self.house.seconds().max(self.house.ledger.read(|s| s.at) / SECOND)
    }

    fn unique(&mut self) -> [u8; 32] {
        self.count += 1;
        mayfly_verify::sha256(&self.count.to_be_bytes())
    }

    fn seated(&self, agent: &Known) -> bool {
        let parent = agent.parent.filter(|_| agent.keyless).map_or(u64::MAX, |id| self.agents[&id].until);
        !agent.over && self.now() < agent.until.min(parent)
    }

    fn of_user(&self, user: &str) -> u64 {
        self.agents.values().filter(|a| a.user == user && self.seated(a)).count() as u64
    }

    fn ancestors(&self, agent: &Known) -> Vec<uuid::Uuid> {
        let (mut above, mut next) = (Vec::new(), agent.parent);
        while let Some(id) = next {
            above.push(id);
            next = self.agents[&id].parent;
        }
        above
    }

    fn below(&self, id: uuid::Uuid) -> u64 {
        self.agents.values().filter(|a| self.seated(a) && self.ancestors(a).contains(&id)).count() as u64
    }

    fn proof(&mut self, user: &str) -> Proof {
        let now = self.now();
        if let Some((ends, proof)) = self.proofs.get(user)
            && now + 600 < *ends
            && self.chance.below(20) > 0
        {
            return proof.clone();
        }
        let (proof, ends_at) = (self.unique(), now + 3600);
        let proof = Proof::Token {
            user: super::user(user),
            proof,
            token: proof,
            issued_at: self.house.seconds(),
            ends_at,
            audience: if self.chance.below(3) == 0 { "limited" } else { "mayfly" }.to_owned(),
            acr: None,
            signed_in_at: None,
            groups: Vec::new(),
            hint: None,
        };
        self.proofs.insert(user.to_owned(), (ends_at, proof.clone()));
        proof
    }

    fn caller(&self, of: &Admission, old: bool) -> Caller {
        caller_of(of, if old { 0 } else { self.house.revision() })
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..=4 => self.spend(),
            5..=8 => self.reserve(),
            9..=24 => self.spawn(None),
            25..=49 => {
                // Those that may, mostly: the rest is told that it is over, or that nobody may stand below it.
                let bold = self.chance.below(10) == 0;
                let parent = self.pick(|a| a.current.is_some() && (bold || a.parent.is_none() && !a.over));
                if let Some(id) = parent {
                    self.spawn(Some(id));
                }
            }
            50..=57 => self.redeem(),
            58..=66 => self.renew(),
            67 => self.extend(),
            68..=75 => self.mint(),
            76..=79 => self.end(),
            80..=81 => self.cut_agent(),
            82..=83 => match self.chance.below(4) {
                0 => self.cut_user(),
                1 => self.cut_key(),
                2 => self.cut_wide(),
                _ => self.rotate(),
            },
            84..=86 => self.reopen(),
            87 => self.release(),
            88..=93 => self.house.pass(self.chance.below(300)),
            94 => drop(self.house.now.fetch_sub(self.chance.below(200) * SECOND, Ordering::SeqCst)),
            95..=96 => self.full(),
            97 => self.crash(false),
            98 => self.crash(true),
            _ => self.again(),
        }
    }

    fn spawn(&mut self, parent: Option<uuid::Uuid>) {
        let user = match parent {
            Some(id) => self.agents[&id].user.clone(),
            None => ["ann", "ben", "cyd"][usize::try_from(self.chance.below(3)).unwrap()].to_owned(),
        };
        let (caller, proof) = match parent {
            Some(id) => (self.caller(self.agents[&id].current.as_ref().unwrap(), true), None),
            None => (self.house.caller.clone(), Some(self.proof(&user))),
        };
        let ticket = (self.chance.below(4) == 0).then(|| self.unique());
        let keyless = ticket.is_none() && self.chance.below(3) == 0;
        let key = self.unique();
        let credential = match ticket {
            Some(hash) => Credential::Ticket { nonce: [0; 16], hash, life: 60 },
            None if keyless => Credential::Keyless(held(u64::MAX)),
            None => asks::key(key),
        };
        let spawn = Spawn {
            class: if parent.is_some() { "worker" } else { "researcher" }.parse().unwrap(),
            credential,
            proof,
            asked: Asked { lease: self.chance.below(4) * 500, clip: true, ..Asked::default() },
            audience: None,
            request: (self.chance.below(3) == 0).then(|| RequestId { key: self.unique(), digest: [1; 32] }),
        };
        let full_user = self.of_user(&user) >= PER_USER;
        let full_parent = parent.is_some_and(|id| {
            self.below(id) >= PER_PARENT || self.ancestors(&self.agents[&id]).iter().any(|above| self.below(*above) >= PER_PARENT)
        });
        let proposal = Proposal::Spawn(Box::new(spawn.clone()));
        match self.house.ask(caller, proposal.clone()) {
            Ok(Outcome::Spawned(admission, _)) => {
                assert!(!full_user && !full_parent, "a limit was exceeded");
                assert!(!keyless || parent.is_some(), "a workload is no process that its agents are parts of");
                if keyless {
                    self.told("keyless");
                }
                let class = Target::Class(spawn.class.clone());
                let root = Target::Workload("orchestrator".parse().unwrap());
                assert!(!self.shut.contains(&class) && (parent.is_some() || !self.shut.contains(&root)), "it is closed");
                assert!(parent.is_none_or(|id| self.stands(id)), "its parent is dead");
                self.told(if parent.is_some() { "child" } else { "spawn" });
                if spawn.request.is_some() && parent.is_none() {
                    self.retry = Some((proposal, admission.id().uuid));
                }
                self.adopt(admission.agent(), &user, ticket, Some(admission.clone()));
            }
            other => {
                let code = code(other);
                assert_ne!(code, "fault");
                if code == "LIMIT_REACHED" {
                    assert!(full_user || full_parent, "refused below its limit");
                    self.told(if full_parent { "parent full" } else { "user full" });
                }
            }
        }
    }

    fn adopt(&mut self, agent: &Agent, user: &str, ticket: Option<[u8; 32]>, admission: Option<Admission>) {
        let known = Known {
            user: user.to_owned(),
            parent: agent.parent(),
            scopes: agent.mandate.scopes.clone(),
            lease: agent.lease_ends_at,
            until: if agent.is_keyless() { u64::MAX } else { agent.svid_ends_at }.min(agent.lease_ends_at),
            over: false,
            dead: false,
            class: if agent.parent().is_some() { "worker" } else { "researcher" },
            delegation: agent.delegation.as_ref().map(|d| d.id),
            current: admission.filter(|a| a.certificate().is_some()),
            next: None,
            past: Vec::new(),
            ticket,
            keyless: agent.is_keyless(),
        };
        if let Some(parent) = known.parent.map(|id| &self.agents[&id]) {
            assert!(known.lease <= parent.lease, "leases nest");
            assert!(known.scopes.iter().all(|s| parent.scopes.contains(s)), "authority only shrinks");
            assert_eq!(known.user, parent.user);
        }
        assert!(self.agents.insert(agent.uuid, known).is_none(), "an id twice");
        self.order.push(agent.uuid);
    }

    fn pick(&mut self, wanted: impl Fn(&Known) -> bool) -> Option<uuid::Uuid> {
        let some: Vec<_> = self.order.iter().rev().filter(|id| wanted(&self.agents[*id])).copied().take(12).collect();
        self.chance.pick(&some).copied()
    }

    fn redeem(&mut self) {
        let Some(id) = self.pick(|a| a.ticket.is_some() && a.current.is_none()) else { return };
        let hash = self.agents[&id].ticket.unwrap();
        let key = self.unique();
        let proposal = Proposal::Redeem { hash, key };
        if let Ok(Outcome::Renewed(admission)) = self.house.ask(Caller::Stranger, proposal.clone()) {
            assert!(self.seated(&self.agents[&id]), "a ticket outlived its minute");
            assert!(self.stands(id), "a ticket outlived a cut");
            self.told("redeemed");
            // T04: the same key is the same certificate, another key is nobody.
            match self.house.ask(Caller::Stranger, proposal) {
                Ok(Outcome::Renewed(again)) => assert_eq!(again.certificate(), admission.certificate()),
                other => panic!("{other:?}"),
            }
            assert_eq!(code(self.house.ask(Caller::Stranger, Proposal::Redeem { hash, key: [0; 32] })), "TICKET_REFUSED");
            let known = self.agents.get_mut(&id).unwrap();
            known.until = admission.agent().svid_ends_at.min(known.lease);
            known.current = Some(admission);
        }
    }

    fn renew(&mut self) {
        let Some(id) = self.pick(|a| a.current.is_some()) else { return };
        let caller = self.caller(self.agents[&id].current.as_ref().unwrap(), true);
        let key = self.unique();
        if let Ok(Outcome::Renewed(admission)) = self.house.ask(caller, Proposal::Renew { key }) {
            assert_eq!(admission.agent().lease_ends_at, self.agents[&id].lease, "a lease never moves");
            assert!(self.stands(id), "a dead agent renewed");
            let known = self.agents.get_mut(&id).unwrap();
            assert!(admission.agent().mandate.scopes.iter().all(|s| known.scopes.contains(s)));
            known.until = admission.agent().svid_ends_at.min(known.lease);
            known.next = Some(admission);
            self.told("renewed");
        }
    }

    fn extend(&mut self) {
        let Some(id) = self.pick(|a| a.current.is_some()) else { return };
        let known = self.agents[&id].clone();
        let proof = self.proof(&known.user);
        let caller = self.caller(known.current.as_ref().unwrap(), true);
        if let Ok(Outcome::Extended { lease_ends_at, .. }) = self.house.ask(caller, Proposal::Extend { proof, lease: 0 }) {
            assert!(self.stands(id), "a dead agent was extended");
            assert!(self.seated(&known), "one that was over was extended");
            assert!(lease_ends_at >= known.lease, "a lease moves later or not at all");
            assert!(known.parent.is_none_or(|above| lease_ends_at <= self.agents[&above].lease), "leases nest");
            assert_ne!(self.closed.get(&known.user), Some(&true), "its user was cut");
            self.agents.get_mut(&id).unwrap().lease = lease_ends_at;
            self.told("extended");
        }
    }

    /// For an agent without a key: its parent gets a token, and another agent does not.
    fn mint_for(&mut self) {
        let Some(id) = self.pick(|a| a.keyless) else { return };
        let parent = self.agents[&id].parent.unwrap();
        let Some(asks) = self.pick(|a| a.current.is_some() && (a.parent.is_none() || a.over)) else { return };
        let asks = if self.chance.below(4) == 0 { asks } else { parent };
        let Some(by) = self.agents[&asks].current.clone() else { return };
        let ends_at = self.now() + self.chance.below(400);
        let for_agent = Some(ForAgent { agent: id, proved: held(ends_at) });
        let mint = Proposal::Mint { audiences: vec!["https://search.example".into()], request: None, for_agent };
        let before = self.seated(&self.agents[&id]);
        match self.house.ask(self.caller(&by, true), mint) {
            Ok(Outcome::Minted(mint)) => {
                assert_eq!(asks, parent, "nobody but its parent");
                assert!(before && self.stands(id) && self.alive(id) && self.alive(parent), "a dead agent got a token");
                let (token, known) = (mint.token(), &self.agents[&id]);
                assert!(token.ends_at <= ends_at && token.ends_at <= known.lease, "it outlives what it is bound to");
                assert_eq!((token.certificate, mint.id().uuid), (Some([9; 32]), id));
                assert!(mint.binding().scopes.iter().all(|scope| known.scopes.contains(scope)));
                self.told("minted for");
            }
            other => assert!(!["ok", "fault"].contains(&code(other))),
        }
    }

    fn mint(&mut self) {
        if self.chance.below(3) == 0 {
            return self.mint_for();
        }
        let any = self.chance.below(3) == 0;
        let Some(id) = self.pick(|a| a.current.is_some() && (any || a.next.is_some() || !a.past.is_empty())) else { return };
        let known = self.agents[&id].clone();
        let way = self.chance.below(10);
        match (way, known.next, known.past.last()) {
            // The first use of a renewed certificate.
            (0..=4, Some(next), _) => {
                if self.house.mint(&self.caller(&next, false)) == "ok" {
                    self.holds(&next);
                    let known = self.agents.get_mut(&id).unwrap();
                    known.past.extend(known.current.replace(next));
                    known.next = None;
                    self.told("used");
                }
            }
            // A thief, on a connection of his own.
            (5, _, Some(past)) => {
                let answer = self.house.mint(&self.caller(past, false));
                assert_ne!(answer, "ok", "T15");
                if answer == "CREDENTIAL_REUSED" {
                    self.agents.get_mut(&id).unwrap().over = true;
                    self.told("thief");
                }
            }
            _ => {
                let answer = self.house.mint(&self.caller(known.current.as_ref().unwrap(), true));
                self.told(if answer == "AGENT_ORPHANED" { "orphaned" } else { "asked" });
                if answer == "ok" {
                    self.told("minted");
                    self.holds(known.current.as_ref().unwrap());
                    assert!(self.stands(id), "a dead agent minted");
                    let now = self.now();
                    let alive = |a: &Known| !a.over && now < a.until;
                    assert!(alive(&self.agents[&id]), "it was over");
                    let above = self.ancestors(&self.agents[&id]);
                    assert!(above.iter().all(|id| alive(&self.agents[id])), "something above it was over");
                    assert_ne!(self.closed.get(&known.user), Some(&true), "its user was cut");
                }
            }
        }
    }

    /// Record time, in Unix microseconds.
    fn micros(&self) -> u64 {
        self.house.now.load(Ordering::SeqCst).max(self.house.ledger.read(|s| s.at))
    }

    fn alive(&self, id: uuid::Uuid) -> bool {
        let at = self.micros();
        self.house.ledger.read(|s| s.agent(&id).is_some_and(|agent| s.standing(agent, at) == Standing::Live))
    }

    /// What an agent and those above it may still spend, by what was answered alone.
    fn left(&self, id: uuid::Uuid) -> u64 {
        let at = self.micros();
        let above = |id: &uuid::Uuid| std::iter::once(*id).chain(self.ancestors(&self.agents[id])).collect::<Vec<_>>();
        let lefts = above(&id).into_iter().map(|account| {
            let limit = if self.agents[&account].parent.is_some() { 1_000_000 } else { 10_000_000 };
            let held =
                self.holds.values().filter(|(of, left, ends_at)| *left > 0 && at < *ends_at && above(of).contains(&account));
            let held = held.filter(|(of, ..)| self.alive(*of)).map(|(_, left, _)| left).sum::<u64>();
            limit - self.spent.get(&account).unwrap_or(&0) - held
        });
        lefts.min().unwrap()
    }

    fn take(&mut self, id: uuid::Uuid, amount: u64) {
        for account in std::iter::once(id).chain(self.ancestors(&self.agents[&id])) {
            *self.spent.entry(account).or_default() += amount;
        }
    }

    /// Whoever may spend for an agent.
    fn spends_for(&mut self, id: uuid::Uuid) -> Caller {
        match &self.agents[&id].current {
            Some(own) if self.chance.below(2) == 0 => self.caller(own, true),
            _ => self.house.caller.clone(),
        }
    }

    fn spend(&mut self) {
        if self.chance.below(6) == 0 {
            return self.spend_again();
        }
        let hold = self.holds.iter().rev().take(8).map(|(id, hold)| (*id, *hold)).collect::<Vec<_>>();
        let hold = (self.chance.below(2) == 0).then(|| self.chance.pick(&hold).copied()).flatten();
        let Some(id) = hold.map(|(_, (id, ..))| id).or_else(|| self.pick(|a| !a.over)) else { return };
        if !self.agents.contains_key(&id) {
            return;
        }
        let caller = self.spends_for(id);
        let amount = 1 + self.chance.below(if hold.is_some() { 300_000 } else { 400_000 });
        let amount = hold.filter(|_| self.chance.below(3) == 0).map_or(amount, |(_, (_, left, _))| left.max(1));
        let (alive, left, at) = (self.alive(id), if self.alive(id) { self.left(id) } else { 0 }, self.micros());
        let request = (self.chance.below(3) == 0).then(|| RequestId { key: self.unique(), digest: [2; 32] });
        let reservation = hold.map(|(id, _)| id);
        let spend = Spend { agent: Some(id), unit: Unit::Tokens, amount, reservation, request };
        match (self.house.ask(caller.clone(), Proposal::Spend(spend.clone())), hold) {
            (Ok(Outcome::Budgeted(told)), hold) => {
                assert!(alive, "a dead agent spent");
                match hold {
                    Some((reservation, (_, held, ends_at))) => {
                        assert!(amount <= held && at < ends_at, "more than was held");
                        assert_eq!(told.reservation_left, held - amount);
                        self.holds.get_mut(&reservation).unwrap().1 = held - amount;
                        self.told("spent from a reservation");
                    }
                    None => {
                        assert!(amount <= left, "overspent");
                        self.told("spent");
                    }
                }
                self.take(id, amount);
                assert_eq!(told.left, Some(self.left(id)));
                if spend.request.is_some() {
                    self.budgeted = Some((caller, Proposal::Spend(spend), told.revision, at));
                }
            }
            (other, hold) => match code(other) {
                "BUDGET_EXHAUSTED" => {
                    assert!(amount > hold.map_or(left, |(_, (_, held, _))| held), "refused below its budget");
                    self.told("exhausted");
                }
                "RESERVATION_UNKNOWN" => assert!(hold.is_some_and(|(_, (_, held, ends_at))| held == 0 || at >= ends_at)),
                code => assert!(code != "fault" && code != "ok", "{code}"),
            },
        }
    }

    /// The same words again spend nothing, and reserve nothing.
    fn spend_again(&mut self) {
        let Some((caller, proposal, revision, at)) = self.budgeted.clone() else { return };
        let (Proposal::Spend(Spend { agent: Some(id), .. }) | Proposal::Reserve(Reserve { agent: Some(id), .. })) = &proposal
        else {
            return;
        };
        if self.micros() > at + 60 * SECOND || !self.alive(*id) || !self.agents.contains_key(id) {
            return;
        }
        let (left, now) = (self.left(*id), self.micros());
        match self.house.ask(caller, proposal.clone()) {
            // A reservation that has ended is forgotten with its request: then the same words are a new request.
            Ok(Outcome::Budgeted(told)) if told.revision != revision && matches!(proposal, Proposal::Reserve(_)) => {
                let old = self.holds.get(&revision);
                assert!(old.is_none_or(|(_, left, ends_at)| *left == 0 || *ends_at <= now), "it was reserved already");
                self.reserved(&proposal, &told, now);
            }
            Ok(Outcome::Budgeted(told)) => {
                assert_eq!(told.left, Some(left), "nothing more is taken");
                self.told(if matches!(proposal, Proposal::Reserve(_)) { "reserved again" } else { "spent again" });
            }
            // A reservation that was released or spent whole.
            other => assert!(!["fault", "ok", "BUDGET_EXHAUSTED"].contains(&code(other))),
        }
    }

    fn reserve(&mut self) {
        let Some(id) = self.pick(|a| !a.over) else { return };
        let caller = self.spends_for(id);
        let (amount, life) = (1 + self.chance.below(300_000), self.chance.below(1200));
        let (alive, left, at) = (self.alive(id), if self.alive(id) { self.left(id) } else { 0 }, self.micros());
        let request = (self.chance.below(3) == 0).then(|| RequestId { key: self.unique(), digest: [3; 32] });
        let with_id = request.is_some();
        let reserve = Reserve { agent: Some(id), unit: Unit::Tokens, amount, life, request };
        match self.house.ask(caller.clone(), Proposal::Reserve(reserve.clone())) {
            Ok(Outcome::Budgeted(told)) => {
                assert!(alive && amount <= left, "held more than there was");
                let proposal = Proposal::Reserve(reserve);
                self.reserved(&proposal, &told, at);
                if with_id {
                    self.budgeted = Some((caller, proposal, told.revision, at));
                }
            }
            other => {
                let code = code(other);
                assert!(code != "fault" && code != "ok", "{code}");
                assert!(code != "BUDGET_EXHAUSTED" || amount > left, "refused below its budget");
            }
        }
    }

    fn reserved(&mut self, proposal: &Proposal, told: &Left, at: u64) {
        let Proposal::Reserve(Reserve { agent: Some(id), amount, life, .. }) = proposal else { return };
        let life = if *life == 0 { 600 } else { *life };
        let ends_at = (at + life * SECOND).min(self.agents[id].lease * SECOND);
        self.holds.insert(told.revision, (*id, *amount, ends_at));
        assert_eq!((told.left, told.ends_at), (Some(self.left(*id)), ends_at / SECOND));
        self.told("reserved");
    }

    fn release(&mut self) {
        let some: Vec<u64> = self.holds.keys().rev().take(8).copied().collect();
        let Some(reservation) = self.chance.pick(&some).copied() else { return };
        let (id, held, ends_at) = self.holds[&reservation];
        let open = held > 0 && self.micros() < ends_at && self.alive(id);
        match code(self.house.ask(self.house.caller.clone(), Proposal::Release(Release { reservation }))) {
            "ok" => {
                assert!(open, "released twice");
                self.holds.get_mut(&reservation).unwrap().1 = 0;
                self.told("released");
            }
            "RESERVATION_UNKNOWN" => assert!(!open, "it holds something"),
            code => assert_ne!(code, "fault"),
        }
    }

    fn end(&mut self) {
        let Some(id) = self.pick(|a| !a.over) else { return };
        if self.house.ask(operator(), Proposal::End { agent: Some(id) }).is_ok() {
            let now = self.now();
            self.agents.get_mut(&id).unwrap().end(now);
        }
    }

    fn cut_agent(&mut self) {
        let Some(id) = self.pick(|_| true) else { return };
        let seats = self.below(id);
        let own = u64::from(self.seated(&self.agents[&id]));
        match self.house.ask(
            operator(),
            Proposal::Revoke { target: Target::Agent(id), since: None, dry: false, reason: String::new(), allow_new: false },
        ) {
            Ok(Outcome::Revoked { agents_at_most, .. }) => {
                assert!((seats..=seats + own).contains(&agents_at_most), "{agents_at_most} of {seats} and {own}");
                self.agents.get_mut(&id).unwrap().over = true;
            }
            other => assert_eq!(code(other), "AGENT_UNKNOWN"),
        }
    }

    fn cut_user(&mut self) {
        let sub = ["ann", "ben", "cyd"][usize::try_from(self.chance.below(3)).unwrap()];
        let seats = self.of_user(sub);
        let revoke = Proposal::Revoke {
            target: Target::User(user(sub)),
            since: None,
            dry: false,
            reason: String::new(),
            allow_new: false,
        };
        match self.house.ask(operator(), revoke) {
            Ok(Outcome::Revoked { agents_at_most, .. }) => assert_eq!(agents_at_most, seats),
            other => panic!("{other:?}"),
        }
        self.closed.insert(sub.to_owned(), true);
        self.proofs.remove(sub);
    }

    /// Nothing it relies on was cut.
    fn stands(&self, id: uuid::Uuid) -> bool {
        !self.agents[&id].dead && self.ancestors(&self.agents[&id]).iter().all(|above| !self.agents[above].dead)
    }

    /// Neither the key nor who signed it is bad.
    fn holds(&self, by: &Admission) {
        assert!(!self.cut_keys.contains(&by.certificate().unwrap().key), "its key was cut");
        assert!(!self.tainted.contains(&**by.authority()), "who signed it is tainted");
    }

    fn cut_key(&mut self) {
        let Some(id) = self.pick(|a| a.current.is_some()) else { return };
        let key = self.agents[&id].current.as_ref().unwrap().certificate().unwrap().key;
        let revoke =
            Proposal::Revoke { target: Target::Key(key), since: None, dry: false, reason: String::new(), allow_new: false };
        assert_eq!(code(self.house.ask(operator(), revoke)), "ok");
        self.cut_keys.insert(key);
        self.told("key");
    }

    /// A class, the workload, a delegation, or everything from before now.
    fn cut_wide(&mut self) {
        let root = Target::Workload("orchestrator".parse().unwrap());
        let (target, what): (Target, _) = match self.chance.below(5) {
            0 => (Target::Class("worker".parse().unwrap()), "worker"),
            1 => (Target::Class("researcher".parse().unwrap()), "researcher"),
            2 => (root, "workload"),
            3 => match self.pick(|a| a.delegation.is_some()).and_then(|id| self.agents[&id].delegation) {
                Some(id) => (Target::Delegation(id), "delegation"),
                None => return,
            },
            _ => (Target::TrustDomain, "before"),
        };
        let hit: Vec<_> = self
            .agents
            .iter()
            .filter(|(_, agent)| match (what, &target) {
                (_, Target::Delegation(id)) => agent.delegation == Some(*id),
                ("workload" | "before", _) => true,
                (class, _) => agent.class == class || self.ancestors(agent).iter().any(|above| self.agents[above].class == class),
            })
            .map(|(id, _)| *id)
            .collect();
        let since = (what == "before").then(|| {
            // A moment after the last record, and nobody's token is from later.
            let time = self.house.ledger.read(|state| state.at) + 1;
            let revision = self.house.ledger.revision_at(time).unwrap();
            assert_eq!(revision, self.house.revision() + 1, "everything is from before");
            self.house.now.fetch_max(time + 2 * SECOND, Ordering::SeqCst);
            self.proofs.clear();
            mayfly::judge::Since { revision, time }
        });
        // ORDER: after the clock has moved.
        let seats = hit.iter().filter(|id| self.seated(&self.agents[*id])).count() as u64;
        let allow_new = self.chance.below(2) == 0;
        let revoke = Proposal::Revoke { target: target.clone(), since, dry: false, reason: String::new(), allow_new };
        match self.house.ask(operator(), revoke) {
            // Over is also who ended since: then the target may be told once more, and hits nobody who is new.
            Ok(Outcome::Revoked { agents_at_most, open_for_new, .. }) => {
                assert_eq!(agents_at_most, seats, "{what}");
                self.told(what);
                let lasting = matches!(target, Target::Delegation(_));
                if !open_for_new && !lasting && !self.shut.contains(&target) {
                    self.shut.push(target);
                }
            }
            other => return assert_eq!(code(other), "DELEGATION_UNKNOWN"),
        }
        for id in hit {
            self.agents.get_mut(&id).unwrap().dead = true;
        }
    }

    /// Another authority signs; sometimes one that has signed before is tainted.
    fn rotate(&mut self) {
        let kind = if self.chance.below(2) == 0 { AuthorityKind::X509 } else { AuthorityKind::Jwt };
        let before = self.house.ledger.read(|s| s.authorities.active(kind).map(|slot| slot.id.to_string())).unwrap();
        self.count += 1;
        let made = self.house.prepare(kind, &format!("a{}", self.count), START + 900 * 86_400).map(drop);
        if made.and_then(|()| self.house.activate(kind, true)).is_ok() {
            self.told("rotated");
            // The first one signed the workload's own certificate.
            if before != hex::encode("x509") {
                self.retired.push(before);
            }
        }
        if self.chance.below(3) == 0
            && let Some(id) = self.chance.pick(&self.retired).cloned()
            && self.house.change(Change::Taint { id: id.clone() }).is_ok()
        {
            self.tainted.insert(id);
            self.told("tainted");
        }
    }

    fn reopen(&mut self) {
        if let Some(target) = self.shut.pop() {
            self.house.ask(operator(), Proposal::Reopen { target }).unwrap();
            return self.told("reopened");
        }
        let Some(sub) = self.closed.iter().find(|(_, closed)| **closed).map(|(sub, _)| sub.clone()) else { return };
        self.house.ask(operator(), Proposal::Reopen { target: Target::User(user(&sub)) }).unwrap();
        self.closed.insert(sub.clone(), false);
        // Whatever is from before stays dead, though its user is open.
        for known in self.agents.values_mut().filter(|a| a.user == sub) {
            known.current = None;
            (known.next, known.ticket) = (None, None);
        }
        self.house.pass(2);
    }

    fn full(&mut self) {
        let before = self.house.ledger.read(Clone::clone);
        self.house.disk.full.store(true, Ordering::SeqCst);
        let proof = self.proof("ann");
        self.proofs.remove("ann");
        let spawn = self.house.spawning(proof, None);
        assert_ne!(code(self.house.ask(self.house.caller.clone(), spawn)), "ok");
        assert_eq!(self.house.ledger.read(Clone::clone), before, "nothing is left of it");
        self.house.disk.full.store(false, Ordering::SeqCst);
    }

    /// The commit fails, and what it held is lost, or persisted anyway; the process ends, another begins.
    fn crash(&mut self, persisted: bool) {
        self.house.disk.written_though_broken.store(persisted, Ordering::SeqCst);
        self.house.disk.broken.store(true, Ordering::SeqCst);
        let victim = self.pick(|a| !a.over);
        let proof = self.proof("ben");
        let mut group = vec![Ask { caller: self.house.caller.clone(), proposal: self.house.spawning(proof, None) }];
        group.extend(victim.map(|id| Ask { caller: operator(), proposal: Proposal::End { agent: Some(id) } }));
        // Somebody who may spend does, and does not hear of it either.
        let spender = self.pick(|a| !a.over && a.current.is_some()).filter(|id| self.alive(*id) && self.left(*id) > 1000);
        let before = spender.map(|id| self.recorded(id));
        group.extend(spender.map(|id| {
            let spend = Spend { agent: Some(id), unit: Unit::Tokens, amount: 1000, reservation: None, request: None };
            Ask { caller: self.house.caller.clone(), proposal: Proposal::Spend(spend) }
        }));
        let answers: Vec<_> = commit(&self.house.ledger, group).into_iter().map(code).collect();
        assert!(!answers.contains(&"ok"), "{answers:?}");
        self.house.disk.broken.store(false, Ordering::SeqCst);
        self.restart();
        if let Some((id, before)) = spender.zip(before) {
            let after = self.recorded(id);
            assert!(after == before || persisted && after == before + 1000, "{before} and then {after}");
            self.take(id, after - before);
        }
        // What was not answered may have happened; the journal says.
        let (now, mut new) = (self.now() * SECOND, Vec::new());
        self.house.ledger.read(|state| {
            for agent in state.agents_after(None) {
                match self.agents.get_mut(&agent.uuid) {
                    Some(known) => {
                        let ended = agent.rare.ended.is_some();
                        assert!(!known.over || state.standing(agent, now) != Standing::Live, "an answered end was lost");
                        if ended {
                            known.end(now / SECOND);
                        }
                    }
                    None => new.push(agent.clone()),
                }
            }
        });
        assert!(new.len() <= usize::from(persisted));
        self.told(if new.is_empty() { "crash" } else { "crash that persisted" });
        for agent in new {
            let user = agent.delegation.as_ref().unwrap().user.sub.clone();
            self.adopt(&agent, &user, None, None);
        }
    }

    /// What the journal says that an agent has spent.
    fn recorded(&self, id: uuid::Uuid) -> u64 {
        self.house.ledger.read(|state| state.account(&id).map_or(0, |account| account.spent(Unit::Tokens)))
    }

    fn restart(&mut self) {
        let (ledger, fatal) = open(&self.house.disk, &self.house.now, limits());
        (self.house.ledger, self.house.fatal) = (ledger, fatal);
    }

    fn again(&mut self) {
        let Some((proposal, id)) = self.retry.clone() else { return };
        match self.house.ask(self.house.caller.clone(), proposal) {
            Ok(Outcome::Spawned(admission, _)) => {
                // A request is forgotten with its agent; then the same words are a new request.
                self.told("again");
                if admission.id().uuid != id {
                    assert!(!self.seated(&self.agents[&id]));
                    let user = self.agents[&id].user.clone();
                    self.adopt(admission.agent(), &user, None, None);
                    self.retry = None;
                }
            }
            other => assert_ne!(code(other), "fault"),
        }
    }

    /// State and replay are one, also where they were reached on different ways.
    fn compare(&self) {
        for (id, known) in self.agents.iter().filter(|(id, _)| self.alive(**id)) {
            assert_eq!(self.recorded(*id), *self.spent.get(id).unwrap_or(&0), "{known:?}");
        }
        let (mut now, mut then) = (self.house.ledger.read(Clone::clone), replay(&self.house.disk.rows.lock()));
        // What the last record told its observers is told once, and is no part of the state.
        drop((now.take_subsumed(), then.take_subsumed()));
        let mut dropped = [now.take_obsolete(), then.take_obsolete()];
        dropped.iter_mut().for_each(|rows| rows.sort_unstable());
        assert_eq!(dropped[0], dropped[1]);
        // Only the lines that differ: nobody reads two states.
        let (now, then) = (format!("{now:#?}"), format!("{then:#?}"));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        let (mine, its) = (lines(&now), lines(&then));
        let differing: Vec<_> = mine.symmetric_difference(&its).take(20).collect();
        assert!(differing.is_empty(), "state and replay differ: {differing:#?}");
    }
}

fn run(seed: u64, steps: u64) -> BTreeMap<&'static str, u64> {
    let mut simulation = Simulation::new(seed);
    for n in 0..steps {
        simulation.step();
        if n % (steps / 40) == 0 {
            simulation.compare();
        }
        // What is long over is told nowhere any more.
        if n % 500 == 0 {
            let (now, state) = (simulation.now(), simulation.house.ledger.read(Clone::clone));
            let micros = simulation.micros();
            simulation.holds.retain(|_, (_, left, ends_at)| *left > 0 && micros < *ends_at);
            simulation.agents.retain(|id, known| state.agent(id).is_some() || now < known.until);
            let (order, agents) = (&mut simulation.order, &simulation.agents);
            order.retain(|id| agents.contains_key(id));
        }
    }
    simulation.compare();
    simulation.tally
}

/// Everything that can come about did.
fn complete(tally: &BTreeMap<&'static str, u64>) {
    let all = [
        "spawn",
        "child",
        "keyless",
        "minted for",
        "user full",
        "parent full",
        "redeemed",
        "renewed",
        "extended",
        "used",
        "thief",
        "orphaned",
        "minted",
        "spent",
        "spent from a reservation",
        "spent again",
        "reserved",
        "reserved again",
        "released",
        "exhausted",
        "crash",
        "crash that persisted",
        "again",
        "key",
        "worker",
        "researcher",
        "workload",
        "delegation",
        "before",
        "reopened",
        "rotated",
        "tainted",
    ];
    for what in all {
        assert!(tally.get(what).is_some_and(|n| *n > 0), "never `{what}`: {tally:?}");
    }
}

fn runs(seeds: std::ops::Range<u64>, steps: u64) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for seed in seeds {
        for (what, count) in run(seed, steps) {
            *sum.entry(what).or_default() += count;
        }
    }
    sum
}

#[test]
fn t14_to_t17_random_trees_stand_as_the_model_says() {
    let tally = runs(0..4, 2_000);
    complete(&tally);
    eprintln!("8,000 operations: {tally:?}");
}

#[test]
#[ignore = "long: a million operations; cargo test --release --test ledger -- --ignored --nocapture"]
fn t14_to_t17_a_million_operations() {
    let tally = runs(100..150, 20_000);
    complete(&tally);
    eprintln!("1,000,000 operations: {tally:?}");
}
