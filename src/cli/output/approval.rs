//! How an approval is printed.

use mayfly_agent::api::v1;
use mayfly_verify::approval::{Shown, binding_code};
use serde_json::{Value, json};

use super::{optional_timestamp, timestamp};

/// An approval, with the field names that every command uses.
pub(in crate::cli) fn object(approval: &v1::Approval) -> Value {
    let user = |user: &v1::User| json!({ "iss": user.iss, "sub": user.sub });
    json!({
        "approval_id": approval.approval_id,
        "state": state(approval),
        "agent_id": approval.agent_id,
        "chain": approval.chain,
        "user": approval.user.as_ref().map(user),
        "user_name": approval.user.as_ref().map(super::user::name),
        "delegation_id": Some(&approval.delegation_id).filter(|id| !id.is_empty()),
        "audience": approval.audience,
        "authorization_details": serde_json::from_str::<Value>(&approval.authorization_details).ok(),
        "scopes": approval.scopes,
        "reason": approval.reason,
        "digest": approval.digest,
        "binding_code": code(approval),
        "asked_at": timestamp(approval.asked_at.as_ref()),
        "expires_at": timestamp(approval.expires_at.as_ref()),
        "uses": approval.uses,
        "used": approval.used,
        "lasts_seconds": approval.lasts_seconds,
        "answered_by": approval.answered_by.as_ref().map(user),
        "answered_at": optional_timestamp(approval.answered_at.as_ref()),
        "narrowed": approval.narrowed.as_ref().map(|narrowed| {
            let details = serde_json::from_str::<Value>(&narrowed.authorization_details).ok();
            json!({ "authorization_details": details, "scopes": narrowed.scopes })
        }),
        "page": Some(&approval.page).filter(|page| !page.is_empty()),
        "evidence": Some(&approval.evidence).filter(|evidence| !evidence.is_empty()).map(|digest| format!("sha256:{digest}")),
    })
}

/// The digest of what an approval says. `None` if its actions cannot be read.
pub(in crate::cli) fn digest(approval: &v1::Approval) -> Option<String> {
    let shown = Shown {
        agent: &approval.agent_id,
        audience: &approval.audience,
        delegation: &approval.delegation_id,
        scopes: &approval.scopes,
        details: &approval.authorization_details,
        reason: &approval.reason,
        uses: approval.uses,
        lasts: approval.lasts_seconds,
    };
    shown.digest().map(hex::encode)
}

/// The code that a provider shows the person whom it asks. `None` if the digest cannot be read.
fn code(approval: &v1::Approval) -> Option<String> {
    let (mut id, mut digest) = ([0; 16], [0; 32]);
    hex::decode_to_slice(&approval.approval_id, &mut id).ok()?;
    hex::decode_to_slice(&approval.digest, &mut digest).ok()?;
    Some(binding_code(&id, &digest))
}

/// The text for an agent that has asked for an approval.
pub(in crate::cli) fn asked(approval: &v1::Approval) -> Vec<String> {
    let (id, until) = (&approval.approval_id, timestamp(approval.expires_at.as_ref()));
    let mut lines = vec![
        format!("approval {id} is {}, until {until}", state(approval)),
        format!("  the person answers with: mayfly approve {id} --user-token FILE"),
        format!("  the agent then gets its token with: mayfly exchange --approval {id}"),
    ];
    if !approval.page.is_empty() {
        lines.insert(2, format!("  or in a browser: {}", approval.page));
    }
    lines
}

/// One line: id, state, agent, the request and its reason.
pub(in crate::cli) fn line(approval: &v1::Approval) -> String {
    let what = [approval.authorization_details.clone(), approval.scopes.join(" ")];
    let what: Vec<String> = what.into_iter().filter(|part| !part.is_empty()).collect();
    let v1::Approval { approval_id, agent_id, audience, reason, .. } = approval;
    format!("{approval_id}  {:<8}  {agent_id}  {} at {audience}: {reason}", state(approval), what.join(" "))
}

/// The word for its state.
pub(in crate::cli) fn state(approval: &v1::Approval) -> &'static str {
    match approval.state() {
        v1::ApprovalState::Pending => "pending",
        v1::ApprovalState::Approved => "approved",
        v1::ApprovalState::Denied => "denied",
        v1::ApprovalState::Expired => "expired",
        v1::ApprovalState::Used => "used",
        v1::ApprovalState::Revoked => "revoked",
        v1::ApprovalState::Unspecified => "unknown",
    }
}
