//! Decides on the content of an access token: its subject, audience, scopes and lifetime.

use std::sync::Arc;

use mayfly_verify::{AgentId, Binding, User};
use uuid::Uuid;

use super::policy::{Kept, decide_mint};
use super::profile::Stated;
use super::{Chance, Check, Judgement, Proof};
use crate::caller::{Caller, unauthenticated};
use crate::clock::SECOND;
use crate::denial::{Denial, Fault, No};
use crate::state::{AccessToken, Agent, View};

/// The permit for an access token.
#[derive(Clone, Debug)]
pub struct Access {
    id: AgentId,
    token: AccessToken,
    stated: Stated,
    binding: Arc<Binding>,
    authority: Arc<str>,
}

impl Access {
    /// The SPIFFE ID of the agent that it is issued to.
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// The token as it is recorded.
    pub fn token(&self) -> &AccessToken {
        &self.token
    }

    /// The claims about the agent and its user.
    pub fn stated(&self) -> &Stated {
        &self.stated
    }

    /// The binding that the token carries, limited to the token's scopes.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Id of the authority that was active when this was judged.
    pub fn authority(&self) -> &Arc<str> {
        &self.authority
    }
}

/// The subject token of an exchange.
#[derive(Clone, Debug)]
pub enum Presented {
    /// No subject token: the agent exchanges its own authority.
    Nothing,
    /// A token of the user for whom the agent acts.
    User(Proof),
    /// An access token of ours.
    Token(Held),
}

/// An access token of ours that was verified just now.
#[derive(Clone, Debug)]
pub struct Held {
    /// The agent that it was issued to.
    pub agent: Uuid,
    /// Its user. `None` if that agent acts for nobody.
    pub user: Option<User>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Unix seconds.
    pub ends_at: u64,
}

/// The most that a subject token allows.
#[derive(Clone, Debug)]
pub struct Ceiling {
    /// Scopes. `None` means no ceiling.
    pub scopes: Option<Vec<String>>,
    /// Unix seconds.
    pub ends_at: u64,
}

impl Judgement<'_> {
    /// A JWT-SVID proves its agent once, also across restarts.
    pub fn check_unused(&self, caller: &Caller) -> Result<(), Denial> {
        self.checking(Check::Request);
        match caller {
            Caller::Bearer { jti, .. } if self.view().assertion_used(jti) => Err(assertion_used()),
            _ => Ok(()),
        }
    }

    /// The most that the subject token allows. Fails if its user is not the one for whom the agent acts.
    pub fn ceiling(&mut self, agent: &Agent, presented: &Presented, chance: &Chance) -> Result<Ceiling, No> {
        let own = agent.delegation.as_ref().map(|delegation| &delegation.user);
        match presented {
            Presented::Nothing => Ok(Ceiling { scopes: None, ends_at: u64::MAX }),
            Presented::User(proof) => {
                // The same checks as at a spawn by the root workload; no delegation is recorded.
                self.check_presenter(agent, proof)?;
                let (granted, _) = self.grant(&agent.mandate.workload, proof, chance)?;
                if own != Some(&granted.user) {
                    return Err(not_yours("the subject token is of another user than the one for whom this agent acts").into());
                }
                Ok(Ceiling { scopes: granted.scopes.clone(), ends_at: granted.ends_at / SECOND })
            }
            Presented::Token(held) => {
                self.checking(Check::Grant);
                // A child may use a token that its parent passes on, but not a token of any other agent.
                if held.agent != agent.uuid && !agent.ancestors().any(|above| above == held.agent) {
                    let message = "the subject token was issued to an agent that is neither the caller nor an ancestor of it";
                    return Err(not_yours(message).into());
                }
                if own != held.user.as_ref() {
                    return Err(not_yours("the subject token names another user than the one for whom this agent acts").into());
                }
                Ok(Ceiling { scopes: Some(held.scopes.clone()), ends_at: held.ends_at })
            }
        }
    }

    /// T246: checks that an ID-JAG names the agent itself, an ancestor of it, or the workload at its root.
    pub fn check_presenter(&self, agent: &Agent, proof: &Proof) -> Result<(), Denial> {
        let Some(jag) = proof.id_jag() else { return Ok(()) };
        let td = &self.rules().trust_domain;
        let above = agent.ancestors().filter_map(|uuid| self.view().agent(&uuid)).map(|agent| agent.id(td).to_string());
        let names: Vec<String> = [agent.id(td).to_string(), agent.mandate.workload.id(td)].into_iter().chain(above).collect();
        self.check_id_jag(jag, &names)
    }

    /// The permit for an access token.
    pub fn access(&self, token: AccessToken, stated: Stated) -> Result<Access, No> {
        let agent = self.view().agent(&token.agent).ok_or_else(|| Fault::new("exchange", "the agent is gone"))?;
        let td = &self.rules().trust_domain;
        let binding = agent.binding(td, self.view().incarnation(), token.revision, &token.scopes);
        let authority = Arc::clone(&self.token_signer(std::slice::from_ref(&token.audience))?.id);
        Ok(Access { id: agent.id(td), token, stated, binding: Arc::new(binding), authority })
    }
}

