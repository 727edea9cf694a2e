//! Exchange: an access token for the calling agent, from its own authority and the tokens that it presents (RFC 8693, RFC 6749
//! 4.4).

mod evidence;

use std::sync::Arc;

use mayfly_verify::{User, sha256};
use uuid::Uuid;

use super::{Issuer, approvals, client, user};
use crate::assertion::Assertions;
use crate::authority::Seal;
use crate::caller::Caller;
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, No};
use crate::journal::record::{self, record::Body};
use crate::judge::action::{Action, all_within, canonical, read_actions};
use crate::judge::approval::Wanted;
use crate::judge::bound::Proved;
use crate::judge::exchange::{Ceiling, decide_access, not_yours};
use crate::judge::id_jag::IdJag;
use crate::judge::policy::Kept;
use crate::judge::profile::Form;
use crate::judge::{Access, Act, Chance, Check, Judgement, Presented, Use, release};
use crate::ledger::Recorded;
use crate::pipeline::Issue;
use crate::policies;
use crate::state::{AccessToken, Agent, Confirmation, State};

/// Longest life of an ID-JAG, in seconds.
const ID_JAG_LIFE: u64 = 300;
/// Scopes of one request at most.
const SCOPES: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The one audience.
    pub audience: String,
    /// Scopes; an empty list asks for all that may be given.
    pub scopes: Vec<String>,
    /// The subject token; empty if there is none.
    pub subject_token: String,
    /// The actor token; empty if there is none. It must be the caller's own.
    pub actor_token: String,
    /// The key or certificate that the client has proved, to which the token can be bound.
    pub proved: Proved,
    /// Actions that the token is to allow: a JSON array; empty if there are none.
    pub details: String,
    /// The id of the approval that is used; empty if none is.
    pub approval: String,
    /// The agent without a key that the caller spawned, for which it asks. `None` if it asks for itself.
    pub for_agent: Option<Uuid>,
    /// Whether an ID-JAG is wanted. `None` takes what the audience takes.
    pub id_jag: Option<bool>,
    /// The resource behind the audience that an ID-JAG is for.
    pub resource: Option<String>,
}

/// An exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The one audience.
    pub audience: String,
    /// Scopes; an empty list asks for all that may be given.
    pub scopes: Vec<String>,
    /// The verified subject token.
    pub presented: Presented,
    /// SHA-256 of what the signature of the subject token covers. `None` if there is none.
    pub digest: Option<[u8; 32]>,
    /// The key or certificate that the client has proved, to which the token can be bound.
    pub proved: Proved,
    /// The actions that are asked for.
    pub actions: Vec<Action>,
    /// The approval that is used.
    pub approval: Option<[u8; 16]>,
    /// The agent without a key that the caller spawned, for which it asks. `None` if it asks for itself.
    pub for_agent: Option<Uuid>,
    /// Whether an ID-JAG is wanted. `None` takes what the audience takes.
    pub wants_id_jag: Option<bool>,
    /// The resource behind the audience that an ID-JAG is for.
    pub resource: Option<String>,
    /// The JWT-SVID by which the caller has proved itself. `None` if that was a certificate.
    pub held: Option<Arc<client::Held>>,
}

