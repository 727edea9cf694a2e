//! `mayfly budget`.

use clap::Subcommand;
use mayfly_agent::api::v1;
use mayfly_agent::api::v1::budgets_client::BudgetsClient;
use mayfly_agent::api::v1::inspection_client::InspectionClient;
use serde_json::json;

use super::connect::{self, Acting};
use super::exit::Failure;
use super::found;
use super::global::Global;
use super::output;
use crate::config::budget::dollars;

/// See and spend what agents may use: operations, tokens of a model, dollars
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is left of the budgets of an agent and its ancestors (operator; with --as, of an agent that the identity may see)
    Show {
        /// SPIFFE ID, UUID, or the beginning of a UUID
        agent: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// Spend, as the agent, as an ancestor of it, or as a gateway
    Spend {
        #[command(flatten)]
        what: What,
        /// Take it from this reservation
        #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
        reservation: u64,
        /// Makes a retry within two minutes the same spend
        #[arg(long, default_value = "", hide_default_value = true)]
        request_id: String,
    },
    /// Reserve a part until it is spent or released; what is left of it is released when its time has passed or the agent has ended
    Reserve {
        #[command(flatten)]
        what: What,
        /// Seconds, at most 3600
        #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=3600))]
        life: u32,
        /// Makes a retry the same reservation, as long as something is left of it
        #[arg(long, default_value = "", hide_default_value = true)]
        request_id: String,
    },
    /// Give back what is left of a reservation
    Release {
        #[command(flatten)]
        acting: Acting,
        /// The reservation
        reservation: u64,
    },
}

// No documentation comment: clap would show it as the help of each command that has these options.
#[derive(clap::Args)]
struct What {
    #[command(flatten)]
    acting: Acting,
    /// The agent, by SPIFFE ID or UUID; without it, the identity itself
    #[arg(long, default_value = "", hide_default_value = true)]
    agent: String,
    /// What is counted
    #[arg(long, value_enum)]
    unit: Unit,
    /// How much; dollars with at most six decimal places
    amount: String,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Unit {
    Ops,
    Tokens,
    Usd,
}

/// The usage error of a command that needs an identity.
const AS: &str = "say who spends with --as DIR";

pub(super) async fn run(args: Args, global: &Global) -> Result<(), Failure> {
    match args.command {
        Command::Show { agent, acting } => show(global, &acting, &agent).await,
        Command::Spend { what, reservation, request_id } => {
            let mut client = what.client(global).await?;
            let (unit, amount) = what.amount()?;
            let request = v1::SpendRequest { agent: what.agent, unit: unit.into(), amount, reservation, request_id };
            let got = client.spend(request).await?.into_inner();
            let object = json!({
                "agent_id": got.agent_id, "unit": name(unit), "spent": amount, "left": got.left,
                "reservation_left": (reservation > 0).then_some(got.reservation_left), "revision": got.revision,
            });
            output::print(global.output, &object, || format!("spent {}, {}", text(unit, amount), left(unit, got.left)))
        }
        Command::Reserve { what, life, request_id } => {
            let mut client = what.client(global).await?;
            let (unit, amount) = what.amount()?;
            let request = v1::ReserveRequest { agent: what.agent, unit: unit.into(), amount, life_seconds: life, request_id };
            let got = client.reserve(request).await?.into_inner();
            let until = output::timestamp(got.expires_at.as_ref());
            let object = json!({
                "agent_id": got.agent_id, "unit": name(unit), "reservation": got.reservation, "amount": amount, "left": got.left,
                "expires_at": until,
            });
            output::print(global.output, &object, || {
                let (held, rest) = (text(unit, amount), left(unit, got.left));
                format!("reservation {} holds {held} until {until}, {rest}", got.reservation)
            })
        }
        Command::Release { acting, reservation } => {
            let dir = acting.required(AS)?;
            let mut client = BudgetsClient::new(connect::as_identity(global, acting.server.as_deref(), dir).await?);
            let got = client.release(v1::ReleaseRequest { reservation }).await?.into_inner();
            let object =
                json!({ "agent_id": got.agent_id, "reservation": reservation, "left": got.left, "revision": got.revision });
            output::print(global.output, &object, || format!("reservation {reservation} is released"))
        }
    }
}

async fn show(global: &Global, acting: &Acting, agent: &str) -> Result<(), Failure> {
    let channel = connect::as_identity_or_operator(global, acting).await?;
    // A complete name need not be looked up in the list of agents, which a gateway may not see.
    let whole = agent.starts_with("spiffe://") || agent.len() == 36;
    let agent = match whole {
        true => agent.to_owned(),
        false => found::agent(&mut InspectionClient::new(channel.clone()), agent, "").await?.agent_id,
    };
    let got = BudgetsClient::new(channel).get_budget(v1::GetBudgetRequest { agent }).await?.into_inner();
    let lines: Vec<_> = got
        .lines
        .iter()
        .map(|line| {
            json!({
                "agent_id": line.agent_id, "unit": name(line.unit()), "limit": line.limit, "spent": line.spent,
                "reserved": line.reserved, "left": line.left, "class": line.class, "owner": line.owner,
            })
        })
        .collect();
    let reservations: Vec<_> = got
        .reservations
        .iter()
        .map(|r| {
            let until = output::timestamp(r.expires_at.as_ref());
            json!({
                "reservation": r.reservation, "agent_id": r.agent_id, "unit": name(r.unit()), "left": r.left, "expires_at": until,
            })
        })
        .collect();
    let object = json!({ "agent_id": got.agent_id, "budgets": lines, "reservations": reservations });
    output::print(global.output, &object, || {
        let line = |line: &v1::BudgetLine| {
            let unit = line.unit();
            let (spent, reserved) = (text(unit, line.spent), text(unit, line.reserved));
            let (rest, class, owner) = (left(unit, line.left), &line.class, &line.owner);
            format!("{}  spent {spent}, reserved {reserved}, {rest}; class {class} of {owner}", line.agent_id)
        };
        output::lines(&got.lines, "no budgets", line)
    })
}

impl What {
    async fn client(&self, global: &Global) -> Result<BudgetsClient<connect::Channel>, Failure> {
        let dir = self.acting.required(AS)?;
        Ok(BudgetsClient::new(connect::as_identity(global, self.acting.server.as_deref(), dir).await?))
    }