/// Decides on an access token: the audience must be among the agent's own, and the token gets the scopes that are asked for, or all
/// that may be given if none are. `kept` is the agent's remaining authority under the present configuration.
pub fn decide_access(
    class: Option<&super::policy::Class>,
    kept: &Kept,
    ceiling: Option<&[String]>,
    audience: &str,
    asked: &[String],
) -> Result<Vec<String>, Denial> {
    decide_mint(class, &kept.audiences, audience)?;
    let allowed = |scope: &&String| kept.scopes.contains(*scope) && ceiling.is_none_or(|ceiling| ceiling.contains(*scope));
    if let Some(excess) = asked.iter().find(|scope| !allowed(scope)) {
        let message = format!("scope `{excess}` is more than the agent and its subject token allow: ask for less");
        return Err(Denial::denied("SCOPE_NOT_ALLOWED", message).with("excess", format!("scope:{excess}")));
    }
    let from = if asked.is_empty() { &kept.scopes } else { asked };
    let mut scopes: Vec<String> = from.iter().filter(allowed).cloned().collect();
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() && !kept.scopes.is_empty() {
        let message = "no scope is left: the subject token allows none of what the agent may do";
        return Err(Denial::denied("SCOPE_NOT_ALLOWED", message));
    }
    Ok(scopes)
}

/// The denial for a JWT-SVID that was used before.
pub fn assertion_used() -> Denial {
    unauthenticated("ASSERTION_USED", "this JWT-SVID has proved its agent before: mint one for each request")
}

/// The denial for a subject token that belongs to another caller or names another actor.
pub fn not_yours(message: impl Into<String>) -> Denial {
    Denial::denied("SUBJECT_NOT_ALLOWED", message)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::policy::Class;
    use super::*;
    use proptest::prelude::*;

    fn class(audiences: &[&str]) -> Class {
        Class {
            name: "researcher".parse().unwrap(),
            owner: "team".into(),
            scopes: ["a", "b", "c"].map(String::from).into(),
            audiences: audiences.iter().map(|a| (*a).to_owned()).collect(),
            svid_ttl: 900,
            max_lease: 3600,
            max_depth: 2,
            modes: vec![],
            workloads: vec![],
            classes: vec![],
            impersonates: Default::default(),
            subject: None,
            approve: vec![],
            budget: Default::default(),
        }
    }

    fn kept(scopes: &[String]) -> Kept {
        Kept { scopes: scopes.to_vec(), audiences: vec!["https://x".into()] }
    }

    #[test]
    fn an_audience_must_be_the_agents_and_the_classs() {
        let decide = |class: Option<&Class>, audience| decide_access(class, &kept(&[]), None, audience, &[]).map_err(|d| d.code);
        assert_eq!(decide(Some(&class(&["https://x"])), "https://x"), Ok(vec![]));
        assert_eq!(decide(Some(&class(&["https://x", "https://y"])), "https://y"), Err("AUDIENCE_NOT_ALLOWED"));
        assert_eq!(decide(Some(&class(&[])), "https://x"), Err("AUDIENCE_NOT_ALLOWED"));
        assert_eq!(decide(None, "https://x"), Err("CLASS_UNKNOWN"));
    }

    proptest! {
        /// T147: whatever is asked for in however many exchanges, each result is within the one before it and within the agent.
        #[test]
        fn t147_no_sequence_of_exchanges_widens(
            own in proptest::collection::btree_set("[a-e]", 0..5),
            steps in proptest::collection::vec(proptest::collection::vec("[a-f]", 0..4), 1..6),
        ) {
            let own: Vec<String> = own.into_iter().collect();
            let class = class(&["https://x"]);
            let mut held: Option<Vec<String>> = None;
            for asked in steps {
                if let Ok(got) = decide_access(Some(&class), &kept(&own), held.as_deref(), "https://x", &asked) {
                    prop_assert!(got.iter().all(|scope| own.contains(scope)));
                    prop_assert!(held.as_ref().is_none_or(|held| got.iter().all(|scope| held.contains(scope))));
                    prop_assert!(asked.is_empty() || got.iter().all(|scope| asked.contains(scope)));
                    prop_assert!(!got.is_empty() || own.is_empty(), "an empty scope is never everything");
                    prop_assert!(got.is_sorted_by(|a, b| a < b));
                    held = Some(got);
                }
            }
        }
    }
}
