//! Access control: one table of actions and roles. An action that is not listed is denied to everybody.

use super::{Rules, audits, operates};
use crate::caller::{Caller, Role};
use crate::denial::{Denial, Kind};
use crate::state::View;

use Role::{Agent, Auditor, Bearer, Foreign, Operator, Revoker, Stranger, User, Workload};

/// A kind of request to the issuer, over whatever protocol it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it; each act's file has the details")]
pub enum Action {
    Redeem,
    Attest,
    Renew,
    Spawn,
    Extend,
    MintJwt,
    Exchange,
    Introspect,
    RevokeToken,
    End,
    Whoami,
    CreateJoinToken,
    Revoke,
    Reopen,
    Backup,
    Reload,
    CompareConfiguration,
    ListAgents,
    GetAgent,
    ListClasses,
    SeeStatus,
    GetBundle,
    WatchCuts,
    ListCuts,
    ListAuthorities,
    ChangeAuthorities,
    ReadHistory,
    Ask,
    SeeApprovals,
    AnswerApproval,
    Explain,
    Evaluate,
    AskWhoCan,
    GetPolicies,
    GetBudget,
    Spend,
}

/// Each action, and the roles that may ask for it.
pub const TABLE: &[(Action, &[Role])] = &[
    (Action::Redeem, &[Stranger, Workload]),
    (Action::Attest, &[Stranger, Workload]),
    (Action::Renew, &[Agent, Workload]),
    (Action::Spawn, &[Agent, Workload, Foreign]),
    (Action::Extend, &[Agent]),
    (Action::MintJwt, &[Agent]),
    (Action::Exchange, &[Agent, Bearer]),
    (Action::Introspect, &[Agent, Bearer, Workload, Foreign, Operator, Auditor]),
    (Action::RevokeToken, &[Agent, Bearer, Workload, Foreign, Operator]),
    (Action::End, &[Agent, Workload, Foreign, Operator]),
    (Action::Whoami, &[Agent, Workload, Foreign]),
    (Action::CreateJoinToken, &[Operator]),
    (Action::Revoke, &[Agent, Workload, Foreign, User, Revoker, Operator]),
    (Action::Reopen, &[User, Operator]),
    (Action::Backup, &[Operator]),
    (Action::Reload, &[Operator]),
    (Action::CompareConfiguration, &[Operator]),
    (Action::ListAgents, &[Agent, Workload, Foreign, User, Operator, Auditor]),
    (Action::GetAgent, &[Agent, Workload, Foreign, User, Operator, Auditor]),
    (Action::ListClasses, &[Agent, Workload, Foreign, Operator, Auditor]),
    (Action::SeeStatus, &[Operator, Auditor]),
    (Action::GetBundle, &[Stranger, Agent, Workload, Foreign, Operator, Auditor]),
    (Action::WatchCuts, &[Agent, Workload, Foreign, Operator, Auditor]),
    (Action::ListCuts, &[Operator, Auditor]),
    (Action::ListAuthorities, &[Operator, Auditor]),
    (Action::ChangeAuthorities, &[Operator]),
    (Action::ReadHistory, &[Agent, Workload, Foreign, User, Operator, Auditor]),
    (Action::Ask, &[Agent, Bearer]),
    (Action::SeeApprovals, &[Agent, Workload, Foreign, User, Operator, Auditor]),
    // T182: only a person with a token of their own may answer: not the agent, not its spawner, and no operator.
    (Action::AnswerApproval, &[User]),
    (Action::Explain, &[Agent, Workload, Foreign, Operator, Auditor]),
    (Action::Evaluate, &[Agent, Bearer, Workload, Foreign, Operator, Auditor]),
    (Action::AskWhoCan, &[Operator, Auditor]),
    (Action::GetPolicies, &[Operator, Auditor]),
    (Action::GetBudget, &[Agent, Workload, Foreign, Operator, Auditor]),
    (Action::Spend, &[Agent, Workload, Foreign]),
];

