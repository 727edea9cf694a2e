//! Templates: texts with variables in braces, such as `CN={agent}`. They make names of agents and users for systems that read
//! neither SPIFFE IDs nor bindings.

use std::fmt;

use mayfly_verify::{TrustDomain, User};

use super::Judgement;
use crate::state::Agent;

/// A variable of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The UUID of the agent, 36 characters.
    Agent,
    /// The SPIFFE ID of the agent.
    AgentId,
    /// The class of the agent.
    Class,
    /// The workload at the agent's root: its name, or the SPIFFE ID of a foreign one.
    Workload,
    /// The trust domain.
    TrustDomain,
    /// `sub` of the user.
    UserSub,
    /// `iss` of the user's provider.
    UserIss,
    /// The configured name of the user's provider.
    UserProvider,
}

/// Every variable, with its name.
const VARIABLES: &[(&str, Variable)] = &[
    ("agent", Variable::Agent),
    ("agent.id", Variable::AgentId),
    ("class", Variable::Class),
    ("workload", Variable::Workload),
    ("trust_domain", Variable::TrustDomain),
    ("user.sub", Variable::UserSub),
    ("user.iss", Variable::UserIss),
    ("user.provider", Variable::UserProvider),
];

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    /// A variable, which is replaced by its value.
    Variable(Variable),
}

/// A text with variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// The values of the variables.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    agent: &'a Agent,
    trust_domain: &'a TrustDomain,
    user: Option<(&'a User, &'a str)>,
}

/// The template contains the user, but the agent acts for nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it names the user, and the agent acts for nobody")]
pub struct NoUser;

impl Variable {
    /// Reads the name of a variable, without its braces. The error says which names there are.
    pub(super) fn read(name: &str) -> Result<Variable, String> {
        let found = VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, variable)| *variable);
        found.ok_or_else(|| {
            let all: Vec<String> = VARIABLES.iter().map(|(known, _)| format!("`{{{known}}}`")).collect();
            format!("`{{{name}}}` is no variable: write one of {}", all.join(", "))
        })
    }

    fn is_of_user(self) -> bool {
        matches!(self, Variable::UserSub | Variable::UserIss | Variable::UserProvider)
    }
}

impl Template {
    /// Parses a template. Every brace must belong to a variable.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut template = Template::default();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            template.push_text(before);
            let inner = from.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, after) = inner.ok_or("a brace is part of a variable, such as `{agent}`")?;
            template.push(Part::Variable(Variable::read(name)?));
            rest = after;
        }
        template.push_text(rest);
        Ok(template)
    }

    pub(super) fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    pub(super) fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(before)) => before.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// Whether it asks for the user, so that it can be used for delegated agents alone.
    pub fn names_user(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(variable) if variable.is_of_user()))
    }

    /// The text of a template without variables.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Number of characters of its fixed text.
    pub(super) fn least(&self) -> usize {
        self.parts.iter().map(|part| if let Part::Text(text) = part { text.chars().count() } else { 0 }).sum()
    }

    /// The text, with variables replaced by their values.
    pub fn fill(&self, facts: &Facts<'_>) -> Result<String, NoUser> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Variable(variable) => facts.write(*variable, &mut filled)?,
            }
        }
        Ok(filled)
    }
}

/// As it was configured.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Variable(variable) => {
                let name = VARIABLES.iter().find(|(_, known)| known == variable).map_or("", |(name, _)| *name);
                write!(f, "{{{name}}}")
            }
        })
    }
}

impl Facts<'_> {
    fn write(&self, variable: Variable, out: &mut String) -> Result<(), NoUser> {
        let mandate = &self.agent.mandate;
        let mut put = |shown: &dyn fmt::Display| out.push_str(&shown.to_string());
        match variable {
            Variable::Agent => put(&self.agent.uuid),
            Variable::AgentId => put(&self.agent.id(self.trust_domain)),
            Variable::Class => put(&mandate.class),
            Variable::Workload => put(&mandate.workload),
            Variable::TrustDomain => put(self.trust_domain),
            Variable::UserSub => put(&self.user.ok_or(NoUser)?.0.sub),
            Variable::UserIss => put(&self.user.ok_or(NoUser)?.0.iss),
            Variable::UserProvider => put(&self.user.ok_or(NoUser)?.1),
        }
        Ok(())
    }
}

impl<'a> Judgement<'a> {
    /// The values of the variables for an agent.
    pub(super) fn facts<'b>(&'b self, agent: &'b Agent) -> Facts<'b>
    where
        'a: 'b,
    {
        let rules = self.rules();
        // A provider that is no longer configured has no name, so its URL is used. Its users' agents cannot act anyway.
        let name = |user: &'b User| rules.issuers.get(&user.iss).map_or(user.iss.as_str(), String::as_str);
        let user = agent.delegation.as_ref().map(|d| (&d.user, name(&d.user)));
        Facts { agent, trust_domain: &rules.trust_domain, user }
    }
}

/// Checks that a text can be a name in other systems. It must not be empty, and must not contain surrounding white space, control
/// characters, or characters that change the direction of writing and make one name look like another.
pub(super) fn check_name(text: &str) -> Result<(), &'static str> {
    let unseen = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    match text {
        "" => Err("is empty"),
        text if text.trim() != text => Err("begins or ends with white space"),
        text if text.contains(unseen) => Err("has control characters"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_brace_is_always_one_of_a_known_variable() {
        assert_eq!(Template::parse("fixed").unwrap().fixed(), Some("fixed"));
        assert!(Template::parse("a-{user.sub}").unwrap().names_user());
        assert!(!Template::parse("{agent}{class}").unwrap().names_user());
        for (text, part) in
            [("{", "a brace"), ("a}b", "a brace"), ("{a{agent}}", "no variable"), ("{}", "no variable"), ("{Agent}", "`{agent}`")]
        {
            let fault = Template::parse(text).unwrap_err();
            assert!(fault.contains(part), "{text}: {fault}");
        }
    }

    #[test]
    fn t117_a_name_shows_what_it_is() {
        assert_eq!(check_name("Zoë O'Brien, 東京 #1"), Ok(()));
        for bad in ["", " a", "a ", "a\u{0}b", "a\nb", "a\u{202e}b", "\u{feff}a", "a\u{2066}", "a\u{200b}b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
