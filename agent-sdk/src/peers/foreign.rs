//! Bundles of foreign trust domains, as the issuer distributes them: kept apart, and never merged (FC-6).

use std::collections::BTreeMap;
use std::sync::Arc;

use mayfly_verify::{Bundle, TrustDomain};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::v1;

/// The bundle of each foreign trust domain that the issuer trusts. Clones share it.
#[derive(Clone, Default)]
pub struct Foreign(Arc<BTreeMap<String, ForeignBundle>>);

/// The bundle of one foreign trust domain. Clones share it.
#[derive(Clone)]
pub struct ForeignBundle {
    document: Arc<[u8]>,
    bundle: Arc<Bundle>,
}

impl Foreign {
    /// Reads the bundles in the issuer's message. One that cannot be read is left out, and its trust domain is not trusted.
    pub(crate) fn read(own: &str, told: &[v1::ForeignBundle]) -> Foreign {
        let mut read = BTreeMap::new();
        for one in told {
            let Ok(name) = TrustDomain::new(&one.trust_domain) else { continue };
            // FC-6: skips our own trust domain, whose bundle comes only from the issuer's own field, and any name that is not
            // in its canonical spelling.
            if name.as_str() != one.trust_domain || name.as_str() == own {
                continue;
            }
            let Ok(bundle) = Bundle::from_json(name.clone(), &one.spiffe_json) else { continue };
            // Anything that is not a certificate is left out, because it would break readers that parse them one after another.
            let roots = bundle.x509_authorities().iter().filter(|der| is_certificate(der)).cloned().collect();
            let jwt = bundle.jwt_authorities().to_vec();
            let bundle = Arc::new(Bundle::new(name.clone(), roots, jwt, bundle.sequence(), bundle.refresh_hint()));
            read.insert(name.to_string(), ForeignBundle { document: one.spiffe_json.as_slice().into(), bundle });
        }
        Foreign(Arc::new(read))
    }

    /// The bundle of a trust domain, or `None`.
    pub fn get(&self, trust_domain: &str) -> Option<&ForeignBundle> {
        self.0.get(trust_domain)
    }

    /// All bundles, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &ForeignBundle> {
        self.0.values()
    }

    /// The number of bundles.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bundles.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both hold the same documents.
    pub(crate) fn same(&self, other: &Foreign) -> bool {
        self.0.iter().map(|(name, one)| (name, &one.document)).eq(other.0.iter().map(|(name, one)| (name, &one.document)))
    }
}

impl ForeignBundle {
    /// The trust domain that the bundle belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The bundle, parsed for a verifier.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The SPIFFE bundle document, as its publisher wrote it.
    pub fn document(&self) -> &[u8] {
        &self.document
    }
}

fn is_certificate(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(left, _)| left.is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn told(trust_domain: &str, spiffe_json: impl Into<Vec<u8>>) -> v1::ForeignBundle {
        v1::ForeignBundle { trust_domain: trust_domain.into(), spiffe_json: spiffe_json.into() }
    }

    #[test]
    fn fc6_what_cannot_be_read_or_is_said_to_be_ours_is_no_foreign_bundle() {
        let empty = r#"{"keys": []}"#;
        let read = Foreign::read(
            "own.example",
            &[
                told("own.example", empty),
                told("OWN.example", empty),
                told("spiffe://own.example", empty),
                told("a.example", empty),
                told("B.example", empty),
                told("", empty),
                told("c.example/x", empty),
                told("d.example", "no json"),
                told("e.example", "{}"),
            ],
        );
        assert_eq!(read.iter().map(|one| one.trust_domain().to_string()).collect::<Vec<_>>(), ["a.example"]);
        assert!(read.get("own.example").is_none() && read.get("spiffe://a.example").is_none());
    }

    #[test]
    fn what_is_no_certificate_is_left_out_and_the_rest_stays() {
        let signer = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&signer).unwrap().der().to_vec();
        let longer = [&root[..], b"x"].concat();
        let entries = [&root, &longer, &b"no certificate".to_vec()].map(|der| STANDARD.encode(der));
        let keys = entries.map(|der| format!(r#"{{"use": "x509-svid", "kty": "EC", "x5c": ["{der}"]}}"#)).join(",");
        let read = Foreign::read("own.example", &[told("a.example", format!(r#"{{"keys": [{keys}]}}"#))]);
        assert_eq!(read.get("a.example").unwrap().bundle().x509_authorities(), [root]);
    }

    #[test]
    fn the_same_is_told_from_news() {
        let one = |json: &str| Foreign::read("own.example", &[told("a.example", json)]);
        let first = one(r#"{"keys": []}"#);
        assert!(first.same(&one(r#"{"keys": []}"#)) && !first.same(&Foreign::default()));
        assert!(!first.same(&one(r#"{"keys": [], "spiffe_sequence": 2}"#)));
    }
}