/// An access token for one audience.
pub async fn exchange(issuer: &Issuer, caller: Caller, asked: Asked) -> Result<(Access, String), No> {
    let Asked { audience, scopes, subject_token, actor_token, proved, details, approval, for_agent, id_jag, resource } = asked;
    let mut actions = read_actions(&issuer.ledger.rules().actions, &details)?;
    let approval = if approval.is_empty() { None } else { Some(approvals::id(&approval)?) };
    if (audience.is_empty() && approval.is_none()) || audience.len() > 256 {
        return Err(Denial::malformed("AUDIENCE_MALFORMED", "give one audience, of at most 256 bytes").into());
    }
    if scopes.len() > SCOPES || scopes.iter().any(|scope| scope.is_empty() || scope.len() > 128) {
        let message = format!("give at most {SCOPES} scopes, of at most 128 bytes each");
        return Err(Denial::malformed("SCOPE_MALFORMED", message).into());
    }
    let id = match &caller {
        Caller::Agent { id, .. } | Caller::Bearer { id, .. } => id.to_string(),
        _ => return Err(only_agents().into()),
    };
    // 1. Evidence: the tokens are verified here. Whether they still count is judged by the writer, in the order of the journal.
    // Boxed: most requests bring no token, and their future would be as large as the verification of one.
    if !actor_token.is_empty() {
        Box::pin(evidence::actor(issuer, &actor_token, &id)).await?;
    }
    let presented = match subject_token.as_str() {
        "" => Presented::Nothing,
        token if evidence::is_ours(issuer, token) => Box::pin(evidence::ours(issuer, token, &id, &proved)).await?,
        token => {
            let proof = Box::pin(user::prove(issuer, token)).await?;
            evidence::may_act(issuer, token, &id)?;
            // A request without actions asks for all actions of the ID-JAG.
            if let (Some(details), true) = (proof.id_jag().and_then(|jag| jag.grant.details.as_ref()), actions.is_empty()) {
                actions = read_actions(&issuer.ledger.rules().actions, details)?;
            }
            Presented::User(proof)
        }
    };
    let signed = |token: &str| sha256(token.rsplit_once('.').map_or(token, |(signed, _)| signed).as_bytes());
    let digest = (!subject_token.is_empty()).then(|| signed(&subject_token));
    let wants_id_jag = id_jag;
    let held = client::hold(issuer, &caller)?;
    let act =
        Exchange { audience, scopes, presented, digest, proved, actions, approval, for_agent, wants_id_jag, resource, held };
    issuer.pipeline.issue(caller, act).await
}

impl Act for Exchange {
    type Permit = Access;

