//! What the history hears of requests that leave no record: denials, faults, and the looks of operators and auditors.

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

/// Tells the history of a denial or a fault of a request of `peer`.
pub fn denied(issuer: &Issuer, peer: Option<&Peer>, origin: &Origin, no: &No) {
    if origin.caller.get().is_none()
        && let Some(Peer::Tls(connection)) = peer
        && let Some(proved) = connection.proved.get()
    {
        // Its chain has verified, though it may not call.
        let _ = origin.claimed.set(proved.id().to_string());
    }
    issuer.history.denied(origin, no);
}

/// Tells the history of what an operator or an auditor looked at. Later pages of a list belong to the same look.
pub fn answered(issuer: &Issuer, action: Action, origin: &Origin) {
    let reader = origin.caller.get().is_some_and(Caller::reads_everything);
    if reader && LOOKS.contains(&action) && origin.continues.get().is_none() {
        issuer.history.looked(origin);
    }
}
