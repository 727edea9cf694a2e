//! How a user is printed: in the form that `--user` takes.

use std::collections::BTreeMap;

use mayfly_agent::api::v1;

use crate::cli::global::Global;
use crate::home;

/// A user as `--user` takes one: by the configured name of the provider, or by its URL if it has no name.
pub(in crate::cli) fn name(user: &v1::User) -> String {
    if user.name.is_empty() { format!("{}/{}", user.iss, user.sub) } else { user.name.clone() }
}

/// Configured names of providers by their URLs, as far as this command knows them: from the home, and from users in answers.
#[derive(Default)]
pub(in crate::cli) struct Names(BTreeMap<String, String>);

impl Names {
    /// The names in the home, if there is one.
    pub(in crate::cli) fn known(global: &Global) -> Names {
        let issuers = home::endpoint(&global.home).map(|at| at.issuers).unwrap_or_default();
        Names(issuers.into_iter().map(|(name, url)| (url, name)).collect())
    }

    /// The same, with the providers of these users.
    pub(in crate::cli) fn and<'a>(mut self, users: impl IntoIterator<Item = &'a v1::User>) -> Names {
        for user in users {
            if let Some(provider) = user.name.strip_suffix(&format!("/{}", user.sub)).filter(|name| !name.contains("://")) {
                self.0.insert(user.iss.clone(), provider.to_owned());
            }
        }
        self
    }

    /// A user as `--user` takes one.
    pub(in crate::cli) fn of(&self, iss: &str, sub: &str) -> String {
        format!("{}/{sub}", self.0.get(iss).map_or(iss, String::as_str))
    }

    /// Who did something, as the journal has it. `user alice of https://idp.example` becomes `user corp/alice`; everything else stays.
    pub(in crate::cli) fn person(&self, text: &str) -> String {
        // The URL has no spaces, so the last ` of ` is before it, whatever the subject is.
        let user = text.strip_prefix("user ").and_then(|rest| rest.rsplit_once(" of ")).filter(|(_, iss)| iss.contains("://"));
        user.map_or_else(|| text.to_owned(), |(sub, iss)| format!("user {}", self.of(iss, sub)))
    }

    /// What something was done to, as the journal has it.
    pub(in crate::cli) fn target(&self, text: &str) -> String {
        match text.strip_suffix(", closed") {
            Some(user) => format!("{}, closed", self.person(user)),
            None => self.person(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_have_the_names_that_commands_take_and_no_subject_makes_another_of_them() {
        let alice = v1::User { iss: "https://idp.example".into(), sub: "alice".into(), name: "corp/alice".into() };
        let names = Names::default().and([&alice]);
        assert_eq!(names.person("user bob of https://idp.example"), "user corp/bob");
        assert_eq!(names.person("user eve of https://other.example"), "user https://other.example/eve");
        assert_eq!(names.target("user alice of https://idp.example, closed"), "user corp/alice, closed");
        let liar = "user alice of https://idp.example, closed of https://other.example";
        assert_eq!(names.person(liar), "user https://other.example/alice of https://idp.example, closed");
        for other in ["uid:0", "workload/x", "user:corp/alice", "agent 1", "user of"] {
            assert_eq!((names.person(other), names.target(other)), (other.to_owned(), other.to_owned()));
        }
        assert_eq!(name(&alice), "corp/alice");
        assert_eq!(name(&v1::User { name: String::new(), ..alice }), "https://idp.example/alice");
    }
}
