//! Foreign trust domains: the bundle of each is fetched, stored, and used for that trust domain alone (clauses FC-1 to FC-7).

mod document;
mod fetch;
mod newest;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mayfly_verify::{SpiffeId, TrustDomain};
use parking_lot::{Mutex, RwLock};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

pub use fetch::endpoint_url;
pub use newest::Newest;

use crate::clock::Clock;
use crate::keys::keystore::write_private;
use crate::process;
use fetch::{FetchError, Way};
use newest::Refused;

/// A foreign trust domain. Whoever controls its bundle can act as every workload of it that a class lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name; never ours.
    pub trust_domain: TrustDomain,
    /// The source of its bundle.
    pub source: Source,
}

/// The source of a foreign bundle (FC-1, FC-2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A bundle document on this machine.
    File(PathBuf),
    /// An endpoint that is verified by its host name.
    Web {
        /// Its https URL.
        url: String,
        /// PEM file with the only roots its certificate may lead to. `None` means the roots of the system.
        ca_file: Option<PathBuf>,
    },
    /// An endpoint that is verified by its SPIFFE ID.
    Spiffe {
        /// Its https URL.
        url: String,
        /// Its exact SPIFFE ID, in the same trust domain.
        id: SpiffeId,
        /// Bundle document that verifies the first connection.
        bootstrap: PathBuf,
    },
}

/// Interval between fetches if the publisher gives none.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
/// Shortest and longest interval that a publisher can ask for.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));
/// Interval between two looks at a file.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of all documents that are sent to agents. Together with our own bundle they fit gRPC's default limit of 4 MiB.
const MAX_TOLD: usize = 1 << 20;

/// The configured foreign trust domains, each with its newest bundle.
pub struct Foreign {
    configured: ArcSwap<Configured>,
    dir: PathBuf,
    clock: Clock,
    changes: watch::Sender<u64>,
}

/// The current configuration; a reload swaps it as a whole.
#[derive(Default)]
struct Configured {
    // INVARIANT (FC-6): a bundle is stored under the trust domain it was configured for, and found by no other name.
    domains: BTreeMap<TrustDomain, Arc<Domain>>,
    spawners: BTreeSet<Arc<SpiffeId>>,
}

/// Another configuration that is ready to be used.
pub struct Prepared(Configured);

struct Domain {
    trust_domain: TrustDomain,
    source: Source,
    way: Way,
    stored_at: PathBuf,
    // Guards the newest bundle: this domain's task swaps it, readers clone it.
    newest: RwLock<Option<Arc<Newest>>>,
    // Guards the failure that was logged last.
    told: Mutex<String>,
    // Set when the trust domain is no longer configured; its task then ends.
    gone: watch::Sender<bool>,
}

/// Why there is no newer bundle.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Whether the files that a foreign trust domain needs can be read. A file that is the bundle itself may come later.
pub fn usable(settings: &Settings, clock: &Clock) -> Result<(), String> {
    let Settings { trust_domain, source } = settings;
    Way::new(trust_domain, source, clock).map(drop).map_err(|e| format!("`{trust_domain}`: {e}"))
}

impl Foreign {
    /// Prepares every source and loads what was stored in `dir` before. Opens no connection. `spawners` are the ids that may
    /// call.
    pub fn open(
        settings: &[Settings],
        spawners: impl IntoIterator<Item = Arc<SpiffeId>>,
        dir: &Path,
        clock: &Clock,
    ) -> Result<Arc<Foreign>, String> {
        let (configured, dir) = (ArcSwap::default(), dir.to_owned());
        let foreign = Foreign { configured, dir, clock: clock.clone(), changes: watch::channel(0).0 };
        let Prepared(configured) = foreign.prepare(settings, spawners)?;
        foreign.configured.store(Arc::new(configured));
        foreign.count_untold();
        Ok(Arc::new(foreign))
    }

