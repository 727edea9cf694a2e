//! Whether the issuer is ready. This is checked each second, and reported by `/readyz`, by metrics, and in the log when it changes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::acts::Issuer;
use crate::acts::status::Ready;
use crate::authority::schedule::Schedule;
use crate::clock::{Clock, SECOND};
use crate::ledger::Unable;
use crate::state::authority::Kind;

/// How often the parts are checked.
const EVERY: Duration = Duration::from_secs(1);

/// How long one commit may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Age of the last heartbeat from which on verifiers are about to refuse, in seconds.
const SILENT: u64 = 4;

/// What is looked at.
pub(super) struct Looks {
    pub(super) issuer: Arc<Issuer>,
    pub(super) clock: Clock,
    /// Which kinds of authorities this issuer needs; a reload swaps it.
    pub(super) schedule: Arc<ArcSwap<Schedule>>,
}

/// Publishes whether the issuer is ready, until it stops.
pub(super) async fn keep(told: watch::Sender<Ready>, looks: Looks, mut stopped: watch::Receiver<bool>) {
    let mut before = Ready::default();
    loop {
        let now = looks.look();
        for (name, part) in now.parts.iter().filter(|part| !before.parts.contains(part)) {
            match part {
                Err(why) => tracing::error!(part = name, %why, "not ready"),
                Ok(()) if before.parts.is_empty() => {}
                Ok(()) => tracing::info!(part = name, "ready again"),
            }
        }
        told.send_if_modified(|told| std::mem::replace(told, now.clone()) != now);
        before = now;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {
                told.send_replace(Ready::stopping());
                return;
            }
        }
    }
}

impl Looks {
    fn look(&self) -> Ready {
        let parts = vec![
            ("clock", self.clock()),
            ("journal", self.journal()),
            ("feed", self.feed()),
            ("authorities", self.authorities()),
        ];
        Ready { parts, warnings: self.warnings() }
    }

    /// Faults that do not end readiness, because revocations still work: providers that cannot be reached, whose users or workloads
    /// get nothing, and a collector that accepts no entries. Providers are asked before anybody needs them.
    fn warnings(&self) -> Vec<String> {
        let (providers, now) = (self.issuer.providers.load(), self.clock.seconds());
        providers.assertions.look(now);
        providers.attestations.look(now);
        let all = providers.assertions.reachable().into_iter().chain(providers.attestations.reachable());
        let providers = all.filter_map(|(name, reachable)| Some(format!("issuer {name}: {}", reachable.err()?)));
        let audit = self.issuer.audit.as_ref().and_then(|audit| audit.trouble());
        let audit = audit.map(|why| format!("audit: {why}"));
        providers.chain(audit).chain(self.issuer.witnesses.troubles()).collect()
    }

    /// Fails if the clock leapt, so that its time is not used.
    fn clock(&self) -> Result<(), String> {
        let lead = self.clock.lead();
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        metrics::gauge!("mayfly_clock_lead_seconds").set(lead as f64 / SECOND as f64);
        let seconds = lead.unsigned_abs().div_ceil(SECOND);
        match lead {
            0 => Ok(()),
            1.. => Err(leapt(seconds, "ahead of")),
            _ => Err(leapt(seconds, "behind")),
        }
    }

    /// Fails if the journal cannot record now.
    fn journal(&self) -> Result<(), String> {
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        metrics::gauge!("mayfly_journal_waiting").set(self.issuer.ledger.waiting() as f64);
        metrics::gauge!("mayfly_journal_held_seconds").set(self.issuer.ledger.pulse().held().as_secs_f64());
        self.issuer.ledger.able(PATIENCE).map_err(|why| match why {
            Unable::Stopped => "it was stopped".to_owned(),
            Unable::Hangs(time) => format!("a commit has not returned for {} seconds: the disk does not answer", time.as_secs()),
            Unable::Full => "there is no room, not even for revocations: free some space".to_owned(),
            Unable::Reserved => {
                "there is room for revocations, ends and authorities alone: free some space, or raise `journal.max_bytes`"
                    .to_owned()
            }
        })
    }

    /// Fails if the last heartbeat is so old that verifiers are about to refuse credentials.
    fn feed(&self) -> Result<(), String> {
        let age = self.clock.now().saturating_sub(self.issuer.feed.as_of()) / SECOND;
        if age < SILENT {
            Ok(())
        } else {
            Err(format!("verifiers know nothing newer than {age} seconds: they refuse, or will soon"))
        }
    }

    fn authorities(&self) -> Result<(), String> {
        let now = self.clock.seconds();
        let missing =
            |kind: &Kind| self.issuer.ledger.read(|state| state.authorities.active(*kind).is_none_or(|slot| slot.ends_at <= now));
        match self.schedule.load().kinds().find(|kind| missing(kind)) {
            None => Ok(()),
            Some(kind) => {
                Err(format!("no {kind} authority is active: an operator prepares and activates one with `mayfly authority`"))
            }
        }
    }
}

fn leapt(seconds: u64, side: &str) -> String {
    format!(
        "the machine's clock is {seconds} seconds {side} the time that has passed since it was last right, and is not followed. If it \
         is wrong, set it right and this ends by itself; if it is right, restart the issuer"
    )
}
