//! One act in the pipeline, with its type erased: acts of all kinds share a group.

use tokio::sync::{mpsc, oneshot};

use super::{Issue, Item};
use crate::authority::Seal;
use crate::caller::Caller;
use crate::denial::{Fault, No};
use crate::judge::{Act, Chance, Judgement, Rules, who};
use crate::ledger::{Fate, Pending};
use crate::state::State;

/// The steps of an act.
pub(super) trait Job: Send {
    fn prove(&mut self) {}
    /// Whether the act was denied before it was judged.
    fn is_denied(&self) -> bool {
        false
    }
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

/// An act that ends in signatures.
pub(super) struct Carried<A: Issue> {
    pending: Pending<A>,
    answer: Option<Result<A::Answer, No>>,
    reply: Reply<A::Answer>,
}

impl<A: Issue> Carried<A> {
    pub(super) fn new(caller: Caller, act: A, chance: Chance, reply: Reply<A::Answer>) -> Carried<A> {
        Carried { pending: Pending::new(caller, act, chance), answer: None, reply }
    }
}

impl<A: Issue> Job for Carried<A> {
    fn prove(&mut self) {
        if let Err(denial) = self.pending.act_mut().prove() {
            self.answer = Some(Err(denial.into()));
        }
    }

    fn is_denied(&self) -> bool {
        self.answer.is_some()
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        self.pending.judge(judgement);
    }

    fn settle(&mut self, fate: &Fate) {
        self.pending.settle(fate);
    }

    fn sign(&mut self, seal: &Seal) {
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
        match self.reply {
            Reply::One(reply) => drop(reply.send(answer)),
            // The channel has room for every answer of the batch.
            Reply::OneOf(index, reply) => drop(reply.try_send((index, answer))),
        }
    }
}

/// An act that signs nothing.
pub(super) struct Recording<A: Act> {
    pending: Pending<A>,
    reply: oneshot::Sender<Result<A::Permit, No>>,
}

impl<A: Act> Recording<A> {
    pub(super) fn new(caller: Caller, act: A, chance: Chance, reply: oneshot::Sender<Result<A::Permit, No>>) -> Recording<A> {
        Recording { pending: Pending::new(caller, act, chance), reply }
    }
}

impl<A: Act> Job for Recording<A> {
    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        self.pending.judge(judgement);
    }

    fn settle(&mut self, fate: &Fate) {
        self.pending.settle(fate);
    }

    fn release(mut self: Box<Self>) {
        let answer = self.pending.take().map(crate::ledger::Recorded::spend);
        drop(self.reply.send(answer));
    }
}
