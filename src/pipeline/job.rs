//! One act in the pipeline, with its type erased: acts of all kinds share a group.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::places::Place;
use super::{Issue, Item};
use crate::authority::Seal;
use crate::caller::{Caller, Origin};
use crate::denial::{Denial, Fault, Kind, No};
use crate::judge::{Act, Chance, Judgement, Rules, who};
use crate::ledger::{Fate, Pending};
use crate::state::State;

/// The steps of an act.
pub(super) trait Job: Send {
    /// Whether the client has hung up, or its deadline has passed.
    fn is_abandoned(&self) -> bool;
    fn prove(&mut self) {}
    /// Whether the act was denied before it was judged.
    fn is_denied(&self) -> bool {
        false
    }
    /// Judges the act, unless it is abandoned. From here on it is completed even if the client hangs up.
    fn judge(&mut self, judgement: &mut Judgement<'_>);
    fn settle(&mut self, fate: &Fate);
    fn sign(&mut self, _: &Seal) {}
    fn look_again(&mut self, _: &State, _: &Rules) {}
    /// Answers. A caller that has hung up changes nothing.
    fn release(self: Box<Self>);
}

/// Where an answer goes.
pub(super) enum Reply<T> {
    One(oneshot::Sender<Result<T, No>>),
    OneOf(usize, mpsc::Sender<Item<T>>),
}

impl<T> Reply<T> {
    fn is_closed(&self) -> bool {
        match self {
            Reply::One(reply) => reply.is_closed(),
            Reply::OneOf(_, reply) => reply.is_closed(),
        }
    }

    fn send(self, answer: Result<T, No>) {
        match self {
            Reply::One(reply) => drop(reply.send(answer)),
            // The channel has room for every answer of the batch.
            Reply::OneOf(index, reply) => drop(reply.try_send((index, answer))),
        }
    }
}

/// Whether an act is in a commit. This is decided once, when the act is first judged, because the content of a batch must not
/// change when the batch is judged again.
#[derive(Default)]
struct Taking(Option<bool>);

impl Taking {
    /// Whether the act was left out because its client had hung up.
    fn left<T>(&mut self, reply: &Reply<T>) -> bool {
        *self.0.get_or_insert_with(|| {
            let left = reply.is_closed();
            if left {
                count_abandoned();
            }
            left
        })
    }
}

/// Counts an act that was dropped before anything was done for it.
pub(super) fn count_abandoned() {
    metrics::counter!("mayfly_requests_abandoned_total").increment(1);
}

/// The result of an abandoned act, which is sent to nobody.
fn abandoned() -> No {
    Denial::new(Kind::Deadline, "DEADLINE", "nobody waits for the answer any more").into()
}

/// An act that ends in signatures.
pub(super) struct Carried<A: Issue> {
    pending: Pending<A>,
    answer: Option<Result<A::Answer, No>>,
    taking: Taking,
    reply: Reply<A::Answer>,
    // Given back once the act is answered.
    _place: Arc<Place>,
}

impl<A: Issue> Carried<A> {
    pub(super) fn new(caller: Caller, act: A, chance: Chance, reply: Reply<A::Answer>, place: Arc<Place>) -> Carried<A> {
        let pending = Pending::new(caller, act, chance).from(Origin::current());
        Carried { pending, answer: None, taking: Taking::default(), reply, _place: place }
    }
}

impl<A: Issue> Job for Carried<A> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn prove(&mut self) {
        if let Err(denial) = self.pending.act_mut().prove() {
            self.answer = Some(Err(denial.into()));
        }
    }

    fn is_denied(&self) -> bool {
        self.answer.is_some()
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        if self.taking.left(&self.reply) {
            self.answer = Some(Err(abandoned()));
        } else {
            self.pending.judge(judgement);
        }
    }

    fn settle(&mut self, fate: &Fate) {
        self.pending.settle(fate);
    }

    fn sign(&mut self, seal: &Seal) {
        if self.answer.is_some() {
            return;
        }
        let signed = self.pending.take().and_then(|permit| Ok(self.pending.act().sign(permit, seal)?));
        self.answer = Some(signed);
    }

    fn look_again(&mut self, state: &State, rules: &Rules) {
        if let Some(Ok(answer)) = &self.answer {
            let stands = who(state, rules, self.pending.caller(), state.at).and_then(|_| A::look_again(answer, state));
            if let Err(denial) = stands {
                self.answer = Some(Err(denial.into()));
            }
        }
    }

    fn release(self: Box<Self>) {
        let answer = self.answer.unwrap_or_else(|| Err(Fault::new("pipeline", "the act has no answer").into()));
        self.reply.send(answer);
    }
}

/// An act that signs nothing.
pub(super) struct Recording<A: Act> {
    pending: Pending<A>,
    taking: Taking,
    reply: Reply<A::Permit>,
    // Given back once the act is answered.
    _place: Place,
}

impl<A: Act> Recording<A> {
    pub(super) fn new(
        caller: Caller,
        act: A,
        chance: Chance,
        reply: oneshot::Sender<Result<A::Permit, No>>,
        place: Place,
    ) -> Recording<A> {
        Recording {
            pending: Pending::new(caller, act, chance).from(Origin::current()),
            taking: Taking::default(),
            reply: Reply::One(reply),
            _place: place,
        }
    }
}

impl<A: Act> Job for Recording<A> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        if !self.taking.left(&self.reply) {
            self.pending.judge(judgement);
        }
    }

    fn settle(&mut self, fate: &Fate) {
        self.pending.settle(fate);
    }

    fn release(mut self: Box<Self>) {
        if self.taking.left(&self.reply) {
            return;
        }
        let answer = self.pending.take().map(crate::ledger::Recorded::spend);
        self.reply.send(answer);
    }
}
