//! The authorities that a Workload API provides: X.509 authorities from one stream, JWT authorities from another, and never one
//! in place of the other (CL-7).

use std::collections::{BTreeMap, BTreeSet};

use mayfly_verify::{Bundle, JwtAuthority, TrustDomain};

use super::svid::{Roots, trust_domain};
use crate::api::workload as api;
use crate::peers::Bundles;

/// Both kinds of authorities by trust domain, and the names of those that are in `bundles`.
#[derive(Default)]
pub(super) struct Trust {
    x509: Roots,
    jwt: BTreeMap<String, Vec<JwtAuthority>>,
    held: BTreeSet<String>,
}

impl Trust {
    /// Sets all X.509 authorities. Those that are absent are removed (CL-3).
    pub(super) fn set_x509(&mut self, roots: Roots, bundles: &Bundles) {
        self.x509 = roots;
        self.publish(bundles);
    }

    /// Sets all JWT authorities.
    pub(super) fn set_jwt(&mut self, keys: BTreeMap<String, Vec<JwtAuthority>>, bundles: &Bundles) {
        self.jwt = keys;
        self.publish(bundles);
    }

    fn publish(&mut self, bundles: &Bundles) {
        let names: BTreeSet<_> = self.x509.keys().chain(self.jwt.keys()).cloned().collect();
        for name in &names {
            let Ok(trust_domain) = TrustDomain::new(name) else { continue };
            let roots = self.x509.get(name).cloned().unwrap_or_default();
            let keys = self.jwt.get(name).cloned().unwrap_or_default();
            // No sequence: the last one set counts.
            bundles.set(Bundle::new(trust_domain, roots, keys, 0, 0));
        }
        for gone in self.held.difference(&names).filter_map(|name| TrustDomain::new(name).ok()) {
            bundles.remove(&gone);
        }
        self.held = names;
    }
}

/// Decodes the JWT authorities of a message, or says what is missing in it (CL-3).
pub(super) fn read(message: api::JwtBundlesResponse) -> Result<BTreeMap<String, Vec<JwtAuthority>>, &'static str> {
    if message.bundles.is_empty() {
        return Err("there are no JWT bundles");
    }
    let mut keys = BTreeMap::new();
    for (name, set) in message.bundles {
        // A bundle that cannot be read is treated as absent.
        let Some(name) = trust_domain(&name) else { continue };
        let Ok(bundle) = Bundle::from_jwk_set(name, &set) else { continue };
        keys.insert(bundle.trust_domain().to_string(), bundle.jwt_authorities().to_vec());
    }
    Ok(keys)
}
