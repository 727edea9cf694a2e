//! Approvals: the questions of agents to people, the answers, and the uses.

use mayfly_verify::{Subject, Target, User};
use serde_json::Value;
use uuid::Uuid;

use super::expiry::{Due, Happens};
use super::mandate::EVERYTHING;
use super::{Count, Misfit, Seat, State, fixed, seconds};
use crate::clock::SECOND;
use crate::journal::record;

/// How long an approval is kept when it can no longer be answered or used, in microseconds, so that a waiting agent can learn the
/// outcome.
const KNOWN: u64 = 600 * SECOND;

/// A question of an agent, with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its id.
    pub id: [u8; 16],
    /// The agent that asked.
    pub agent: Uuid,
    /// The user for whom the agent acts. `None` if it acts for nobody.
    pub user: Option<User>,
    /// Where the token will be accepted.
    pub audience: String,
    /// Sorted.
    pub scopes: Vec<String>,
    /// The actions: a JSON array in the form of RFC 8785, or empty.
    pub details: String,
    /// The types of the actions.
    pub types: Vec<String>,
    /// Why, as the agent says it.
    pub reason: String,
    /// SHA-256 of what a person is shown.
    pub digest: [u8; 32],
    /// Unix microseconds.
    pub asked_at: u64,
    /// Until when it can be answered or, once it was given, used. Unix microseconds.
    pub ends_at: u64,
    /// Number of tokens that it allows.
    pub uses: u32,
    /// Number of tokens that have used it.
    pub used: u32,
    /// For how many seconds it can be used once it was given.
    pub lasts: u64,
    /// The answer. `None` while nobody has answered.
    pub answer: Option<Answer>,
    /// Revision of its record.
    pub revision: u64,
    // Unix microseconds at which it is removed from the state.
    forgotten_at: u64,
    // Whether it is counted as waiting.
    waits: bool,
}

/// The answer of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether they approved.
    pub approved: bool,
    /// Who it was.
    pub by: User,
    /// SHA-256 of the token by which they proved themselves.
    pub evidence: [u8; 32],
    /// How they signed in (`acr`), where their provider asked them and said so.
    pub acr: Option<Box<str>>,
    /// Unix microseconds.
    pub at: u64,
    /// Revision of its record.
    pub revision: u64,
    /// The part that they approved. `None` means all that was asked for.
    pub narrowed: Option<Narrowed>,
}

/// Part of what an agent asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed {
    /// The actions: a JSON array in the form of RFC 8785, or empty.
    pub details: String,
    /// Sorted.
    pub scopes: Vec<String>,
}

/// How an approval stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody has answered.
    Pending,
    /// It was given, and can be used.
    Approved,
    /// It was denied.
    Denied,
    /// Nobody answered in time, or it was not used in time.
    Expired,
    /// All of its uses are used up.
    Used,
    /// The agent, its user, or the person who approved it was revoked, or the agent has ended.
    Revoked,
}

impl Approval {
    fn recorded(revision: u64, at: u64, a: &record::Asked) -> Result<Approval, Misfit> {
        let misfit = |what| Misfit { revision, what };
        let actions: Vec<Value> = match a.details.as_str() {
            "" => Vec::new(),
            text => serde_json::from_str(text).map_err(|_| misfit("actions"))?,
        };
        let types = actions.iter().filter_map(|action| action.get("type")?.as_str()).map(str::to_owned);
        Ok(Approval {
            id: fixed(&a.id).ok_or(misfit("approval"))?,
            agent: Uuid::from_slice(&a.agent).map_err(|_| misfit("agent"))?,
            user: a.user.as_ref().map(|user| User { iss: user.iss.clone(), sub: user.sub.clone() }),
            audience: a.audience.clone(),
            scopes: a.scopes.clone(),
            details: a.details.clone(),
            types: types.collect(),
            reason: a.reason.clone(),
            digest: fixed(&a.digest).ok_or(misfit("digest"))?,
            asked_at: at,
            ends_at: a.ends_at,
            uses: a.uses,
            used: 0,
            lasts: a.lasts,
            answer: None,
            revision,
            forgotten_at: a.ends_at.saturating_add(seconds(a.lasts)).saturating_add(KNOWN),
            waits: true,
        })
    }

    /// The actions and scopes that were approved: all that was asked for, or the part that the person left of it.
    pub fn granted(&self) -> (&str, &[String]) {
        match self.answer.as_ref().and_then(|answer| answer.narrowed.as_ref()) {
            Some(narrowed) => (&narrowed.details, &narrowed.scopes),
            None => (&self.details, &self.scopes),
        }
    }

    /// Its status at `at` (Unix microseconds), by its own records alone.
    pub fn status(&self, at: u64) -> Status {
        match &self.answer {
            Some(answer) if !answer.approved => Status::Denied,
            Some(_) if self.used >= self.uses => Status::Used,
            _ if at >= self.ends_at => Status::Expired,
            Some(_) => Status::Approved,
            None => Status::Pending,
        }
    }

