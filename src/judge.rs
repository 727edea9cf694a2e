//! Room 2: judge. Every permit and every denial is decided here, from the state, the act, the time and the randomness.
//!
//! Judging is pure. It reads an overlay (a state with the records of the batch so far over it) and the configured rules; the time
//! and all randomness come in with the act. Nothing is logged, drawn or made durable, so an act that is judged again on the same
//! state gets the same verdict. Messages for the operator are returned as [`Note`]s.

pub mod access;
pub mod action;
pub mod approval;
pub mod assignment;
pub mod audience;
mod authorize;
pub mod bound;
pub mod budget;
mod chance;
mod cut;
mod dn;
pub mod exchange;
mod first_use;
mod generation;
mod grant;
pub mod id_jag;
pub mod keyless;
pub mod limits;
mod ownership;
pub mod pace;
mod permit;
mod places;
pub mod policy;
pub mod profile;
pub mod release;
mod rules;
pub mod template;
mod uses;
mod verdict;
mod who;

use std::cell::RefCell;
use std::sync::Arc;

use crate::caller::{Caller, Origin};
use crate::clock::SECOND;
use crate::denial::{Fault, No};
use crate::journal::record::{Record, record::Body};
use crate::state::{Agent, Overlay, State};
pub use authorize::{Proposed, Use};
pub use chance::Chance;
pub(crate) use chance::serial_of;
pub use cut::{Cutting, Since};
pub use dn::{DistinguishedName, Encoding, SubjectTemplate};
pub use exchange::{Access, Presented};
pub use grant::{Consent, Proof, check_issuer_open, check_token};
pub(crate) use ownership::unknown_agent;
pub use ownership::{may_revoke, owns, sees};
pub use permit::{Admission, Certification, Mint, RequestId};
pub(crate) use permit::{BACKDATE, request_record};
pub use places::{Place, Places, Section, Source};
pub use rules::{Ceiling, Rules};
pub use uses::Usage;
pub use verdict::{Check, Defined, Note, Verdict};
pub use who::{audits, operates, who};

/// One kind of request to the issuer. Each act's own file implements it.
pub trait Act: Send + 'static {
    /// The permit of a verdict that allows the act. Nothing can be signed with it before the ledger has recorded it.
    type Permit: Send + 'static;

    /// Judges the act. It adds its records to the batch last, when nothing can be denied any more, so that a denial leaves no
    /// record.
    fn judge(&self, judgement: &mut Judgement<'_>, caller: &Caller, chance: &Chance) -> Result<Self::Permit, No>;

    /// Whether the caller asks for its own certificate to be renewed, by this act or by the next one.
    fn renews(&self) -> bool {
        false
    }
}

/// A record that joins the batch, with the agent that it makes if it is an admission.
pub struct Entry {
    /// The record.
    pub record: Record,
    /// The agent of an admission.
    pub agent: Option<Box<Agent>>,
    /// Which act of the batch it belongs to, counted from 1. 0 if that is not known.
    pub act: u32,
    /// Where the act's request came from. `None` for an act of the issuer itself.
    pub origin: Option<Arc<Origin>>,
}

/// A batch that is being judged.
pub struct Judgement<'a> {
    overlay: Overlay<'a>,
    rules: &'a Rules,
    at: u64,
    entries: Vec<Entry>,
    notes: RefCell<Vec<Note>>,
    // The checks of the act that is judged now, in order.
    checks: RefCell<Vec<Check>>,
    // The number of the act that is judged now, and the origin of its request. Only the history uses them.
    act: u32,
    origin: Option<Arc<Origin>>,
}

impl<'a> Judgement<'a> {
    /// An empty batch on a state. `now` is in Unix microseconds; record time never goes back.
    pub fn new(state: &'a State, rules: &'a Rules, now: u64) -> Judgement<'a> {
        let at = now.max(state.at);
        let overlay = Overlay::new(state, at);
        Judgement {
            overlay,
            rules,
            at,
            entries: Vec::new(),
            notes: RefCell::default(),
            checks: RefCell::default(),
            act: 0,
            origin: None,
        }
    }

    /// Sets the origin of the request of the next act. The verdict does not depend on it.
    pub fn comes_from(&mut self, origin: Option<Arc<Origin>>) {
        self.origin = origin;
    }

    /// Judges one act of a caller.
    pub fn verdict<A: Act>(&mut self, act: &A, caller: &Caller, chance: &Chance) -> Verdict<A::Permit> {
        self.checks.get_mut().clear();
        self.act += 1;
        let result = self.caller(caller, act.renews()).and_then(|()| act.judge(self, caller, chance));
        Verdict { checks: std::mem::take(self.checks.get_mut()), result }
    }

    /// Judges an act in the name of a caller about whom somebody else asks. The caller's credential is not checked, because there
    /// is none. For questions only.
    pub fn verdict_about<A: Act>(&mut self, act: &A, caller: &Caller, chance: &Chance) -> Verdict<A::Permit> {
        self.checks.get_mut().clear();
        self.checking(Check::Caller);
        let result = act.judge(self, caller, chance);
        Verdict { checks: std::mem::take(self.checks.get_mut()), result }
    }

    /// The records of the batch and the notes about it.
    pub fn finish(self) -> (Vec<Entry>, Vec<Note>) {
        (self.entries, self.notes.into_inner())
    }

    /// The state with the records of the batch so far.
    pub fn view(&self) -> &Overlay<'a> {
        &self.overlay
    }

    /// The same view, mutable because a lookup may fill the cache of mandates.
    pub fn view_mut(&mut self) -> &mut Overlay<'a> {
        &mut self.overlay
    }

    /// The configured rules.
    pub fn rules(&self) -> &'a Rules {
        self.rules
    }

    /// Record time, in Unix microseconds.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Record time, in Unix seconds.
    pub fn now(&self) -> u64 {
        self.at / SECOND
    }

    /// Notes which check comes next. If the act is denied before another one follows, this check failed.
    pub fn checking(&self, check: Check) {
        self.checks.borrow_mut().push(check);
    }

    /// Leaves a note for the operator.
    pub fn note(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    /// Adds a record to the batch. Returns its revision.
    pub fn push(&mut self, caller: &Caller, body: Body) -> Result<u64, No> {
        self.push_with(caller, body, None)
    }

    /// Adds a record to the batch. Returns its revision. `agent` is the agent of an admission.
    pub fn push_with(&mut self, caller: &Caller, body: Body, agent: Option<Agent>) -> Result<u64, No> {
        let operator = if let Caller::Operator { name, .. } = caller { name.clone() } else { String::new() };
        let record = Record { at: self.at, operator, body: Some(body) };
        let agent = agent.map(Box::new);
        let revision = self.overlay.push(&record, agent.clone()).map_err(|e| Fault::new("judge", e))?;
        self.entries.push(Entry { record, agent, act: self.act, origin: self.origin.clone() });
        Ok(revision)
    }
}
