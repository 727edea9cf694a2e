//! Verifies credentials: each by the bundle of its own trust domain, at the current time, and against revocations.
//!
//! | file | idea |
//! |---|---|
//! | `bundles` | the trusted bundles, kept apart by trust domain and replaced at run time |
//! | `issuer` | the bundles that an issuer streams |
//! | `foreign` | the bundles of foreign trust domains among them |
//! | `clock` | the time, which a test may set |
//! | `authorize` | which verified callers may be a peer |
//! | `connection` | the peer of one connection, checked again for each request |
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
//! A trust domain needs a bundle and a [`Live`] of its revocations; without either, all of its credentials are refused. For a
//! trust domain without a feed, [`Verifier::without_revocation`] says explicitly that it revokes nothing.

mod authorize;
mod bundles;
mod clock;
mod connection;
mod foreign;
mod issuer;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use authorize::{Authorize, Shown};
pub use bundles::Bundles;
pub use clock::Clock;
pub use connection::Peer;
pub use foreign::{Foreign, ForeignBundle};
pub use issuer::FollowingBundle;
pub(crate) use issuer::FromIssuer;
use mayfly_verify::{
    AccessToken, BindingOid, JwtSvid, Live, Possession, Reject, Reliance, Subscription, TrustDomain, Unproved, X509Svid,
    inspect_jwt, inspect_x509, verify_access_token, verify_jwt, verify_unproved_access_token, verify_x509,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use crate::uses::Uses;

/// Verifies credentials by the current bundles, revocations and time. Clones share it.
#[derive(Clone, Debug)]
pub struct Verifier {
    bundles: Bundles,
    own: TrustDomain,
    revocations: BTreeMap<String, Revocations>,
    oid: BindingOid,
    clock: Clock,
    uses: Arc<Uses>,
    news: watch::Sender<()>,
    subscriptions: Vec<Arc<Subscription>>,
}

#[derive(Clone, Debug)]
enum Revocations {
    Live(Live),
    /// The program has said that this trust domain has no feed.
    None,
}

impl Verifier {
    /// A verifier for the trust domain of `live`, which is our own, with the system's clock.
    pub fn new(bundles: Bundles, live: Live) -> Verifier {
        let (own, revocations) = (live.trust_domain().clone(), BTreeMap::new());
        let (news, subscriptions) = (watch::Sender::new(()), Vec::new());
        let (clock, uses) = remembering(Clock::system());
        let verifier = Verifier { bundles, own, revocations, oid: BindingOid::default(), clock, uses, news, subscriptions };
        verifier.and(live)
    }

    /// A verifier for a trust domain of our own without a feed of revocations, such as a SPIRE's: a credential is valid until it
    /// expires or its authority leaves the bundle. Never use it for the agents of a Mayfly, which are revoked earlier.
    pub fn without_feed(bundles: Bundles, own: TrustDomain) -> Verifier {
        let revocations = BTreeMap::from([(own.to_string(), Revocations::None)]);
        let (news, subscriptions) = (watch::Sender::new(()), Vec::new());
        let (clock, uses) = remembering(Clock::system());
        Verifier { bundles, own, revocations, oid: BindingOid::default(), clock, uses, news, subscriptions }
    }

    /// Accepts another trust domain too, with its own feed.
    #[must_use]
    pub fn and(mut self, live: Live) -> Verifier {
        let news = self.news.clone();
        self.subscriptions.push(Arc::new(live.subscribe(move || news.send_replace(()))));
        self.revocations.insert(live.trust_domain().to_string(), Revocations::Live(live));
        self
    }

    /// Accepts another trust domain too, without a feed: its credentials are valid until they expire. Has no effect on our own.
    #[must_use]
    pub fn without_revocation(mut self, trust_domain: &TrustDomain) -> Verifier {
        self.revocations.entry(trust_domain.to_string()).or_insert(Revocations::None);
        self
    }

    /// Sets the OID of the binding, if it is not the default one.
    #[must_use]
    pub fn with_oid(self, oid: BindingOid) -> Verifier {
        Verifier { oid, ..self }
    }

    /// Sets the clock, for tests. Uses of tokens are remembered from now on.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Verifier {
        let (clock, uses) = remembering(clock);
        Verifier { clock, uses, ..self }
    }

    /// Our own trust domain.
    pub fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// The clock by which credentials are checked.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The trusted bundles.
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// Verifies a chain, leaf first, by the bundle of the leaf's own trust domain (XV-1), at the current time, and not revoked. A
    /// leaf alone, as proxies hand it on, is completed by the authority that the issuer published ([`Bundles::intermediate`]).
    pub fn verify_x509(&self, chain: &[CertificateDer<'_>]) -> Result<X509Svid, Reject> {
        let leaf = chain.first().ok_or_else(|| Reject::Malformed("there is no certificate".into()))?;
        let claimed = inspect_x509(leaf, &self.own, &self.oid)?;
        let bundle = self.bundle(claimed.id.trust_domain_name())?;
        let above = match chain {
            [_] => self.bundles.intermediate(claimed.id.trust_domain_name(), &claimed.authority),
            _ => None,
        };
        let completed: Vec<_> = chain.iter().cloned().chain(above.as_deref().map(CertificateDer::from)).collect();
        let svid = verify_x509(&completed, &bundle, &self.oid, self.clock.seconds())?;
        self.check(&svid)?;
        Ok(svid)
    }

    /// Verifies a token for one audience by the bundle of its subject's trust domain (JV-6), at the current time, not revoked. One
    /// for a single use is used up.
    pub fn verify_jwt(&self, token: &str, audience: &str) -> Result<JwtSvid, Reject> {
        let svid = self.verify_unused_jwt(token, audience)?;
        self.use_up(&svid)?;
        Ok(svid)
    }

    /// The same for who remembers the token and [uses it up](Self::use_up) for each request.
    pub fn verify_unused_jwt(&self, token: &str, audience: &str) -> Result<JwtSvid, Reject> {
        let bundle = self.bundle(inspect_jwt(token)?.trust_domain_name())?;
        let svid = verify_jwt(token, audience, &bundle, &self.oid, self.clock.seconds())?;
        self.check(&svid)?;
        Ok(svid)
    }

    /// Verifies an access token of our own trust domain, of this issuer (its `iss`) and for this audience, at the current time and not
    /// revoked. A token that is bound to a key or certificate is refused if its holder has not `proved` it, and one for a single use is
    /// used up.
    pub fn verify_access_token(
        &self,
        token: &str,
        (issuer, audience): (&str, &str),
        proved: &Possession,
    ) -> Result<AccessToken, Reject> {
        let bundle = self.bundle(self.own.as_str())?;
        let token = verify_access_token(token, (issuer, audience), &bundle, &self.oid, proved, self.clock.seconds())?;
        self.check(&token)?;
        self.use_up(&token)?;
        Ok(token)
    }

    /// The same for a service that keeps the token, checks for each request what its holder has proved, and [uses it up](Self::use_up).
    pub fn verify_unproved_access_token(&self, token: &str, (issuer, audience): (&str, &str)) -> Result<Unproved, Reject> {
        let bundle = self.bundle(self.own.as_str())?;
        let token = verify_unproved_access_token(token, (issuer, audience), &bundle, &self.oid, self.clock.seconds())?;
        self.check(&token)?;
        Ok(token)
    }

    /// Checks the expiry and revocation of a credential that was verified before. No signature is verified again.
    pub fn check<'a>(&self, credential: impl Into<Reliance<'a>>) -> Result<(), Reject> {
        let credential = credential.into();
        match self.revocations.get(credential.trust_domain()) {
            Some(Revocations::Live(live)) => live.check(self.clock.now(), credential),
            Some(Revocations::None) if self.clock.seconds() < credential.ends_at() => Ok(()),
            Some(Revocations::None) => Err(Reject::Expired(credential.ends_at())),
            None => Err(Reject::Untrusted(format!("there is no feed of what `{}` has revoked", credential.trust_domain()))),
        }
    }

    /// Uses up a verified token for a single use; of everything else it does nothing. A token that was used before is refused, and so is
    /// one from before this verifier began to remember. Call it last, when nothing else can refuse the request.
    pub fn use_up<'a>(&self, credential: impl Into<Reliance<'a>>) -> Result<(), Reject> {
        let credential = credential.into();
        credential.once().map_or(Ok(()), |once| self.uses.add(&once, &credential, self.clock.seconds()))
    }

    /// Notifies when the revocations of any trust domain have changed. It does not notify when a credential expires or a bundle
    /// changes.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    // XV-1, XV-6: without a bundle, no credential of the trust domain is valid.
    fn bundle(&self, trust_domain: &str) -> Result<Arc<mayfly_verify::Bundle>, Reject> {
        self.bundles
            .get(trust_domain)
            .ok_or_else(|| Reject::Untrusted(format!("there is no bundle of trust domain `{trust_domain}`")))
    }
}

/// A clock, and the memory of the tokens that are used from now on.
fn remembering(clock: Clock) -> (Clock, Arc<Uses>) {
    let uses = Uses::since(clock.seconds());
    (clock, Arc::new(uses))
}
