//! The record of a cut: by somebody who revokes, or by the issuer itself.

use mayfly_verify::Target;

use super::Judgement;
use crate::caller::Caller;
use crate::denial::{Fault, No};
use crate::journal::record::{self, record::Body};
use crate::state::{CUT_KEEP, SKEW, View, before, cut_target, seconds};

/// A cut that is asked for.
pub struct Cutting<'a> {
    /// What is revoked.
    pub target: &'a Target,
    /// For the trust domain: revoke only what was recorded before a time. `None` means everything so far.
    pub since: Option<Since>,
    /// The reason. It is never shown to callers.
    pub reason: &'a str,
    /// Issue nothing new for the target until it is reopened.
    pub closes: bool,
}

/// A time, and the revision that separates what was recorded before it from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The first revision that was not recorded before the time; if there is none, the next revision.
    pub revision: u64,
    /// Unix microseconds, not in the future.
    pub time: u64,
}

impl<'a> Cutting<'a> {
    /// A cut that the issuer makes by itself.
    pub fn by_issuer(target: &'a Target, reason: &'a str) -> Cutting<'a> {
        Cutting { target, since: None, reason, closes: false }
    }

    /// Whether nothing new is issued for the target: a key for good, a user, a workload or a class if that is asked for.
    pub fn closes(&self) -> bool {
        match self.target {
            Target::Key(_) => true,
            Target::User(_) | Target::Workload(_) | Target::Class(_) => self.closes,
            _ => false,
        }
    }
}

impl Judgement<'_> {
    /// Records a cut. Its revision.
    pub fn cut(&mut self, caller: &Caller, cutting: &Cutting<'_>) -> Result<u64, No> {
        let target = cutting.target;
        // Kept until the last thing it can kill has ended: a delegation lasts as long as its token, whatever classes say, and a
        // lease as long as its class said when it was given.
        let keep_until = match target {
            // The first record of an incarnation is one of these, and is kept for good.
            Target::TrustDomain => u64::MAX,
            _ => {
                let lease = seconds(self.rules().longest_lease()).max(CUT_KEEP);
                self.at().saturating_add(lease).max(self.view().lasts_until()).saturating_add(SKEW)
            }
        };
        // INVARIANT: the last cut of a target holds its whole standing, because the rows before it are dropped.
        let reopenable = matches!(target, Target::User(_) | Target::Workload(_) | Target::Class(_));
        let closes = cutting.closes() || reopenable && self.view().is_closed(target);
        let by = match caller {
            Caller::Operator { .. } | Caller::Stranger => String::new(),
            other => other.scope(),
        };
        let body = record::Cut {
            before: cutting.since.map_or_else(|| before(target, self.view().revision() + 1), |since| since.revision),
            closes,
            keep_until,
            reason: cutting.reason.to_owned(),
            by,
            time: cutting.since.map_or(0, |since| since.time),
            target: Some(cut_target(target).ok_or_else(|| Fault::new("revoke", "authorities are tainted, not cut"))?),
        };
        self.push(caller, Body::Cut(body))
    }
}