    /// The counters that include it while it waits.
    fn seats(&self) -> impl Iterator<Item = Seat> + use<> {
        seats(self.agent, self.user.as_ref()).into_iter().flatten().map(|subject| Seat(Count::Waiting, subject))
    }
}

/// The subjects under which waiting questions of an agent are counted: the agent, its user if it has one, and all.
pub fn seats(agent: Uuid, user: Option<&User>) -> [Option<Subject>; 3] {
    // These subjects are used only inside the state, so they need no salt.
    [Some(Target::Agent(agent).unsalted()), user.map(|user| Target::User(user.clone()).unsalted()), Some(*EVERYTHING)]
}

impl State {
    /// An approval.
    pub fn approval(&self, id: &[u8; 16]) -> Option<&Approval> {
        self.approvals.get(id).map(Box::as_ref)
    }

    /// Every approval in the state.
    pub fn approvals(&self) -> impl Iterator<Item = &Approval> {
        self.approvals.values().map(Box::as_ref)
    }

    /// The waiting question with this digest, if there is one.
    pub(super) fn waiting(&self, digest: &[u8; 32]) -> Option<[u8; 16]> {
        self.questions.get(digest).copied()
    }

    pub(super) fn asked(&mut self, revision: u64, at: u64, a: &record::Asked) -> Result<(), Misfit> {
        let approval = Approval::recorded(revision, at, a)?;
        self.count(approval.seats(), 1);
        self.due(approval.ends_at, revision, Due::Waiting(approval.id));
        self.due(approval.forgotten_at, revision, Due::Approval(approval.id));
        self.questions.insert(approval.digest, approval.id);
        self.approvals.insert(approval.id, Box::new(approval));
        Ok(())
    }

    pub(super) fn answered(&mut self, revision: u64, at: u64, a: &record::Answered) -> Result<(), Misfit> {
        let misfit = |what| Misfit { revision, what };
        let id = fixed(&a.id).ok_or(misfit("approval"))?;
        let by = a.by.as_ref().ok_or(misfit("who answered"))?;
        let evidence = fixed(&a.evidence).ok_or(misfit("evidence"))?;
        self.no_longer_waits(&id);
        let Some(approval) = self.approvals.get_mut(&id) else {
            self.obsolete.push_back(revision);
            return Ok(());
        };
        let by = User { iss: by.iss.clone(), sub: by.sub.clone() };
        let narrowed = a.narrowed.as_ref().map(|n| Narrowed { details: n.details.clone(), scopes: n.scopes.clone() });
        let acr = Some(a.acr.as_str()).filter(|acr| !acr.is_empty()).map(Box::from);
        approval.answer = Some(Answer { approved: a.approved, by, evidence, acr, at, revision, narrowed });
        if a.approved {
            approval.ends_at = a.ends_at;
        }
        Ok(())
    }

    /// Counts the use of an approval by an access token. Returns the Unix microseconds until which the token's record must be kept,
    /// because a replay must count the use while the approval is in the state.
    pub(super) fn used_approval(&mut self, id: &[u8; 16]) -> u64 {
        let Some(approval) = self.approvals.get_mut(id) else { return 0 };
        approval.used = approval.used.saturating_add(1);
        approval.forgotten_at.saturating_add(SECOND)
    }

    /// No longer counts the question as waiting for an answer. A second call changes nothing.
    pub(super) fn no_longer_waits(&mut self, id: &[u8; 16]) {
        if let Some(approval) = self.approvals.get_mut(id).filter(|approval| approval.waits) {
            approval.waits = false;
            let (seats, digest) = (approval.seats(), approval.digest);
            self.count(seats, -1);
            if self.questions.get(&digest) == Some(id) {
                self.questions.remove(&digest);
            }
        }
    }

    /// Removes an approval. All of its rows are dropped together.
    pub(super) fn forget_approval(&mut self, id: &[u8; 16]) {
        self.no_longer_waits(id);
        if let Some(approval) = self.approvals.remove(id) {
            self.obsolete.push_back(approval.revision);
            self.obsolete.extend(approval.answer.map(|answer| answer.revision));
        }
    }

    /// The counters of questions that have expired by `now` (Unix microseconds) but are still counted, because there was no record
    /// since. If very many things are due, only the first are returned.
    pub(super) fn waited_out(&self, now: u64) -> Vec<Seat> {
        let due = self.due_by(now).take(super::AT_ONCE);
        let questions = due.filter_map(|what| if let Happens::Other(Due::Waiting(id)) = what { self.approval(id) } else { None });
        questions.filter(|approval| approval.waits).flat_map(Approval::seats).collect()
    }

    /// A copy of an approval for an overlay.
    pub(super) fn copy_of_approval(&self, id: &[u8]) -> Option<([u8; 16], Box<Approval>)> {
        let id = fixed(id)?;
        self.approvals.get(&id).map(|approval| (id, approval.clone()))
    }
}
