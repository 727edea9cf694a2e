//! A bundle that can be published reads as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::{Ca, Signer, seed, td};
use mayfly_verify::Bundle;

fuzz_target!(init: seed("bundle", bundles()), |bytes: &[u8]| {
    let Ok(bundle) = Bundle::from_json(td(), bytes) else { return };
    assert!(bundle.x509_authorities().len() + bundle.jwt_authorities().len() <= 100);
    let Ok(document) = bundle.to_json() else { return };
    let again = Bundle::from_json(td(), document.to_string().as_bytes()).unwrap();
    assert_eq!(again.x509_authorities(), bundle.x509_authorities());
    assert_eq!(again.oidc_jwks(), bundle.oidc_jwks());
});

fn bundles() -> impl Iterator<Item = Vec<u8>> {
    [Ca::default().bundle(), Signer::default().bundle()].into_iter().map(|b| b.to_json().unwrap().to_string().into_bytes())
}
