//! Access tokens of random lineages: none allows more than its agent, its class, its delegation, what was presented and what was approved;
//! and none that races a cut is accepted after it.

use mayfly::acts::answer::{Answer, Says};
use mayfly::acts::ask;
use mayfly::acts::exchange::Exchange;
use mayfly::caller::Caller;
use mayfly::denial::No;
use mayfly::judge::action::{Action, all_within, canonical, read_actions};
use mayfly::judge::approval::Wanted;
use mayfly::judge::exchange::Held;
use mayfly::judge::policy::Asked;
use mayfly::judge::{Access, Admission, Presented, release};
use mayfly::state::Approval;
use serde_json::json;

use super::asks::{self, Ask, Outcome, Proposal, commit};
use super::simulation::Chance;
use super::{House, Spawn, caller_of, code, operator, rules, user};
use mayfly_verify::{Target, User};

const SCOPES: [&str; 5] = ["files:read", "mail:send", "search:read", "payments:send", "other"];
const AUDIENCES: [&str; 5] =
    ["https://files.example", "https://mail.example", "https://search.example", "https://bank.example", "https://other.example"];
const BANK: &str = "https://bank.example";

/// Workers may spawn workers, and every agent may ask for payments.
fn house() -> House {
    let mut rules = rules(vec![], &[], 10_000);
    let (researcher, worker): (mayfly_verify::ClassName, mayfly_verify::ClassName) =
        ("researcher".parse().unwrap(), "worker".parse().unwrap());
    let approve = rules.classes[&researcher].approve.clone();
    let class = rules.classes.get_mut(&worker).unwrap();
    (class.approve, class.max_depth) = (approve, 4);
    class.classes.push(worker);
    House::by(rules)
}

fn some(chance: &mut Chance, of: &[&str]) -> Vec<String> {
    of.iter().filter(|_| chance.below(2) == 0).map(|name| (*name).to_owned()).collect()
}

fn payment(house: &House, cents: u64) -> Action {
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    let value = json!({ "type": "payment", "amount": amount, "currency": "EUR" });
    Action::read(&house.ledger.rules().actions, &value).unwrap()
}

pub(super) fn exchange(audience: &str, scopes: Vec<String>, presented: Presented) -> Exchange {
    Exchange {
        audience: audience.to_owned(),
        scopes,
        presented,
        digest: None,
        proved: Default::default(),
        actions: vec![],
        approval: None,
        for_agent: None,
        wants_id_jag: None,
        resource: None,
        held: None,
    }
}

fn exchanged(house: &House, caller: Caller, act: Exchange) -> Result<Access, &'static str> {
    match house.ask(caller, Proposal::Exchange(Box::new(act))) {
        Ok(Outcome::Exchanged(access)) => Ok(*access),
        other => Err(code(other)),
    }
}

/// A tree of agents of two users, each with the position of its parent; and the tokens that came out.
struct Lineage {
    house: House,
    agents: Vec<(Admission, Option<usize>)>,
    tokens: Vec<(usize, Access)>,
    approvals: Vec<Approval>,
}

impl Lineage {
    fn new(chance: &mut Chance) -> Lineage {
        let house = house();
        let mut agents: Vec<(Admission, Option<usize>)> = Vec::new();
        for n in 0..8u8 {
            let parent = (n > 1 && chance.below(4) > 0).then(|| usize::try_from(chance.below(agents.len() as u64)).unwrap());
            let (caller, proof, class) = match parent {
                Some(parent) => (caller_of(&agents[parent].0, house.revision()), None, "worker"),
                None => {
                    let mut proof = house.proof(["ann", "ben"][usize::from(n % 2)], n + 1);
                    // One audience of the provider allows one scope alone.
                    if let (mayfly::judge::Proof::Token { audience, .. }, 0) = (&mut proof, chance.below(3)) {
                        *audience = "limited".into();
                    }
                    (house.caller.clone(), Some(proof), "researcher")
                }
            };
            let asked =
                Asked { scopes: some(chance, &SCOPES), audiences: some(chance, &AUDIENCES), clip: true, ..Asked::default() };
            let spawn = Spawn {
                class: class.parse().unwrap(),
                credential: asks::key(house.key()),
                proof,
                asked,
                audience: None,
                request: None,
            };
            if let Ok(Outcome::Spawned(admission, _)) = house.ask(caller, Proposal::Spawn(Box::new(spawn))) {
                agents.push((admission, parent));
            } else if n < 2 {
                // Nothing of what was asked for could be given: this one takes everything.
                agents.push((house.admitted(["ann", "ben"][usize::from(n)], n + 100), None));
            }
        }
        Lineage { house, agents, tokens: vec![], approvals: vec![] }
    }

