//! What an operator should know of a configuration that is no fault.

use mayfly_verify::{Mode, Workload};

use super::Config;
use crate::assertion::AudienceSettings;
use crate::judge::policy::Class;

/// Scopes of classes that no agent can get, because no user token that may be presented for the class allows them. One sentence each.
pub(super) fn scopes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for class in config.classes.values().filter(|class| !class.modes.contains(&Mode::Autonomous)) {
        let tokens: Vec<&AudienceSettings> = (config.issuers.iter().flat_map(|issuer| &issuer.audiences))
            .filter(|audience| reaches(config, class, &audience.workloads))
            .collect();
        // Without any token the class has no agents at all, and development adds its provider later.
        if tokens.is_empty() {
            continue;
        }
        let allowed = |scope: &String| tokens.iter().any(|token| token.scopes.as_ref().is_none_or(|all| all.contains(scope)));
        for scope in class.scopes.iter().filter(|scope| !allowed(scope)) {
            let name = &class.name;
            notes.push(format!(
                "class `{name}`: no user token allows `{scope}`, so no agent gets it: is it misspelt there or in `issuers`?"
            ));
        }
    }
    notes
}

/// Whether one of these workloads spawns the class, or one that spawns it, and so on.
fn reaches(config: &Config, class: &Class, workloads: &[Workload]) -> bool {
    let (mut open, mut seen) = (vec![&class.name], Vec::new());
    while let Some(name) = open.pop() {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let Some(class) = config.classes.get(name) else { continue };
        if class.workloads.iter().any(|workload| workloads.contains(workload)) {
            return true;
        }
        open.extend(&class.classes);
    }
    false
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_scope_that_nobody_can_give_is_told() {
        let class = "trust_domain = \"a.example\"\n[[workloads]]\nname = \"w\"\n[[classes]]\nname = \"c\"\nowner = \"us\"\n\
                     scopes = [\"search:raed\", \"mail:send\"]\naudiences = []\nmodes = [\"MODE\"]\nspawners = [\"workload/w\"]\n";
        let issuer = "[[issuers]]\nname = \"corp\"\nissuer = \"https://idp.example\"\n[[issuers.audiences]]\naudience = \"x\"\n\
                      workloads = [\"w\"]\n";
        let told = |mode: &str, scopes: &str| {
            let text = format!("{}{issuer}{scopes}", class.replace("MODE", mode));
            scopes_of(&text)
        };
        let notes = told("delegated", "scopes = [\"search:read\", \"mail:send\"]\n");
        assert!(notes.len() == 1 && notes.first().unwrap().contains("search:raed"), "{notes:?}");
        assert!(told("delegated", "").is_empty(), "without a ceiling");
        assert!(told("autonomous", "scopes = [\"search:read\"]\n").is_empty(), "without a user");
        assert!(scopes_of(crate::config::EXAMPLE).is_empty());
    }

    fn scopes_of(text: &str) -> Vec<String> {
        scopes(&Config::parse(text, "f").unwrap())
    }
}
