//! A line of renewals of a workload: the certificate that was issued for a ticket or a platform's token, and those that it was
//! renewed to. Each process that holds an identity of the workload has a line of its own.

use mayfly_verify::WorkloadName;

use super::{Generation, KEEP, State, seconds};

/// The certificates of a line that are still in the state, in the order of their records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    links: Vec<Link>,
}

/// A certificate of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    serial: [u8; 16],
    /// Revision of its record.
    revision: u64,
    /// Unix seconds at which it and all before it have expired.
    ends_at: u64,
    /// Revision of the record of its first use; 0 if it was not used. The first certificate of a line counts as used.
    used: u64,
    /// Unix microseconds of that record.
    used_at: u64,
}

/// A key that is certified for a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkloadKey {
    pub(super) name: WorkloadName,
    /// Unix seconds at which the last of its certificates expires.
    pub(super) ends_at: u64,
    /// Serial numbers of its certificates.
    pub(super) serials: Vec<[u8; 16]>,
    /// The line that its last certificate belongs to.
    pub(super) line: u64,
}

impl Line {
    /// The generation of the certificate with this serial number. An unknown one counts as replaced, and may do nothing.
    pub fn generation(&self, serial: &[u8]) -> Generation {
        let Some(link) = self.links.iter().find(|link| link.serial == serial) else { return Generation::Replaced };
        match self.links.iter().rfind(|link| link.used > 0) {
            Some(current) if current.revision == link.revision => Generation::Current,
            // This holds even if it was never used: two holders have renewed the same certificate, and the other one has used its
            // renewal.
            Some(current) if link.revision < current.revision => Generation::Past,
            _ if self.links.last().is_some_and(|last| last.revision == link.revision) => Generation::Next,
            _ => Generation::Replaced,
        }
    }

    /// The record at which the certificate with this serial number was replaced: its revision, and its time in Unix microseconds.
    /// `None` if it was not replaced.
    pub fn replaced_at(&self, serial: &[u8]) -> Option<(u64, u64)> {
        let mut after = self.links.iter().skip_while(|link| link.serial != serial).skip(1);
        after.find(|link| link.used > 0).map(|link| (link.used, link.used_at))
    }

    /// Serial number of the current certificate. `None` if it is no longer in the state and none was used since.
    pub fn current(&self) -> Option<&[u8; 16]> {
        self.links.iter().rfind(|link| link.used > 0).map(|link| &link.serial)
    }

    /// Number of renewed certificates after the current one that were not used.
    pub fn unused(&self) -> usize {
        self.links.iter().rev().take_while(|link| link.used == 0).count()
    }
}

impl State {
    /// The line that a workload's key belongs to, with the revision that names it.
    pub fn line(&self, key: &[u8; 32]) -> Option<(u64, &Line)> {
        let number = self.workload_keys.get(key)?.line;
        Some((number, self.lines.get(&number)?))
    }

    /// Adds a certificate to a line, which begins with it if `number` is its revision. Returns the Unix seconds at which it and all
    /// before it have expired. It is kept until then, so that no earlier one becomes the current one again.
    pub(super) fn linked(&mut self, number: u64, serial: [u8; 16], ends_at: u64, (revision, at): (u64, u64)) -> u64 {
        let line = self.lines.entry(number).or_default();
        let ends_at = line.links.last().map_or(0, |last| last.ends_at).max(ends_at);
        let (used, used_at) = if number == revision { (revision, at) } else { (0, 0) };
        line.links.push(Link { serial, revision, ends_at, used, used_at });
        ends_at
    }

    /// Notes the first use of a renewed certificate. Returns `false` if it is no longer in the state.
    pub(super) fn link_used(&mut self, number: u64, serial: &[u8], (revision, at): (u64, u64)) -> bool {
        let line = self.lines.get_mut(&number);
        let link = line.and_then(|line| line.links.iter_mut().find(|link| link.serial == serial && link.used == 0));
        link.map(|link| (link.used, link.used_at) = (revision, at)).is_some()
    }

    /// Removes the certificate that the record at `revision` made. Returns the row of its first use, if there is one.
    pub(super) fn unlinked(&mut self, number: u64, revision: u64) -> Option<u64> {
        let line = self.lines.get_mut(&number)?;
        let place = line.links.iter().position(|link| link.revision == revision)?;
        let link = line.links.remove(place);
        if line.links.is_empty() {
            self.lines.remove(&number);
        }
        Some(link.used).filter(|used| *used > 0 && *used != revision)
    }

    /// Unix microseconds at which a certificate of a line is removed from the state.
    pub(super) fn unlinked_at(ends_at: u64) -> u64 {
        seconds(ends_at).saturating_add(KEEP)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn t226_a_certificate_is_past_once_a_later_one_was_used_whatever_is_forgotten_first() {
        let (mut state, [a, b, c]) = (State::default(), [[1; 16], [2; 16], [3; 16]]);
        // The second ends before the first, because certificates became shorter in between.
        let ends = state.linked(10, a, 1000, (10, 1));
        assert_eq!(state.linked(10, b, 500, (11, 2)), ends, "it is known for as long as the one before it is");
        let of = |state: &State, serial: [u8; 16]| state.lines.get(&10).unwrap().generation(&serial);
        assert_eq!((of(&state, a), of(&state, b)), (Generation::Current, Generation::Next));
        state.linked(10, c, 1500, (12, 3));
        assert_eq!([a, b, c].map(|s| of(&state, s)), [Generation::Current, Generation::Replaced, Generation::Next]);
        assert!(state.link_used(10, &c, (13, 4)) && !state.link_used(10, &c, (14, 5)), "once");
        assert_eq!([a, b, c].map(|s| of(&state, s)), [Generation::Past, Generation::Past, Generation::Current]);
        let line = state.lines.get(&10).unwrap();
        assert_eq!((line.replaced_at(&a), line.replaced_at(&c), line.unused()), (Some((13, 4)), None, 0));
        assert_eq!(of(&state, [9; 16]), Generation::Replaced, "one that nobody knows");
        assert_eq!((state.unlinked(10, 10), state.unlinked(10, 11), state.unlinked(10, 12)), (None, None, Some(13)));
        assert!(state.lines.is_empty());
    }
}
