//! Present: the ledger judges the caller's certificate before the call itself, and records the first use of a renewed one.

use super::Issuer;
use crate::caller::Caller;
use crate::denial::No;
use crate::judge::access::Action;
use crate::judge::{Act, Chance, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;

/// Nothing but the caller.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// The lane of the request that follows.
    pub lane: Lane,
    /// Whether the request that follows is a renewal.
    pub renews: bool,
}

/// Lets the ledger judge the certificate of a caller before its request for `action`.
pub(super) async fn present(issuer: &Issuer, caller: Caller, action: Action) -> Result<(), No> {
    // A revocation uses its own lane for this step too, so that it never waits behind issuance.
    let lane = match action {
        Action::Revoke | Action::End | Action::Reopen => Lane::Revocation,
        _ => Lane::Issuance,
    };
    issuer.pipeline.record(caller, Present { lane, renews: action == Action::Renew }).await
}

impl Record for Present {
    fn lane(&self) -> Lane {
        self.lane
    }
}

impl Act for Present {
    type Permit = ();

    fn judge(&self, _: &mut Judgement<'_>, _: &Caller, _: &Chance) -> Result<(), No> {
        Ok(())
    }

    fn renews(&self) -> bool {
        self.renews
    }
}