    fn user(&self, n: usize) -> User {
        self.agents[n].0.agent().delegation.as_ref().unwrap().user.clone()
    }

    fn is_above_or_self(&self, above: usize, mut n: usize) -> bool {
        loop {
            match (n == above, self.agents[n].1) {
                (true, _) => return true,
                (false, Some(parent)) => n = parent,
                (false, None) => return false,
            }
        }
    }

    fn caller(&self, n: usize) -> Caller {
        caller_of(&self.agents[n].0, self.house.revision())
    }

    /// What holds for every token, whatever was asked for.
    fn check(&self, n: usize, access: &Access) {
        let (agent, token) = (self.agents[n].0.agent(), access.token());
        let rules = self.house.ledger.rules();
        let class = &rules.classes[&agent.mandate.class];
        let delegation = agent.delegation.as_ref().unwrap();
        assert_eq!((token.agent, access.id().uuid), (agent.uuid, agent.uuid));
        assert!(token.ends_at <= agent.lease_ends_at && token.ends_at <= token.issued_at + rules.jwt_ttl);
        assert_eq!(access.binding().user.as_ref(), Some(&delegation.user));
        assert!(self.agents[n].0.binding().stamps.iter().all(|stamp| access.binding().stamps.contains(stamp)), "it dies with it");
        assert!(token.scopes.is_sorted_by(|a, b| a < b));
        if token.approval.is_some() {
            return;
        }
        let mut line = Some(n);
        while let Some(at) = line {
            let above = &self.agents[at].0.agent().mandate;
            assert!(token.scopes.iter().all(|scope| above.scopes.contains(scope)), "more than it, or an agent above it, may do");
            assert!(above.audiences.contains(&token.audience), "elsewhere");
            line = self.agents[at].1;
        }
        assert!(token.scopes.iter().all(|scope| class.scopes.contains(scope)) && class.audiences.contains(&token.audience));
        assert!(delegation.scopes.as_ref().is_none_or(|most| token.scopes.iter().all(|scope| most.contains(scope))));
        assert!(token.details.is_empty(), "an action without an approval");
    }

    fn exchange(&mut self, chance: &mut Chance) -> bool {
        let n = usize::try_from(chance.below(self.agents.len() as u64)).unwrap();
        let audience = AUDIENCES[usize::try_from(chance.below(5)).unwrap()];
        let scopes = if chance.below(3) == 0 { vec![] } else { some(chance, &SCOPES[..3]) };
        let held = (chance.below(2) == 0).then(|| chance.pick(&self.tokens).cloned()).flatten();
        let presented = match &held {
            None => Presented::Nothing,
            Some((of, access)) => Presented::Token(Held {
                agent: access.id().uuid,
                user: Some(self.user(*of)),
                scopes: access.token().scopes.clone(),
                ends_at: access.token().ends_at,
            }),
        };
        let Ok(access) = exchanged(&self.house, self.caller(n), exchange(audience, scopes.clone(), presented)) else {
            return false;
        };
        self.check(n, &access);
        let token = access.token();
        assert_eq!(token.audience, audience);
        assert!(scopes.is_empty() || token.scopes.iter().all(|scope| scopes.contains(scope)), "more than was asked for");
        if let Some((of, held)) = held {
            // However often it is exchanged, by whomever: it widens nothing, and passes to nobody beside or above.
            assert!(
                token.scopes.iter().all(|scope| held.token().scopes.contains(scope)) && token.ends_at <= held.token().ends_at
            );
            assert!(self.is_above_or_self(of, n) && self.user(of) == self.user(n));
        }
        self.tokens.push((n, access));
        true
    }

