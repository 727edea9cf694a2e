#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use mayfly_verify::{Binding, Mode, Stamp, Target, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::judge::DistinguishedName;

/// rcgen writes the same bytes for the same certificate, so an independent implementation agrees with ours.
#[test]
fn a_certificate_is_to_the_byte_what_rcgen_would_sign() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::OrganizationName, "Mayfly");
    ca.distinguished_name.push(DnType::CommonName, "Mayfly issuing");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = ca.self_signed(&ca_key).unwrap();
    let (_, parsed) = X509Certificate::from_der(ca.der()).unwrap();
    let key_id = parsed
        .extensions()
        .iter()
        .find_map(|e| match e.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
        .unwrap();
    let template = Template::new(parsed.subject().as_raw(), &key_id);
    let issuer = Issuer::from_ca_cert_der(ca.der(), ca_key).unwrap();

    let holder = KeyPair::generate().unwrap();
    let spki = holder.subject_public_key_info();
    let oid: BindingOid = "1.3.6.1.4.1.32473.77".parse().unwrap();
    let binding = Binding {
        incarnation: uuid::Uuid::from_u128(7),
        revision: 300,
        stamps: vec![Stamp { subject: Target::TrustDomain.unsalted(), since: 300 }],
        delegation: None,
        user: None,
        chain: vec!["spiffe://mayfly.example/workload/orchestrator".into()],
        mode: Mode::Autonomous,
        scopes: vec!["search:read".into()],
        lease_expires_at: 1_800_003_600,
    };
    let ips: [std::net::IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let long = format!("spiffe://mayfly.example/agent/{}/x", "c".repeat(200));
    // Values that would become further attributes if they were parsed as text.
    let hostile =
        [("C", "DE"), ("DC", "example"), ("OU", "researcher"), ("CN", "demo,OU=admin+O=\u{0}#\u{e9}"), ("SERIALNUMBER", "4:2")];
    let named = Some(DistinguishedName::of(&hostile));
    // 2049 and 2050 have times of different forms, and a serial number may begin with a zero bit or not.
    for (n, (id, ends_at, first)) in
        [("spiffe://mayfly.example/workload/x", 1_800_000_900, 0x41), (&long, 2_524_607_999, 0x7f), (&long, 2_524_608_000, 0x40)]
            .into_iter()
            .enumerate()
    {
        let mut serial = sha256(&n.to_be_bytes())[..16].to_vec();
        serial[0] = first;
        let expected = Expected {
            id: id.into(),
            key: sha256(&spki),
            serial: serial.clone(),
            begins_at: 1_800_000_000,
            ends_at,
            binding: Some(binding.clone().into()),
            subject: dn::name(named.as_ref().filter(|_| n == 2)),
        };
        let names = vec![Name::Dns("localhost".into()), Name::Ip(ips[0]), Name::Ip(ips[1])];
        let extension = (n > 0).then(|| (oid.arcs().to_vec(), binding.to_der().unwrap()));
        let unsigned = Unsigned { names, spki: spki.clone(), extension: extension.clone(), expected };

        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::URI(id.try_into().unwrap()),
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress(ips[0]),
            SanType::IpAddress(ips[1]),
        ];
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in their_names(&hostile).into_iter().filter(|_| n == 2) {
            params.distinguished_name.push(kind, value);
        }
        params.serial_number = Some(serial.into());
        params.not_before = der::time_of(1_800_000_000).unwrap();
        params.not_after = der::time_of(ends_at).unwrap();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions = extension.into_iter().map(|(oid, der)| CustomExtension::from_oid_content(&oid, der)).collect();
        let theirs = params.signed_by(&holder, &issuer).unwrap();
        let (_, theirs) = X509Certificate::from_der(theirs.der()).unwrap();

        let ours = template.to_be_signed(&unsigned).unwrap();
        assert_eq!(hex::encode(&ours), hex::encode(theirs.tbs_certificate.as_ref()), "case {n}");
        let whole = signed(&ours, &[0x81; 64]);
        let (left, read) = X509Certificate::from_der(&whole).unwrap();
        assert!(left.is_empty() && read.tbs_certificate.as_ref() == ours);
    }
}

fn their_names(names: &[(&str, &str)]) -> Vec<(DnType, DnValue)> {
    let of = |(name, value): &(&str, &str)| {
        let utf8 = DnValue::Utf8String((*value).to_owned());
        let printable = || DnValue::PrintableString((*value).try_into().unwrap());
        match *name {
            "C" => (DnType::CountryName, printable()),
            "DC" => {
                (DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]), DnValue::Ia5String((*value).try_into().unwrap()))
            }
            "SERIALNUMBER" => (DnType::CustomDnType(vec![2, 5, 4, 5]), printable()),
            "OU" => (DnType::OrganizationalUnitName, utf8),
            _ => (DnType::CommonName, utf8),
        }
    };
    names.iter().map(of).collect()
}
