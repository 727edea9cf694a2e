//! The trusted bundles: one for each trust domain, never merged, and replaced at run time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly_verify::{Bundle, JwtAuthority, TrustDomain};
use tokio::sync::watch;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most authorities below the roots of one trust domain.
const MAX_INTERMEDIATES: usize = 64;
/// Largest certificate of an authority, in bytes.
const MAX_CERTIFICATE: usize = 8192;

/// Bundles by trust domain. Clones share them. A check sees them either before or after a change, never in between.
#[derive(Clone, Default)]
pub struct Bundles(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: ArcSwap<Held>,
    changes: watch::Sender<()>,
}

#[derive(Clone, Default)]
struct Held {
    // INVARIANT (FC-6): a bundle is stored under its own trust domain, and found by no other name.
    of: BTreeMap<String, Arc<Bundle>>,
    /// By trust domain and key id: certificates of authorities below a root, DER.
    below: BTreeMap<(String, Vec<u8>), Arc<[u8]>>,
    generation: u64,
}

impl Bundles {
    /// Trusts this bundle from now on, in place of the previous one of its trust domain. Returns `false` and changes nothing if
    /// its sequence is older (FC-5), because an outdated copy would bring a removed root back.
    pub fn set(&self, bundle: Bundle) -> bool {
        let (name, bundle) = (bundle.trust_domain().to_string(), Arc::new(bundle));
        let mut taken = false;
        self.0.held.rcu(|held| {
            let before = held.of.get(&name);
            // Without a sequence from the publisher, the last one counts.
            taken = bundle.sequence() == 0 || before.is_none_or(|before| bundle.sequence() >= before.sequence());
            let mut after = Held::clone(held);
            if taken && !before.is_some_and(|before| same(before, &bundle)) {
                after.of.insert(name.clone(), Arc::clone(&bundle));
                after.generation += 1;
            }
            after
        });
        self.0.changes.send_replace(());
        taken
    }

    /// Knows these authorities below the roots of a trust domain from now on, in place of the previous ones: certificates, DER.
    /// They prove nothing by themselves; they complete the chain of a leaf that somebody hands on alone. What is no certificate
    /// of a CA with a key id, or over 8 KiB, is left out, and so is everything after the first 64.
    pub fn set_intermediates(&self, trust_domain: &TrustDomain, certificates: &[Vec<u8>]) {
        let own = |key: &(String, Vec<u8>)| key.0 == trust_domain.as_str();
        let read = certificates.iter().take(MAX_INTERMEDIATES).filter_map(|der| {
            let key_id = authority_key_id(der)?;
            Some(((trust_domain.to_string(), key_id), Arc::from(der.as_slice())))
        });
        let read: BTreeMap<_, Arc<[u8]>> = read.collect();
        self.0.held.rcu(|held| {
            let mut after = Held::clone(held);
            after.below.retain(|key, _| !own(key));
            after.below.extend(read.clone());
            if after.below != held.below {
                after.generation += 1;
            }
            after
        });
        self.0.changes.send_replace(());
    }

    /// The certificate of an authority below a root, DER, by the key id that a leaf names. `None` if it is not known.
    pub fn intermediate(&self, trust_domain: &str, key_id: &[u8]) -> Option<Arc<[u8]>> {
        self.0.held.load().below.get(&(trust_domain.to_owned(), key_id.to_owned())).cloned()
    }

    /// Removes the bundle of a trust domain.
    pub fn remove(&self, trust_domain: &TrustDomain) {
        self.0.held.rcu(|held| {
            let mut after = Held::clone(held);
            if after.of.remove(trust_domain.as_str()).is_some() {
                after.generation += 1;
            }
            after
        });
        self.0.changes.send_replace(());
    }

    /// The bundle of a trust domain, or `None`.
    pub fn get(&self, trust_domain: &str) -> Option<Arc<Bundle>> {
        self.0.held.load().of.get(trust_domain).cloned()
    }

    /// Every bundle, in the order of the trust domains' names.
    pub fn all(&self) -> Vec<Arc<Bundle>> {
        self.0.held.load().of.values().cloned().collect()
    }

