//! The current knowledge of revocations, shared by every check in the process.

mod heard;
mod listeners;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use heard::Heard;
use listeners::Listeners;
pub use listeners::Subscription;
use spiffe::TrustDomain;

use crate::feed::Known;
use crate::sync::{ArcSwapOption, AtomicU64};
use crate::{AccessToken, Binding, JwtSvid, Once, Reject, Staleness, Subject, X509Svid, check_cuts};

/// Default for the greatest age of the last heartbeat.
const BOUND: Duration = Duration::from_secs(5);

/// What to do while no heartbeats arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Refuse credentials when the last heartbeat is older than this.
    Strict(Duration),
    /// Accept credentials until they expire, and count them ([`Live::accepted_unknown`]).
    BestEffort,
}

impl Default for Freshness {
    /// Strict, with 5 seconds.
    fn default() -> Freshness {
        Freshness::Strict(BOUND)
    }
}

/// The parts of a verified credential on which its revocation depends.
#[derive(Clone, Copy, Debug)]
pub struct Reliance<'a> {
    trust_domain: &'a str,
    binding: Option<&'a Binding>,
    subjects: &'a [Subject],
    ends_at: u64,
    once: Option<Once<'a>>,
}

impl<'a> Reliance<'a> {
    /// The trust domain that issued the credential, whose cuts apply to it.
    pub fn trust_domain(&self) -> &str {
        self.trust_domain
    }

    /// When the credential expires, Unix seconds.
    pub fn ends_at(&self) -> u64 {
        self.ends_at
    }

    /// What must be remembered before a token for a single use is accepted; `None` for everything else. Nothing in this crate
    /// remembers it: see `use_up` of the verifier in `mayfly-agent`.
    pub fn once(&self) -> Option<Once<'a>> {
        self.once
    }
}

impl<'a> From<&'a X509Svid> for Reliance<'a> {
    fn from(svid: &'a X509Svid) -> Self {
        let (trust_domain, binding) = (svid.id.trust_domain_name(), svid.binding.as_ref());
        Reliance { trust_domain, binding, subjects: &svid.subjects, ends_at: svid.not_after, once: None }
    }
}

impl<'a> From<&'a JwtSvid> for Reliance<'a> {
    fn from(svid: &'a JwtSvid) -> Self {
        let (trust_domain, binding) = (svid.id.trust_domain_name(), svid.binding.as_ref());
        let once = || Some(Once { jti: svid.jti.as_deref()?, issued_at: svid.issued_at?, root: binding?.root_id() });
        let once = svid.single_use.then(once).flatten();
        Reliance { trust_domain, binding, subjects: &svid.subjects, ends_at: svid.expires_at, once }
    }
}

impl<'a> From<&'a AccessToken> for Reliance<'a> {
    fn from(token: &'a AccessToken) -> Self {
        let trust_domain = token.client.trust_domain.as_str();
        let once = Once { jti: &token.jti, issued_at: token.issued_at, root: token.binding.root_id() };
        let (binding, once) = (Some(&token.binding), token.single_use.then_some(once));
        Reliance { trust_domain, binding, subjects: &token.subjects, ends_at: token.expires_at, once }
    }
}

/// A handle on the current revocations of one trust domain. Clones share it.
///
/// A check takes no lock, and allocates nothing except for the first on each thread. The knowledge is swapped as a whole: a
/// check sees the cuts of one heartbeat, never a mixture of two.
#[derive(Clone, Debug)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    trust_domain: TrustDomain,
    freshness: Freshness,
    known: ArcSwapOption<Heard>,
    // Since when this verifier measures time.
    began: Instant,
    required: AtomicU64,
    unknown: AtomicU64,
    // One more than the revision at which the issuer has signed two different journals; 0 while it has not.
    forked: AtomicU64,
    listeners: Listeners,
}

impl Live {
    /// Starts without any knowledge: under [`Freshness::Strict`] it refuses every credential (T69).
    pub fn new(trust_domain: TrustDomain, freshness: Freshness) -> Live {
        let (required, unknown) = (AtomicU64::new(0), AtomicU64::new(0));
        let (known, listeners, began) = (ArcSwapOption::empty(), Listeners::default(), Instant::now());
        let forked = AtomicU64::new(0);
        Live(Arc::new(Shared { trust_domain, freshness, known, began, required, unknown, forked, listeners }))
    }

    /// The trust domain whose credentials it can check.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Replaces the knowledge that checks use, and notifies the subscribers.
    pub fn publish(&self, known: Arc<Known>) {
        let before = self.0.known.load();
        let heard = Heard::now(known, self.0.began.elapsed(), before.as_deref());
        drop(before);
        self.0.known.store(Some(Arc::new(heard)));
        // ORDER: after the store, so that a subscriber who is notified finds the new knowledge.
        self.0.listeners.notify();
    }

