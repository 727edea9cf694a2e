//! A part of a set: the policies about one action, principal and resource, with a summary that says in one evaluation whether any of
//! them applies.
//!
//! Most questions are about nothing that a policy forbids. Cedar prepares each policy of a set for each question; the summary is one
//! policy, so it is prepared once. Its condition is the disjunction of those of the part: if it is false and nothing failed, then each of
//! them was evaluated and is false, and no policy of the part applies or fails. In every other case the part itself is asked.

use cedar_policy::{Authorizer, Decision, Entities, Policy, PolicyId, PolicySet, Request, Response};
use serde_json::{Value, json};

/// Fewest policies of a part that has a summary.
const FEWEST: usize = 2;

/// Policies with the same action, principal and resource in their scopes.
#[derive(Debug, Default)]
pub(super) struct Part {
    policies: PolicySet,
    summary: Option<PolicySet>,
}

impl Part {
    /// The part with these policies.
    pub(super) fn new(policies: &[Policy]) -> Result<Part, String> {
        let set = PolicySet::from_policies(policies.iter().cloned()).map_err(|e| e.to_string())?;
        let summary = if policies.len() >= FEWEST { summary(policies) } else { None };
        Ok(Part { policies: set, summary })
    }

    /// The same part without one of its policies.
    pub(super) fn without(&self, id: &str) -> Part {
        let mut policies = self.policies.clone();
        // The part has no summary of these policies, so they are asked themselves.
        let _ = policies.remove_static(PolicyId::new(id));
        Part { policies, summary: None }
    }

    /// The policies.
    pub(super) fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.policies()
    }

    /// Cedar's response. `None` if no policy applies and none fails.
    pub(super) fn ask(&self, by: &Authorizer, request: &Request, entities: &Entities) -> Option<Response> {
        if let Some(summary) = &self.summary {
            let response = by.is_authorized(request, summary, entities);
            if response.decision() == Decision::Deny && response.diagnostics().errors().next().is_none() {
                return None;
            }
        }
        Some(by.is_authorized(request, &self.policies, entities))
    }
}

/// A set with one policy, which permits exactly if one of these policies applies. `None` if some of them permits, because then it
/// applies to most questions, or if Cedar cannot express it.
fn summary(policies: &[Policy]) -> Option<PolicySet> {
    let forbids = policies.iter().all(|policy| policy.effect() == cedar_policy::Effect::Forbid);
    let conditions = policies.iter().map(|policy| condition(&policy.to_json().ok()?)).collect::<Option<Vec<_>>>()?;
    let any = json!({
        "effect": "permit", "principal": { "op": "All" }, "action": { "op": "All" }, "resource": { "op": "All" },
        "conditions": [{ "kind": "when", "body": any(conditions)? }],
    });
    let summary = Policy::from_json(Some(PolicyId::new("summary")), any).ok().filter(|_| forbids)?;
    PolicySet::from_policies([summary]).ok()
}

/// The disjunction of some conditions, as a tree of the least depth.
fn any(mut conditions: Vec<Value>) -> Option<Value> {
    if conditions.len() <= 1 {
        return conditions.pop();
    }
    let right = conditions.split_off(conditions.len() / 2);
    Some(json!({ "||": { "left": any(conditions)?, "right": any(right)? } }))
}

/// When a policy applies, in Cedar's JSON form, without its action, which is that of the part. `None` if the form is not known.
fn condition(policy: &Value) -> Option<Value> {
    let mut all = Vec::new();
    for var in ["principal", "resource"] {
        all.extend(scope(var, policy.get(var)?)?);
    }
    for condition in policy.get("conditions")?.as_array()? {
        let body = condition.get("body")?.clone();
        all.push(match condition.get("kind")?.as_str()? {
            "when" => body,
            "unless" => json!({ "!": { "arg": body } }),
            _ => return None,
        });
    }
    // As Cedar evaluates them: the first that is false ends it.
    let last = all.pop().unwrap_or_else(|| json!({ "Value": true }));
    Some(all.into_iter().rev().fold(last, |right, left| json!({ "&&": { "left": left, "right": right } })))
}

/// The condition in the scope of a policy on its principal or resource. `Some(None)` if there is none, `None` if it is not known.
fn scope(var: &str, scope: &Value) -> Option<Option<Value>> {
    let var = json!({ "Var": var });
    let entity = |of: &Value| Some(json!({ "Value": { "__entity": of.get("entity")? } }));
    Some(Some(match scope.get("op")?.as_str()? {
        "All" => return Some(None),
        "==" => json!({ "==": { "left": var, "right": entity(scope)? } }),
        "in" => json!({ "in": { "left": var, "right": entity(scope)? } }),
        "is" => match scope.get("in") {
            None => json!({ "is": { "left": var, "entity_type": scope.get("entity_type")? } }),
            Some(within) => json!({ "is": { "left": var, "entity_type": scope.get("entity_type")?, "in": entity(within)? } }),
        },
        _ => return None,
    }))
}
