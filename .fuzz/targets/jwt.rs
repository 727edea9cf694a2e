//! A token as it stands is none of ours; one that we sign holds only for an agent or a workload of ours, and only now.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::{NOW, Signer, seed, tokens};
use mayfly_verify::{BindingOid, Bundle, Principal, inspect_jwt, verify_jwt};

static OURS: LazyLock<(Signer, Bundle)> = LazyLock::new(|| {
    let signer = Signer::default();
    let bundle = signer.bundle();
    (signer, bundle)
});

fuzz_target!(
    init: {
        // Whether what is signed is reached at all.
        assert!(tokens().iter().all(|token| holds(token)));
        seed("jwt", tokens());
    },
    |bytes: &[u8]| {
        holds(bytes);
    }
);

/// Whether it holds once we signed it.
fn holds(bytes: &[u8]) -> bool {
    let (signer, bundle) = &*OURS;
    let verify = |token: &str| verify_jwt(token, "https://a.example", bundle, &BindingOid::default(), NOW);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = inspect_jwt(text);
        assert!(verify(text).is_err());
    }
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else { return false };
    let token = signer.token(header, claims);
    let Ok(svid) = verify(&token) else { return false };
    assert_eq!(inspect_jwt(&token).unwrap(), svid.id);
    assert!(svid.id.trust_domain_name() == "td" && svid.expires_at > NOW);
    assert!(svid.audience.iter().any(|audience| audience == "https://a.example"));
    assert_eq!(svid.binding.is_some(), matches!(svid.principal, Principal::Agent(_)));
    true
}
