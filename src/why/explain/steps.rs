//! Describes a change: what to do, where, and who owns that.

use mayfly_verify::Target;

use super::change::{Case, Change};
use super::rows::named;
use super::told::Step;
use crate::clock::SECOND;
use crate::judge::{Places, Rules, Section, Source};

/// The description of a change.
pub(super) fn step(change: &Change, case: &Case, places: &Places) -> Step {
    let class = |class: &mayfly_verify::ClassName, key: &str| places.of(Section::Classes, class.as_str(), Some(key));
    let request = || places.record("request".to_owned(), Some(&case.caller.scope()));
    let user = || {
        let owner = case.user().map(|user| format!("user {}", case.rules.user_name(user)));
        places.record("user token".to_owned(), owner.as_deref())
    };
    let (text, source) = match change {
        Change::ClassScope(name, scope) => (format!("add scope `{scope}` to class `{name}`"), class(name, "scopes")),
        Change::ClassAudience(name, audience) => {
            (format!("add audience `{audience}` to class `{name}`"), class(name, "audiences"))
        }
        Change::ClassSpawner(name, spawner) => {
            (format!("add `{spawner}` to the spawners of class `{name}`"), class(name, "spawners"))
        }
        Change::ClassMode(name, mode) => {
            (format!("add `{}` to the modes of class `{name}`", mode.as_str()), class(name, "modes"))
        }
        Change::ClassLease(name, lease) => (format!("let class `{name}` have leases of {lease} s"), class(name, "max_lease")),
        Change::ClassDepth(name, depth) => (format!("let class `{name}` have {depth} levels below it"), class(name, "max_depth")),
        Change::Limit(index, most) => match case.rules.limits.get(*index) {
            Some(limit) => {
                let key = if limit.measure.as_str() == "rate" { "burst" } else { limit.measure.as_str() };
                (format!("raise limit `{}` to {most}", limit.name), places.of(Section::Limits, &limit.name, Some(key)))
            }
            None => ("raise the limit".to_owned(), places.elsewhere("limits")),
        },
        Change::Policy(index) => policy(*index, &case.rules, places),
        Change::Provider(iss) => (format!("configure the provider `{iss}`"), places.elsewhere("issuers")),
        Change::SignInScope(scope) => {
            (format!("sign in for an audience whose tokens allow scope `{scope}`"), places.elsewhere("issuers"))
        }
        Change::SignIn => ("a fresh sign-in of the user".to_owned(), user()),
        Change::SignInFor(workload) => {
            (format!("a token of an audience that workload `{workload}` may present"), places.elsewhere("issuers"))
        }
        Change::Reopen(target) => {
            let owner = match target {
                Target::Class(name) => places.of(Section::Classes, name.as_str(), None).owner,
                _ => places.default_owner(),
            };
            (format!("reopen {}", named(target, &case.rules)), places.record("mayfly reopen".to_owned(), Some(&owner)))
        }
        Change::Clip => ("ask to clip: take what can be given".to_owned(), request()),
        Change::UserToken => ("bring a user token".to_owned(), request()),
        Change::Autonomous => ("ask for an agent that acts for nobody".to_owned(), request()),
        Change::AnyMode => ("leave the mode out".to_owned(), request()),
        Change::Audience(audience) => (format!("ask for a token for `{audience}`"), request()),
        Change::Class(name) => (format!("ask for class `{name}`"), request()),
        Change::Later(after) => (format!("ask again after {} s", after.div_ceil(SECOND)), request()),
    };
    Step { change: change.clone(), text, source }
}

/// The text and the source of lifting a policy of the set in force.
pub(super) fn policy(index: usize, rules: &Rules, places: &Places) -> (String, Source) {
    match rules.policies.as_ref().and_then(|set| set.all().get(index)) {
        Some(policy) => (
            format!("lift policy `{}` of {}", policy.id, policy.owner),
            Source { at: policy.place(), key: format!("policy {}", policy.id), owner: policy.owner.clone() },
        ),
        None => ("lift the policy".to_owned(), places.elsewhere("policy")),
    }
}

impl Change {
    /// Its stable name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Change::ClassScope(..) => "class_scope",
            Change::ClassAudience(..) => "class_audience",
            Change::ClassSpawner(..) => "class_spawner",
            Change::ClassMode(..) => "class_mode",
            Change::ClassLease(..) => "class_lease",
            Change::ClassDepth(..) => "class_depth",
            Change::Limit(..) => "limit",
            Change::Policy(_) => "policy",
            Change::Provider(_) => "provider",
            Change::SignInScope(_) => "sign_in_scope",
            Change::SignIn => "sign_in",
            Change::SignInFor(_) => "sign_in_for",
            Change::Reopen(_) => "reopen",
            Change::Clip => "clip",
            Change::UserToken => "user_token",
            Change::Autonomous => "autonomous",
            Change::AnyMode => "any_mode",
            Change::Audience(_) => "audience",
            Change::Class(_) => "class",
            Change::Later(_) => "later",
        }
    }
}
