//! The most recent ticks, in order; bounded in number and in bytes.

use std::collections::VecDeque;

use prost::bytes::Bytes;
use uuid::Uuid;

/// Most ticks that are kept: 20 seconds of cuts in every tick, or a quarter of an hour without any.
const TICKS: usize = 1024;
/// Most bytes of messages that are kept, apart from the last tick.
const BYTES: usize = 8 << 20;

struct Tick {
    messages: Vec<Bytes>,
    head: u64,
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
    /// Removes every tick, because none is of this incarnation. No earlier position leads on, so every subscriber gets a
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
    pub(super) fn push(&mut self, messages: Vec<Bytes>, head: u64, as_of: u64, quiet: bool) -> u64 {
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

    /// Head of the last tick; 0 if there is none.
    pub(super) fn head(&self) -> u64 {
        self.ticks.back().map_or(0, |tick| tick.head)
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
        let first = self.last + 1 - u64::try_from(self.ticks.len()).unwrap_or(0);
        if at > self.last || at + 1 < first {
            return None;
        }
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

    /// Number of the last tick with this head, from which a subscriber that got it can resume. Returns `None` if there is none.
    pub(super) fn after_head(&self, head: u64) -> Option<u64> {
        let back = self.ticks.iter().rev().position(|tick| tick.head == head)?;
        Some(self.last - u64::try_from(back).ok()?)
    }
}

fn size(messages: &[Bytes]) -> usize {
    messages.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(text: &str) -> Vec<Bytes> {
        text.split_whitespace().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    fn words(messages: &[Bytes]) -> String {
        messages.iter().map(|m| String::from_utf8(m.to_vec()).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn t75_whoever_goes_on_gets_each_cut_once_and_of_the_time_only_the_last_word() {
        let mut ring = Ring::default();
        ring.push(of("a"), 3, 1, true);
        ring.push(of("b c"), 7, 2, false);
        ring.push(of("d"), 7, 3, true);
        ring.push(of("e"), 9, 4, true);
        ring.push(of("f"), 10, 5, false);
        let after = |at| ring.after(at).map(|(m, last)| (words(&m), last));
        assert_eq!(after(0), Some(("b c f".into(), 5)));
        assert_eq!(after(2), Some(("f".into(), 5)));
        assert_eq!(after(5), Some((String::new(), 5)));
        assert_eq!(after(6), None, "T75: a future that was never said");
        assert_eq!([3, 7, 9, 10, 8, 11].map(|head| ring.after_head(head)), [Some(1), Some(3), Some(4), Some(5), None, None]);
    }

    #[test]
    fn t75_who_stood_before_a_beginning_gets_everything() {
        let mut ring = Ring::default();
        let at = ring.push(of("a"), 3, 1, false);
        ring.begin(Uuid::from_u128(2));
        assert_eq!((ring.after(at), ring.after_head(3), ring.last()), (None, None, (None, at + 1)));
        ring.push(of("b"), 2, 2, false);
        assert_eq!((ring.after(at), ring.after(at + 1).map(|(m, _)| words(&m))), (None, Some("b".into())));
        assert_eq!(ring.bytes, 1);
    }

    #[test]
    fn t66_the_ring_is_bounded_and_tells_who_is_too_late() {
        let mut ring = Ring::default();
        for n in 0..2000 {
            ring.push(of("x"), n, n, false);
        }
        assert_eq!(ring.ticks.len(), TICKS);
        assert!(ring.after(2000 - 1024).is_some() && ring.after(2000 - 1025).is_none());
        ring.push(vec![Bytes::from(vec![0; BYTES])], 2000, 1, false);
        assert_eq!((ring.ticks.len(), ring.bytes), (1, BYTES));
    }
}