    /// Calls `callback` after each [`publish`](Self::publish), on the publishing thread, for as long as the subscription lives.
    /// The callback should wake a task and return at once, because the next cut waits for it.
    ///
    /// There is no call for knowledge that was published before: subscribe first, then check.
    pub fn subscribe(&self, callback: impl Fn() + Send + Sync + 'static) -> Subscription {
        self.0.listeners.add(Arc::new(callback))
    }

    /// The current knowledge, or `None` before the first heartbeat.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.0.known.load().as_ref().map(|heard| Arc::clone(&heard.known))
    }

    /// Refuses all credentials, in either mode, until the cuts up to `revision` are known. Call it after a revocation, with the
    /// revision of its receipt.
    pub fn require(&self, revision: u64) {
        self.0.required.fetch_max(revision, Ordering::AcqRel);
    }

    /// Refuses all credentials for good, in either mode: the issuer has signed another journal up to `revision` than the known one
    /// ([`FeedError::Fork`](crate::feed::FeedError::Fork)). Notifies the subscribers.
    pub fn fork(&self, revision: u64) {
        self.0.forked.fetch_max(revision.saturating_add(1), Ordering::AcqRel);
        self.0.listeners.notify();
    }

    /// Number of credentials accepted while it was unknown whether they were revoked ([`Freshness::BestEffort`]).
    pub fn accepted_unknown(&self) -> u64 {
        self.0.unknown.load(Ordering::Relaxed)
    }

    /// Whether the knowledge is fresh at `now` (since the Unix epoch), by the strict bound or the default one. For readiness
    /// checks and metrics (T41).
    pub fn fresh(&self, now: Duration) -> Result<(), Staleness> {
        let heard = self.0.known.load();
        self.behind(heard.as_ref().map(|heard| &*heard.known))?;
        let bound = match self.0.freshness {
            Freshness::Strict(bound) => bound,
            Freshness::BestEffort => BOUND,
        };
        self.aged(heard.as_deref(), bound, now)
    }

    /// Refuses a verified credential if it is revoked, if it has expired at `now` (since the Unix epoch), or if that is unknown.
    ///
    /// A cut may affect its stamps and their epoch, its key, or any authority of its chain. Call this for each request, not for
    /// each connection.
    pub fn check<'a>(&self, now: Duration, credential: impl Into<Reliance<'a>>) -> Result<(), Reject> {
        let credential = credential.into();
        let own = self.0.trust_domain.as_str();
        if credential.trust_domain != own {
            return Err(Reject::TrustDomain(credential.trust_domain.to_owned(), own.to_owned()));
        }
        if now.as_secs() >= credential.ends_at {
            return Err(Reject::Expired(credential.ends_at));
        }
        let heard = self.0.known.load();
        let known = heard.as_ref().map(|heard| &*heard.known);
        if let Some(known) = known {
            // A key or authority is never reinstated, so the revision of its cut does not matter.
            if credential.subjects.iter().any(|s| known.cuts.before(*s).is_some()) {
                return Err(Reject::Cut);
            }
            credential.binding.map_or(Ok(()), |binding| check_cuts(binding, &known.cuts))?;
        }
        self.behind(known).map_err(Reject::Stale)?;
        let held = || {
            let (forgotten, revision) =
                (known.map_or(0, |k| k.forgotten), credential.binding.map_or(0, |binding| binding.revision));
            if forgotten > 0 && revision <= forgotten { Err(Staleness::Forgotten { forgotten, revision }) } else { Ok(()) }
        };
        match self.0.freshness {
            Freshness::Strict(bound) => self.aged(heard.as_deref(), bound, now).and_then(|()| held()).map_err(Reject::Stale),
            Freshness::BestEffort => {
                if self.aged(heard.as_deref(), BOUND, now).and_then(|()| held()).is_err() {
                    self.0.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
        }
    }

    fn aged(&self, heard: Option<&Heard>, bound: Duration, now: Duration) -> Result<(), Staleness> {
        heard.ok_or(Staleness::Never)?.aged(bound, self.0.began.elapsed(), now)
    }

    fn behind(&self, known: Option<&Known>) -> Result<(), Staleness> {
        if let Some(revision) = self.0.forked.load(Ordering::Acquire).checked_sub(1) {
            return Err(Staleness::Forked(revision));
        }
        let (known, required) = (known.map_or(0, |k| k.head), self.0.required.load(Ordering::Acquire));
        if known >= required { Ok(()) } else { Err(Staleness::Behind { known, required }) }
    }
}

#[cfg(test)]
mod model;