    /// Prepares another configuration, and changes nothing. A trust domain whose source stays keeps its bundle. Opens no connection.
    pub fn prepare(&self, settings: &[Settings], spawners: impl IntoIterator<Item = Arc<SpiffeId>>) -> Result<Prepared, String> {
        if !settings.is_empty() {
            std::fs::create_dir_all(&self.dir).map_err(|e| format!("`{}`: {e}", self.dir.display()))?;
        }
        let known = self.configured.load();
        let mut domains = BTreeMap::new();
        for Settings { trust_domain, source } in settings {
            let same = known.domains.get(trust_domain).filter(|domain| domain.source == *source);
            let domain = match same {
                Some(domain) => Arc::clone(domain),
                None => {
                    let way =
                        Way::new(trust_domain, source, &self.clock).map_err(|e| format!("foreign `{trust_domain}`: {e}"))?;
                    let stored_at = self.dir.join(format!("{trust_domain}.json"));
                    let domain = Domain::new(trust_domain.clone(), source.clone(), way, stored_at);
                    domain.load();
                    Arc::new(domain)
                }
            };
            domains.insert(trust_domain.clone(), domain);
        }
        Ok(Prepared(Configured { domains, spawners: spawners.into_iter().collect() }))
    }

    /// Uses another configuration from now on. The tasks of new trust domains run until `stop`.
    pub fn replace(self: &Arc<Self>, Prepared(configured): Prepared, stop: &watch::Receiver<bool>) {
        let before = self.configured.swap(Arc::new(configured));
        let now = self.configured.load();
        let among = |domain: &Arc<Domain>, all: &Configured| all.domains.values().any(|other| Arc::ptr_eq(other, domain));
        for domain in before.domains.values().filter(|domain| !among(domain, &now)) {
            domain.gone.send_replace(true);
        }
        for domain in now.domains.values().filter(|domain| !among(domain, &before)) {
            drop(self.keep_domain(domain, stop));
        }
        self.count_untold();
        self.changes.send_modify(|n| *n += 1);
    }

    /// Whether no foreign trust domain is configured.
    pub fn is_empty(&self) -> bool {
        self.configured.load().domains.is_empty()
    }

    /// The newest bundle of a trust domain, or `None`.
    pub fn newest(&self, of: &TrustDomain) -> Option<Arc<Newest>> {
        self.configured.load().domains.get(of)?.newest()
    }

    /// The shared copy of an id that some class lists as a spawner, or `None`.
    pub fn spawner(&self, id: &SpiffeId) -> Option<Arc<SpiffeId>> {
        self.configured.load().spawners.get(id).map(Arc::clone)
    }

    /// The roots of all foreign bundles, for the handshake alone: a peer is then verified by the bundle of its own trust domain.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        let configured = self.configured.load();
        let newest = configured.domains.values().filter_map(|domain| domain.newest());
        newest.flat_map(|n| n.bundle().x509_authorities().to_vec()).map(CertificateDer::from).collect()
    }

    /// The documents that are sent to agents: the newest of each trust domain, in the order of names. Documents that do not fit
    /// are left out completely, and agents do not trust those trust domains.
    pub fn told(&self) -> Vec<(TrustDomain, Arc<Newest>)> {
        let mut left = MAX_TOLD;
        let mut fits = |length: usize| left.checked_sub(length).map(|less| left = less).is_some();
        let configured = self.configured.load();
        let newest = configured.domains.iter().filter_map(|(name, domain)| Some((name.clone(), domain.newest()?)));
        newest.filter(|(name, newest)| fits(name.as_str().len() + newest.text().len())).collect()
    }

    /// Notifies when any bundle changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Starts one task for each trust domain, which runs until `stop`.
    pub fn keep(self: &Arc<Self>, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        self.configured.load().domains.values().map(|domain| self.keep_domain(domain, stop)).collect()
    }

    fn keep_domain(self: &Arc<Self>, domain: &Arc<Domain>, stop: &watch::Receiver<bool>) -> JoinHandle<()> {
        let (all, domain, stop) = (Arc::clone(self), Arc::clone(domain), stop.clone());
        process::healing("foreign bundle", move || Arc::clone(&all).keep_one(Arc::clone(&domain), stop.clone()))
    }

    fn count_untold(&self) {
        let known = self.configured.load().domains.values().filter(|domain| domain.newest().is_some()).count();
        let untold = known - self.told().len();
        metrics::gauge!("mayfly_foreign_bundles_untold").set(u32::try_from(untold).unwrap_or(u32::MAX));
        if untold > 0 {
            tracing::error!(
                untold,
                "foreign bundles are too large: beyond {MAX_TOLD} bytes in total they are not sent to agents"
            );
        }
    }

    async fn keep_one(self: Arc<Self>, domain: Arc<Domain>, mut stop: watch::Receiver<bool>) {
        let mut gone = domain.gone.subscribe();
        loop {
            let taken = tokio::select! {
                taken = domain.poll() => taken,
                _ = stop.wait_for(|stop| *stop) => return,
                _ = gone.wait_for(|gone| *gone) => return,
            };
            domain.tell(&taken);
            if let Ok(true) = taken {
                self.count_untold();
                self.changes.send_modify(|n| *n += 1);
            }
            // FC-4: after a failure too, the next fetch comes one interval later.
            tokio::select! {
                () = tokio::time::sleep(domain.interval()) => {}
                _ = stop.wait_for(|stop| *stop) => return,
                _ = gone.wait_for(|gone| *gone) => return,
            }
        }
    }
}

