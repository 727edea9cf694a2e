//! Which bundle counts as newer, which are stored, and which URLs an endpoint may have.
#![expect(clippy::unwrap_used, reason = "tests")]

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use serde_json::json;

use super::document::DocumentError;
use super::newest::load;
use super::*;

fn td(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

/// A root, with the name of a trust domain or without.
fn root(uri: Option<&str>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = uri.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn document(roots: &[Vec<u8>], sequence: u64, hint: u64) -> Vec<u8> {
    let bundle = mayfly_verify::Bundle::new(td("any"), roots.to_vec(), vec![], sequence, hint);
    bundle.to_json().unwrap().to_string().into_bytes()
}

fn after(known: Option<&Newest>, text: &[u8]) -> Result<Option<Newest>, Refused> {
    Newest::after(known, &td("a.example.org"), text)
}

fn refused(result: Result<Option<Newest>, Refused>) -> Refused {
    result.map(|newest| newest.is_some()).unwrap_err()
}

#[test]
fn fc5_a_sequence_never_goes_back_and_an_equal_one_may_bring_other_keys() {
    let (one, other) = (root(None), root(None));
    let first = after(None, &document(std::slice::from_ref(&one), 5, 60)).unwrap().unwrap();
    assert_eq!((first.generation(), first.bundle().refresh_hint()), (1, 60));
    let older = refused(after(Some(&first), &document(std::slice::from_ref(&other), 4, 60)));
    assert_eq!(older, Refused::Older { got: 4, known: 5 });
    // A document that differs only in white space is not newer.
    let same = String::from_utf8(document(&[one], 5, 60)).unwrap().replace(',', " ,\n");
    assert!(after(Some(&first), same.as_bytes()).unwrap().is_none());
    let equal = after(Some(&first), &document(&[other], 5, 60)).unwrap().unwrap();
    assert_eq!(equal.generation(), 2, "what was proved under the first is proved again");
}

#[test]
fn bu1_a_bundle_without_keys_counts_and_revokes_all_of_them() {
    let first = after(None, &document(&[root(None)], 1, 60)).unwrap().unwrap();
    let none = after(Some(&first), br#"{"keys": [], "spiffe_sequence": 2}"#).unwrap().unwrap();
    assert!(none.bundle().x509_authorities().is_empty() && none.generation() == 2);
}

#[test]
fn fc6_a_document_with_an_authority_of_another_trust_domain_is_kept_out_whole() {
    let own = root(Some("spiffe://a.example.org"));
    assert!(after(None, &document(&[own.clone(), root(None), root(Some("https://ca.example.org/x"))], 1, 60)).is_ok());
    for other in ["spiffe://b.example.org", "spiffe://b.example.org/ca", "spiffe://A.example.org", "spiffe:"] {
        let merged = document(&[own.clone(), root(Some(other))], 1, 60);
        let of = td("a.example.org");
        assert_eq!(refused(after(None, &merged)), Refused::OtherDomain { of, found: other.into() });
    }
}

#[test]
fn what_is_no_bundle_document_is_refused() {
    let map = json!({ "trust_domains": { "a.example.org": { "keys": [] } } });
    let many: Vec<_> = (0..101).map(|_| json!({ "use": "x509-svid" })).collect();
    for text in ["".into(), "[]".into(), "{}".into(), map.to_string(), json!({ "keys": many }).to_string()] {
        assert!(matches!(refused(after(None, text.as_bytes())), Refused::Bundle(_)), "{text}");
    }
}

#[test]
fn fc5_fc6_what_is_stored_says_whose_it_is_and_counts_for_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.example.org.json");
    assert!(load(&td("a.example.org"), &path).unwrap().is_none(), "nothing was stored");
    let newest = after(None, &document(&[root(None)], 7, 60)).unwrap().unwrap();
    std::fs::write(&path, newest.to_store(&td("a.example.org"))).unwrap();
    let again = load(&td("a.example.org"), &path).unwrap().unwrap();
    assert_eq!(again.bundle().x509_authorities(), newest.bundle().x509_authorities());
    assert_eq!(again.bundle().sequence(), 7);
    // The same file under another name, a plain document, and a map of two.
    assert!(matches!(load(&td("b.example.org"), &path), Err(Refused::NotStored(..))));
    let two = json!({ "trust_domains": { "a.example.org": { "keys": [] }, "b.example.org": { "keys": [] } } });
    for text in [json!({ "keys": [] }).to_string(), two.to_string(), "x".into()] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(load(&td("a.example.org"), &path), Err(Refused::NotStored(..))));
    }
}

