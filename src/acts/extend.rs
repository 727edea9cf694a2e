//! Extend: the lease of the calling agent ends later, because its user consents again by a fresh token.

use super::{Issuer, user};
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, No};
use crate::journal::record::{self, record::Body};
use crate::judge::id_jag::IdJag;
use crate::judge::{Act, Chance, Check, Consent, Judgement, Proof, policy};
use crate::ledger::Lane;
use crate::pipeline::Record;
use crate::state::Agent;

/// An extension.
#[derive(Clone, Debug)]
pub struct Extend {
    /// What the token proves.
    pub proof: Proof,
    /// Seconds from now; 0 asks for as long as allowed.
    pub lease: u64,
}

/// An agent whose lease ends later.
#[derive(Clone, Debug)]
pub struct Extended {
    /// The agent as it is now.
    pub agent: Agent,
    /// Revision of the record.
    pub revision: u64,
}

/// Extends the lease of the calling agent by a user token.
pub async fn extend(issuer: &Issuer, caller: Caller, token: &str, lease: u64) -> Result<Extended, No> {
    let proof = user::prove(issuer, token).await?;
    issuer.pipeline.record(caller, Extend { proof, lease }).await
}

impl Record for Extend {
    fn lane(&self) -> Lane {
        Lane::Issuance
    }
}

impl Act for Extend {
    type Permit = Extended;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, _: &Chance) -> Result<Extended, No> {
        // 1. The agent, by its current certificate.
        let Caller::Agent { id, .. } = caller else {
            return Err(Denial::denied("ROLE_NOT_ALLOWED", "agents extend their own lease, and nobody else does").into());
        };
        j.check_generation(caller)?;
        let agent = j.view().agent(&id.uuid).ok_or_else(|| Fault::new("extend", "the caller is gone"))?.clone();
        let Some(delegation) = &agent.delegation else {
            let message = "an agent that acts for nobody has no user who could extend it: spawn another";
            return Err(Denial::denied("MODE_NOT_ALLOWED", message).into());
        };
        // 2. The user, who must be the same, by a token that the workload at the root may present.
        j.check_presenter(&agent, &self.proof)?;
        self.proof.id_jag().map_or(Ok(()), IdJag::check_plain)?;
        let consent = j.consent(&agent.mandate.workload, &self.proof)?;
        if consent.user != delegation.user {
            let message = "the user token is of another user: bring one of the user for whom the agent acts";
            return Err(Denial::denied("USER_DIFFERS", message).into());
        }
        // 3. What the agent may do: all of it must be within what the token allows, and something of it within class and ancestors.
        j.check_workload(&agent.mandate.workload)?;
        j.check_class(&agent.mandate.class)?;
        j.authority_left(&agent)?;
        j.checking(Check::Authority);
        within(&consent, &agent)?;
        // 4. How long: no longer than the token, the class since the admission, and the parent.
        let class = j.rules().classes.get(&agent.mandate.class).ok_or_else(|| policy::unknown_class(&agent.mandate.class))?;
        let parent = agent.parent().and_then(|parent| j.view().agent(&parent));
        let bounds = [
            ("the user token", consent.ends_at),
            ("the class", (agent.admitted_at / SECOND).saturating_add(class.max_lease)),
            ("the parent's lease", parent.map_or(u64::MAX, |parent| parent.lease_ends_at)),
        ];
        let (what, most) = bounds.into_iter().min_by_key(|(_, ends_at)| *ends_at).unwrap_or(("the class", 0));
        let asked = if self.lease == 0 { most } else { j.now().saturating_add(self.lease) };
        if asked > most {
            let message = format!(
                "{} seconds are more than {what} allows: ask for less, or for 0, which means as long as allowed",
                self.lease
            );
            return Err(Denial::denied("EXCEEDS_AUTHORITY", message).with("excess", format!("lease:{}", self.lease)).into());
        }
        if asked <= agent.lease_ends_at {
            // The same token again is a retry after a lost answer, and gets the same extension.
            return match agent.rare.extended {
                Some((proof, revision)) if proof == consent.proof => Ok(Extended { agent, revision }),
                _ => {
                    let message = format!("the lease ends no later by this: {what} allows no more");
                    Err(Denial::denied("LEASE_NOT_EXTENDED", message).into())
                }
            };
        }
        // 5. Its record.
        self.proof.id_jag().map_or(Ok(()), |jag| j.check_once(jag))?;
        let extended = record::Extended {
            agent: id.uuid.as_bytes().to_vec(),
            lease_ends_at: asked,
            proof: consent.proof.to_vec(),
            proof_ends_at: consent.ends_at,
            once: self.proof.id_jag().map(|jag| jag.grant.once.to_vec()).unwrap_or_default(),
            once_ends_at: self.proof.id_jag().map_or(0, |jag| jag.ends_at),
        };
        let revision = j.push(caller, Body::Extended(extended))?;
        let agent = j.view().agent(&id.uuid).ok_or_else(|| Fault::new("extend", "the agent is gone"))?.clone();
        Ok(Extended { agent, revision })
    }
}

/// Fails unless the token allows everything that the agent may do. A narrower consent cannot extend a wider one.
fn within(consent: &Consent, agent: &Agent) -> Result<(), Denial> {
    let Some(ceiling) = &consent.scopes else { return Ok(()) };
    match agent.mandate.scopes.iter().find(|scope| !ceiling.contains(scope)) {
        Some(scope) => {
            let message =
                format!("the user token does not allow `{scope}`, which the agent may do: spawn an agent that may do less");
            Err(Denial::denied("EXCEEDS_AUTHORITY", message).with("excess", format!("scope:{scope}")))
        }
        None => Ok(()),
    }
}
