//! The most recent ticks, in order; bounded in number and in bytes.

use std::collections::VecDeque;

use prost::bytes::Bytes;
use uuid::Uuid;

/// Most ticks that are kept: 20 seconds of cuts in every tick, or a quarter of an hour without any.
const TICKS: usize = 1024;
/// Most bytes of messages that are kept, apart from the last tick.
const BYTES: usize = 8 << 20;

/// A revision of the journal, with the digest of the journal's chain there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) revision: u64,
    // `None` if the journal keeps no chain.
    pub(super) chain: Option<[u8; 32]>,
}

impl At {
    /// The later of two.
    pub(super) fn later(self, other: At) -> At {
        if other.revision > self.revision { other } else { self }
    }

    /// Whether two heads fit one journal. `true` also if one of them has no digest.
    fn agrees(self, other: At) -> bool {
        self.chain.zip(other.chain).is_none_or(|(a, b)| a == b)
    }
}

/// The position from which a subscriber continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resumes {
    /// After the tick of this number.
    After(u64),
    /// The ring has no tick at its head.
    Unknown,
    /// Its digest of the journal differs from ours.
    Fork,
}

struct Tick {
    messages: Vec<Bytes>,
    head: At,
    // The tick has a heartbeat and no cut.
    quiet: bool,
}

/// The most recent ticks. Ticks are numbered from 1 on, without a gap; the beginning of an epoch takes a number too.
#[derive(Default)]
pub(super) struct Ring {
    // Incarnation of the journal that the ticks belong to.
    incarnation: Uuid,
    ticks: VecDeque<Tick>,
    // Number of the last tick.
    last: u64,
    bytes: usize,
    as_of: u64,
}

impl Ring {
    /// Removes every tick, because none is of this incarnation. Earlier positions become invalid, so every subscriber gets a
    /// snapshot.
    pub(super) fn begin(&mut self, incarnation: Uuid) {
        self.incarnation = incarnation;
        self.ticks.clear();
        self.last += 1;
        self.bytes = 0;
    }

    /// Incarnation of the journal that the ticks belong to.
    pub(super) fn incarnation(&self) -> Uuid {
        self.incarnation
    }

    /// Adds a tick, whose last message has its heartbeat. Returns the number of the tick. `as_of` is in Unix microseconds.
    pub(super) fn push(&mut self, messages: Vec<Bytes>, head: At, as_of: u64, quiet: bool) -> u64 {
        self.bytes += size(&messages);
        self.ticks.push_back(Tick { messages, head, quiet });
        self.last += 1;
        self.as_of = as_of;
        while self.ticks.len() > 1 && (self.ticks.len() > TICKS || self.bytes > BYTES) {
            if let Some(gone) = self.ticks.pop_front() {
                self.bytes -= size(&gone.messages);
            }
        }
        self.last
    }

    /// Head of the last tick; revision 0 if there is none.
    pub(super) fn head(&self) -> At {
        self.ticks.back().map_or_else(At::default, |tick| tick.head)
    }

    /// Time of the last tick in Unix microseconds; 0 if there never was one.
    pub(super) fn as_of(&self) -> u64 {
        self.as_of
    }

    /// The last message, and the number of the last tick. The message is `None` if there is no tick.
    pub(super) fn last(&self) -> (Option<Bytes>, u64) {
        (self.ticks.back().and_then(|tick| tick.messages.last().cloned()), self.last)
    }

    /// The messages after tick `at`, and the number of the last tick. Returns `None` if some of those ticks have been dropped, or
    /// if `at` lies beyond the last tick.
    pub(super) fn after(&self, at: u64) -> Option<(Vec<Bytes>, u64)> {
        if !self.reaches(at) {
            return None;
        }
        let first = self.first();
        let skip = usize::try_from(at + 1 - first).ok()?;
        let mut messages = Vec::new();
        let mut quiet = false;
        for tick in self.ticks.iter().skip(skip) {
            // A heartbeat without cuts is superseded by the next tick.
            if quiet {
                messages.pop();
            }
            messages.extend(tick.messages.iter().cloned());
            quiet = tick.quiet;
        }
        Some((messages, self.last))
    }

