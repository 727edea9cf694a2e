//! Puts requests that leave no record into the history: denials, faults, and reads of operators and auditors.

use super::peer::Peer;
use crate::acts::Issuer;
use crate::caller::{Caller, Origin};
use crate::denial::No;
use crate::judge::access::Action;

/// Actions that show an operator or an auditor what others do.
const LOOKS: &[Action] = &[
    Action::Backup,
    Action::CompareConfiguration,
    Action::ListAgents,
    Action::GetAgent,
    Action::ListCuts,
    Action::ListAuthorities,
    Action::ReadHistory,
    Action::Explain,
    Action::Evaluate,
    Action::AskWhoCan,
    Action::GetPolicies,
];

/// Puts the denial or fault of a request of `peer` into the history.
pub fn denied(issuer: &Issuer, peer: Option<&Peer>, origin: &Origin, no: &No) {
    if origin.caller.get().is_none()
        && let Some(Peer::Tls(connection)) = peer
        && let Some(proved) = connection.proved.get()
    {
        // The chain of the peer is valid, although the peer may not call.
        let _ = origin.claimed.set(proved.id().to_string());
    }
    issuer.history.denied(origin, no);
}

/// Puts the read of an operator or an auditor into the history. Later pages of a list belong to the same read.
pub fn answered(issuer: &Issuer, action: Action, origin: &Origin) {
    let reader = origin.caller.get().is_some_and(Caller::reads_everything);
    if reader && LOOKS.contains(&action) && origin.continues.get().is_none() {
        issuer.history.looked(origin);
    }
}
