//! Decides which verified callers may be a peer.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mayfly_verify::{Binding, ClassName, JwtSvid, Principal, SpiffeId, TrustDomain, X509Svid};

/// The identity in a verified credential.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The SPIFFE ID.
    pub id: &'a SpiffeId,
    /// The agent, workload or issuer that it names, seen from its own trust domain.
    pub principal: &'a Principal,
    /// The binding of an agent; `None` for everybody else.
    pub binding: Option<&'a Binding>,
}

impl<'a> From<&'a X509Svid> for Shown<'a> {
    fn from(svid: &'a X509Svid) -> Self {
        Shown { id: &svid.id, principal: &svid.principal, binding: svid.binding.as_ref() }
    }
}

impl<'a> From<&'a JwtSvid> for Shown<'a> {
    fn from(svid: &'a JwtSvid) -> Self {
        Shown { id: &svid.id, principal: &svid.principal, binding: svid.binding.as_ref() }
    }
}

/// A rule for who may be a peer. Clones share it.
#[derive(Clone)]
pub struct Authorize(Arc<dyn Fn(&Shown<'_>) -> bool + Send + Sync>);

impl Authorize {
    /// Allows exactly these SPIFFE IDs, compared byte by byte (T09). An empty list allows nobody.
    pub fn ids(ids: impl IntoIterator<Item = SpiffeId>) -> Authorize {
        let ids: BTreeSet<String> = ids.into_iter().map(|id| id.to_string()).collect();
        Authorize::when(move |shown| ids.contains(&shown.id.to_string()))
    }

    /// Allows everybody in a trust domain: its workloads, its agents, and its issuer.
    pub fn trust_domain(trust_domain: TrustDomain) -> Authorize {
        Authorize::when(move |shown| shown.id.trust_domain_name() == trust_domain.as_str())
    }

    /// Allows every agent of a trust domain.
    pub fn agents(trust_domain: TrustDomain) -> Authorize {
        Authorize::when(move |shown| matches!(shown.principal, Principal::Agent(a) if a.trust_domain == trust_domain))
    }

    /// Allows every agent of a class of a trust domain. A class with this name in another trust domain is another class.
    pub fn class(trust_domain: TrustDomain, class: ClassName) -> Authorize {
        Authorize::when(
            move |shown| matches!(shown.principal, Principal::Agent(a) if a.trust_domain == trust_domain && a.class == class),
        )
    }

    /// Allows whomever the function returns `true` for. It is called at each handshake, and by the layer for each request.
    pub fn when(allowed: impl Fn(&Shown<'_>) -> bool + Send + Sync + 'static) -> Authorize {
        Authorize(Arc::new(allowed))
    }

    /// Allows whomever either rule allows.
    #[must_use]
    pub fn or(self, other: Authorize) -> Authorize {
        Authorize::when(move |shown| (self.0)(shown) || (other.0)(shown))
    }

    /// Whether this caller may be a peer.
    pub fn allows<'a>(&self, shown: impl Into<Shown<'a>>) -> bool {
        (self.0)(&shown.into())
    }
}

impl fmt::Debug for Authorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorize")
    }
}
