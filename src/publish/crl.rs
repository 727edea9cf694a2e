//! CRLs. They are made on request, if something has changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::authority::{Authority, Crl, Span};
use crate::clock::Clock;
use crate::denial::{Denial, Fault, Kind, No};
use crate::ledger::Ledger;

/// How long a list is valid, in seconds. A verifier without a newer one then refuses every certificate.
const LIFE: u64 = 600;
/// Least time between two lists: this pause, and [`SHARE`] times as long as it took to make the last one. Strangers may ask for
/// lists, and visiting a million agents takes a while.
const PACE: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;
/// Agents that are visited under one lock, for which the writer may have to wait.
const SLICE: usize = 2_000;
/// Most certificates in a list. Reading a longer one would take verifiers longer than an agent lives.
pub const MOST: usize = 200_000;

/// The lists of all CAs, as of one revision.
#[derive(Debug)]
pub struct Lists {
    /// The list of each CA that a chain may contain, the root's first.
    pub crls: Vec<Crl>,
    /// Revision up to which they are complete.
    pub revision: u64,
    /// Unix seconds from which on verifiers refuse them.
    pub expires_at: u64,
    made: Instant,
    took: Duration,
    made_at: u64,
}

/// Makes the lists. Clones share them.
#[derive(Clone)]
pub struct Crls(Arc<Shared>);

struct Shared {
    ledger: Ledger,
    authority: Arc<Authority>,
    clock: Clock,
    // Guards the newest lists; held for a copy.
    newest: Mutex<Option<Arc<Lists>>>,
    // Held while the lists are made: while agents are visited and lists are signed.
    making: tokio::sync::Mutex<()>,
}

impl Crls {
    /// Makes nothing yet.
    pub fn new(ledger: &Ledger, authority: &Arc<Authority>, clock: &Clock) -> Crls {
        let (ledger, authority, clock) = (ledger.clone(), Arc::clone(authority), clock.clone());
        Crls(Arc::new(Shared { ledger, authority, clock, newest: Mutex::default(), making: tokio::sync::Mutex::default() }))
    }

    /// The newest lists. They are made again if something was recorded since or if half of their life has passed, but at most once
    /// a second and for at most a tenth of the time. Fails if there are more than [`MOST`] refused certificates, or if a key is
    /// missing.
    pub async fn newest(&self) -> Result<Arc<Lists>, No> {
        if let Some(lists) = self.fresh() {
            return Ok(lists);
        }
        let _making = self.0.making.lock().await;
        // Another caller may have made them meanwhile.
        if let Some(lists) = self.fresh() {
            return Ok(lists);
        }
        let shared = Arc::clone(&self.0);
        let made = tokio::task::spawn_blocking(move || shared.make()).await;
        let lists = Arc::new(made.map_err(|e| Fault::new("crl", e))??);
        *self.0.newest.lock() = Some(Arc::clone(&lists));
        Ok(lists)
    }

    fn fresh(&self) -> Option<Arc<Lists>> {
        let newest = self.0.newest.lock().clone()?;
        let age = self.0.clock.seconds().abs_diff(newest.made_at);
        let revision = self.0.ledger.read(|state| state.revision);
        let pace = PACE.max(newest.took * SHARE);
        (newest.made.elapsed() < pace || newest.revision == revision && age < LIFE / 2).then_some(newest)
    }
}

impl Shared {
    fn make(&self) -> Result<Lists, No> {
        let (now, began) = (self.clock.now(), Instant::now());
        // The lists are complete up to this revision. Later revocations may be in them, and will be in the next ones.
        let (revision, authorities, mut serials) =
            self.ledger.read(|state| (state.revision, Arc::clone(&state.authorities), state.revoked_workload_serials(now)));
        let mut after = None;
        loop {
            let (found, next) = self.ledger.read(|state| state.revoked_serials(after, SLICE, now));
            serials.extend(found);
            if serials.len() > MOST {
                let message =
                    format!("more than {MOST} certificates that have not expired are revoked: follow the feed instead of a CRL");
                return Err(Denial::new(Kind::Exhausted, "CRL_FULL", message).into());
            }
            match next {
                Some(_) => after = next,
                None => break,
            }
        }
        serials.sort_unstable();
        let made_at = now / 1_000_000;
        let span = Span { made_at, expires_at: made_at + LIFE };
        let crls = self.authority.crls(&authorities, &serials, span, now)?;
        Ok(Lists { crls, revision, expires_at: span.expires_at, made: Instant::now(), took: began.elapsed(), made_at })
    }
}
