//! One act in the ledger, until it becomes a recorded permit or a denial.

use std::ops::Deref;
use std::sync::Arc;

use super::{Durable, Fate, Group, stopping};
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Act, Chance, Check, Judgement};

/// A recorded permit. Only this can be signed, and only once, because signing consumes it.
#[derive(Debug)]
#[must_use = "a recorded permit is to be signed or answered"]
pub struct Recorded<P>(P);

impl<P> Recorded<P> {
    fn new(permit: P, _: &Durable) -> Recorded<P> {
        Recorded(permit)
    }

    /// The permit, for an answer. Nothing can be signed by it any more.
    pub fn spend(self) -> P {
        self.0
    }
}

impl<P> Deref for Recorded<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

impl<A, B> Recorded<(A, Option<B>)> {
    /// Two permits of one act, each of which can be signed once.
    pub fn split(self) -> (Recorded<A>, Option<Recorded<B>>) {
        let (first, second) = self.0;
        (Recorded(first), second.map(Recorded))
    }
}

/// One of two permits.
#[derive(Clone, Debug)]
pub enum Either<A, B> {
    /// The first kind.
    First(A),
    /// The second kind.
    Second(B),
}

impl<A, B> Recorded<Either<A, B>> {
    /// The permit by its kind. It can still be signed only once.
    pub fn either(self) -> Either<Recorded<A>, Recorded<B>> {
        match self.0 {
            Either::First(permit) => Either::First(Recorded(permit)),
            Either::Second(permit) => Either::Second(Recorded(permit)),
        }
    }
}

/// An act with its caller and its random bytes, until it is settled.
pub struct Pending<A: Act> {
    act: A,
    caller: Caller,
    chance: Chance,
    origin: Option<Arc<Origin>>,
    outcome: Outcome<A::Permit>,
}

enum Outcome<P> {
    Waiting,
    // Judged and allowed, but not durable yet.
    Allowed(P),
    Settled(Result<Recorded<P>, No>),
}

impl<A: Act> Pending<A> {
    /// An act of a caller.
    pub fn new(caller: Caller, act: A, chance: Chance) -> Pending<A> {
        Pending { act, caller, chance, origin: None, outcome: Outcome::Waiting }
    }

    /// The same, with the origin of its request.
    pub fn from(mut self, origin: Option<Arc<Origin>>) -> Pending<A> {
        self.origin = origin;
        self
    }

    /// The act.
    pub fn act(&self) -> &A {
        &self.act
    }

    /// The act, before it is judged.
    pub fn act_mut(&mut self) -> &mut A {
        &mut self.act
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Judges the act.
    pub(crate) fn judge(&mut self, judgement: &mut Judgement<'_>) {
        judgement.comes_from(self.origin.clone());
        let verdict = judgement.verdict(&self.act, &self.caller, &self.chance);
        self.outcome = match verdict.result {
            Ok(permit) => Outcome::Allowed(permit),
            Err(no) => {
                let failed: Option<&Check> = verdict.checks.last();
                tracing::debug!(checks = verdict.checks.len(), ?failed, %no, "denied");
                Outcome::Settled(Err(no))
            }
        };
    }

    /// Settles the act. An allowed act gets its recorded permit if the batch is durable, and an error if not. A denial stays.
    pub(crate) fn settle(&mut self, fate: &Fate) {
        self.outcome = match (std::mem::replace(&mut self.outcome, Outcome::Waiting), fate) {
            (settled @ Outcome::Settled(_), _) => settled,
            (Outcome::Allowed(permit), Fate::Durable(durable)) => Outcome::Settled(Ok(Recorded::new(permit, durable))),
            (Outcome::Waiting | Outcome::Allowed(_), fate) => Outcome::Settled(Err(refusal(fate))),
        };
    }

    /// The result of the act. An act that was never settled is a fault.
    pub fn take(&mut self) -> Result<Recorded<A::Permit>, No> {
        match std::mem::replace(&mut self.outcome, Outcome::Waiting) {
            Outcome::Settled(result) => result,
            Outcome::Waiting | Outcome::Allowed(_) => Err(Fault::new("commit", "the act was not settled").into()),
        }
    }
}

fn refusal(fate: &Fate) -> No {
    match fate {
        Fate::Full => {
            let message = "the journal has no room: an operator must free space, then ask again";
            Denial::new(Kind::Exhausted, "JOURNAL_FULL", message).into()
        }
        Fate::Stopped => stopping().into(),
        Fate::Failed(cause) => Fault::new("commit", cause).into(),
        Fate::Durable(_) => Fault::new("commit", "the act was not judged").into(),
    }
}

impl<A: Act> Group for Vec<Pending<A>> {
    fn count(&self) -> usize {
        self.len()
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        self.iter_mut().for_each(|pending| pending.judge(judgement));
    }

    fn settle(&mut self, fate: &Fate) {
        self.iter_mut().for_each(|pending| pending.settle(fate));
    }
}
