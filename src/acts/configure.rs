//! Configure: the journal learns of the configuration that a start uses.

use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::No;
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Chance, Judgement};
use crate::ledger::{Ledger, Pending};
use crate::pipeline::chance;
use crate::state::authority::Kind;

/// The configuration in use.
#[derive(Clone, Copy, Debug)]
pub struct Configure {
    /// SHA-256 of classes and limits in canonical form.
    pub classes: [u8; 32],
}

/// Records the configuration if it has changed. Blocks: not for async code.
pub fn configure(ledger: &Ledger, classes: [u8; 32]) -> Result<(), No> {
    let pending = Pending::new(Caller::Stranger, Configure { classes }, chance()?);
    let settled = ledger.commit(vec![pending]).pop().map(|mut pending| pending.take().map(drop));
    settled.unwrap_or(Ok(()))
}

impl Act for Configure {
    type Permit = u64;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<u64, No> {
        let body = record::Configured {
            classes: self.classes.to_vec(),
            x509_life: j.rules().x509_life(),
            jwt_life: j.rules().jwt_life(),
            // If lifetimes get shorter now, credentials that are out still last as long as they were signed for.
            x509_until: j.last_ends(Kind::X509) / SECOND,
            jwt_until: j.last_ends(Kind::Jwt) / SECOND,
            policies: j.rules().policies.as_ref().map(|set| set.digest().to_vec()).unwrap_or_default(),
        };
        let same = |c: &record::Configured| {
            let lives = c.x509_life == body.x509_life && c.jwt_life == body.jwt_life;
            lives && c.classes == body.classes && c.policies == body.policies
        };
        match j.view().configured() {
            Some((configured, revision)) if same(configured) => Ok(revision),
            _ => j.push(caller, Body::Configured(body)),
        }
    }
}
