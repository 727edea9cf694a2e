//! A credential as the feed's issuer would give it.

use mayfly_verify::{
    Binding, BindingOid, Bundle, DelegationId, Mode, Stamp, Target, User, Workload, X509Svid, add_stamp, verify_x509,
};
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose as Ku, SanType};
use uuid::Uuid;

use super::issuer::{START, td};

pub(crate) const UUID: &str = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";

/// A verified agent, two levels below its workload.
pub(crate) fn agent() -> X509Svid {
    let at = |seconds: u64| time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap();
    let params = |id: String, ca: bool| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = vec![if ca { Ku::KeyCertSign } else { Ku::DigitalSignature }];
        (params.not_before, params.not_after) = (at(START - 1000), at(START + 900));
        params
    };
    let parent = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
    let mut stamps = vec![];
    for (target, since) in [
        (Target::TrustDomain, 1),
        (Target::User(User { iss: "https://idp".into(), sub: "demo".into() }), 2),
        (Target::Delegation(DelegationId([1; 32])), 2),
        (Target::Workload("orchestrator".parse::<Workload>().unwrap()), 3),
        (Target::Agent(parent), 3),
        (Target::Agent(UUID.parse().unwrap()), 4),
        (Target::Class("worker".parse().unwrap()), 4),
    ] {
        add_stamp(&mut stamps, Stamp { subject: target.unsalted(), since });
    }
    let binding = Binding {
        incarnation: Uuid::from_u128(1),
        revision: 4,
        stamps,
        delegation: Some(DelegationId([1; 32])),
        user: Some(User { iss: "https://idp".into(), sub: "demo".into() }),
        chain: vec![format!("spiffe://td/agent/researcher/{parent}"), "spiffe://td/workload/orchestrator".into()],
        mode: Mode::Delegated,
        scopes: vec!["search:read".into()],
        lease_expires_at: START + 900,
    };
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root_params = params("spiffe://td".into(), true);
    let root = root_params.self_signed(&root_key).unwrap().der().to_vec();
    let mut leaf = params(format!("spiffe://td/agent/worker/{UUID}"), false);
    leaf.serial_number = Some(vec![0x42; 16].into());
    leaf.custom_extensions = vec![CustomExtension::from_oid_content(BindingOid::default().arcs(), binding.to_der().unwrap())];
    let signed = leaf.signed_by(&key, &rcgen::Issuer::new(root_params, root_key)).unwrap().der().clone();
    verify_x509(&[signed], &Bundle::new(td(), vec![root], vec![], 1, 1), &BindingOid::default(), START).unwrap()
}
