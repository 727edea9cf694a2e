//! Present: a caller shows itself. The ledger judges its certificate, and records the first use of a renewed one.

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
    /// The lane of what the caller is about to ask.
    pub lane: Lane,
    /// Whether that is a renewal.
    pub renews: bool,
}

/// Has the ledger judge a caller that is about to ask for something.
pub(super) async fn present(issuer: &Issuer, caller: Caller, action: Action) -> Result<(), No> {
    // A revocation does not wait in another lane before it gets to its own.
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
