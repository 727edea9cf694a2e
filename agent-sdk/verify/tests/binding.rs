//! The vectors that decoders in other languages are held to. `MAYFLY_REGENERATE=1` writes them anew.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::path::Path;
use std::{env, fs};

use mayfly_verify::{Binding, BindingError};
use serde_json::{Value, json};

#[path = "binding/accepted.rs"]
mod accepted;
#[path = "binding/asn1.rs"]
mod asn1;
#[path = "binding/refused.rs"]
mod refused;
#[path = "binding/tlv.rs"]
mod tlv;

#[test]
fn what_is_accepted_reads_the_same_from_both_encodings() {
    let mut vectors = Vec::new();
    for (name, binding) in accepted::bindings() {
        let (der, claim) = (binding.to_der().unwrap(), binding.to_claim().unwrap());
        assert_eq!(Binding::from_der(&der).unwrap(), binding, "{name}");
        assert_eq!(Binding::from_claim(&claim).unwrap(), binding, "{name}");
        vectors.push(json!({ "name": name, "der": hex::encode(der), "claim": claim }));
    }
    committed("accepted.json", &vectors);
}

#[test]
fn what_is_refused_is_refused_for_its_own_fault() {
    let mut vectors = Vec::new();
    for (name, code, der) in refused::ders() {
        assert_eq!(Binding::from_der(&der).map_err(|e| label(&e)), Err(code), "{name}");
        vectors.push(json!({ "name": name, "code": code, "der": hex::encode(der) }));
    }
    for (name, code, claim) in refused::claims() {
        assert_eq!(Binding::from_claim(&claim).map_err(|e| label(&e)), Err(code), "{name}");
        vectors.push(json!({ "name": name, "code": code, "claim": claim }));
    }
    committed("refused.json", &vectors);
}

fn label(e: &BindingError) -> &'static str {
    match e {
        BindingError::Malformed(_) => "malformed",
        BindingError::Inconsistent(_) => "inconsistent",
        BindingError::TooLarge(..) => "too_large",
    }
}

// One vector in a line: a change shows as the vectors it changes.
fn committed(file: &str, vectors: &[Value]) {
    let sorted = |vector: &Value| {
        let mut vector = vector.clone();
        vector.sort_all_objects();
        vector.to_string()
    };
    let lines: Vec<String> = vectors.iter().map(sorted).collect();
    let generated = format!("[\n{}\n]\n", lines.join(",\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    if env::var_os("MAYFLY_REGENERATE").is_some_and(|v| v == "1") {
        fs::write(&path, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == generated,
        "`{file}` is stale: run `MAYFLY_REGENERATE=1 cargo test -p mayfly-verify --test binding`, look at what changed and commit it"
    );
}
