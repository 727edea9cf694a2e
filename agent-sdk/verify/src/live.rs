//! What is known of revocations right now, for every check in the process.

mod listeners;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use listeners::Listeners;
pub use listeners::Subscription;
use spiffe::TrustDomain;

use crate::feed::Known;
use crate::sync::{ArcSwapOption, AtomicU64};
use crate::{Binding, JwtSvid, Reject, Staleness, Subject, X509Svid, check_cuts};

/// How old the last heartbeat may be, where nobody says.
const BOUND: Duration = Duration::from_secs(5);
/// How far the issuer's clock may be ahead.
const SKEW: Duration = Duration::from_secs(120);

/// What to do while nothing is heard of the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Refuse when the last heartbeat is older than this.
    Strict(Duration),
    /// Accept until the credential expires, and count it.
    BestEffort,
}

impl Default for Freshness {
    /// Strict, 5 seconds.
    fn default() -> Freshness {
        Freshness::Strict(BOUND)
    }
}

/// What a credential relies on.
#[derive(Clone, Copy, Debug)]
pub struct Reliance<'a> {
    trust_domain: &'a str,
    binding: Option<&'a Binding>,
    subjects: &'a [Subject],
    ends_at: u64,
}

impl Reliance<'_> {
    /// Whose word it is, and so whose cuts count.
    pub fn trust_domain(&self) -> &str {
        self.trust_domain
    }

    /// Unix seconds at which the credential ends.
    pub fn ends_at(&self) -> u64 {
        self.ends_at
    }
}

impl<'a> From<&'a X509Svid> for Reliance<'a> {
    fn from(svid: &'a X509Svid) -> Self {
        let (trust_domain, binding) = (svid.id.trust_domain_name(), svid.binding.as_ref());
        Reliance { trust_domain, binding, subjects: &svid.subjects, ends_at: svid.not_after }
    }
}

impl<'a> From<&'a JwtSvid> for Reliance<'a> {
    fn from(svid: &'a JwtSvid) -> Self {
        let (trust_domain, binding) = (svid.id.trust_domain_name(), svid.binding.as_ref());
        Reliance { trust_domain, binding, subjects: &svid.subjects, ends_at: svid.expires_at }
    }
}

/// A handle on what is known of the revocations of one trust domain. Clones share it.
///
/// A check takes no lock and, but for the first on a thread, allocates nothing. What it reads is swapped whole: a check sees
/// the cuts of one heartbeat, never of two.
#[derive(Clone, Debug)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    trust_domain: TrustDomain,
    freshness: Freshness,
    known: ArcSwapOption<Known>,
    required: AtomicU64,
    unknown: AtomicU64,
    listeners: Listeners,
}

impl Live {
    /// Knows nothing yet: under [`Freshness::Strict`] it refuses everything (T69).
    pub fn new(trust_domain: TrustDomain, freshness: Freshness) -> Live {
        let (required, unknown) = (AtomicU64::new(0), AtomicU64::new(0));
        let (known, listeners) = (ArcSwapOption::empty(), Listeners::default());
        Live(Arc::new(Shared { trust_domain, freshness, known, required, unknown, listeners }))
    }

    /// Whose credentials it can judge.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Checks use this from now on. Whoever asked for it is told.
    pub fn publish(&self, known: Arc<Known>) {
        self.0.known.store(Some(known));
        // ORDER: after the store. Whoever is told finds it there.
        self.0.listeners.tell();
    }

    /// Calls `told` after each [`publish`](Self::publish), on the thread that publishes, for as long as the subscription
    /// lives. It is to wake somebody and to return: the next cut waits for it.
    ///
    /// What was published before is not told: subscribe, then check.
    pub fn subscribe(&self, told: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.0.listeners.add(Arc::new(told))
    }

    /// What is known, if anything.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.0.known.load_full()
    }

    /// Refuses, whatever the mode, until every cut up to `revision` is known: after a revocation, with its receipt's revision.
    pub fn require(&self, revision: u64) {
        self.0.required.fetch_max(revision, Ordering::AcqRel);
    }

    /// How many credentials were accepted without knowing whether they were revoked ([`Freshness::BestEffort`]).
    pub fn accepted_unknown(&self) -> u64 {
        self.0.unknown.load(Ordering::Relaxed)
    }

    /// Whether what is known is fresh at `now` (since the Unix epoch), by the strict bound or the default one. For readiness
    /// and metrics (T41).
    pub fn fresh(&self, now: Duration) -> Result<(), Staleness> {
        let known = self.0.known.load();
        self.behind(known.as_deref())?;
        let bound = match self.0.freshness {
            Freshness::Strict(bound) => bound,
            Freshness::BestEffort => BOUND,
        };
        aged(known.as_deref(), bound, now)
    }

    /// Refuses a verified credential that is cut or has expired at `now` (since the Unix epoch), or of which that is not known.
    ///
    /// Looked at are its stamps and their incarnation, its key, and every authority of its chain. Call it for each request,
    /// not for each connection.
    pub fn check<'a>(&self, now: Duration, credential: impl Into<Reliance<'a>>) -> Result<(), Reject> {
        let credential = credential.into();
        let own = self.0.trust_domain.as_str();
        if credential.trust_domain != own {
            return Err(Reject::TrustDomain(credential.trust_domain.to_owned(), own.to_owned()));
        }
        if now.as_secs() >= credential.ends_at {
            return Err(Reject::Expired(credential.ends_at));
        }
        let known = self.0.known.load();
        if let Some(known) = known.as_deref() {
            // Keys and authorities never come back: of when their cut is does not matter.
            if credential.subjects.iter().any(|s| known.cuts.before(*s).is_some()) {
                return Err(Reject::Cut);
            }
            credential.binding.map_or(Ok(()), |binding| check_cuts(binding, &known.cuts))?;
        }
        self.behind(known.as_deref()).map_err(Reject::Stale)?;
        match self.0.freshness {
            Freshness::Strict(bound) => aged(known.as_deref(), bound, now).map_err(Reject::Stale),
            Freshness::BestEffort => {
                if aged(known.as_deref(), BOUND, now).is_err() {
                    self.0.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    }

    fn behind(&self, known: Option<&Known>) -> Result<(), Staleness> {
        let (known, required) = (known.map_or(0, |k| k.head), self.0.required.load(Ordering::Acquire));
        if known >= required { Ok(()) } else { Err(Staleness::Behind { known, required }) }
    }
}

/// A clock that was set does not make old knowledge new: what lies in the future is as bad as what is old.
fn aged(known: Option<&Known>, bound: Duration, now: Duration) -> Result<(), Staleness> {
    let as_of = Duration::from_micros(known.ok_or(Staleness::Never)?.as_of);
    let (age, ahead) = (now.saturating_sub(as_of), as_of.saturating_sub(now));
    match () {
        () if age > bound => Err(Staleness::Old(age)),
        () if ahead > SKEW => Err(Staleness::Future(ahead)),
        () => Ok(()),
    }
}

#[cfg(test)]
mod model;