    /// Notifies when any bundle may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Increases with every change. Whatever was verified under an earlier generation must be verified again.
    pub fn generation(&self) -> u64 {
        self.0.held.load().generation
    }
}

impl fmt::Debug for Bundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.held.load().of.keys()).finish()
    }
}

/// The key id of a CA's certificate; `None` for anything else.
fn authority_key_id(der: &[u8]) -> Option<Vec<u8>> {
    if der.len() > MAX_CERTIFICATE {
        return None;
    }
    let (_, certificate) = X509Certificate::from_der(der).ok().filter(|(left, _)| left.is_empty())?;
    let key_id = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) if !id.0.is_empty() => Some(id.0.to_vec()),
        _ => None,
    });
    key_id.filter(|_| certificate.is_ca())
}

fn same(a: &Bundle, b: &Bundle) -> bool {
    let kids = |bundle: &Bundle| bundle.jwt_authorities().iter().map(JwtAuthority::oidc_jwk).collect::<Vec<_>>();
    a.sequence() == b.sequence() && a.x509_authorities() == b.x509_authorities() && kids(a) == kids(b)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn bundle(name: &str, roots: &[u8], sequence: u64) -> Bundle {
        let roots = roots.iter().map(|root| vec![*root]).collect();
        Bundle::new(TrustDomain::new(name).unwrap(), roots, vec![], sequence, 0)
    }

    #[test]
    fn fc5_fc6_bundles_stay_apart_and_never_go_back() {
        let bundles = Bundles::default();
        let roots = |name: &str| bundles.get(name).map(|b| b.x509_authorities().to_vec());
        assert_eq!(roots("td"), None);
        assert!(bundles.set(bundle("td", &[1], 5)) && bundles.set(bundle("other", &[9], 1)));
        assert_eq!((roots("td"), roots("other")), (Some(vec![vec![1]]), Some(vec![vec![9]])));
        let generation = bundles.generation();
        assert!(!bundles.set(bundle("td", &[2], 4)), "an old copy");
        assert!(bundles.set(bundle("td", &[1], 5)), "the same");
        assert_eq!((roots("td"), bundles.generation()), (Some(vec![vec![1]]), generation), "nothing has changed");
        assert!(bundles.set(bundle("td", &[2], 6)));
        assert_eq!((roots("td"), roots("other")), (Some(vec![vec![2]]), Some(vec![vec![9]])));
        assert!(bundles.generation() > generation);
        assert!(bundles.set(bundle("td", &[3], 0)), "one that does not count");
        bundles.remove(&TrustDomain::new("td").unwrap());
        assert_eq!((roots("td"), roots("other")), (None, Some(vec![vec![9]])));
    }

    #[test]
    fn fc6_authorities_below_a_root_stay_apart_and_nothing_else_is_taken_for_one() {
        let (key, bundles) = (rcgen::KeyPair::generate().unwrap(), Bundles::default());
        let certificate = |ca| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = if ca { rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained) } else { rcgen::IsCa::ExplicitNoCa };
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let (ca, leaf) = (certificate(true), certificate(false));
        let key_id = authority_key_id(&ca).unwrap();
        let [td, other] = ["td", "other"].map(|name| TrustDomain::new(name).unwrap());
        let generation = bundles.generation();
        let mixed = [leaf.clone(), b"no certificate".to_vec(), [ca.as_slice(), b"x"].concat(), vec![0; 9000], ca.clone()];
        bundles.set_intermediates(&td, &mixed);
        assert_eq!(bundles.intermediate("td", &key_id).as_deref(), Some(ca.as_slice()));
        assert!(bundles.intermediate("other", &key_id).is_none() && bundles.intermediate("td", b"").is_none());
        assert!(bundles.generation() > generation, "whatever was verified before is verified again");
        let generation = bundles.generation();
        bundles.set_intermediates(&td, &[ca]);
        bundles.set_intermediates(&other, &[]);
        assert_eq!(bundles.generation(), generation, "nothing has changed");
        bundles.set_intermediates(&td, &[leaf]);
        assert!(bundles.intermediate("td", &key_id).is_none(), "one that is not named any more is gone");
    }
}
