//! Budgets: how much of its class's budget an agent and its ancestors have left, and who may spend it.
//!
//! Every agent has an account, with the limits of its class. What an agent spends is taken from its own account and from that of
//! each agent above it, so children share what their parents have left. A reservation is subtracted from the same accounts before
//! it is spent, and counts only while its agent is live. So nothing has to be given back when an agent ends, expires or is revoked.
//!
//! The account of the top agent of a tree contains all reservations and spends of the tree. So a limit on the reservations of that
//! account limits the work of one judgement.

use mayfly_verify::{AgentId, ClassName, TrustDomain};
use uuid::Uuid;

use super::{Check, Judgement, Rules, owns, unknown_agent};
use crate::caller::Caller;
use crate::denial::{Denial, Kind};
use crate::state::{Agent, Hold, Standing, Unit, View};

/// Most reservations of the agents of one tree.
const HOLDS: usize = 256;
/// Most reservations of ended agents that one request removes.
const SWEPT: usize = 8;

/// The most that each agent of a class may spend. A unit without a limit is counted and not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget(pub [Option<u64>; 3]);

impl Budget {
    /// The limit of a unit.
    pub fn of(&self, unit: Unit) -> Option<u64> {
        self.0.get(unit as usize).copied().flatten()
    }

    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// One account that is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The agent whose account it is.
    pub agent: Uuid,
    /// Its class, whose budget it is.
    pub class: ClassName,
    /// The owner of the class. Empty if that is no longer configured.
    pub owner: String,
    /// What is counted.
    pub unit: Unit,
    /// The most that may be spent. `None` means that it is only counted.
    pub limit: Option<u64>,
    /// What was spent.
    pub spent: u64,
    /// The sum of its reservations.
    pub held: u64,
}

impl Line {
    /// What is left. `None` means that there is no limit.
    pub fn left(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.spent.saturating_add(self.held)))
    }

    /// The SPIFFE ID of its agent.
    pub fn id(&self, trust_domain: &TrustDomain) -> AgentId {
        AgentId { trust_domain: trust_domain.clone(), class: self.class.clone(), uuid: self.agent }
    }
}

/// A reservation in an account.
struct Held<'a> {
    id: u64,
    hold: &'a Hold,
    /// Whether its agent is live. Otherwise the reservation does not count.
    counts: bool,
}

/// The reservations in an account that have something left at `at` (Unix microseconds).
fn open<'a>(view: &'a impl View, account: &Uuid, at: u64) -> Vec<Held<'a>> {
    let ids = view.account(account).into_iter().flat_map(|account| &account.holds);
    let open = ids.filter_map(|id| Some((*id, view.hold(*id).filter(|hold| hold.is_open(at))?)));
    let counts = |hold: &Hold| view.agent(&hold.agent).is_some_and(|agent| view.standing(agent, at) == Standing::Live);
    open.map(|(id, hold)| Held { id, hold, counts: counts(hold) }).collect()
}

/// The agent at the top of the tree of an agent, which is itself if a workload spawned it.
fn top(agent: &Agent) -> Uuid {
    agent.ancestors().last().unwrap_or(agent.uuid)
}

/// The accounts that an agent's spends are charged to at `at` (Unix microseconds): its own, and those of its ancestors, the parent
/// first.
pub fn lines(view: &impl View, rules: &Rules, agent: &Agent, unit: Unit, at: u64) -> Vec<Line> {
    let held = open(view, &top(agent), at);
    let line = |of: &Agent| {
        let class = rules.classes.get(&of.mandate.class);
        let account = view.account(&of.uuid);
        let takes = |held: &&Held<'_>| {
            held.counts && held.hold.unit == unit && account.is_some_and(|account| account.holds.contains(&held.id))
        };
        Line {
            agent: of.uuid,
            class: of.mandate.class.clone(),
            owner: class.map(|class| class.owner.clone()).unwrap_or_default(),
            unit,
            // A class that is no longer configured has a budget of 0.
            limit: class.map_or(Some(0), |class| class.budget.of(unit)),
            spent: account.map_or(0, |account| account.spent(unit)),
            held: held.iter().filter(takes).fold(0, |sum, held| sum.saturating_add(held.hold.left)),
        }
    };
    let above = agent.ancestors().filter_map(|uuid| view.agent(&uuid)).map(line);
    std::iter::once(line(agent)).chain(above).collect()
}

