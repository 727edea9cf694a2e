//! A feed's key is a point of one form on its curve, or none.
#![no_main]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::seed;
use mayfly_verify::feed::FeedKey;

fuzz_target!(init: seed("feed_key", points()), |bytes: &[u8]| {
    assert!(FeedKey::from_point(bytes).is_err() || matches!(bytes, [4, rest @ ..] if rest.len() == 64));
});

fn points() -> impl Iterator<Item = Vec<u8>> {
    (0..4).map(|_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().public_key().as_ref().to_vec())
}
