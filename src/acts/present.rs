//! Present: a caller shows itself. The ledger judges its certificate, and records the first use of a renewed one.

use super::Issuer;
use crate::caller::Caller;
use crate::denial::No;
use crate::judge::{Act, Chance, Judgement};

/// Nothing but the caller.
#[derive(Clone, Copy, Debug)]
pub struct Present;

/// Has the ledger judge a caller.
pub(super) async fn present(issuer: &Issuer, caller: Caller) -> Result<(), No> {
    issuer.pipeline.record(caller, Present).await
}

impl Act for Present {
    type Permit = ();

    fn judge(&self, _: &mut Judgement<'_>, _: &Caller, _: &Chance) -> Result<(), No> {
        Ok(())
    }
}
