//! Mint: a JWT-SVID for the calling agent.

use uuid::Uuid;

use super::{Issuer, request_id};
use crate::authority::Seal;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, No};
use crate::journal::record::{self, record::Body};
use crate::judge::{self, Act, Chance, Check, Judgement, RequestId, Use, policy, release, request_record};
use crate::ledger::Recorded;
use crate::pipeline::Issue;
use crate::policies::Action;
use crate::state::{Agent, State, Token};

/// Audiences of one token at most.
const AUDIENCES: usize = 16;

/// A mint.
#[derive(Clone, Debug)]
pub struct Mint {
    /// The audiences, at least one.
    pub audiences: Vec<String>,
    /// Makes a retry the same record.
    pub request: Option<RequestId>,
}

/// A JWT-SVID for exactly these audiences (JWT-SVID 3.2 recommends one).
pub async fn mint(issuer: &Issuer, caller: Caller, id: &str, audiences: Vec<String>) -> Result<(judge::Mint, String), No> {
    let sound = audiences.iter().all(|audience| !audience.is_empty() && audience.len() <= 256);
    let twice = audiences.iter().enumerate().any(|(n, audience)| audiences.iter().take(n).any(|other| other == audience));
    if audiences.is_empty() || audiences.len() > AUDIENCES || !sound || twice {
        let message = format!("give 1 to {AUDIENCES} audiences, each once, of at most 256 bytes");
        return Err(Denial::malformed("AUDIENCE_MALFORMED", message).into());
    }
    let asked: Vec<&[u8]> = audiences.iter().map(String::as_bytes).collect();
    let request = request_id(&caller, "mint", id, &asked)?;
    issuer.pipeline.issue(caller, Mint { audiences, request }).await
}

impl Act for Mint {
    type Permit = judge::Mint;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<judge::Mint, No> {
        let Caller::Agent { id, .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only agents mint JWT-SVIDs for themselves").into());
        };
        j.check_generation(caller)?;
        if let Some(done) = j.done(self.request.as_ref())? {
            let token = done.token.ok_or_else(|| Fault::new("mint", "a request without its token"))?;
            return j.mint(*token);
        }
        let agent = j.view().agent(&id.uuid).ok_or_else(|| Fault::new("mint", "the caller is gone"))?;
        let kept = allowed(j, agent, &self.audiences)?;
        let narrowed = (kept.scopes != agent.mandate.scopes).then_some(kept.scopes);
        let minted = minted(j, id.uuid, &self.audiences, agent.lease_ends_at, self.request.as_ref(), narrowed, chance)?;
        let token = push(j, caller, minted)?;
        j.mint(token)
    }
}

/// Whether an agent may have a token for these audiences, and what is left of its authority.
pub(crate) fn allowed(j: &Judgement<'_>, agent: &Agent, audiences: &[String]) -> Result<policy::Kept, No> {
    let class = j.rules().classes.get(&agent.mandate.class);
    j.checking(Check::Audience);
    // Any agent may prove itself to this issuer: that gives it nothing that it does not have.
    let for_us = j.rules().client_audience.as_ref().is_some_and(|us| audiences == std::slice::from_ref(us));
    for audience in audiences.iter().filter(|_| !for_us) {
        policy::decide_mint(class, &agent.mandate.audiences, audience)?;
    }
    let kept = j.authority_left(agent)?;
    for audience in audiences.iter().filter(|_| !for_us) {
        let of = Use { action: Action::Mint, audience: Some(audience), scopes: &kept.scopes, audiences };
        j.policies_on_use(agent, of)?;
    }
    j.claims(agent, audiences)?;
    Ok(kept)
}

/// The record of a token for an agent, within its lease.
pub(super) fn minted(
    j: &Judgement<'_>,
    agent: Uuid,
    audiences: &[String],
    lease: u64,
    request: Option<&RequestId>,
    narrowed: Option<Vec<String>>,
    chance: &Chance,
) -> Result<record::Minted, No> {
    let now = j.now();
    let signer = j.token_signer(audiences)?;
    let (audience, further) = audiences.split_first().ok_or_else(|| Fault::new("mint", "no audience"))?;
    Ok(record::Minted {
        agent: agent.as_bytes().to_vec(),
        audience: audience.clone(),
        further_audiences: further.to_vec(),
        jti: chance.jti().to_vec(),
        issued_at: now,
        ends_at: now.saturating_add(j.rules().token_life(audiences)).min(lease).min(signer.ends_at),
        request: request.map(request_record),
        narrowed: narrowed.is_some(),
        scopes: narrowed.unwrap_or_default(),
    })
}

/// Records a token.
pub(super) fn push(j: &mut Judgement<'_>, caller: &Caller, minted: record::Minted) -> Result<Token, No> {
    let token = Token::recorded(j.view().revision() + 1, &minted).map_err(|e| Fault::new("mint", e))?;
    j.push(caller, Body::Minted(minted))?;
    Ok(token)
}

impl Issue for Mint {
    type Answer = (judge::Mint, String);

    fn prove(&mut self) -> Result<(), Denial> {
        Ok(())
    }

    fn sign(&self, permit: Recorded<judge::Mint>, seal: &Seal) -> Result<Self::Answer, Fault> {
        seal.token(permit)
    }

    fn look_again((mint, _): &Self::Answer, state: &State) -> Result<(), Denial> {
        release::mint(state, mint)
    }
}
