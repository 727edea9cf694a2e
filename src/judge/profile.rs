//! The profile of access tokens that an audience expects: their subject, their form, and whether they name the agent.

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
    /// The subject of tokens. `None` means the user for whom the agent acts, or the agent if it acts for nobody.
    pub subject: Option<Subject>,
    /// Its form.
    pub form: Form,
    /// Whether tokens of classes that may impersonate do not name the agent.
    pub impersonation: bool,
    /// As which client the audience knows the agent, in an ID-JAG. `None` means by its SPIFFE ID.
    pub client: Option<Template>,
    /// The resources behind the audience for which there are ID-JAGs.
    pub resources: Vec<String>,
}

/// Whom a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The agent's SPIFFE ID, which differs for each agent.
    Agent,
    /// The name of its class, which all its agents share, for systems that compare the whole subject.
    Class,
    /// The user, as the name of their provider and their subject there.
    User,
    /// A template, for the name by which the audience knows the user or the agent.
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
    /// An ID-JAG: a grant for another authorization server, which is the audience.
    IdJag,
}

/// The claims of a token about its agent and its user.
#[derive(Clone, Debug)]
pub struct Stated {
    /// Its `sub`.
    pub subject: String,
    /// Its form.
    pub form: Form,
    /// Whether it names the user but not the agent.
    pub impersonates: bool,
    /// As which client the audience knows the agent. `None` means by its SPIFFE ID.
    pub client: Option<String>,
    /// The resource that an ID-JAG is for.
    pub resource: Option<String>,
    /// Its further claims, from the configuration of the audience.
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

/// The name of a class in tokens. No credential is ever issued with this name.
pub fn class_id(td: &TrustDomain, class: &ClassName) -> String {
    format!("spiffe://{td}/class/{class}")
}

impl Judgement<'_> {
    /// The claims of an access token about an agent and its user, by the present configuration of the audience. Claims that are too
    /// large are denied, so this is called before anything is recorded.
    ///
    /// `resource` is the one behind the audience that an ID-JAG is asked for.
    pub fn stated(&self, agent: &Agent, audience: &str, resource: Option<&str>) -> Result<Stated, No> {
        let known = self.rules().audiences.get(audience);
        let profile = known.map(|known| known.profile.clone()).unwrap_or_default();
        let claims = self.claims(agent, &[audience.to_owned()])?;
        let id = || agent.id(&self.rules().trust_domain).to_string();
        // The user's provider must still be configured, even if the token does not name the user.
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
        if profile.form == Form::IdJag && !names_user {
            return Err(unusable("an ID-JAG names the user, and the agent acts for nobody").into());
        }
        let client = profile.client.as_ref().map(|template| template.fill(&self.facts(agent)));
        let client = client.transpose().map_err(|e| unusable(&e.to_string()))?;
        client.as_deref().map_or(Ok(()), check_name).map_err(unusable)?;
        let resource = resource_of(&profile, resource)?;
        let most = if known.is_some_and(|known| known.kind == Some(System::Gcp)) { MOST_AT_GOOGLE } else { MOST };
        if subject.len() > most {
            return Err(unusable(&format!("it has {} bytes, and {most} are allowed", subject.len())).into());
        }
        let class = self.rules().classes.get(&agent.mandate.class);
        // The agent is left out only if both the class and the audience allow it.
        let impersonates =
            names_user && profile.impersonation && class.is_some_and(|class| class.impersonates.contains(audience));
        Ok(Stated { subject, form: profile.form, impersonates, client, resource, claims: Arc::new(claims) })
    }
}

/// The resource of an ID-JAG: the one that is asked for, or the only one that there is.
fn resource_of(profile: &Profile, asked: Option<&str>) -> Result<Option<String>, Denial> {
    match (asked, profile.resources.as_slice()) {
        (None, [only]) => Ok(Some(only.clone())),
        (None, []) => Ok(None),
        (Some(asked), all) if all.iter().any(|known| known == asked) => Ok(Some(asked.to_owned())),
        _ => {
            let message = "say which resource behind this audience the ID-JAG is for: one of those in the catalogue";
            Err(Denial::denied("AUDIENCE_NOT_ALLOWED", message))
        }
    }
}

fn unusable(what: &str) -> Denial {
    Denial::denied("CLAIMS_UNUSABLE", format!("the subject for this audience does not fit: {what}"))
}

/// The default subject and form of tokens for a system.
pub fn usual(system: System) -> (Option<Subject>, Form) {
    match system {
        // These systems compare the whole subject, or know a machine by one name.
        System::Aws | System::Gcp | System::Azure | System::Anthropic | System::OpenAi | System::Snowflake => {
            (Some(Subject::Class), Form::Plain)
        }
        // These systems grant rights to users.
        System::Vault | System::Kubernetes => (Some(Subject::User), Form::Plain),
        System::Salesforce => (Template::parse("{user.sub}").ok().map(Subject::Known), Form::Plain),
        System::Mcp => (None, Form::Access),
    }
}
