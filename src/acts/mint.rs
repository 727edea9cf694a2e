//! Mint: a JWT-SVID for the calling agent.

use uuid::Uuid;

use super::{Issuer, request_id};
use crate::authority::Seal;
use crate::caller::Caller;
use crate::denial::{Denial, Fault, No};
use crate::journal::record::{self, record::Body};
use crate::judge::keyless::{ForAgent, Held};
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
    /// The agent without a key for which its parent, the caller, asks. `None` if the caller asks for itself.
    pub for_agent: Option<ForAgent>,
}

/// A JWT-SVID for exactly these audiences (JWT-SVID 3.2 recommends one); with `for_agent` that of an agent without a key, which the caller
/// spawned.
pub async fn mint(
    issuer: &Issuer,
    caller: Caller,
    id: &str,
    audiences: Vec<String>,
    for_agent: Option<ForAgent>,
) -> Result<(judge::Mint, String), No> {
    let sound = audiences.iter().all(|audience| !audience.is_empty() && audience.len() <= 256);
    let twice = audiences.iter().enumerate().any(|(n, audience)| audiences.iter().take(n).any(|other| other == audience));
    if audiences.is_empty() || audiences.len() > AUDIENCES || !sound || twice {
        let message = format!("give 1 to {AUDIENCES} audiences, each once, of at most 256 bytes");
        return Err(Denial::malformed("AUDIENCE_MALFORMED", message).into());
    }
    let of = for_agent.as_ref().map(|of| of.agent.as_bytes().as_slice());
    let asked: Vec<&[u8]> = audiences.iter().map(String::as_bytes).chain(of).collect();
    let request = request_id(&caller, "mint", id, &asked)?;
    issuer.pipeline.issue(caller, Mint { audiences, request, for_agent }).await
}

impl Act for Mint {
    type Permit = judge::Mint;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<judge::Mint, No> {
        let Caller::Agent { .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "only agents mint JWT-SVIDs for themselves").into());
        };
        j.check_generation(caller)?;
        let agent = j.asks_for(caller, self.for_agent.map(|of| of.agent))?;
        let held = self.for_agent.map(|of| Held::of(&of.proved)).transpose()?;
        if let Some(done) = j.done(self.request.as_ref())? {
            let token = done.token.ok_or_else(|| Fault::new("mint", "a request without its token"))?;
            return j.mint(*token);
        }
        let kept = allowed(j, agent, &self.audiences)?;
        let narrowed = (kept.scopes != agent.mandate.scopes).then_some(kept.scopes);
        let of = For { agent: agent.uuid, lease: agent.lease_ends_at, held };
        j.note_first_uses(caller, of.agent, &self.audiences)?;
        let minted = minted(j, of, &self.audiences, self.request.as_ref(), narrowed, chance)?;
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

/// The scopes and the end, in Unix seconds, of a token that is not issued.
pub(crate) fn again(j: &Judgement<'_>, agent: &Agent, audiences: &[String]) -> Result<(Vec<String>, u64), No> {
    let kept = allowed(j, agent, audiences)?;
    let of = For { agent: agent.uuid, lease: agent.lease_ends_at, held: None };
    let ends_at = minted(j, of, audiences, None, None, &Chance::new([0; Chance::LEN]))?.ends_at;
    Ok((kept.scopes, ends_at))
}

/// Whose a token is.
#[derive(Clone, Copy)]
pub(super) struct For {
    /// The agent.
    pub(super) agent: Uuid,
    /// The end of its lease, in Unix seconds.
    pub(super) lease: u64,
    /// The certificate of its parent that the token is bound to. `None` for an agent with a key of its own.
    pub(super) held: Option<Held>,
}

/// The record of a token for an agent, within its lease, and within the life of the certificate that it is bound to.
pub(super) fn minted(
    j: &Judgement<'_>,
    of: For,
    audiences: &[String],
    request: Option<&RequestId>,
    narrowed: Option<Vec<String>>,
    chance: &Chance,
) -> Result<record::Minted, No> {
    let now = j.now();
    let signer = j.token_signer(audiences)?;
    // The token must not outlast the certificate that it is bound to.
    let bound_until = of.held.map_or(u64::MAX, |held| held.ends_at);
    let (audience, further) = audiences.split_first().ok_or_else(|| Fault::new("mint", "no audience"))?;
    Ok(record::Minted {
        agent: of.agent.as_bytes().to_vec(),
        audience: audience.clone(),
        further_audiences: further.to_vec(),
        jti: chance.jti().to_vec(),
        issued_at: now,
        ends_at: now.saturating_add(j.rules().token_life(audiences)).min(of.lease).min(signer.ends_at).min(bound_until),
        request: request.map(request_record),
        narrowed: narrowed.is_some(),
        scopes: narrowed.unwrap_or_default(),
        certificate: of.held.map(|held| held.certificate.to_vec()).unwrap_or_default(),
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