    fn ask(&mut self, chance: &mut Chance) {
        let n = usize::try_from(chance.below(self.agents.len() as u64)).unwrap();
        let actions = (0..=chance.below(2)).map(|_| payment(&self.house, 1 + chance.below(10_000))).collect();
        let wanted = Wanted { audience: BANK.into(), scopes: vec![], actions };
        let question = ask::Ask { wanted, reason: "why".into(), expires: 600, held: None };
        let Ok(Outcome::Approval(asked)) = self.house.ask(self.caller(n), Proposal::Question(question)) else { return };
        // Somebody answers, mostly the user, and mostly a part of it.
        let by = if chance.below(4) == 0 { user("ben") } else { self.user(n) };
        let shown = asked.digest;
        let says = match chance.below(4) {
            0 => Says::No,
            1 => Says::Yes { shown },
            _ => {
                let actions: Vec<Action> = (0..=chance.below(2)).map(|_| payment(&self.house, 1 + chance.below(8000))).collect();
                Says::Part { shown, details: canonical(&actions), scopes: vec![] }
            }
        };
        let answer = Answer { id: asked.id, says, evidence: [3; 32], at_provider: None };
        let caller = Caller::User { user: by.clone(), issued_at: self.house.seconds(), only_revokes: false };
        if let Ok(Outcome::Approval(answered)) = self.house.ask(caller, Proposal::Answer(answer)) {
            assert_eq!(by, self.user(n), "nobody else answers");
            let types = &self.house.ledger.rules().actions;
            let read = |text: &str| read_actions(types, text).unwrap();
            assert!(all_within(&read(answered.granted().0), &read(&asked.details)), "more than was asked for");
            self.approvals.push(*answered);
        }
    }

    fn use_one(&mut self, chance: &mut Chance) -> bool {
        let Some(approval) = chance.pick(&self.approvals).cloned() else { return false };
        let n = usize::try_from(chance.below(self.agents.len() as u64)).unwrap();
        let mut act = exchange("", vec![], Presented::Nothing);
        act.approval = Some(approval.id);
        if chance.below(2) == 0 {
            act.actions = (0..=chance.below(2)).map(|_| payment(&self.house, 1 + chance.below(10_000))).collect();
        }
        let before = self.house.ledger.read(|state| state.approval(&approval.id).map(|approval| approval.used)).unwrap();
        let Ok(access) = exchanged(&self.house, self.caller(n), act) else { return false };
        self.check(n, &access);
        let (token, types) = (access.token(), &self.house.ledger.rules().actions);
        let read = |text: &str| read_actions(types, text).unwrap();
        assert!(approval.agent == self.agents[n].0.id().uuid && approval.answer.as_ref().unwrap().approved);
        assert!(before < approval.uses, "used more often than it was given for");
        assert_eq!((token.audience.as_str(), token.approval.as_ref().unwrap()), (BANK, &(approval.id, self.user(n))));
        assert!(all_within(&read(&token.details), &read(approval.granted().0)) && token.scopes.is_empty());
        assert!(!token.details.is_empty(), "nothing is never everything");
        true
    }
}

#[test]
fn t147_no_token_of_any_lineage_holds_more_than_agent_class_delegation_and_approval() {
    let (mut given, mut approved) = (0, 0);
    for seed in 0..40 {
        let mut chance = Chance(seed);
        let mut lineage = Lineage::new(&mut chance);
        for _ in 0..200 {
            match chance.below(4) {
                0 => lineage.ask(&mut chance),
                1 => approved += usize::from(lineage.use_one(&mut chance)),
                _ => given += usize::from(lineage.exchange(&mut chance)),
            }
        }
        lineage.house.check();
    }
    assert!(given > 200 && approved > 20, "{given} tokens, {approved} of them by approval: nothing was tried");
}

