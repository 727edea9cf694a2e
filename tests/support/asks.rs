//! Acts of all kinds as one, for tests and measurements that mix them: they skip the doors and the signatures.

#![allow(dead_code, unreachable_pub, clippy::expect_used, reason = "each test file uses what it needs")]
use mayfly::acts::{
    answer, ask, authorities, budget, configure, end, exchange, extend, join, mint, present, redeem, renew, reopen, revoke, spawn,
};
use mayfly::caller::Caller;
use mayfly::csr::Key;
use mayfly::denial::No;
use mayfly::judge::keyless::ForAgent;
use mayfly::judge::{self, Act, Admission, Certification, Chance, Judgement, RequestId, Since};
use mayfly::ledger::{Either, Lane, Ledger, Pending, Recorded};
use mayfly_verify::{AgentId, Target, WorkloadName};
use uuid::Uuid;

/// One act of a caller.
#[derive(Clone, Debug)]
pub struct Ask {
    pub caller: Caller,
    pub proposal: Proposal,
}

/// An act.
#[derive(Clone, Debug)]
pub enum Proposal {
    Spawn(Box<spawn::Spawn>),
    Mint { audiences: Vec<String>, request: Option<RequestId>, for_agent: Option<ForAgent> },
    End { agent: Option<Uuid> },
    Ticket { workload: WorkloadName, hash: [u8; 32], ttl: u64 },
    Redeem { hash: [u8; 32], key: [u8; 32] },
    Renew { key: [u8; 32] },
    Present,
    Exchange(Box<exchange::Exchange>),
    Question(ask::Ask),
    Answer(answer::Answer),
    Extend { proof: judge::Proof, lease: u64 },
    Revoke { target: Target, since: Option<Since>, dry: bool, reason: String, allow_new: bool },
    Reopen { target: Target },
    Configure { classes: [u8; 32] },
    Spend(budget::Spend),
    Reserve(budget::Reserve),
    Release(budget::Release),
    Authorities(authorities::Change),
}

/// What an act became.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a test holds few of them")]
pub enum Outcome {
    Spawned(Admission, Option<judge::Mint>),
    Renewed(Admission),
    Present,
    Minted(judge::Mint),
    Exchanged(Box<judge::Access>),
    Approval(Box<mayfly::state::Approval>),
    Extended { lease_ends_at: u64, revision: u64 },
    Ended { agent: AgentId, revision: u64, accepted_until: Option<u64> },
    Ticketed { ends_at: u64, revision: u64 },
    Certified(Certification),
    Revoked { revision: u64, agents_at_most: u64, open_for_new: bool, worst_case_seconds: u64, at: u64 },
    Reopened { revision: u64, at: u64 },
    Authorities { revision: u64 },
    Configured { revision: u64 },
    Budgeted(budget::Left),
}

impl Act for Proposal {
    type Permit = Outcome;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<Outcome, No> {
        let certified = |permit| match permit {
            Either::First(workload) => Outcome::Certified(workload),
            Either::Second(agent) => Outcome::Renewed(agent),
        };
        Ok(match self.clone() {
            Proposal::Spawn(act) => {
                let (admission, mint) = act.judge(j, caller, chance)?;
                Outcome::Spawned(admission, mint)
            }
            Proposal::Mint { audiences, request, for_agent } => {
                Outcome::Minted(mint::Mint { audiences, request, for_agent }.judge(j, caller, chance)?)
            }
            Proposal::End { agent } => {
                let end::Ended { agent, revision, accepted_until } = end::End { agent }.judge(j, caller, chance)?;
                Outcome::Ended { agent, revision, accepted_until }
            }
            Proposal::Ticket { workload, hash, ttl } => {
                let join::Joinable { ends_at, revision } = join::Join { workload, hash, ttl }.judge(j, caller, chance)?;
                Outcome::Ticketed { ends_at, revision }
            }
            Proposal::Redeem { hash, key } => {
                certified(redeem::Redeem { hash, key: Key::known_by_digest(key) }.judge(j, caller, chance)?)
            }
            Proposal::Renew { key } => certified(renew::Renew { key: Key::known_by_digest(key) }.judge(j, caller, chance)?),
            Proposal::Present => {
                present::Present { lane: Lane::Issuance, renews: false }.judge(j, caller, chance)?;
                Outcome::Present
            }
            Proposal::Exchange(act) => Outcome::Exchanged(Box::new(act.judge(j, caller, chance)?)),
            Proposal::Question(act) => Outcome::Approval(Box::new(act.judge(j, caller, chance)?.0)),
            Proposal::Answer(act) => Outcome::Approval(Box::new(act.judge(j, caller, chance)?.0)),
            Proposal::Extend { proof, lease } => {
                let extend::Extended { agent, revision } = extend::Extend { proof, lease }.judge(j, caller, chance)?;
                Outcome::Extended { lease_ends_at: agent.lease_ends_at, revision }
            }
            Proposal::Revoke { target, since, dry, reason, allow_new } => {
                let act = revoke::Revoke { target, since, dry, reason, allow_new };
                let revoke::Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at } =
                    act.judge(j, caller, chance)?;
                Outcome::Revoked { revision, agents_at_most, open_for_new, worst_case_seconds, at }
            }
            Proposal::Reopen { target } => {
                let reopen::Reopened { revision, at } = reopen::Reopen { target }.judge(j, caller, chance)?;
                Outcome::Reopened { revision, at }
            }
            Proposal::Configure { classes } => {
                Outcome::Configured { revision: configure::Configure { classes, written: [0; 32] }.judge(j, caller, chance)? }
            }
            Proposal::Spend(act) => Outcome::Budgeted(act.judge(j, caller, chance)?),
            Proposal::Reserve(act) => Outcome::Budgeted(act.judge(j, caller, chance)?),
            Proposal::Release(act) => Outcome::Budgeted(act.judge(j, caller, chance)?),
            Proposal::Authorities(change) => Outcome::Authorities { revision: change.judge(j, caller, chance)? },
        })
    }

    fn renews(&self) -> bool {
        matches!(self, Proposal::Renew { .. })
    }
}

/// A credential for a key of which only the SHA-256 is known.
pub fn key(digest: [u8; 32]) -> spawn::Credential {
    spawn::Credential::Key(Key::known_by_digest(digest))
}

/// Commits a group of acts.
pub fn commit(ledger: &Ledger, asks: Vec<Ask>) -> Vec<Result<Outcome, No>> {
    let pending = |ask: Ask| Pending::new(ask.caller, ask.proposal, mayfly::pipeline::chance().expect("randomness"));
    let settled = ledger.commit(asks.into_iter().map(pending).collect::<Vec<_>>());
    settled.into_iter().map(|mut pending| pending.take().map(Recorded::spend)).collect()
}
