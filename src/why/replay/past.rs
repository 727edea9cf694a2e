//! The state as it was, record by record, and what is decided again on it.

use std::sync::Arc;

use super::again::{self, Told};
use super::denials::Denials;
use super::{Difference, Replayed, TOLD};
use crate::denial::Fault;
use crate::journal::record::{Record, record::Body};
use crate::judge::Rules;
use crate::policies::Policies;
use crate::state::authority::Kind as AuthorityKind;
use crate::state::{Authorities, State};

/// The replayed state, and the findings so far.
pub struct Past {
    pub(super) state: State,
    pub(super) rules: Rules,
    /// A candidate set: what it would decide otherwise than the policies of the time is a difference. `None` compares with what was
    /// recorded.
    candidate: Option<Arc<Policies>>,
    since: u64,
    /// The records of one decision that are not applied yet, because it is decided on the state before the first of them.
    open: Vec<(u64, Record)>,
    authorities: Arc<Authorities>,
    /// What came of it.
    pub replayed: Replayed,
}

impl Past {
    /// Before the first record. `authorities` are the present ones, because rows of earlier ones are dropped, and nothing is signed here.
    pub fn new(rules: &Rules, since: u64, authorities: Arc<Authorities>) -> Past {
        let (state, replayed) = (State::default(), Replayed::default());
        Past { state, rules: rules.clone(), candidate: None, since, open: Vec::new(), authorities, replayed }
    }

    /// Finds what a candidate set would decide otherwise than the policies of the time.
    pub(super) fn compare(&mut self, candidate: Arc<Policies>) {
        self.candidate = Some(candidate);
    }

    /// Whether a record begins a decision that is decided again.
    pub(super) fn begins(&self, record: &Record) -> bool {
        self.open.is_empty() && self.decides(record)
    }

    /// Whether a record is of a decision that is decided again.
    fn decides(&self, record: &Record) -> bool {
        let decides = matches!(
            record.body,
            Some(Body::Admitted(_) | Body::FirstUse(_) | Body::Minted(_) | Body::Exchanged(_) | Body::Renewed(_))
        );
        decides && record.at >= self.since
    }

    /// Takes the next record of the journal: it is decided again if it decides, and applied.
    pub fn take(&mut self, revision: u64, record: Record) -> Result<(), Fault> {
        self.until(&record)?;
        // A configuration is recorded when it differs from the previous one, whose record may have been dropped.
        if let Some(Body::Configured(_)) = &record.body {
            self.replayed.configured_otherwise |= self.replayed.decided > 0;
        }
        if self.decides(&record) {
            self.open.push((revision, record));
            return Ok(());
        }
        self.apply(revision, &record)
    }

    /// Decides the open decision again, unless a record belongs to it.
    pub(super) fn until(&mut self, record: &Record) -> Result<(), Fault> {
        if self.open.last().is_some_and(|(_, last)| again::continues(last, record)) { Ok(()) } else { self.settle() }
    }

    /// Decides the open decision again, and applies its records. To be called after the last record.
    pub fn settle(&mut self) -> Result<(), Fault> {
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        if self.state.authorities.active(AuthorityKind::X509).is_none() {
            self.state.authorities = Arc::clone(&self.authorities);
        }
        for told in again::decided(&self.state, &self.rules, &open) {
            let told = match &self.candidate {
                None => told,
                Some(candidate) => self.under(candidate, told, &open),
            };
            self.replayed.decided += 1;
            self.replayed.tokens += u64::from(told.action != "spawn");
            if told.then != told.now {
                let Told { action, revision, at, agent, class, then, now } = told;
                self.differs(Difference { action, revision, at, agent, class, then, now });
            }
        }
        open.iter().try_for_each(|(revision, record)| self.apply(*revision, record))
    }

    /// The same decision with the answer of the candidate set as `now`, and that of the policies of the time as `then`.
    fn under(&self, candidate: &Arc<Policies>, of: Told, open: &[(u64, Record)]) -> Told {
        let rules = Rules { policies: Some(Arc::clone(candidate)), ..self.rules.clone() };
        let found = again::decided(&self.state, &rules, open).into_iter().find(|told| told.revision == of.revision);
        let now = found.map_or_else(|| of.now.clone(), |told| told.now);
        Told { then: of.now.clone(), now, ..of }
    }

    /// Decides the denials again that may have been decided on this state, before a record of this time.
    pub(super) fn denied(&mut self, denials: &mut Denials, next_at: u64) {
        let candidate = self.candidate.as_ref().map(|set| Rules { policies: Some(Arc::clone(set)), ..self.rules.clone() });
        for difference in denials.on(&self.state, &self.rules, candidate.as_ref(), next_at) {
            self.replayed.decided += 1;
            self.replayed.denied += 1;
            if let Some(difference) = difference {
                self.differs(difference);
            }
        }
    }

    fn differs(&mut self, difference: Difference) {
        self.replayed.different += 1;
        if self.replayed.differences.len() < TOLD {
            self.replayed.differences.push(difference);
        }
    }

    fn apply(&mut self, revision: u64, record: &Record) -> Result<(), Fault> {
        self.state.apply(revision, record).map_err(|e| Fault::new("replay", e))
    }
}