    /// Whether every tick after `at` is still here, and `at` does not lie beyond the last one.
    pub(super) fn reaches(&self, at: u64) -> bool {
        at <= self.last && at + 1 >= self.first()
    }

    /// Number of the first tick that is here.
    fn first(&self) -> u64 {
        self.last + 1 - u64::try_from(self.ticks.len()).unwrap_or(0)
    }

    /// The position from which a subscriber continues whose last tick had this head.
    pub(super) fn after_head(&self, head: At) -> Resumes {
        match self.ticks.iter().rev().position(|tick| tick.head.revision == head.revision) {
            Some(back) if self.ticks.iter().rev().nth(back).is_some_and(|tick| !tick.head.agrees(head)) => Resumes::Fork,
            Some(back) => Resumes::After(self.last.saturating_sub(u64::try_from(back).unwrap_or(u64::MAX))),
            None => Resumes::Unknown,
        }
    }
}

fn size(messages: &[Bytes]) -> usize {
    messages.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(revision: u64) -> At {
        At { revision, chain: None }
    }

    fn of(text: &str) -> Vec<Bytes> {
        text.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    fn words(messages: &[Bytes]) -> String {
        messages.iter().map(|m| String::from_utf8(m.to_vec()).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn t75_whoever_goes_on_gets_each_cut_once_and_of_the_time_only_the_last_word() {
        let mut ring = Ring::default();
        ring.push(of("a"), at(3), 1, true);
        ring.push(of("b c"), at(7), 2, false);
        ring.push(of("d"), at(7), 3, true);
        ring.push(of("e"), at(9), 4, true);
        ring.push(of("f"), at(10), 5, false);
        let after = |tick| ring.after(tick).map(|(m, last)| (words(&m), last));
        assert_eq!(after(0), Some(("b c f".into(), 5)));
        assert_eq!(after(2), Some(("f".into(), 5)));
        assert_eq!(after(5), Some((String::new(), 5)));
        assert_eq!(after(6), None, "T75: a future that was never said");
        let resumed = [3, 7, 9, 10, 8, 11].map(|head| ring.after_head(at(head)));
        let [first, third, fourth, fifth] = [1, 3, 4, 5].map(Resumes::After);
        assert_eq!(resumed, [first, third, fourth, fifth, Resumes::Unknown, Resumes::Unknown]);
    }

    #[test]
    fn t75_who_stood_before_a_beginning_gets_everything() {
        let mut ring = Ring::default();
        let tick = ring.push(of("a"), at(3), 1, false);
        ring.begin(Uuid::from_u128(2));
        assert_eq!((ring.after(tick), ring.after_head(at(3)), ring.last()), (None, Resumes::Unknown, (None, tick + 1)));
        ring.push(of("b"), at(2), 2, false);
        assert_eq!((ring.after(tick), ring.after(tick + 1).map(|(m, _)| words(&m))), (None, Some("b".into())));
        assert_eq!(ring.bytes, 1);
    }

    #[test]
    fn t200_whoever_was_told_another_past_up_to_a_head_does_not_go_on_from_there() {
        let mut ring = Ring::default();
        let chained = |revision, byte| At { revision, chain: Some([byte; 32]) };
        ring.push(of("a"), chained(3, 1), 1, false);
        ring.push(of("b"), chained(4, 2), 2, false);
        assert_eq!([chained(3, 1), at(3), chained(4, 2)].map(|head| ring.after_head(head)), [1, 1, 2].map(Resumes::After));
        assert_eq!([chained(3, 2), chained(4, 1)].map(|head| ring.after_head(head)), [Resumes::Fork; 2]);
        assert_eq!(ring.after_head(chained(5, 3)), Resumes::Unknown, "later than this ring knows, as at a relay that is behind");
    }

    #[test]
    fn t66_the_ring_is_bounded_and_tells_who_is_too_late() {
        let mut ring = Ring::default();
        for n in 0..2000 {
            ring.push(of("x"), at(n), n, false);
        }
        assert_eq!(ring.ticks.len(), TICKS);
        assert!(ring.after(2000 - 1024).is_some() && ring.after(2000 - 1025).is_none());
        ring.push(vec![Bytes::from(vec![0; BYTES])], at(2000), 1, false);
        assert_eq!((ring.ticks.len(), ring.bytes), (1, BYTES));
    }
}
