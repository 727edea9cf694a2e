//! Who may be the peer, of all whose credentials hold.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mayfly_verify::{Binding, ClassName, JwtSvid, Principal, SpiffeId, TrustDomain, X509Svid};

/// What a credential that holds says of its owner.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its SPIFFE ID.
    pub id: &'a SpiffeId,
    /// Whom that stands for, in its own trust domain.
    pub principal: &'a Principal,
    /// Whom the agent acts for; agents have one and nobody else does.
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

/// Says who may be the peer. Clones share it.
#[derive(Clone)]
pub struct Authorize(Arc<dyn Fn(&Shown<'_>) -> bool + Send + Sync>);

impl Authorize {
    /// Exactly these SPIFFE IDs, compared byte by byte (T09); of none, nobody.
    pub fn ids(ids: impl IntoIterator<Item = SpiffeId>) -> Authorize {
        let ids: BTreeSet<String> = ids.into_iter().map(|id| id.to_string()).collect();
        Authorize::when(move |shown| ids.contains(&shown.id.to_string()))
    }

    /// Anybody of a trust domain: its workloads, its agents, and its issuer.
    pub fn trust_domain(trust_domain: TrustDomain) -> Authorize {
        Authorize::when(move |shown| shown.id.trust_domain_name() == trust_domain.as_str())
    }

    /// Any agent of a trust domain.
    pub fn agents(trust_domain: TrustDomain) -> Authorize {
        Authorize::when(move |shown| matches!(shown.principal, Principal::Agent(a) if a.trust_domain == trust_domain))
    }

    /// Any agent of a class of a trust domain. A class of that name elsewhere is another class.
    pub fn class(trust_domain: TrustDomain, class: ClassName) -> Authorize {
        Authorize::when(
            move |shown| matches!(shown.principal, Principal::Agent(a) if a.trust_domain == trust_domain && a.class == class),
        )
    }

    /// Whoever `allowed` says yes to. It is asked at each handshake, and by the layer for each request.
    pub fn when(allowed: impl Fn(&Shown<'_>) -> bool + Send + Sync + 'static) -> Authorize {
        Authorize(Arc::new(allowed))
    }

    /// Whoever either allows.
    #[must_use]
    pub fn or(self, other: Authorize) -> Authorize {
        Authorize::when(move |shown| (self.0)(shown) || (other.0)(shown))
    }

    /// Whether this one may be the peer.
    pub fn allows<'a>(&self, shown: impl Into<Shown<'a>>) -> bool {
        (self.0)(&shown.into())
    }
}

impl fmt::Debug for Authorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorize")
    }
}
