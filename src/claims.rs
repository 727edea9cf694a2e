//! Whether the claims of a verified token are those that the configuration expects: of a workload, of an operator, of an auditor. And what
//! the claims of an ID-JAG grant.

use serde_json::{Map, Value};

/// Whether every expected claim is there with its exact value. If an expected value is an object, its members must be in the object
/// that was found; a list must be equal.
pub fn holds_all(expected: &Map<String, Value>, found: &Map<String, Value>) -> bool {
    expected.iter().all(|(name, value)| found.get(name).is_some_and(|found| holds(value, found)))
}

/// Types must match: the text `1` is not the number 1, and a text is not equal to a list that contains it.
fn holds(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => holds_all(expected, found),
        (expected, found) => expected == found,
    }
}

/// Whether each of these claims is a list of which the given text is a member, such as that of a user's groups.
pub fn lists_all(expected: &[(String, String)], found: &Map<String, Value>) -> bool {
    let member = |name: &str, text: &str| {
        found.get(name).and_then(Value::as_array).is_some_and(|all| all.iter().any(|one| one.as_str() == Some(text)))
    };
    expected.iter().all(|(name, text)| member(name, text))
}

/// What an ID-JAG grants besides naming its user. An ID-JAG is an Identity Assertion JWT Authorization Grant, by which a provider lets one
/// client act for a user at one authorization server (draft-ietf-oauth-identity-assertion-authz-grant).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client that it was issued to (`client_id`).
    pub client: String,
    /// The actor (`sub` of the outermost `act`). `None` if there is none.
    pub actor: Option<String>,
    /// Identifies it for its single use: the first 16 bytes of the SHA-256 of its `iss` and `jti`.
    pub once: [u8; 16],
    /// Ceiling of scopes. `None` if it has no `scope`.
    pub scopes: Option<Vec<String>>,
    /// The resources that it is for. `None` if it has no `resource`.
    pub resources: Option<Vec<String>>,
    /// Its `authorization_details` as JSON. `None` if it has none.
    pub details: Option<String>,
    /// SHA-256 thumbprint of the key that its holder must prove (`cnf.jkt`). `None` if there is none.
    pub key: Option<[u8; 32]>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn t122_claims_are_equal_with_their_types_and_whole_lists() {
        let found = json!({ "a": "1", "list": ["x", "y"], "deep": { "b": { "c": "d", "e": 1 }, "f": true } });
        for (expected, equal) in [
            (json!({ "a": "1" }), true),
            (json!({ "list": ["x", "y"] }), true),
            (json!({ "deep": { "b": { "c": "d" } } }), true),
            (json!({ "deep": { "b": { "e": 1 }, "f": true }, "a": "1" }), true),
            (json!({ "a": 1 }), false),
            (json!({ "a": ["1"] }), false),
            (json!({ "a": "1 " }), false),
            (json!({ "list": "x" }), false),
            (json!({ "list": ["x"] }), false),
            (json!({ "list": ["y", "x"] }), false),
            (json!({ "deep": { "b": "d" } }), false),
            (json!({ "deep": { "b": { "c": "d", "x": "y" } } }), false),
            (json!({ "deep.b.c": "d" }), false),
            (json!({ "missing": null }), false),
        ] {
            assert_eq!(holds_all(expected.as_object().unwrap(), found.as_object().unwrap()), equal, "{expected}");
        }
    }

    #[test]
    fn t240_a_group_is_a_whole_member_of_a_list() {
        let found = json!({ "groups": ["ops", "ops-readers", 7], "group": "ops", "deep": { "groups": ["root"] } });
        for (name, text, member) in [
            ("groups", "ops", true),
            ("groups", "ops-readers", true),
            ("groups", "readers", false),
            ("groups", "Ops", false),
            ("groups", "7", false),
            ("groups", "root", false),
            // A single text is not a list.
            ("group", "ops", false),
            ("group", "o", false),
            ("missing", "ops", false),
        ] {
            let expected = [(name.to_owned(), text.to_owned())];
            assert_eq!(lists_all(&expected, found.as_object().unwrap()), member, "{name} {text}");
        }
        assert!(lists_all(&[], found.as_object().unwrap()));
    }
}