/// Actions that are only for operators on the issuer's socket, because they write files on that machine or show their content.
const LOCAL: &[Action] = &[Action::Backup, Action::Reload, Action::CompareConfiguration];

/// Whether an action issues a credential, a ticket or a longer lease. Only these are refused while the audit log cannot be written;
/// revocations, ends and reads are not.
pub fn issues(action: Action) -> bool {
    use Action::{Attest, CreateJoinToken, Exchange, Extend, MintJwt, Redeem, Renew, Spawn};
    match action {
        Redeem | Attest | Renew | Spawn | Extend | MintJwt | Exchange | CreateJoinToken => true,
        // An approval issues nothing before it is exchanged, and a reopening issues nothing before somebody spawns.
        Action::Ask | Action::AnswerApproval | Action::Reopen => false,
        Action::Introspect | Action::RevokeToken | Action::End | Action::Revoke => false,
        Action::Whoami | Action::Backup | Action::Reload | Action::CompareConfiguration | Action::ChangeAuthorities => false,
        Action::ListAgents
        | Action::GetAgent
        | Action::ListClasses
        | Action::GetBundle
        | Action::WatchCuts
        | Action::SeeStatus => false,
        Action::ListCuts | Action::ListAuthorities | Action::ReadHistory | Action::SeeApprovals => false,
        Action::Explain | Action::Evaluate | Action::AskWhoCan | Action::GetPolicies | Action::GetBudget | Action::Spend => false,
    }
}

/// The roles that may ask for an action.
pub fn roles(action: Action) -> &'static [Role] {
    TABLE.iter().find(|(listed, _)| *listed == action).map_or(&[], |(_, roles)| roles)
}

/// The caller in the role in which it asks. A workload that is configured as an operator or an auditor has that role for actions
/// that the role may use, and is itself for all others. A person with a token for operators has only that role. The workload or
/// person stays in `by`.
pub fn acting(action: Action, caller: Caller, view: &impl View, rules: &Rules) -> Caller {
    let nothing_else = matches!(caller, Caller::Person { .. });
    if (nothing_else || roles(action).contains(&Operator)) && operates(view, rules, &caller).is_ok() {
        return Caller::Operator { name: caller.scope(), by: Some(Box::new(caller)) };
    }
    if (nothing_else || roles(action).contains(&Auditor)) && audits(view, rules, &caller).is_ok() {
        return Caller::Auditor { name: caller.scope(), by: Some(Box::new(caller)) };
    }
    caller
}

/// Whether the caller's role may ask for an action.
pub fn check(action: Action, caller: &Caller) -> Result<(), Denial> {
    if roles(action).contains(&caller.role()) {
        return match caller {
            Caller::Operator { by: Some(_), .. } if LOCAL.contains(&action) => {
                let message = "this call is for operators on the issuer's machine: use the operator socket there";
                Err(Denial::denied("ROLE_NOT_ALLOWED", message))
            }
            _ => Ok(()),
        };
    }
    if let Caller::User { only_revokes, .. } = caller {
        let message = match only_revokes {
            true => {
                "tokens of this audience revoke and nothing else: use one of an audience that is configured with `user = true`"
            }
            false => "this call is not for users",
        };
        return Err(Denial::denied("ROLE_NOT_ALLOWED", message));
    }
    if matches!(caller, Caller::Auditor { .. }) {
        return Err(Denial::denied("ROLE_NOT_ALLOWED", "auditors read everything and change nothing: ask an operator"));
    }
    if let Caller::Person { audience, .. } = caller {
        let message = format!("no entry of `[[operators]]` for the audience `{audience}` has claims that this token has");
        return Err(Denial::denied("OPERATOR_UNMATCHED", message));
    }
    if matches!(caller, Caller::Stranger) {
        let message = "this call needs a client certificate: connect with the SVID of a workload or an agent";
        return Err(Denial::new(Kind::Unauthenticated, "CERTIFICATE_NEEDED", message));
    }
    Err(Denial::denied("ROLE_NOT_ALLOWED", "this call is not for this kind of caller"))
}
