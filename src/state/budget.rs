//! Budgets: what agents have spent and reserved.
//!
//! The state has accounts and reservations, but no limits, which belong to the classes. The record of a spend has the sums after
//! it, so an earlier record is obsolete when every sum in it has a later one. So the journal keeps at most one row for each account
//! and unit, and those with remembered request ids, however many spends there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::expiry::Due;
use super::{Done, Misfit, State, apply::request_of};
use crate::clock::SECOND;
use crate::journal::record;

/// How long the outcome of a spend with a request id is remembered, in microseconds.
const REMEMBERED: u64 = 120 * SECOND;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Operations, such as calls of a tool.
    Ops,
    /// Tokens of a language model.
    Tokens,
    /// Millionths of a US dollar.
    Usd,
}

impl Unit {
    /// All units, in the order in which accounts keep them.
    pub const ALL: [Unit; 3] = [Unit::Ops, Unit::Tokens, Unit::Usd];

    /// Its name in the configuration and in denials.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Ops => "ops",
            Unit::Tokens => "tokens",
            Unit::Usd => "usd",
        }
    }

    /// The unit of a record's number, which counts from 1.
    pub fn recorded(number: u32) -> Option<Unit> {
        Unit::ALL.into_iter().find(|unit| unit.number() == number)
    }

    /// Its number in records.
    pub fn number(self) -> u32 {
        self as u32 + 1
    }
}

/// The account of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    spent: [u64; 3],
    // The row with the sum of each unit; 0 while nothing was spent.
    rows: [u64; 3],
    /// The reservations that are charged to it.
    pub holds: BTreeSet<u64>,
}

impl Account {
    /// What was spent.
    pub fn spent(&self, unit: Unit) -> u64 {
        self.spent.get(unit as usize).copied().unwrap_or(0)
    }
}

/// A reservation. It counts while its agent is live and its time has not passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The agent that it is for.
    pub agent: Uuid,
    /// What is held.
    pub unit: Unit,
    /// The amount that is left.
    pub left: u64,
    /// Unix microseconds.
    pub ends_at: u64,
    // The accounts that it is charged to.
    accounts: Vec<Uuid>,
    // The request that made it. It is remembered as long as the reservation.
    request: Option<Box<[u8; 32]>>,
    // The row of the last spend from it, and that of its release; 0 if there is none.
    spent: u64,
    released: u64,
}

/// All accounts and reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Budgets {
    pub(super) accounts: HashMap<Uuid, Account>,
    pub(super) holds: BTreeMap<u64, Hold>,
    // INVARIANT: for each row of a spend, the number of accounts, reservations and requests whose latest row it is.
    words: HashMap<u64, u32>,
}

impl Hold {
    /// Whether something is left of it, and its time has not passed at `at` (Unix microseconds).
    pub fn is_open(&self, at: u64) -> bool {
        self.left > 0 && at < self.ends_at
    }

    /// Whether the request with this key made it.
    pub fn is_of(&self, request: &[u8; 32]) -> bool {
        self.request.as_deref() == Some(request)
    }
}

impl State {
    /// The account of an agent. `None` while nothing was spent or reserved there.
    pub fn account(&self, agent: &Uuid) -> Option<&Account> {
        self.budgets.accounts.get(agent)
    }

    /// A reservation, by the revision of its record.
    pub fn hold(&self, id: u64) -> Option<&Hold> {
        self.budgets.holds.get(&id)
    }

