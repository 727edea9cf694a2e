//! Budgets: spend, reserve and release what an agent may use.

use mayfly_verify::AgentId;
use uuid::Uuid;

use super::{Issuer, request_id};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::budget::{Line, lines, may_spend};
use crate::judge::{Act, Chance, Check, Judgement, RequestId, request_record, sees, unknown_agent};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::{Hold, Standing, Unit, View, seconds};

/// How long a reservation is held at most, in seconds.
pub const LONGEST_HOLD: u64 = 3600;
/// How long a reservation is held if the request does not say, in seconds.
const HOLD: u64 = 600;

/// A spend.
#[derive(Clone, Debug)]
pub struct Spend {
    /// The agent. `None` is the caller itself.
    pub agent: Option<Uuid>,
    /// What is counted.
    pub unit: Unit,
    /// How much; at least 1.
    pub amount: u64,
    /// The reservation to spend from. `None` spends from what is not reserved.
    pub reservation: Option<u64>,
    /// Makes a retry the same spend as the first attempt.
    pub request: Option<RequestId>,
}

/// A reservation.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The agent for which it is held. `None` is the caller itself.
    pub agent: Option<Uuid>,
    /// What is counted.
    pub unit: Unit,
    /// How much; at least 1.
    pub amount: u64,
    /// Seconds; 0 asks for ten minutes.
    pub life: u64,
    /// Makes a retry the same reservation.
    pub request: Option<RequestId>,
}

/// The release of what is left of a reservation.
#[derive(Clone, Debug)]
pub struct Release {
    /// The reservation.
    pub reservation: u64,
}

/// What is left after an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The agent.
    pub agent: AgentId,
    /// Revision of the record; of a reservation its id.
    pub revision: u64,
    /// The least that any of the accounts has left. `None` means that none is limited.
    pub left: Option<u64>,
    /// What is left of the reservation. 0 if there is none.
    pub reservation_left: u64,
    /// End of the reservation, in Unix seconds. 0 if there is none.
    pub ends_at: u64,
}

/// Spends. `id` makes a retry the same spend.
pub async fn spend(issuer: &Issuer, caller: Caller, mut spend: Spend, id: &str) -> Result<Left, No> {
    let agent = spend.agent.map(|uuid| uuid.to_string()).unwrap_or_default();
    let parts = [spend.amount, spend.reservation.unwrap_or(0)].map(u64::to_be_bytes);
    let asked: [&[u8]; 4] = [agent.as_bytes(), spend.unit.as_str().as_bytes(), &parts[0], &parts[1]];
    spend.request = request_id(&caller, "spend", id, &asked)?;
    issuer.pipeline.record(caller, spend).await
}

/// Reserves. `id` makes a retry the same reservation, as long as something is left of it.
pub async fn reserve(issuer: &Issuer, caller: Caller, mut reserve: Reserve, id: &str) -> Result<Left, No> {
    let agent = reserve.agent.map(|uuid| uuid.to_string()).unwrap_or_default();
    let parts = [reserve.amount, reserve.life].map(u64::to_be_bytes);
    let asked: [&[u8]; 4] = [agent.as_bytes(), reserve.unit.as_str().as_bytes(), &parts[0], &parts[1]];
    reserve.request = request_id(&caller, "reserve", id, &asked)?;
    issuer.pipeline.record(caller, reserve).await
}

/// Releases.
pub async fn release(issuer: &Issuer, caller: Caller, reservation: u64) -> Result<Left, No> {
    issuer.pipeline.record(caller, Release { reservation }).await
}

/// An agent with its accounts in every unit, and the reservations that take from its own: each with its id and the agent it is for.
pub type Shown = (AgentId, Vec<Line>, Vec<(u64, AgentId, Hold)>);

