//! Status: the state of the issuer, and what is wrong with it.

use tokio::sync::watch;

use super::Issuer;
use crate::assertion::Provider;
use crate::state::{Count, Seat};

/// The readiness of the issuer, part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Each part by its stable name, and what is wrong with it.
    pub parts: Vec<(&'static str, Result<(), String>)>,
    /// Faults that affect only some callers.
    pub warnings: Vec<String>,
}

impl Ready {
    /// Before everything is loaded.
    pub fn starting() -> Ready {
        Ready { parts: vec![("start", Err("still starting".into()))], warnings: Vec::new() }
    }

    /// The readiness of a process that is about to end.
    pub fn stopping() -> Ready {
        Ready { parts: vec![("start", Err("stopping".into()))], warnings: Vec::new() }
    }

    /// Whether nothing is wrong.
    pub fn is_ready(&self) -> bool {
        self.parts.iter().all(|(_, part)| part.is_ok())
    }
}

/// What [`status`] reads beside the issuer.
pub struct Health {
    /// The readiness, as it was found in the last second.
    pub ready: watch::Receiver<Ready>,
    /// When the process started, in Unix seconds.
    pub started_at: u64,
}

/// The state of the issuer.
pub struct Status {
    /// Revision of the last record.
    pub revision: u64,
    /// Agents that are live.
    pub live: u64,
    /// The readiness.
    pub ready: Ready,
    /// Each provider of users or of platform tokens, in order of name: its name, its URL, and the result of the last attempt to fetch
    /// its keys. `None` if there was no attempt.
    pub providers: Vec<Provider>,
    /// Indexes of the entries that the history keeps: of the first, and after the last.
    pub entries: (u64, u64),
    /// Revision of the last record in the history.
    pub in_history: u64,
    /// Entries that the last signed checkpoint covers.
    pub signed: u64,
}

/// Reads the status.
pub fn status(issuer: &Issuer) -> Status {
    let rules = issuer.ledger.rules();
    let (revision, live) = issuer.ledger.read(|state| {
        let of = |name: &mayfly_verify::ClassName| {
            state.seats(Seat(Count::OfClass, state.subject(&mayfly_verify::Target::Class(name.clone()))))
        };
        (state.revision, rules.classes.keys().map(of).sum::<i64>())
    });
    let known = issuer.providers.load();
    let mut providers = known.assertions.providers();
    providers.extend(known.attestations.providers());
    providers.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Status {
        revision,
        live: u64::try_from(live).unwrap_or(0),
        ready: issuer.health.ready.borrow().clone(),
        providers,
        entries: issuer.history.reader().places(),
        in_history: issuer.history.copied(),
        signed: issuer.history.signed(),
    }
}
