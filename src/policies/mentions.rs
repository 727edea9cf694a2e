//! The attributes that the policies of a set use. No others are looked up or passed to Cedar, because no answer depends on them.

use std::collections::BTreeSet;

use cedar_policy::{Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

/// The attributes that some policy of a set uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Attributes of the context.
    names: BTreeSet<String>,
    /// The context as a whole, so that every attribute of it counts.
    whole: bool,
    /// Attributes of entities.
    pub(super) attributes: bool,
    /// Whether the entities that an agent is in are used: its class, its ancestors, the workload at its root.
    pub(super) ancestors: bool,
}

impl Mentions {
    /// Everything, for a question that is checked against the schema.
    pub(super) fn everything() -> Mentions {
        Mentions { names: BTreeSet::new(), whole: true, attributes: true, ancestors: true }
    }

    /// Whether an attribute of the context is used.
    pub fn context(&self, name: &str) -> bool {
        self.whole || self.names.contains(name)
    }

    /// Whether the entities that an agent is in are used.
    pub fn ancestors(&self) -> bool {
        self.ancestors
    }

    /// The attributes that a policy uses.
    pub(super) fn of(policy: &Policy) -> Mentions {
        let mut mentions = Mentions::default();
        mentions.add(policy);
        mentions
    }

    /// Adds those of another policy.
    pub(super) fn join(&mut self, other: &Mentions) {
        self.names.extend(other.names.iter().cloned());
        self.whole |= other.whole;
        self.attributes |= other.attributes;
        self.ancestors |= other.ancestors;
    }

    fn add(&mut self, policy: &Policy) {
        let within = matches!(policy.principal_constraint(), PrincipalConstraint::In(_) | PrincipalConstraint::IsIn(..))
            || matches!(policy.resource_constraint(), ResourceConstraint::In(_) | ResourceConstraint::IsIn(..));
        self.ancestors |= within;
        match policy.to_json() {
            Ok(json) => json.get("conditions").into_iter().for_each(|conditions| self.visit(conditions)),
            Err(_) => *self = Mentions::everything(),
        }
    }

    /// Reads an expression in Cedar's JSON form.
    fn visit(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                if members.get("Var").and_then(Value::as_str) == Some("context") {
                    self.whole = true;
                    return;
                }
                for (name, inner) in members {
                    match name.as_str() {
                        "." | "has" if is_context(inner) => match inner.get("attr").and_then(Value::as_str) {
                            Some(attribute) => drop(self.names.insert(attribute.to_owned())),
                            None => self.whole = true,
                        },
                        "." | "has" => {
                            // An access to a member of a record in the context also counts as an access to an attribute of an
                            // entity. That is harmless.
                            self.attributes = true;
                            self.visit(inner);
                        }
                        "in" | "is" => {
                            self.ancestors = true;
                            self.visit(inner);
                        }
                        _ => self.visit(inner),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.visit(item)),
            _ => {}
        }
    }
}

/// Whether the left side of an access is the context itself.
fn is_context(access: &Value) -> bool {
    access.get("left").and_then(|left| left.get("Var")).and_then(Value::as_str) == Some("context")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(condition: &str) -> Mentions {
        let text = format!("forbid(principal, action, resource) when {{ {condition} }};");
        Mentions::of(&Policy::parse(None, text).unwrap())
    }

    #[test]
    fn only_what_a_policy_can_see_counts() {
        let plain = of("context.depth > 2 && context has left && context[\"lease\"] < 3");
        assert!(["depth", "left", "lease"].iter().all(|name| plain.context(name)) && !plain.context("time"));
        assert!(!plain.attributes && !plain.ancestors);
        assert!(of("context.time.hour > 3").context("time"));
        assert!(of("context has user && context.user.sub == \"x\"").attributes);
        assert!(of("principal in Agent::\"x\"").ancestors);
        assert!(of("principal == Agent::\"x\"") == Mentions::default());
        // If contexts are compared or chosen as a whole, every attribute counts.
        assert!(of("context == {}").context("time"));
        assert!(of("(if principal == resource then context else {acr: \"x\"}) has acr").context("acr"));
    }
}
