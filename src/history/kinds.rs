//! The kind of entry for each kind of record, and the names of budget units.

use super::entry::Kind;
use crate::journal::record::record::Body;
use crate::state::Unit;

/// The name of a unit of budgets.
pub(super) fn unit(number: u32) -> &'static str {
    match Unit::recorded(number) {
        Some(Unit::Usd) => "millionths of a dollar",
        Some(unit) => unit.as_str(),
        None => "units",
    }
}

/// The kind of the entry of a record.
pub(super) fn kind(body: Option<&Body>) -> Kind {
    match body {
        Some(Body::Delegated(_)) => Kind::Delegation,
        Some(Body::Admitted(_)) => Kind::Admission,
        Some(Body::Minted(_) | Body::Exchanged(_)) => Kind::Mint,
        Some(Body::Asked(_) | Body::Answered(_)) => Kind::Approval,
        Some(Body::Ended(_)) => Kind::End,
        Some(Body::Cut(_)) => Kind::Revocation,
        Some(Body::Reopened(_)) => Kind::Reopening,
        Some(Body::TicketMade(_)) => Kind::JoinToken,
        Some(Body::Certified(_)) => Kind::Certificate,
        Some(Body::Configured(_)) => Kind::Configuration,
        Some(Body::Redeemed(_)) => Kind::Redemption,
        Some(Body::Renewed(_)) => Kind::Renewal,
        Some(Body::Used(_) | Body::WorkloadUsed(_) | Body::FirstUse(_)) => Kind::Use,
        Some(Body::Extended(_)) => Kind::Extension,
        Some(Body::Reserved(_) | Body::Spent(_) | Body::Released(_)) => Kind::Budget,
        Some(Body::Authorities(_)) => Kind::Authorities,
        Some(Body::Passed(_)) => Kind::Passage,
        Some(Body::Opened(_) | Body::Resumed(_) | Body::TimeRepaired(_)) | None => Kind::Opened,
    }
}