impl Domain {
    fn new(trust_domain: TrustDomain, source: Source, way: Way, stored_at: PathBuf) -> Domain {
        let (newest, told) = (RwLock::default(), Mutex::default());
        Domain { trust_domain, source, way, stored_at, newest, told, gone: watch::channel(false).0 }
    }

    fn newest(&self) -> Option<Arc<Newest>> {
        self.newest.read().clone()
    }

    /// Loads the bundle from this machine: the stored one (FC-5), or a configured file.
    fn load(&self) {
        match newest::load(&self.trust_domain, &self.stored_at) {
            Ok(stored) => *self.newest.write() = stored.map(Arc::new),
            Err(cause) => tracing::error!(trust_domain = %self.trust_domain, %cause, "the stored foreign bundle is not used"),
        }
        if let Way::File(path) = &self.way {
            let taken =
                document::read(path).map_err(|e| Failure::from(FetchError::from(e))).and_then(|text| Ok(self.take(&text)?));
            self.tell(&taken);
        }
    }

    /// Fetches once, and returns whether there is a newer bundle now.
    async fn poll(self: &Arc<Self>) -> Result<bool, Failure> {
        let text = self.way.fetch(self.newest()).await?;
        let domain = Arc::clone(self);
        spawn_blocking(move || domain.take(&text)).await.map_err(|e| FetchError::Stopped(e.to_string()))?.map_err(Failure::from)
    }

    /// Takes a document and returns whether it is newer than the known one.
    fn take(&self, text: &[u8]) -> Result<bool, Refused> {
        let known = self.newest();
        let Some(newest) = Newest::after(known.as_deref(), &self.trust_domain, text)? else { return Ok(false) };
        // FC-5. A bundle that cannot be stored is used too; it is only missing after the next start.
        if let Err(cause) = write_private(&self.stored_at, newest.to_store(&self.trust_domain).as_bytes()) {
            tracing::error!(trust_domain = %self.trust_domain, %cause, "cannot store the foreign bundle");
        }
        *self.newest.write() = Some(Arc::new(newest));
        Ok(true)
    }

    fn interval(&self) -> Duration {
        let hint = self.newest().map_or(0, |newest| newest.bundle().refresh_hint());
        match &self.way {
            Way::File(_) => FILE_INTERVAL,
            _ if hint == 0 => DEFAULT_INTERVAL,
            _ => Duration::from_secs(hint).clamp(INTERVALS.0, INTERVALS.1),
        }
    }

    /// Counts and logs the result. The same failure is logged once, until it ends.
    fn tell(&self, taken: &Result<bool, Failure>) {
        let outcome = match taken {
            Ok(_) => "ok",
            Err(Failure::Fetch(_)) => "failed",
            Err(Failure::Refused(_)) => "refused",
        };
        let trust_domain = self.trust_domain.as_str();
        let labels = [("trust_domain", trust_domain.to_owned()), ("outcome", outcome.to_owned())];
        metrics::counter!("mayfly_foreign_fetches_total", &labels).increment(1);
        let trouble = taken.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let before = std::mem::replace(&mut *self.told.lock(), trouble.clone());
        match taken {
            Ok(true) => tracing::info!(trust_domain, "a foreign bundle changed"),
            Err(_) if before != trouble => tracing::warn!(trust_domain, cause = %trouble, "no newer foreign bundle"),
            _ => {}
        }
    }
}
