//! Lanes: which groups go first when several wait for the writer.

use std::collections::VecDeque;
use std::sync::Arc;

use super::commit::Slot;
use super::{Fate, Group};
use crate::judge::Judgement;

/// The lane of an act, which is its priority: the writer takes all groups of an earlier lane before any of a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Revocations, ends and reopenings.
    Revocation,
    /// Changes of the authorities.
    Authority,
    /// Acts that make or prepare a credential.
    Issuance,
    /// Questions: what records nothing.
    Question,
}

impl Lane {
    /// Every lane, in order of precedence.
    pub const ALL: [Lane; 4] = [Lane::Revocation, Lane::Authority, Lane::Issuance, Lane::Question];
}

/// A group in another lane than its own.
pub struct InLane<G>(pub Lane, pub G);

impl<G: Group> Group for InLane<G> {
    fn count(&self) -> usize {
        self.1.count()
    }

    fn lane(&self) -> Lane {
        self.0
    }

    fn judge(&mut self, judgement: &mut Judgement<'_>) {
        self.1.judge(judgement);
    }

    fn settle(&mut self, fate: &Fate) {
        self.1.settle(fate);
    }
}

/// Groups that wait for the writer, each in its slot. Their number is bounded by the threads that commit.
#[derive(Default)]
pub(super) struct Waiting {
    lanes: [VecDeque<Arc<Slot>>; Lane::ALL.len()],
}

impl Waiting {
    pub(super) fn push(&mut self, slot: Arc<Slot>) {
        let at = Lane::ALL.iter().position(|lane| *lane == slot.lane);
        if let Some(lane) = at.and_then(|at| self.lanes.get_mut(at)) {
            lane.push_back(slot);
        }
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// The oldest group of the first lane in which one waits.
    pub(super) fn pop(&mut self) -> Option<Arc<Slot>> {
        self.lanes.iter_mut().find_map(VecDeque::pop_front)
    }
}
