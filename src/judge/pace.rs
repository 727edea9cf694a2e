//! Rate limits of requests that are recorded, apart from spawns, which have limits of their own. A record costs memory and disk for
//! as long as it is kept, so each kind of request has a rate limit (a *pace*) for each caller, and one for each root workload with
//! all of its agents.

use super::access::Action;
use super::limits::{Full, rate};
use crate::denial::{Denial, Kind};
use crate::state::Reading;

/// A rate limit: at most `burst` at once, and one more every `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Microseconds between two requests in the long run; at least 1.
    pub period: u64,
    /// How many may come at once; at least 1.
    pub burst: u64,
}

/// The rate limits of one kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paces {
    /// For each caller.
    pub caller: Pace,
    /// For each root workload, with all of its agents.
    pub root: Pace,
}

/// The kinds of requests that have a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// A JWT-SVID.
    Mint,
    /// An access token.
    Exchange,
    /// The revocation of an access token.
    RevokeToken,
    /// A spend, a reservation or a release of an agent.
    Spend,
    /// A later certificate.
    Renew,
    /// A first certificate, for a ticket.
    Redeem,
    /// The end of an agent.
    End,
    /// A revocation by an agent, a workload or an operator over mTLS.
    Revoke,
    /// A revocation by a user of their own access.
    RevokeOwn,
    /// A join token, or another act of an operator over mTLS.
    Operate,
    /// A question of an agent to a person.
    Ask,
    /// The answer of a person.
    Answer,
}

impl Verb {
    /// All kinds, in the order of the configuration.
    pub const ALL: [Verb; 12] = [
        Verb::Mint,
        Verb::Exchange,
        Verb::Renew,
        Verb::Redeem,
        Verb::End,
        Verb::Revoke,
        Verb::RevokeToken,
        Verb::Spend,
        Verb::RevokeOwn,
        Verb::Operate,
        Verb::Ask,
        Verb::Answer,
    ];

    /// Its name in the configuration and in denials.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Mint => "mint",
            Verb::Exchange => "exchange",
            Verb::RevokeToken => "revoke_token",
            Verb::Spend => "spend",
            Verb::Renew => "renew",
            Verb::Redeem => "redeem",
            Verb::End => "end",
            Verb::Revoke => "revoke",
            Verb::RevokeOwn => "revoke_own",
            Verb::Operate => "operate",
            Verb::Ask => "ask",
            Verb::Answer => "answer",
        }
    }

    /// The kind of an action. `None` if the action records nothing, or has the limits of spawns.
    pub fn of(action: Action) -> Option<Verb> {
        match action {
            Action::MintJwt => Some(Verb::Mint),
            Action::Exchange => Some(Verb::Exchange),
            Action::RevokeToken => Some(Verb::RevokeToken),
            Action::Spend => Some(Verb::Spend),
            Action::Renew | Action::Extend => Some(Verb::Renew),
            Action::Redeem | Action::Attest => Some(Verb::Redeem),
            Action::End => Some(Verb::End),
            Action::Revoke => Some(Verb::Revoke),
            Action::Ask => Some(Verb::Ask),
            Action::AnswerApproval => Some(Verb::Answer),
            Action::CreateJoinToken | Action::Reopen | Action::ChangeAuthorities | Action::Backup | Action::Reload => {
                Some(Verb::Operate)
            }
            Action::Spawn
            | Action::Introspect
            | Action::Whoami
            | Action::ListAgents
            | Action::GetAgent
            | Action::ListClasses
            | Action::SeeStatus
            | Action::GetBundle
            | Action::WatchCuts
            | Action::ListCuts
            | Action::ListAuthorities
            | Action::SeeApprovals
            | Action::ReadHistory
            | Action::Explain
            | Action::AskWhoCan
            | Action::GetPolicies
            | Action::GetBudget
            | Action::Evaluate
            | Action::CompareConfiguration => None,
        }
    }
}

/// Whose pace it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// One caller's.
    Caller,
    /// The limit of a root workload with all of its agents.
    Root,
}

/// The meter after one more request, or the denial. `now` is in microseconds of any clock that never goes back.
pub fn paced(verb: Verb, whose: Whose, pace: Pace, before: Option<u64>, now: u64) -> Result<u64, Denial> {
    let before = before.map(|value| Reading { value, until: value });
    rate(before, pace.period, pace.burst, now).map(|after| after.value).map_err(|full| refused(verb, whose, pace, full))
}

fn refused(verb: Verb, whose: Whose, pace: Pace, full: Full) -> Denial {
    let per = match whose {
        Whose::Caller => "caller",
        Whose::Root => "root",
    };
    let message = format!("too many requests to {} for one {per}: {} may come at once; ask again later", words(verb), pace.burst);
    let denial = Denial::new(Kind::Exhausted, "LIMIT_REACHED", message).with("limit", format!("writes.{}", verb.as_str()));
    let denial = denial.with("per", per).with("measure", "rate").with("value", full.limit.to_string());
    denial.with("used", full.used.to_string()).retry_after(full.retry)
}

fn words(verb: Verb) -> &'static str {
    match verb {
        Verb::Mint => "mint a token",
        Verb::Exchange => "get an access token",
        Verb::RevokeToken => "revoke a token",
        Verb::Spend => "spend a budget",
        Verb::Renew => "renew a certificate",
        Verb::Redeem => "redeem a ticket",
        Verb::End => "end an agent",
        Verb::Revoke => "revoke an agent",
        Verb::RevokeOwn => "revoke their own access",
        Verb::Operate => "change something as an operator",
        Verb::Ask => "ask for an approval",
        Verb::Answer => "answer an approval",
    }
}