/// What an agent may still spend.
pub fn show(issuer: &Issuer, caller: &Caller, agent: Uuid) -> Result<Shown, Denial> {
    let (now, rules) = (issuer.clock.now(), issuer.ledger.rules());
    issuer.ledger.read(|state| {
        let may = |caller: &Caller, agent: &_| sees(caller, agent) || may_spend(&rules, caller, agent);
        let agent = state.agent(&agent).filter(|agent| may(caller, agent)).ok_or_else(unknown_agent)?;
        let all = Unit::ALL.into_iter().flat_map(|unit| lines(state, &rules, agent, unit, now)).collect();
        let ids = state.account(&agent.uuid).into_iter().flat_map(|account| &account.holds);
        let held = |id: &u64| {
            let hold = state.hold(*id).filter(|hold| hold.is_open(now))?;
            // A reservation for an agent that has ended no longer counts.
            let agent = state.agent(&hold.agent).filter(|agent| state.standing(agent, now) == Standing::Live)?;
            Some((*id, agent.id(&issuer.trust_domain), hold.clone()))
        };
        Ok((agent.id(&issuer.trust_domain), all, ids.filter_map(held).collect()))
    })
}

impl Record for Spend {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Record for Reserve {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Record for Release {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Act for Spend {
    type Permit = Left;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Left, No> {
        check_amount(self.amount)?;
        j.check_generation(caller)?;
        let agent = j.spender(caller, self.agent)?.clone();
        let id = agent.id(&j.rules().trust_domain);
        // 1. A retry is the same spend.
        if j.done(self.request.as_ref())?.is_some() {
            let lines = lines(j.view(), j.rules(), &agent, self.unit, j.at());
            let left = self.reservation.and_then(|id| View::hold(j.view(), id)).map_or(0, |hold| hold.left);
            return Ok(Left {
                agent: id,
                revision: j.view().revision(),
                left: least(&lines, 0),
                reservation_left: left,
                ends_at: 0,
            });
        }
        // 2. The spend is taken from the reservation, which holds a part of every account; or from what is not reserved.
        let (lines, reservation_left) = match self.reservation {
            Some(reservation) => {
                let hold = held_for(j, reservation, &agent.uuid)?;
                j.checking(Check::Budget);
                if hold.unit != self.unit {
                    let message = format!("reservation {reservation} is of `{}`", hold.unit.as_str());
                    return Err(Denial::malformed("AMOUNT_MALFORMED", message).into());
                }
                let Some(left) = hold.left.checked_sub(self.amount) else {
                    return Err(short(reservation, &hold, self.amount).into());
                };
                (lines(j.view(), j.rules(), &agent, self.unit, j.at()), left)
            }
            None => (j.budget(&agent, self.unit, self.amount)?, 0),
        };
        // 3. The record: what every account has spent from now on.
        let after = |line: &Line| record::AccountAfter {
            account: line.agent.as_bytes().to_vec(),
            spent: line.spent.saturating_add(self.amount),
        };
        let body = record::Spent {
            agent: agent.uuid.as_bytes().to_vec(),
            unit: self.unit.number(),
            amount: self.amount,
            accounts: lines.iter().map(after).collect(),
            reservation: self.reservation.unwrap_or(0),
            reservation_left,
            by: by(j, caller),
            request: self.request.as_ref().map(request_record),
        };
        let revision = j.push(caller, Body::Spent(body))?;
        // A reservation was already subtracted from what is left, so spending from it leaves as much as before.
        let taken = if self.reservation.is_some() { 0 } else { self.amount };
        Ok(Left { agent: id, revision, left: least(&lines, taken), reservation_left, ends_at: 0 })
    }
}

impl Act for Reserve {
    type Permit = Left;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Left, No> {
        check_amount(self.amount)?;
        if self.life > LONGEST_HOLD {
            let message = format!("a reservation is held for at most {LONGEST_HOLD} seconds");
            return Err(Denial::malformed("AMOUNT_MALFORMED", message).into());
        }
        j.check_generation(caller)?;
        let agent = j.spender(caller, self.agent)?.clone();
        let id = agent.id(&j.rules().trust_domain);
        // 1. A retry is the same reservation.
        let done = j.done(self.request.as_ref())?;
        if let Some(request) = self.request.as_ref().filter(|_| done.is_some()) {
            let (reservation, hold) = held_by(j, request, &agent.uuid)?;
            let lines = lines(j.view(), j.rules(), &agent, self.unit, j.at());
            let (left, ends_at) = (least(&lines, 0), hold.ends_at / SECOND);
            return Ok(Left { agent: id, revision: reservation, left, reservation_left: hold.left, ends_at });
        }
        // 2. Enough is left, and there is room for one more reservation.
        let lines = j.budget(&agent, self.unit, self.amount)?;
        for (reservation, agent) in j.room_for_hold(&agent)? {
            let body = record::Released { reservation, agent: agent.as_bytes().to_vec(), by: by(j, caller) };
            j.push(caller, Body::Released(body))?;
        }
        // 3. The record.
        let life = if self.life == 0 { HOLD } else { self.life };
        let ends_at = j.at().saturating_add(seconds(life)).min(seconds(agent.lease_ends_at));
        let body = record::Reserved {
            agent: agent.uuid.as_bytes().to_vec(),
            unit: self.unit.number(),
            amount: self.amount,
            ends_at,
            by: by(j, caller),
            accounts: lines.iter().map(|line| line.agent.as_bytes().to_vec()).collect(),
            request: self.request.as_ref().map(request_record),
        };
        let revision = j.push(caller, Body::Reserved(body))?;
        Ok(Left {
            agent: id,
            revision,
            left: least(&lines, self.amount),
            reservation_left: self.amount,
            ends_at: ends_at / SECOND,
        })
    }
}

impl Act for Release {
    type Permit = Left;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Left, No> {
        j.check_generation(caller)?;
        let hold = View::hold(j.view(), self.reservation).ok_or_else(|| unknown(self.reservation))?.clone();
        let agent = j.spender(caller, Some(hold.agent)).map_err(|_| unknown(self.reservation))?.clone();
        let hold = held_for(j, self.reservation, &agent.uuid)?;
        let body = record::Released { reservation: self.reservation, agent: agent.uuid.as_bytes().to_vec(), by: by(j, caller) };
        let revision = j.push(caller, Body::Released(body))?;
        let left = least(&lines(j.view(), j.rules(), &agent, hold.unit, j.at()), 0);
        Ok(Left { agent: agent.id(&j.rules().trust_domain), revision, left, reservation_left: 0, ends_at: 0 })
    }
}

/// Who asks, by SPIFFE ID.
fn by(j: &Judgement<'_>, caller: &Caller) -> String {
    caller.spiffe_id(&j.rules().trust_domain).unwrap_or_default()
}

/// A reservation that holds something for an agent now.
fn held_for(j: &Judgement<'_>, reservation: u64, agent: &Uuid) -> Result<Hold, Denial> {
    let hold = View::hold(j.view(), reservation).filter(|hold| hold.agent == *agent && hold.is_open(j.at()));
    hold.cloned().ok_or_else(|| unknown(reservation))
}

/// The reservation that a request made for an agent.
fn held_by(j: &Judgement<'_>, request: &RequestId, agent: &Uuid) -> Result<(u64, Hold), Denial> {
    let ids = View::account(j.view(), agent).into_iter().flat_map(|account| &account.holds);
    let mut holds = ids.filter_map(|id| Some((*id, View::hold(j.view(), *id)?)));
    let found = holds.find(|(_, hold)| hold.is_of(&request.key) && hold.is_open(j.at()));
    found.map(|(id, hold)| (id, hold.clone())).ok_or_else(|| {
        let message = "the reservation of this request has ended: reserve under another request id";
        Denial::new(Kind::Conflict, "REQUEST_DONE", message)
    })
}

fn unknown(reservation: u64) -> Denial {
    let message = format!("there is no reservation {reservation} for this agent, or it has ended: reserve again");
    Denial::new(Kind::NotFound, "RESERVATION_UNKNOWN", message)
}

fn short(reservation: u64, hold: &Hold, amount: u64) -> Denial {
    let unit = hold.unit.as_str();
    let message = format!("reservation {reservation} of `{unit}`: {} left, {amount} asked: spend the rest without it", hold.left);
    let denial = Denial::new(Kind::Exhausted, "BUDGET_EXHAUSTED", message).with("limit", format!("budget.{unit}"));
    denial.with("per", "reservation").with("left", hold.left.to_string())
}

/// Limits amounts, so that sums of them cannot overflow.
fn check_amount(amount: u64) -> Result<(), Denial> {
    if (1..=1 << 53).contains(&amount) {
        return Ok(());
    }
    Err(Denial::malformed("AMOUNT_MALFORMED", "give an amount from 1 to 2^53"))
}

/// The smallest amount that any of the accounts has left once `taken` is subtracted.
fn least(lines: &[Line], taken: u64) -> Option<u64> {
    lines.iter().filter_map(Line::left).min().map(|left| left.saturating_sub(taken))
}
