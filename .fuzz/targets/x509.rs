//! A certificate as it stands is none of ours; one that we sign holds only for an agent or a workload of ours, and only now.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::{Ca, NOW, seed, td};
use mayfly_verify::{BindingOid, Bundle, Principal, inspect_x509, verify_x509};
use rustls_pki_types::CertificateDer;

static OURS: LazyLock<(Ca, Bundle)> = LazyLock::new(|| {
    let ca = Ca::default();
    let bundle = ca.bundle();
    (ca, bundle)
});

fuzz_target!(
    init: {
        // Whether what is signed is reached at all: every leaf but the one that is a CA.
        let leaves = OURS.0.leaves();
        assert_eq!(leaves.iter().filter(|leaf| !holds(leaf)).count(), 1);
        seed("x509", leaves);
    },
    |bytes: &[u8]| {
        holds(bytes);
    }
);

/// Whether it holds once we signed it.
fn holds(bytes: &[u8]) -> bool {
    let (ca, bundle) = &*OURS;
    let oid = BindingOid::default();
    let verify = |chain: &[CertificateDer<'_>]| verify_x509(chain, bundle, &oid, NOW);
    let raw = CertificateDer::from(bytes);
    let _ = inspect_x509(&raw, &td(), &oid);
    assert!(verify(&[raw.clone()]).is_err());
    if bytes.len() > 16 * 1024 {
        return false;
    }
    let leaf = ca.sign(bytes);
    // Also with something behind it that nobody asked for.
    let _ = verify(&[leaf.clone(), raw]);
    let Ok(svid) = verify(&[leaf.clone()]) else { return false };
    assert_eq!(inspect_x509(&leaf, &td(), &oid).unwrap().id, svid.id);
    assert!(svid.id.trust_domain_name() == "td" && svid.not_after > NOW);
    assert_eq!(svid.binding.is_some(), matches!(svid.principal, Principal::Agent(_)));
    true
}