/// Whether a caller may see what an agent has spent, and spend for it: the agent itself, its ancestors, and a gateway.
pub fn may_spend(rules: &Rules, caller: &Caller, agent: &Agent) -> bool {
    let gateway = matches!(caller, Caller::Workload { name, .. } if rules.gateways.contains(name));
    gateway || (owns(caller, agent) && !matches!(caller, Caller::User { .. } | Caller::Operator { .. }))
}

impl Judgement<'_> {
    /// The living agent for which a caller spends. `None` is the caller itself.
    pub fn spender(&self, caller: &Caller, agent: Option<Uuid>) -> Result<&Agent, Denial> {
        self.checking(Check::Ownership);
        let uuid = match (agent, caller) {
            (Some(uuid), _) => uuid,
            (None, Caller::Agent { id, .. }) => id.uuid,
            (None, _) => return Err(Denial::malformed("AGENT_MISSING", "say for which agent")),
        };
        let agent = self.view().agent(&uuid).filter(|agent| may_spend(self.rules(), caller, agent)).ok_or_else(unknown_agent)?;
        match View::standing(self.view(), agent, self.at()).refusal() {
            Some((code, message)) => Err(Denial::denied(code, message)),
            None => Ok(agent),
        }
    }

    /// The accounts from which an amount can be taken. Denied if one of them has less left.
    pub fn budget(&self, agent: &Agent, unit: Unit, amount: u64) -> Result<Vec<Line>, Denial> {
        self.checking(Check::Budget);
        let lines = lines(self.view(), self.rules(), agent, unit, self.at());
        match lines.iter().find_map(|line| Some((line, line.left().filter(|left| *left < amount)?))) {
            Some((line, left)) => Err(self.exhausted(line, left, amount)),
            None => Ok(lines),
        }
    }

    /// Checks that the tree of an agent may have one more reservation. Returns reservations of ended agents, which must be released
    /// to make room for it.
    pub fn room_for_hold(&self, agent: &Agent) -> Result<Vec<(u64, Uuid)>, Denial> {
        let held = open(self.view(), &top(agent), self.at());
        if held.len() < HOLDS {
            return Ok(Vec::new());
        }
        let gone: Vec<_> = held.iter().filter(|held| !held.counts).map(|held| (held.id, held.hold.agent)).take(SWEPT).collect();
        if !gone.is_empty() {
            return Ok(gone);
        }
        let message =
            format!("the agents of this tree have {HOLDS} reservations already: spend or release some, or let them end");
        Err(Denial::new(Kind::Exhausted, "RESERVATIONS_FULL", message))
    }

    fn exhausted(&self, line: &Line, left: u64, amount: u64) -> Denial {
        let (unit, limit) = (line.unit.as_str(), line.limit.unwrap_or(0));
        let of = if line.unit == Unit::Usd { " (in millionths of a dollar)" } else { "" };
        let id = line.id(&self.rules().trust_domain);
        let message = format!(
            "budget `{unit}` of agent {id}: {left} left of {limit}{of}, {amount} asked; class `{}` of {} sets it",
            line.class, line.owner
        );
        let denial = Denial::new(Kind::Exhausted, "BUDGET_EXHAUSTED", message).with("limit", format!("budget.{unit}"));
        let denial = denial.with("per", "agent").with("agent", id.to_string()).with("class", line.class.to_string());
        denial.with("owner", &line.owner).with("value", limit.to_string()).with("left", left.to_string())
    }
}