    fn judge(&self, j: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<Access, No> {
        // 2. The caller. A JWT-SVID proves its agent for one request only.
        let assertion = match caller {
            Caller::Agent { .. } => None,
            Caller::Bearer { jti, ends_at, .. } => Some((jti, *ends_at)),
            _ => return Err(only_agents().into()),
        };
        j.check_generation(caller)?;
        j.check_unused(caller)?;
        // 3. The agent's authority now, limited to what the subject token allows.
        let agent = j.asks_for(caller, self.for_agent)?.clone();
        let kept = j.authority_left(&agent)?;
        let ceiling = j.ceiling(&agent, &self.presented, chance)?;
        let jag = self.id_jag();
        if jag.is_some_and(|jag| jag.grant.key.is_some() && jag.grant.key != self.proved.held.key) {
            return Err(not_yours("the ID-JAG is bound to a key: send a DPoP proof of that key").into());
        }
        let Granted { audience, scopes, details, approved } = self.granted(j, &agent, &kept, &ceiling)?;
        if let Some(jag) = jag {
            // T247: the provider agreed to a target and to actions. Each of the two is checked by itself.
            jag.check_target(&audience)?;
            j.check_actions(jag, &read_actions(&j.rules().actions, &details)?)?;
        }
        let audiences = std::slice::from_ref(&audience);
        j.policies_on_use(
            &agent,
            Use { action: policies::Action::Exchange, audience: Some(&audience), scopes: &scopes, audiences },
        )?;
        let stated = j.stated(&agent, &audience, self.resource.as_deref())?;
        let id_jag = stated.form == Form::IdJag;
        if self.wants_id_jag.is_some_and(|wanted| wanted != id_jag) {
            let message = if id_jag { "this audience takes ID-JAGs alone" } else { "there are no ID-JAGs for this audience" };
            return Err(Denial::denied("AUDIENCE_NOT_ALLOWED", format!("{message}: ask for a token of the other type")).into());
        }
        // T188: the token is bound also if its audience comes from the approval.
        let (confirmation, bound_until) = j.bind(&audience, &self.proved)?;
        // 4. The token lasts no longer than anything that it relies on.
        j.checking(Check::Lifetime);
        let (now, signer) = (j.now(), j.token_signer(std::slice::from_ref(&audience))?);
        let ends_at = now
            .saturating_add(j.rules().token_life(std::slice::from_ref(&audience)))
            .min(agent.lease_ends_at)
            .min(signer.ends_at);
        let longest = if id_jag { now.saturating_add(ID_JAG_LIFE) } else { u64::MAX };
        let ends_at = ends_at.min(ceiling.ends_at).min(bound_until).min(longest);
        let ends_at = approved.as_ref().map_or(ends_at, |(_, _, until)| ends_at.min(*until));
        if ends_at <= now {
            return Err(Denial::denied("USER_TOKEN_EXPIRED", "the subject token has expired: bring a fresh one").into());
        }
        // 5. The record.
        let body = record::Exchanged {
            agent: agent.uuid.as_bytes().to_vec(),
            audience,
            jti: chance.jti().to_vec(),
            issued_at: now,
            ends_at,
            scopes,
            subject: stated.subject.clone(),
            impersonates: stated.impersonates,
            assertion: assertion.map(|(jti, _)| jti.to_vec()).unwrap_or_default(),
            assertion_ends_at: assertion.map_or(0, |(_, ends_at)| ends_at),
            presented: self.digest.map(|digest| digest.to_vec()).unwrap_or_default(),
            confirmation: match confirmation {
                Some(Confirmation::Key(thumbprint)) => thumbprint.to_vec(),
                _ => Vec::new(),
            },
            certificate: match confirmation {
                Some(Confirmation::Certificate(digest)) => digest.to_vec(),
                _ => Vec::new(),
            },
            details,
            approval: approved.as_ref().map(|(id, ..)| id.to_vec()).unwrap_or_default(),
            approved_by: approved.map(|(_, by, _)| record::User { iss: by.iss, sub: by.sub }),
            once: jag.map(|jag| jag.grant.once.to_vec()).unwrap_or_default(),
            once_ends_at: jag.map_or(0, |jag| jag.ends_at),
            id_jag,
        };
        j.note_first_uses(caller, agent.uuid, std::slice::from_ref(&body.audience))?;
        let token = AccessToken::recorded(j.view().revision() + 1, &body).map_err(|e| Fault::new("exchange", e))?;
        j.push(caller, Body::Exchanged(body))?;
        j.access(token, stated)
    }
}

/// What a token allows, and the approval behind it: its id, who gave it, and the Unix seconds until which it can be used.
struct Granted {
    audience: String,
    scopes: Vec<String>,
    details: String,
    approved: Option<([u8; 16], User, u64)>,
}

impl Exchange {
    /// The ID-JAG that is presented, if one is.
    fn id_jag(&self) -> Option<&IdJag> {
        match &self.presented {
            Presented::User(proof) => proof.id_jag(),
            Presented::Nothing | Presented::Token(_) => None,
        }
    }

    /// The authority of the token: the agent's own, or exactly what a person approved.
    fn granted(&self, j: &Judgement<'_>, agent: &Agent, kept: &Kept, ceiling: &Ceiling) -> Result<Granted, No> {
        let Some(id) = &self.approval else {
            if self.actions.is_empty() {
                j.checking(Check::Audience);
                let class = j.rules().classes.get(&agent.mandate.class);
                let scopes = decide_access(class, kept, ceiling.scopes.as_deref(), &self.audience, &self.scopes)?;
                return Ok(Granted { audience: self.audience.clone(), scopes, details: String::new(), approved: None });
            }
            return Ok(self.within_threshold(j, agent)?);
        };
        let approval = j.approved(agent, id)?;
        let answer = approval.answer.as_ref().ok_or_else(|| Fault::new("exchange", "an approval without its answer"))?;
        if !self.audience.is_empty() && self.audience != approval.audience {
            let message = format!("this approval is for the audience `{}`", approval.audience);
            return Err(Denial::denied("AUDIENCE_NOT_ALLOWED", message).into());
        }
        // The class may have changed since the approval was asked for.
        let (granted, scopes) = approval.granted();
        let all = read_actions(&j.rules().actions, granted)?;
        let wanted = Wanted { audience: approval.audience.clone(), scopes: scopes.to_vec(), actions: all };
        j.terms(agent, &wanted)?;
        // T183: a request beyond what was approved is refused.
        if !all_within(&self.actions, &wanted.actions) {
            let message = "an action is more than what was approved: ask for that, or for an approval of its own";
            return Err(Denial::denied("ACTION_NOT_ALLOWED", message).into());
        }
        let allowed = |scope: &String| ceiling.scopes.as_ref().is_none_or(|ceiling| ceiling.contains(scope));
        if let Some(excess) = self.scopes.iter().find(|scope| !wanted.scopes.contains(scope) || !allowed(scope)) {
            let message = format!("scope `{excess}` is more than what was approved and the subject token allow");
            return Err(Denial::denied("SCOPE_NOT_ALLOWED", message).with("excess", format!("scope:{excess}")).into());
        }
        let asked = |scope: &String| self.scopes.is_empty() || self.scopes.contains(scope);
        let scopes = wanted.scopes.iter().filter(|scope| asked(scope) && allowed(scope)).cloned().collect();
        let details = if self.actions.is_empty() { granted.to_owned() } else { canonical(&self.actions) };
        let approved = Some((approval.id, answer.by.clone(), approval.ends_at / SECOND));
        Ok(Granted { audience: wanted.audience, scopes, details, approved })
    }

