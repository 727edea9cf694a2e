//! The trusted bundles: one for each trust domain, never merged, and replaced at run time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mayfly_verify::{Bundle, JwtAuthority, TrustDomain};
use tokio::sync::watch;

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
}
