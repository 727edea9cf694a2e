//! Whom a Workload API says to believe: X.509 authorities from one stream, JWT authorities from another, never one for the other
//! (CL-7).

use std::collections::{BTreeMap, BTreeSet};

use mayfly_verify::{Bundle, JwtAuthority, TrustDomain};

use super::svid::{Roots, trust_domain};
use crate::api::workload as api;
use crate::peers::Bundles;

/// Both kinds by trust domain, and what of them stands in `bundles`.
#[derive(Default)]
pub(super) struct Trust {
    x509: Roots,
    jwt: BTreeMap<String, Vec<JwtAuthority>>,
    told: BTreeSet<String>,
}

impl Trust {
    /// All X.509 authorities there are: what is absent is not believed any more (CL-3).
    pub(super) fn set_x509(&mut self, roots: Roots, bundles: &Bundles) {
        self.x509 = roots;
        self.tell(bundles);
    }

    /// All JWT authorities there are.
    pub(super) fn set_jwt(&mut self, keys: BTreeMap<String, Vec<JwtAuthority>>, bundles: &Bundles) {
        self.jwt = keys;
        self.tell(bundles);
    }

    fn tell(&mut self, bundles: &Bundles) {
        let names: BTreeSet<_> = self.x509.keys().chain(self.jwt.keys()).cloned().collect();
        for name in &names {
            let Ok(trust_domain) = TrustDomain::new(name) else { continue };
            let roots = self.x509.get(name).cloned().unwrap_or_default();
            let keys = self.jwt.get(name).cloned().unwrap_or_default();
            // Without a sequence: whatever came last counts.
            bundles.set(Bundle::new(trust_domain, roots, keys, 0, 0));
        }
        for gone in self.told.difference(&names).filter_map(|name| TrustDomain::new(name).ok()) {
            bundles.remove(&gone);
        }
        self.told = names;
    }
}

/// CL-3: the JWT authorities of a message; or what is missing in it.
pub(super) fn read(message: api::JwtBundlesResponse) -> Result<BTreeMap<String, Vec<JwtAuthority>>, &'static str> {
    if message.bundles.is_empty() {
        return Err("there are no JWT bundles");
    }
    let mut keys = BTreeMap::new();
    for (name, set) in message.bundles {
        // What cannot be read is believed no more than what is absent.
        let Some(name) = trust_domain(&name) else { continue };
        let Ok(bundle) = Bundle::from_jwk_set(name, &set) else { continue };
        keys.insert(bundle.trust_domain().to_string(), bundle.jwt_authorities().to_vec());
    }
    Ok(keys)
}