    /// Actions that need no approval. The token allows them and nothing else.
    fn within_threshold(&self, j: &Judgement<'_>, agent: &Agent) -> Result<Granted, Denial> {
        if !self.scopes.is_empty() {
            let message = "a token for actions has no scopes beside them: ask for each alone";
            return Err(Denial::denied("SCOPE_NOT_ALLOWED", message));
        }
        let actions = self.actions.clone();
        let wanted = Wanted { audience: self.audience.clone(), scopes: Vec::new(), actions };
        if j.terms(agent, &wanted)?.needed {
            let message = "a person must approve this: ask with `mayfly ask`, `Approvals.Ask` or the backchannel endpoint, and bring \
                           the approval";
            return Err(Denial::denied("APPROVAL_NEEDED", message).with("audience", wanted.audience));
        }
        let (audience, details) = (wanted.audience, canonical(&wanted.actions));
        Ok(Granted { audience, scopes: Vec::new(), details, approved: None })
    }
}

impl Issue for Exchange {
    type Answer = (Access, String);

    fn prove(&mut self) -> Result<(), Denial> {
        Ok(())
    }

    fn sign(&self, permit: Recorded<Access>, seal: &Seal) -> Result<Self::Answer, Fault> {
        seal.access(permit)
    }

    fn look_again((access, _): &Self::Answer, state: &State) -> Result<(), Denial> {
        release::access(state, access)
    }
}

/// The audience of an agent that a resource indicator names (RFC 8707): as it is written, or written in another way. `None` if it is no
/// absolute URI, or has a fragment.
pub fn audience_of(issuer: &Issuer, caller: &Caller, resource: &str) -> Option<String> {
    let canonical = |text: &str| {
        let url = reqwest::Url::parse(text).ok().filter(|url| url.fragment().is_none())?;
        Some(url.as_str().trim_end_matches('/').to_owned())
    };
    let wanted = canonical(resource)?;
    let (Caller::Agent { id, .. } | Caller::Bearer { id, .. }) = caller else { return Some(wanted) };
    let same = |audience: &&String| *audience == resource || canonical(audience).as_ref() == Some(&wanted);
    let find = |state: &State| state.agent(&id.uuid)?.mandate.audiences.iter().find(same).cloned();
    Some(issuer.ledger.read(find).unwrap_or_else(|| resource.to_owned()))
}

/// Whether a token says that it is an ID-JAG. Nothing is verified yet.
pub fn is_id_jag(token: &str) -> bool {
    Assertions::is_id_jag(token)
}

fn only_agents() -> Denial {
    Denial::denied("ROLE_NOT_ALLOWED", "only agents get access tokens")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<'i, F: Future>(_: fn(&'i Issuer, Caller, Asked) -> F) -> usize {
        size_of::<F>()
    }

    /// It is copied several times on its way through the layers of a request.
    #[test]
    fn a_request_is_small_until_it_brings_a_token() {
        let (exchanging, prove) = (size(exchange), size(|issuer, _, _| user::prove(issuer, "")));
        eprintln!("an exchange is {exchanging} bytes, the verification of a user's token {prove}");
        assert!(exchanging < 4096, "{exchanging}");
    }
}