    pub(super) fn reserved(&mut self, revision: u64, r: &record::Reserved) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        let agent = Uuid::from_slice(&r.agent).map_err(|_| misfit("agent"))?;
        let unit = Unit::recorded(r.unit).ok_or(misfit("unit"))?;
        let accounts: Result<Vec<Uuid>, _> = r.accounts.iter().map(|id| Uuid::from_slice(id)).collect();
        let mut accounts = accounts.map_err(|_| misfit("account"))?;
        let request = match &r.request {
            Some(request) => Some(request_of(request).ok_or(misfit("request"))?),
            None => None,
        };
        // In a replay the agent may be missing, because its row was dropped before this one.
        if !self.agents.contains(&agent) {
            self.obsolete.push_back(revision);
            return Ok(());
        }
        accounts.retain(|account| self.agents.contains(account));
        for account in &accounts {
            self.budgets.accounts.entry(*account).or_default().holds.insert(revision);
        }
        if let Some((key, digest)) = request {
            self.requests.insert(key, Done { digest, agent: Some(agent), token: None });
        }
        self.due(r.ends_at, revision, Due::Hold);
        let request = request.map(|(key, _)| Box::new(key));
        let hold = Hold { agent, unit, left: r.amount, ends_at: r.ends_at, accounts, request, spent: 0, released: 0 };
        self.budgets.holds.insert(revision, hold);
        Ok(())
    }

    pub(super) fn spent(&mut self, revision: u64, at: u64, s: &record::Spent) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        let agent = Uuid::from_slice(&s.agent).map_err(|_| misfit("agent"))?;
        let unit = Unit::recorded(s.unit).ok_or(misfit("unit"))?;
        let (mut words, mut before) = (0, Vec::new());
        for after in &s.accounts {
            let id = Uuid::from_slice(&after.account).map_err(|_| misfit("account"))?;
            if !self.agents.contains(&id) {
                continue;
            }
            let account = self.budgets.accounts.entry(id).or_default();
            if let (Some(spent), Some(row)) = (account.spent.get_mut(unit as usize), account.rows.get_mut(unit as usize)) {
                *spent = after.spent;
                before.push(std::mem::replace(row, revision));
                words += 1;
            }
        }
        if let Some(hold) = self.budgets.holds.get_mut(&s.reservation) {
            hold.left = s.reservation_left;
            before.push(std::mem::replace(&mut hold.spent, revision));
            words += 1;
            if s.reservation_left == 0 {
                self.settled(s.reservation, at);
            }
        }
        if let Some(request) = &s.request {
            let (key, digest) = request_of(request).ok_or(misfit("request"))?;
            self.requests.insert(key, Done { digest, agent: Some(agent), token: None });
            self.due(at.saturating_add(REMEMBERED), revision, Due::Spend(Box::new(key)));
            words += 1;
        }
        if words == 0 {
            self.obsolete.push_back(revision);
            return Ok(());
        }
        self.budgets.words.insert(revision, words);
        before.into_iter().for_each(|row| self.superseded(row));
        Ok(())
    }

    pub(super) fn released(&mut self, revision: u64, at: u64, r: &record::Released) {
        let Some(hold) = self.budgets.holds.get_mut(&r.reservation).filter(|hold| hold.released == 0) else {
            return self.obsolete.push_back(revision);
        };
        hold.left = 0;
        hold.released = revision;
        self.settled(r.reservation, at);
    }

    /// Lets a reservation of which nothing is left end with the next record, so that used up ones do not fill the table.
    fn settled(&mut self, id: u64, at: u64) {
        let Some(hold) = self.budgets.holds.get_mut(&id).filter(|hold| at < hold.ends_at) else { return };
        let ends_at = std::mem::replace(&mut hold.ends_at, at);
        self.no_longer_due(ends_at, id, &Due::Hold);
        self.due(at, id, Due::Hold);
    }

    /// Removes a reservation whose time has passed.
    pub(super) fn hold_ended(&mut self, id: u64) {
        let Some(hold) = self.budgets.holds.remove(&id) else { return };
        for agent in &hold.accounts {
            let Some(account) = self.budgets.accounts.get_mut(agent) else { continue };
            account.holds.remove(&id);
            // An empty account is removed, because a replay without the reservation does not make it either.
            if *account == Account::default() {
                self.budgets.accounts.remove(agent);
            }
        }
        if let Some(key) = &hold.request {
            self.requests.remove(&**key);
        }
        // ORDER: its own row is dropped first. If it stayed longer than the others, a replay would restore the whole reservation.
        self.obsolete.push_back(id);
        self.superseded(hold.spent);
        if hold.released > 0 {
            self.obsolete.push_back(hold.released);
        }
    }

    /// Removes the remembered outcome of a spend.
    pub(super) fn spend_forgotten(&mut self, key: &[u8; 32], revision: u64) {
        self.requests.remove(key);
        self.superseded(revision);
    }

    /// Removes the account of an agent that is removed from the state.
    pub(super) fn account_forgotten(&mut self, agent: &Uuid) {
        let Some(account) = self.budgets.accounts.remove(agent) else { return };
        for id in &account.holds {
            if let Some(ends_at) = self.budgets.holds.get(id).filter(|hold| hold.agent == *agent).map(|hold| hold.ends_at) {
                self.no_longer_due(ends_at, *id, &Due::Hold);
                self.hold_ended(*id);
            }
        }
        account.rows.into_iter().for_each(|row| self.superseded(row));
    }

    /// Counts down the sums and reservations for which a row is the latest; at zero the row is obsolete.
    fn superseded(&mut self, row: u64) {
        let Some(words) = self.budgets.words.get_mut(&row) else { return };
        *words -= 1;
        if *words == 0 {
            self.budgets.words.remove(&row);
            self.obsolete.push_back(row);
        }
    }
}
