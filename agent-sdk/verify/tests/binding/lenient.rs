//! What this crate reads although no issuer writes it. Other readers refuse it: nothing is lost, and one spelling is left.

use mayfly_verify::MAX_CLAIM;
use serde_json::{Value, json};

use crate::accepted::{autonomous, delegated, largest_claim};
use crate::refused::{claim_with, with};
use crate::tlv::{content, elements, tlv};

/// Name, the code by which others refuse it, encoding.
pub(crate) fn ders() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    // Both count, so the lower one decides: it fails closed.
    let twice = with(|fields| {
        let stamps = elements(content(&fields[3]));
        let later = tlv(0x30, &[tlv(4, content(content(&stamps[0]))), vec![2, 1, 9]].concat());
        fields[3] = tlv(0x30, &[stamps.concat(), later].concat());
    });
    vec![("a subject twice", "inconsistent", twice)]
}

/// Name, the code by which others refuse it, claim.
pub(crate) fn claims() -> Vec<(&'static str, &'static str, Value)> {
    let mut large = largest_claim().to_claim().unwrap();
    large["user"]["sub"] = json!(format!("{}s", large["user"]["sub"].as_str().unwrap()));
    assert_eq!(large.to_string().len(), MAX_CLAIM + 1);
    let mut nobody = autonomous().to_claim().unwrap();
    nobody["user"] = Value::Null;
    nobody["delegation_id"] = Value::Null;
    let listed = |claim: &Value, names: &[&str]| Value::Array(names.iter().map(|n| claim[*n].clone()).collect());
    let order =
        ["v", "incarnation", "revision", "stamps", "delegation_id", "user", "chain", "mode", "scopes", "lease_expires_at"];
    let spelled = |text: &str| claim_with(|c| c["incarnation"] = json!(text));
    vec![
        (
            "a subject twice",
            "inconsistent",
            claim_with(|c| {
                let again = json!([c["stamps"][0][0], 9]);
                c["stamps"].as_array_mut().unwrap().push(again);
            }),
        ),
        ("too large by a byte", "too_large", large),
        ("a subject in upper case", "malformed", claim_with(|c| c["stamps"] = json!([["AB".repeat(16), 3]]))),
        ("an incarnation in upper case", "malformed", spelled("0190AAAA-0000-7000-8000-000000000001")),
        ("an incarnation without hyphens", "malformed", spelled("0190aaaa000070008000000000000001")),
        ("an incarnation in braces", "malformed", spelled("{0190aaaa-0000-7000-8000-000000000001}")),
        ("an incarnation as URN", "malformed", spelled("urn:uuid:0190aaaa-0000-7000-8000-000000000001")),
        ("null for what is absent", "malformed", nobody),
        ("the claim as a list", "malformed", listed(&delegated().to_claim().unwrap(), &order)),
        ("the user as a list", "malformed", claim_with(|c| c["user"] = json!(["https://idp.example", "demo"]))),
        ("the mode as an object", "malformed", claim_with(|c| c["mode"] = json!({ "delegated": null }))),
    ]
}