#[test]
fn fc4_a_publishers_wish_counts_within_bounds() {
    let interval = |hint: Option<u64>| {
        let url = endpoint_url("https://a.example.org").unwrap();
        let source = Source::Web { url: url.to_string(), ca_file: None };
        let way = Way::Web { client: Arc::new(crate::https::Renewing::new(None).unwrap()), url };
        let newest = hint.map(|hint| Arc::new(after(None, &document(&[], 1, hint)).unwrap().unwrap()));
        let domain = Domain::new(td("a.example.org"), source, way, PathBuf::new());
        *domain.newest.write() = newest;
        domain.interval().as_secs()
    };
    assert_eq!([None, Some(0), Some(1), Some(600), Some(u64::MAX)].map(interval), [300, 300, 10, 600, 86_400]);
}

#[test]
fn a_file_is_bounded_and_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bundle.json");
    std::fs::write(&path, vec![b' '; 512 * 1024]).unwrap();
    assert_eq!(document::read(&path).unwrap().len(), 512 * 1024);
    std::fs::write(&path, vec![b' '; 512 * 1024 + 1]).unwrap();
    assert!(matches!(document::read(&path), Err(DocumentError::TooLarge)));
    assert!(matches!(document::read(dir.path()), Err(DocumentError::NotPlain(_))));
    assert!(matches!(document::read(&dir.path().join("none")), Err(DocumentError::File(..))));
}

#[test]
fn fe8_an_endpoint_is_https_and_names_no_user() {
    for ok in ["https://a.example.org", "https://a.example.org:8443/b?x=1", "https://[::1]/b@c"] {
        assert!(endpoint_url(ok).is_ok(), "{ok}");
    }
    for bad in [
        "http://a.example.org/b",
        "https://u@a.example.org/b",
        "https://u:p@a.example.org/b",
        "https://@a.example.org/b",
        "https:///b",
        "a.example.org/b",
        " https://a.example.org",
        "https://a.exa\tmple.org",
        "https://a.example.org\\@b.example.org/x",
        "file:///etc/bundle",
        "",
    ] {
        assert!(endpoint_url(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_agents_are_told_is_bounded_and_a_bundle_is_told_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let settings: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| {
            let file = dir.path().join(name);
            // `a` and `b` leave less than a kibibyte of the limit: `c` does not fit any more, and `d` does.
            let length = match name {
                "c" => 1024,
                "d" => 100,
                _ => MAX_TOLD / 2 - 300,
            };
            let filled = json!({ "keys": [], "spiffe_sequence": 1, "x": "y".repeat(length) });
            std::fs::write(&file, filled.to_string()).unwrap();
            Settings { trust_domain: td(&format!("{name}.example.org")), source: Source::File(file) }
        })
        .into();
    let foreign = Foreign::open(&settings, [], &dir.path().join("foreign"), &Clock::system()).unwrap();
    let told = foreign.told();
    assert_eq!(
        told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["a.example.org", "b.example.org", "d.example.org"]
    );
    assert!(told.iter().map(|(_, newest)| newest.text().len()).sum::<usize>() <= MAX_TOLD);
    assert!(foreign.newest(&td("c.example.org")).is_some(), "the issuer itself believes it");
}
