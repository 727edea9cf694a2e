//! Bundles of all trust domains, in the forms that clients read.
//!
//! In the Workload API each is listed under the SPIFFE ID of its own trust domain (WA-9), with one kind of key only (WA-14, CL-7).
//! A foreign trust domain without such keys is left out, and clients do not trust it (CL-3).

use std::collections::HashMap;

use mayfly_agent::identity::{Current, ForeignBundle};
use mayfly_verify::{Bundle, TrustDomain};
use serde_json::{Map, Value, json};

/// X.509 authorities of every foreign trust domain: DER certificates that follow one another.
pub(super) fn x509_foreign(current: &Current) -> HashMap<String, Vec<u8>> {
    let roots = foreign(current).map(|one| (key(one.trust_domain().as_str()), one.bundle().x509_authorities().concat()));
    roots.filter(|(_, roots)| !roots.is_empty()).collect()
}

/// The same, with those of our own trust domain (WA-12).
pub(super) fn x509(current: &Current) -> HashMap<String, Vec<u8>> {
    let mut all = x509_foreign(current);
    all.insert(key(&current.bundle().trust_domain), current.bundle().x509_authorities.concat());
    all
}

/// JWT authorities of our own and of every foreign trust domain, as JWK sets.
pub(super) fn jwt(current: &Current) -> HashMap<String, Vec<u8>> {
    let sets = foreign(current).map(|one| (key(one.trust_domain().as_str()), jwt_keys(one.document())));
    let mut all: HashMap<_, _> = sets.filter(|(_, keys)| !keys.is_empty()).collect();
    all.insert(key(&current.bundle().trust_domain), jwt_keys(&current.bundle().spiffe_json));
    all.into_iter().map(|(key, keys)| (key, json!({ "keys": keys }).to_string().into_bytes())).collect()
}

/// X.509 authorities of our own and of every foreign trust domain as a bundle map, which gRPC reads (gRFC A87): a bundle document
/// for each trust domain. gRPC refuses a document with a key of another kind or with a `kid`.
pub(super) fn map(current: &Current) -> Vec<u8> {
    let own = TrustDomain::new(&current.bundle().trust_domain).ok();
    let own = own.and_then(|name| Bundle::from_json(name, &current.bundle().spiffe_json).ok());
    let all = own.iter().chain(foreign(current).map(|one| one.bundle().as_ref()));
    let domains = all.filter(|bundle| !bundle.x509_authorities().is_empty()).filter_map(|bundle| {
        let (name, roots) = (bundle.trust_domain().clone(), bundle.x509_authorities().to_vec());
        let alone = Bundle::new(name, roots, Vec::new(), bundle.sequence(), bundle.refresh_hint());
        Some((bundle.trust_domain().to_string(), alone.to_json().ok()?))
    });
    json!({ "trust_domains": domains.collect::<Map<_, _>>() }).to_string().into_bytes()
}

pub(super) fn foreign(current: &Current) -> impl Iterator<Item = &ForeignBundle> {
    current.foreign().into_iter().flat_map(|foreign| foreign.iter())
}

fn key(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}")
}

/// Only keys with a `kid` and of a kind that signs JWT-SVIDs. Any other key would make clients refuse the whole set.
fn jwt_keys(document: &[u8]) -> Vec<Value> {
    let Ok(Value::Object(mut document)) = serde_json::from_slice(document) else { return Vec::new() };
    let Some(Value::Array(keys)) = document.remove("keys") else { return Vec::new() };
    let text = |key: &Value, name| key.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let fits = |key: &Value| text(key, "use") == "jwt-svid" && matches!(text(key, "kty").as_str(), "EC" | "RSA");
    keys.into_iter().filter(|key| fits(key) && !text(key, "kid").is_empty()).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn wa14_only_whole_jwt_keys_are_in_a_jwk_set() {
        let document = json!({ "spiffe_sequence": 1, "keys": [
            { "use": "jwt-svid", "kty": "EC", "kid": "a" },
            { "use": "jwt-svid", "kty": "RSA", "kid": "b" },
            { "use": "jwt-svid", "kty": "EC", "kid": "" },
            { "use": "jwt-svid", "kty": "oct", "kid": "c", "k": "AA" },
            { "use": "x509-svid", "kty": "EC", "kid": "d" },
            { "kty": "EC", "kid": "e" },
            "f",
        ] });
        let kids: Vec<_> = jwt_keys(document.to_string().as_bytes()).iter().map(|key| key.get("kid").cloned().unwrap()).collect();
        assert_eq!(kids, ["a", "b"]);
        assert!(jwt_keys(b"").is_empty() && jwt_keys(b"[]").is_empty() && jwt_keys(b"{\"keys\": 1}").is_empty());
    }
}
