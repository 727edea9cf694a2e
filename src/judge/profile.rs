//! Profile: what an audience expects of access tokens: whom they name, in which form, and whether the agent is in them.

use std::sync::Arc;

use mayfly_verify::{ClassName, TrustDomain};
use serde_json::{Map, Value};

use super::Judgement;
use super::audience::System;
use super::template::{Template, check_name};
use crate::denial::{Denial, Fault, No};
use crate::state::Agent;

/// Most bytes of a subject.
const MOST: usize = 255;
/// The same at Google (`google.subject`).
const MOST_AT_GOOGLE: usize = 127;

/// What an audience expects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Whom a token names. `None` means the user for whom the agent acts, or the agent if it acts for nobody.
    pub subject: Option<Subject>,
    /// Its form.
    pub form: Form,
    /// Whether tokens of classes that may impersonate say nothing of the agent.
    pub impersonation: bool,
}

/// Whom a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The agent, by its SPIFFE ID: another name for each agent.
    Agent,
    /// Its class: one name for all agents of a class, for systems that compare the whole subject.
    Class,
    /// The user, as the name of their provider and their subject there.
    User,
    /// The user or the agent, as the audience knows them.
    Known(Template),
}

/// The form of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// An access token, with `typ: at+jwt` (RFC 9068).
    #[default]
    Access,
    /// The same with `typ: JWT`, for systems that know no other.
    Plain,
}

/// What a token says of its agent and its user.
#[derive(Clone, Debug)]
pub struct Stated {
    /// Its `sub`.
    pub subject: String,
    /// Its form.
    pub form: Form,
    /// Whether it says nothing of the agent, though it names the user.
    pub impersonates: bool,
    /// Its further claims, by the catalogue.
    pub claims: Arc<Map<String, Value>>,
}

impl Subject {
    /// Reads a configured subject.
    pub fn parse(text: &str) -> Result<Subject, String> {
        match text {
            "agent" => Ok(Subject::Agent),
            "class" => Ok(Subject::Class),
            "user" => Ok(Subject::User),
            other if other.contains('{') => Template::parse(other).map(Subject::Known),
            _ => Err("write `agent`, `class`, `user`, or a text with variables such as `{user.sub}@example.org`".into()),
        }
    }

    /// As it is configured.
    pub fn configured(&self) -> String {
        match self {
            Subject::Agent => "agent".into(),
            Subject::Class => "class".into(),
            Subject::User => "user".into(),
            Subject::Known(template) => template.to_string(),
        }
    }

    /// Whether it asks for the user, so that it can be used for delegated agents alone.
    pub fn names_user(&self) -> bool {
        match self {
            Subject::User => true,
            Subject::Agent | Subject::Class => false,
            Subject::Known(template) => template.names_user(),
        }
    }
}

/// The name of a class in tokens. It is the name of no credential: nobody has a key for it.
pub fn class_id(td: &TrustDomain, class: &ClassName) -> String {
    format!("spiffe://{td}/class/{class}")
}

impl Judgement<'_> {
    /// What an access token for an audience says of an agent and its user, by the catalogue as it is today. What would not fit is
    /// denied, so this is asked before anything is recorded.
    pub fn stated(&self, agent: &Agent, audience: &str) -> Result<Stated, No> {
        let known = self.rules().audiences.get(audience);
        let profile = known.map(|known| known.profile.clone()).unwrap_or_default();
        let claims = self.claims(agent, &[audience.to_owned()])?;
        let id = || agent.id(&self.rules().trust_domain).to_string();
        // Whatever the token names, the user's provider must be configured still.
        let user = match &agent.delegation {
            None => None,
            Some(delegation) => {
                self.check_issuer(&delegation.user)?;
                let name = self.rules().issuers.get(&delegation.user.iss);
                let name = name.ok_or_else(|| Fault::new("exchange", "no such provider"))?;
                // Two providers may give two people one `sub`, so a user's begins with the operator's name for the provider.
                Some(format!("{name}|{}", delegation.user.sub))
            }
        };
        let names_user = user.is_some() && profile.subject.as_ref().is_none_or(Subject::names_user);
        let subject = match &profile.subject {
            None => user.unwrap_or_else(id),
            Some(Subject::Agent) => id(),
            Some(Subject::Class) => class_id(&self.rules().trust_domain, &agent.mandate.class),
            Some(Subject::User) => user.ok_or_else(|| unusable("it names the user, and the agent acts for nobody"))?,
            Some(Subject::Known(template)) => template.fill(&self.facts(agent)).map_err(|e| unusable(&e.to_string()))?,
        };
        check_name(&subject).map_err(unusable)?;
        let most = if known.is_some_and(|known| known.kind == Some(System::Gcp)) { MOST_AT_GOOGLE } else { MOST };
        if subject.len() > most {
            return Err(unusable(&format!("it has {} bytes, and {most} are allowed", subject.len())).into());
        }
        let class = self.rules().classes.get(&agent.mandate.class);
        // Both say so, or the agent is in the token.
        let impersonates =
            names_user && profile.impersonation && class.is_some_and(|class| class.impersonates.contains(audience));
        Ok(Stated { subject, form: profile.form, impersonates, claims: Arc::new(claims) })
    }
}

fn unusable(what: &str) -> Denial {
    Denial::denied("CLAIMS_UNUSABLE", format!("the subject for this audience does not fit: {what}"))
}

/// What is usual for a system: whom its tokens name, and in which form.
pub fn usual(system: System) -> (Option<Subject>, Form) {
    match system {
        // They compare the subject as a whole, or know a machine by one name.
        System::Aws | System::Gcp | System::Azure | System::Anthropic | System::OpenAi | System::Snowflake => {
            (Some(Subject::Class), Form::Plain)
        }
        // They give rights to users.
        System::Vault | System::Kubernetes => (Some(Subject::User), Form::Plain),
        System::Salesforce => (Template::parse("{user.sub}").ok().map(Subject::Known), Form::Plain),
        System::Mcp => (None, Form::Access),
    }
}
