//! What is read from a certificate is exactly what would be written there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::{seed, vectors};
use mayfly_verify::Binding;

fuzz_target!(
    init: seed("binding_der", vectors("der").iter().map(|der| hex::decode(der.as_str().unwrap()).unwrap())),
    |bytes: &[u8]| {
        if let Ok(binding) = Binding::from_der(bytes) {
            assert_eq!(binding.to_der().unwrap(), bytes);
        }
    }
);
