//! What is read from a claim is exactly what would be written there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::{seed, vectors};
use mayfly_verify::Binding;

fuzz_target!(
    init: seed("binding_claim", vectors("claim").iter().map(|claim| claim.to_string().into_bytes())),
    |bytes: &[u8]| {
        let Ok(claim) = serde_json::from_slice(bytes) else { return };
        if let Ok(binding) = Binding::from_claim(&claim) {
            assert_eq!(binding.to_claim().unwrap(), claim);
        }
    }
);
