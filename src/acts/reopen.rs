//! Reopen: a closed user, issuer of users, workload or class gets new credentials again.

use std::time::Duration;

use mayfly_verify::Target;
use tokio::sync::oneshot;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body, reopened};
use crate::judge::{Act, Chance, Check, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::View;

/// How long a reopening waits in development for the development workload to join again.
const REJOIN: Duration = Duration::from_secs(5);

/// A reopening.
#[derive(Clone, Debug)]
pub struct Reopen {
    /// A user, an issuer of users, a workload or a class.
    pub target: Target,
}

/// A target that is open again.
#[derive(Clone, Debug)]
pub struct Reopened {
    /// Revision of its record.
    pub revision: u64,
    /// Unix microseconds.
    pub at: u64,
}

/// Opens a user, an issuer of users, a workload or a class again.
pub async fn reopen(issuer: &Issuer, caller: Caller, target: Target) -> Result<Reopened, No> {
    let workload = matches!(target, Target::Workload(_));
    let reopened = issuer.pipeline.record(caller, Reopen { target: super::revoke::sound(target)? }).await?;
    if let Some(rejoin) = issuer.rejoin.as_ref().filter(|_| workload) {
        let (joined, done) = oneshot::channel();
        if rejoin.try_send(joined).is_ok() {
            let _ = tokio::time::timeout(REJOIN, done).await;
        }
    }
    Ok(reopened)
}

impl Record for Reopen {
    fn lane(&self) -> Lane {
        Lane::Revocation
    }
}

impl Act for Reopen {
    type Permit = Reopened;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Reopened, No> {
        let (record, code, what) = match &self.target {
            Target::User(u) => {
                let user = record::User { iss: u.iss.clone(), sub: u.sub.clone() };
                (reopened::Target::User(user), "USER_NOT_CLOSED", format!("user `{}` of `{}`", u.sub, u.iss))
            }
            Target::Workload(w) => (reopened::Target::Workload(w.to_string()), "WORKLOAD_NOT_CLOSED", format!("workload `{w}`")),
            Target::Issuer(iss) => {
                (reopened::Target::Issuer(iss.clone()), "USER_ISSUER_NOT_CLOSED", format!("issuer of users `{iss}`"))
            }
            Target::Class(c) => (reopened::Target::Class(c.to_string()), "CLASS_NOT_CLOSED", format!("class `{c}`")),
            _ => return Err(Fault::new("reopen", "this target never comes back").into()),
        };
        j.may_reopen(caller, &self.target)?;
        j.checking(Check::TargetClosed);
        if !j.view().is_closed(&self.target) {
            let message = format!("{what} is not closed: there is nothing to reopen");
            return Err(Denial::new(Kind::NotFound, code, message).into());
        }
        let revision = j.push(caller, Body::Reopened(record::Reopened { target: Some(record) }))?;
        Ok(Reopened { revision, at: j.at() })
    }
}
