//! The methods of the API: the name of each as metrics use it, and the action that it asks for.

use crate::judge::access::Action;

/// One method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// `Service/Method`, without the package.
    pub name: &'static str,
    /// The action.
    pub action: Action,
}

pub(super) const REDEEM: Method = Method { name: "Identities/Redeem", action: Action::Redeem };
pub(super) const ATTEST: Method = Method { name: "Identities/Attest", action: Action::Attest };
pub(super) const RENEW: Method = Method { name: "Identities/Renew", action: Action::Renew };
pub(super) const SPAWN: Method = Method { name: "Identities/Spawn", action: Action::Spawn };
pub(super) const MINT_JWT: Method = Method { name: "Identities/MintJwt", action: Action::MintJwt };
pub(super) const EXCHANGE: Method = Method { name: "Tokens/Exchange", action: Action::Exchange };
pub(super) const INTROSPECT: Method = Method { name: "Tokens/Introspect", action: Action::Introspect };
pub(super) const REVOKE_TOKEN: Method = Method { name: "Tokens/Revoke", action: Action::RevokeToken };
pub(super) const END: Method = Method { name: "Identities/End", action: Action::End };
pub(super) const EXTEND: Method = Method { name: "Identities/Extend", action: Action::Extend };
pub(super) const WHOAMI: Method = Method { name: "Identities/Whoami", action: Action::Whoami };
pub(super) const SPAWN_BATCH: Method = Method { name: "Batches/Spawn", action: Action::Spawn };
pub(super) const CREATE_JOIN_TOKEN: Method = Method { name: "Operations/CreateJoinToken", action: Action::CreateJoinToken };
pub(super) const REVOKE: Method = Method { name: "Operations/Revoke", action: Action::Revoke };
pub(super) const REOPEN: Method = Method { name: "Operations/Reopen", action: Action::Reopen };
pub(super) const BACKUP: Method = Method { name: "Operations/Backup", action: Action::Backup };
pub(super) const RELOAD: Method = Method { name: "Operations/Reload", action: Action::Reload };
pub(super) const COMPARE_CONFIGURATION: Method =
    Method { name: "Operations/CompareConfiguration", action: Action::CompareConfiguration };
pub(super) const LIST_AGENTS: Method = Method { name: "Inspection/ListAgents", action: Action::ListAgents };
pub(super) const GET_AGENT: Method = Method { name: "Inspection/GetAgent", action: Action::GetAgent };
pub(super) const LIST_CLASSES: Method = Method { name: "Inspection/ListClasses", action: Action::ListClasses };
pub(super) const GET_STATUS: Method = Method { name: "Inspection/GetStatus", action: Action::SeeStatus };
pub(super) const LIST_ENTRIES: Method = Method { name: "History/ListEntries", action: Action::ReadHistory };
pub(super) const GET_DECISION: Method = Method { name: "History/GetDecision", action: Action::ReadHistory };
pub(super) const EXPLAIN: Method = Method { name: "Decisions/Explain", action: Action::Explain };
pub(super) const WHO_CAN: Method = Method { name: "Decisions/WhoCan", action: Action::AskWhoCan };
pub(super) const WHAT_IF: Method = Method { name: "Decisions/WhatIf", action: Action::AskWhoCan };
pub(super) const REPLAY: Method = Method { name: "Decisions/Replay", action: Action::AskWhoCan };
pub(super) const GOVERN: Method = Method { name: "Decisions/Govern", action: Action::AskWhoCan };
pub(super) const GET_BUNDLE: Method = Method { name: "Bundles/GetBundle", action: Action::GetBundle };
pub(super) const WATCH_BUNDLE: Method = Method { name: "Bundles/WatchBundle", action: Action::GetBundle };
pub(super) const GET_CRLS: Method = Method { name: "Bundles/GetCrls", action: Action::WatchCuts };
pub(super) const WATCH_CUTS: Method = Method { name: "Revocations/WatchCuts", action: Action::WatchCuts };
pub(super) const LIST_CUTS: Method = Method { name: "Revocations/ListCuts", action: Action::ListCuts };
pub(super) const CONFIRM_CUTS: Method = Method { name: "Revocations/ConfirmCuts", action: Action::WatchCuts };
pub(super) const LIST_SUBSCRIBERS: Method = Method { name: "Revocations/ListSubscribers", action: Action::ListCuts };
pub(super) const LIST_AUTHORITIES: Method = Method { name: "Authorities/ListAuthorities", action: Action::ListAuthorities };
pub(super) const GET_BUDGET: Method = Method { name: "Budgets/GetBudget", action: Action::GetBudget };
pub(super) const SPEND: Method = Method { name: "Budgets/Spend", action: Action::Spend };
pub(super) const RESERVE: Method = Method { name: "Budgets/Reserve", action: Action::Spend };
pub(super) const RELEASE: Method = Method { name: "Budgets/Release", action: Action::Spend };
pub(super) const GET_POLICIES: Method = Method { name: "Policies/GetPolicies", action: Action::GetPolicies };
pub(super) const PREPARE_AUTHORITY: Method = Method { name: "Authorities/PrepareAuthority", action: Action::ChangeAuthorities };
pub(super) const ACTIVATE_AUTHORITY: Method = Method { name: "Authorities/ActivateAuthority", action: Action::ChangeAuthorities };
pub(super) const ROTATE_AUTHORITY: Method = Method { name: "Authorities/RotateAuthority", action: Action::ChangeAuthorities };
pub(super) const RETIRE_AUTHORITY: Method = Method { name: "Authorities/RetireAuthority", action: Action::ChangeAuthorities };
pub(super) const TAINT_AUTHORITY: Method = Method { name: "Authorities/TaintAuthority", action: Action::ChangeAuthorities };