/// Exchanges of children race the cut of their parent: one batch or two, in a random order. Returns how many there were.
fn races(rounds: u64) -> u64 {
    const CHILDREN: u64 = 32;
    let house = house();
    let (mut chance, mut count) = (Chance(7), 0);
    for round in 0..rounds {
        // Time passes, so that the dead are forgotten.
        house.pass(25);
        let parent = admitted(&house, round);
        let spawn = || Spawn {
            class: "worker".parse().unwrap(),
            credential: asks::key(house.key()),
            proof: None,
            asked: Asked::default(),
            audience: None,
            request: None,
        };
        let caller = caller_of(&parent, house.revision());
        let spawns =
            (0..CHILDREN).map(|_| Ask { caller: caller.clone(), proposal: Proposal::Spawn(Box::new(spawn())) }).collect();
        let children: Vec<Admission> = commit(&house.ledger, spawns)
            .into_iter()
            .map(|done| match done {
                Ok(Outcome::Spawned(admission, _)) => admission,
                other => panic!("{other:?}"),
            })
            .collect();
        let opened = house.revision();
        let asked = |child: &Admission| Ask {
            caller: caller_of(child, opened),
            proposal: Proposal::Exchange(Box::new(exchange("https://files.example", vec![], Presented::Nothing))),
        };
        let mut batch: Vec<Ask> = children.iter().map(asked).collect();
        let later = batch.split_off(usize::try_from(chance.below(CHILDREN / 2)).unwrap());
        let target = if chance.below(2) == 0 { Target::Agent(parent.id().uuid) } else { delegation(&parent) };
        let (since, dry, reason) = (None, false, String::new());
        let cut = Ask { caller: operator(), proposal: Proposal::Revoke { target, since, dry, reason, allow_new: false } };
        batch.insert(usize::try_from(chance.below(batch.len() as u64 + 1)).unwrap(), cut);
        // Two threads: the batch with the cut, and one that comes before it, beside it or after it.
        let (first, second) = std::thread::scope(|threads| {
            let second = threads.spawn(|| commit(&house.ledger, later));
            (commit(&house.ledger, batch), second.join().unwrap())
        });
        let revision = |done: &Result<Outcome, No>| match done {
            Ok(Outcome::Revoked { revision, .. }) => Some(*revision),
            _ => None,
        };
        let receipt = first.iter().find_map(revision).unwrap();
        for done in first.into_iter().chain(second) {
            match done {
                Ok(Outcome::Exchanged(access)) => {
                    count += 1;
                    // It was recorded before the cut, which its stamps tell every verifier, and it is not handed out.
                    assert!(access.token().revision < receipt, "issued after the cut");
                    let (cut, leaves) = house.ledger.read(|state| {
                        let binding = access.binding();
                        (state.is_cut(binding.incarnation, &binding.stamps), release::access(state, &access))
                    });
                    assert!(cut && leaves.is_err(), "accepted after the receipt");
                }
                Ok(Outcome::Revoked { .. }) => {}
                other => {
                    count += 1;
                    assert!(code(other).ends_with("REVOKED"), "refused for another reason than the cut");
                }
            }
        }
    }
    count
}

/// An agent by a token of its own.
fn admitted(house: &House, round: u64) -> Admission {
    let mut fresh = house.proof("ann", 0);
    if let mayfly::judge::Proof::Token { proof, token, .. } = &mut fresh {
        proof[..8].copy_from_slice(&round.to_be_bytes());
        token[..8].copy_from_slice(&round.to_be_bytes());
    }
    match house.ask(house.caller.clone(), house.spawning(fresh, None)) {
        Ok(Outcome::Spawned(admission, _)) => admission,
        other => panic!("{other:?}"),
    }
}

fn delegation(of: &Admission) -> Target {
    Target::Delegation(of.agent().delegation.as_ref().unwrap().id)
}

#[test]
fn t148_no_exchange_that_races_a_cut_is_accepted_after_its_receipt() {
    assert_eq!(races(60), 60 * 32);
}

#[test]
#[ignore = "long: a million exchanges; cargo test --release --test ledger t148 -- --ignored --nocapture"]
fn t148_of_a_million_exchanges_that_race_cuts_none_is_accepted_after_the_receipt() {
    let rounds = 1_000_000_u64.div_ceil(32);
    let began = std::time::Instant::now();
    eprintln!("{} exchanges raced {rounds} cuts in {:?}: none is accepted", races(rounds), began.elapsed());
}