    /// The unit as the API has it, and the amount in it.
    fn amount(&self) -> Result<(v1::BudgetUnit, u64), Failure> {
        let some =
            |amount: u64| if amount > 0 { Ok(amount) } else { Err("it is nothing: give what is spent or held".to_owned()) };
        let whole = || self.amount.parse::<u64>().map_err(|_| "write a whole number".to_owned());
        let (unit, amount) = match self.unit {
            Unit::Ops => (v1::BudgetUnit::Ops, whole()),
            Unit::Tokens => (v1::BudgetUnit::Tokens, whole()),
            Unit::Usd => (v1::BudgetUnit::MicroUsd, dollars(&self.amount)),
        };
        Ok((unit, amount.and_then(some).map_err(|e| Failure::usage(format!("`{}`: {e}", self.amount)))?))
    }
}

/// The name of a unit in JSON and in text.
fn name(unit: v1::BudgetUnit) -> &'static str {
    match unit {
        v1::BudgetUnit::Unspecified => "unknown",
        v1::BudgetUnit::Ops => "ops",
        v1::BudgetUnit::Tokens => "tokens",
        v1::BudgetUnit::MicroUsd => "micro_usd",
    }
}

fn text(unit: v1::BudgetUnit, amount: u64) -> String {
    match unit {
        v1::BudgetUnit::MicroUsd => format!("{}.{:06} USD", amount / 1_000_000, amount % 1_000_000),
        unit => format!("{amount} {}", name(unit)),
    }
}

fn left(unit: v1::BudgetUnit, left: Option<u64>) -> String {
    left.map_or("no limit".to_owned(), |left| format!("{} left", text(unit, left)))
}