pub(super) const ASK: Method = Method { name: "Approvals/Ask", action: Action::Ask };
pub(super) const GET_APPROVAL: Method = Method { name: "Approvals/GetApproval", action: Action::SeeApprovals };
pub(super) const LIST_APPROVALS: Method = Method { name: "Approvals/ListApprovals", action: Action::SeeApprovals };
pub(super) const APPROVE: Method = Method { name: "Approvals/Approve", action: Action::AnswerApproval };
pub(super) const DENY: Method = Method { name: "Approvals/Deny", action: Action::AnswerApproval };

/// Longest request for a batch, in bytes: a thousand certification requests. A configuration may be as long.
const LONG_MESSAGE: usize = 1 << 20;
/// Longest request with a set of policies, in bytes: a set has at most 1 MiB of text.
const SET_MESSAGE: usize = 5 << 18;

impl Method {
    /// Longest message of this method, in bytes; `message` is the limit of most methods.
    pub fn longest(&self, message: usize) -> usize {
        match self.name {
            name if name == SPAWN_BATCH.name || name == COMPARE_CONFIGURATION.name => message.max(LONG_MESSAGE),
            name if name == WHAT_IF.name || name == REPLAY.name => message.max(SET_MESSAGE),
            _ => message,
        }
    }
}

/// Every method. A test compares the list with the proto file.
pub const METHODS: &[Method] = &[
    REDEEM,
    ATTEST,
    RENEW,
    SPAWN,
    MINT_JWT,
    EXCHANGE,
    INTROSPECT,
    REVOKE_TOKEN,
    END,
    EXTEND,
    WHOAMI,
    SPAWN_BATCH,
    CREATE_JOIN_TOKEN,
    REVOKE,
    REOPEN,
    BACKUP,
    RELOAD,
    COMPARE_CONFIGURATION,
    LIST_AGENTS,
    GET_AGENT,
    LIST_CLASSES,
    GET_STATUS,
    LIST_ENTRIES,
    GET_DECISION,
    EXPLAIN,
    WHO_CAN,
    WHAT_IF,
    REPLAY,
    GOVERN,
    GET_BUNDLE,
    WATCH_BUNDLE,
    GET_CRLS,
    WATCH_CUTS,
    LIST_CUTS,
    CONFIRM_CUTS,
    LIST_SUBSCRIBERS,
    GET_POLICIES,
    GET_BUDGET,
    SPEND,
    RESERVE,
    RELEASE,
    LIST_AUTHORITIES,
    PREPARE_AUTHORITY,
    ACTIVATE_AUTHORITY,
    ROTATE_AUTHORITY,
    RETIRE_AUTHORITY,
    TAINT_AUTHORITY,
    ASK,
    GET_APPROVAL,
    LIST_APPROVALS,
    APPROVE,
    DENY,
];

/// The name of every method that is not in the list, as metrics use it.
pub const OTHER: &str = "other";

/// The method of a path. Its name is a label of metrics: names come from the list, so no caller can make labels.
pub fn find(path: &str) -> Option<&'static Method> {
    let name = path.strip_prefix("/mayfly.v1.")?;
    METHODS.iter().find(|method| method.name == name)
}
