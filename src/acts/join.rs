//! Join: an operator makes a join token, with which a workload gets its first certificate.

use mayfly_agent::ticket::Ticket;
use mayfly_verify::{Workload, WorkloadName, sha256};
use zeroize::Zeroizing;

use super::Issuer;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, Kind, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{Act, Chance, Check, Judgement};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::seconds;

/// Longest lifetime of a join token, in seconds.
pub const TICKET_LIFE: u64 = 600;

/// A join token for a workload.
#[derive(Clone, Debug)]
pub struct Join {
    /// The workload.
    pub workload: WorkloadName,
    /// SHA-256 of the token's secret.
    pub hash: [u8; 32],
    /// Seconds for which it may be redeemed.
    pub ttl: u64,
}

/// A join token that may be redeemed.
#[derive(Clone, Debug)]
pub struct Joinable {
    /// Unix microseconds.
    pub ends_at: u64,
    /// Revision of its record.
    pub revision: u64,
}

/// Makes a join token that lasts `ttl` seconds; 0 asks for as long as allowed.
pub async fn join_token(issuer: &Issuer, caller: Caller, workload: WorkloadName, ttl: u64) -> Result<(Ticket, Joinable), No> {
    if ttl > TICKET_LIFE {
        return Err(Denial::malformed("TTL_TOO_LONG", format!("a join token lasts {TICKET_LIFE} seconds at most")).into());
    }
    let ttl = if ttl == 0 { TICKET_LIFE } else { ttl };
    let mut secret = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|e| Fault::new("join token", e))?;
    let hash = sha256(secret.as_slice());
    let joinable = issuer.pipeline.record(caller, Join { workload, hash, ttl }).await?;
    Ok((issuer.ticket(&secret)?, joinable))
}

impl Record for Join {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Act for Join {
    type Permit = Joinable;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Joinable, No> {
        j.checking(Check::WorkloadKnown);
        if !j.rules().workloads.contains(&self.workload) {
            let message = format!("workload `{}` is not configured: add it to `workloads` in the file", self.workload);
            return Err(Denial::new(Kind::NotFound, "WORKLOAD_UNKNOWN", message).into());
        }
        j.check_workload(&Workload::Own(self.workload.clone()))?;
        let ends_at = j.at().saturating_add(seconds(self.ttl));
        let made =
            record::TicketMade { hash: self.hash.to_vec(), workload: self.workload.to_string(), ends_at, ..Default::default() };
        let revision = j.push(caller, Body::TicketMade(made))?;
        Ok(Joinable { ends_at, revision })
    }
}
