//! Whose credentials hold right now: each by the bundle of its own trust domain, at this time, and not cut.
//!
//! | file | idea |
//! |---|---|
//! | `bundles` | whom to believe: bundles kept apart by trust domain, replaced while running |
//! | `issuer` | our own trust domain's bundle and those beside it, as the issuer streams them |
//! | `clock` | the time, which a test may set |
//! | `authorize` | who of those whose credentials hold may be the peer |
//! | `connection` | what one connection proved, looked at again for each request |
//!
//! ```no_run
//! # fn example(live: mayfly_verify::Live, document: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! use mayfly_agent::peers::{Authorize, Bundles, Verifier};
//! use mayfly_verify::{Bundle, TrustDomain};
//!
//! let own = TrustDomain::new("prod.example.org")?;
//! let bundles = Bundles::default();
//! bundles.set(Bundle::from_json(own.clone(), document)?);
//! let verifier = Verifier::new(bundles, live);
//! let researchers = Authorize::class(own, "researcher".parse()?);
//! # let _ = (verifier, researchers);
//! # Ok(())
//! # }
//! ```
//!
//! A trust domain needs two things before anything of it holds: a bundle, and a [`Live`] of its revocations. Of one that has
//! no feed it must be said that nothing of it is ever revoked ([`Verifier::without_revocation`]); to forget it refuses.

mod authorize;
mod bundles;
mod clock;
mod connection;
mod issuer;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use authorize::{Authorize, Shown};
pub use bundles::Bundles;
pub use clock::Clock;
pub use connection::Peer;
pub use issuer::FollowingBundle;
use mayfly_verify::{
    BindingOid, JwtSvid, Live, Reject, Reliance, Subscription, TrustDomain, X509Svid, inspect_jwt, inspect_x509, verify_jwt,
    verify_x509,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

/// Verifies credentials with all that is known: bundles, cuts, the time. Clones share it.
#[derive(Clone, Debug)]
pub struct Verifier {
    bundles: Bundles,
    own: TrustDomain,
    revocations: BTreeMap<String, Revocations>,
    oid: BindingOid,
    clock: Clock,
    news: watch::Sender<()>,
    subscriptions: Vec<Arc<Subscription>>,
}

#[derive(Clone, Debug)]
enum Revocations {
    Live(Live),
    /// The operator has said so.
    None,
}

impl Verifier {
    /// For the trust domain of `live`, which is our own, and with the system's clock.
    pub fn new(bundles: Bundles, live: Live) -> Verifier {
        let (own, revocations) = (live.trust_domain().clone(), BTreeMap::new());
        let (news, subscriptions) = (watch::Sender::new(()), Vec::new());
        let verifier =
            Verifier { bundles, own, revocations, oid: BindingOid::default(), clock: Clock::system(), news, subscriptions };
        verifier.and(live)
    }

    /// For a trust domain of our own that tells nobody what is revoked, such as a SPIRE's: what it signed holds until it expires
    /// or its authority leaves the bundle. Never for agents of a Mayfly: those are taken back earlier.
    pub fn without_feed(bundles: Bundles, own: TrustDomain) -> Verifier {
        let revocations = BTreeMap::from([(own.to_string(), Revocations::None)]);
        let (news, subscriptions) = (watch::Sender::new(()), Vec::new());
        Verifier { bundles, own, revocations, oid: BindingOid::default(), clock: Clock::system(), news, subscriptions }
    }

    /// Also for another trust domain, by its own feed.
    #[must_use]
    pub fn and(mut self, live: Live) -> Verifier {
        let news = self.news.clone();
        self.subscriptions.push(Arc::new(live.subscribe(move || news.send_replace(()))));
        self.revocations.insert(live.trust_domain().to_string(), Revocations::Live(live));
        self
    }

    /// Also for a trust domain that tells nobody what is revoked: what it signed holds until it expires. Never for our own.
    #[must_use]
    pub fn without_revocation(mut self, trust_domain: &TrustDomain) -> Verifier {
        self.revocations.entry(trust_domain.to_string()).or_insert(Revocations::None);
        self
    }

    /// Where the binding stands, if not under the default OID.
    #[must_use]
    pub fn with_oid(self, oid: BindingOid) -> Verifier {
        Verifier { oid, ..self }
    }

    /// With a clock that a test steps.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Verifier {
        Verifier { clock, ..self }
    }

    /// The trust domain whose agents are ours.
    pub fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// By what time credentials are judged.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whom it believes.
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// A chain, leaf first: by the bundle of the leaf's own trust domain (XV-1), at this time, and not cut.
    pub fn verify_x509(&self, chain: &[CertificateDer<'_>]) -> Result<X509Svid, Reject> {
        let leaf = chain.first().ok_or_else(|| Reject::Malformed("no certificate".into()))?;
        let claimed = inspect_x509(leaf, &self.own, &self.oid)?;
        let bundle = self.bundle(claimed.id.trust_domain_name())?;
        let svid = verify_x509(chain, &bundle, &self.oid, self.clock.seconds())?;
        self.check(&svid)?;
        Ok(svid)
    }

    /// A token for one audience: by the bundle of its subject's own trust domain (JV-6), at this time, and not cut.
    pub fn verify_jwt(&self, token: &str, audience: &str) -> Result<JwtSvid, Reject> {
        let bundle = self.bundle(inspect_jwt(token)?.trust_domain_name())?;
        let svid = verify_jwt(token, audience, &bundle, &self.oid, self.clock.seconds())?;
        self.check(&svid)?;
        Ok(svid)
    }

    /// What has been verified, once more: its time and its cuts. No signature is looked at.
    pub fn check<'a>(&self, credential: impl Into<Reliance<'a>>) -> Result<(), Reject> {
        let credential = credential.into();
        match self.revocations.get(credential.trust_domain()) {
            Some(Revocations::Live(live)) => live.check(self.clock.now(), credential),
            Some(Revocations::None) if self.clock.seconds() < credential.ends_at() => Ok(()),
            Some(Revocations::None) => Err(Reject::Expired(credential.ends_at())),
            None => Err(Reject::Untrusted(format!("nobody tells what `{}` has revoked", credential.trust_domain()))),
        }
    }

    /// Changes when what is revoked, in any trust domain, is known anew. What a check says of the time, or of another bundle,
    /// is told by nobody.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    // XV-1, XV-6: of a trust domain without a bundle nothing holds.
    fn bundle(&self, trust_domain: &str) -> Result<Arc<mayfly_verify::Bundle>, Reject> {
        self.bundles.get(trust_domain).ok_or_else(|| Reject::Untrusted(format!("there is no bundle of `{trust_domain}`")))
    }
}
