#![expect(clippy::unwrap_used, reason = "tests")]
use std::ops::ControlFlow;

use super::super::entry::{Draft, Kind, Outcome};
use super::super::read::Range;
use super::*;

const DAY: u64 = 86_400_000_000;

fn keep(days: u64, bytes: Option<u64>) -> Keep {
    Keep { time: days * DAY, bytes }
}

fn entries(store: &Store, count: u64, at: u64) -> Vec<(u64, Sealed)> {
    let first = store.next();
    let seal = |n| {
        let mut draft = Draft::new(Kind::Mint, at + n, Outcome::Recorded);
        draft.leaf.revision = 1000 + first + n;
        (at + n, Sealed::seal(draft, first + n, 1000 + first + n, [1; 32]).unwrap())
    };
    (0..count).map(seal).collect()
}

fn indices(store: &Store, range: Range) -> Vec<u64> {
    let mut found = Vec::new();
    let each = |index, sealed: &Sealed| {
        assert_eq!(sealed.open().unwrap().leaf.index, index);
        found.push(index);
        ControlFlow::Continue(())
    };
    store.reader().each(range, each).unwrap();
    found
}

#[test]
fn what_was_appended_is_there_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), keep(90, None)).unwrap();
    for round in 0..5 {
        let some = entries(&store, 100, 1 + round * DAY);
        store.append(&some).unwrap();
    }
    drop(store);
    let store = Store::open(dir.path(), keep(90, None)).unwrap();
    assert_eq!((store.next(), store.head(), store.minimum()), (500, 1499, 0));
    assert_eq!(indices(&store, Range::default()), (0..500).collect::<Vec<_>>());
    let late = indices(&store, Range { from: 0, since: 1 + 4 * DAY, until: u64::MAX });
    assert!(late.first().is_some_and(|first| (256..=400).contains(first)), "blocks of earlier days are skipped");
    assert_eq!(store.reader().one(77).unwrap().unwrap().head, 1077);
    assert_eq!(store.reader().one(500).unwrap(), None);
}

#[test]
fn t127_a_torn_line_is_cut_away_and_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), keep(90, None)).unwrap();
    let some = entries(&store, 10, 1);
    store.append(&some).unwrap();
    let path = store.last().path(dir.path());
    drop(store);
    let whole = fs::read(&path).unwrap();
    // Wherever the last write was cut off, the entries before it are there, and the next one gets its index.
    let last = whole.iter().rev().skip(1).position(|b| *b == b'\n').unwrap() + 1;
    for torn in (1..=last).step_by(17) {
        fs::write(&path, whole.get(..whole.len() - torn).unwrap()).unwrap();
        let mut store = Store::open(dir.path(), keep(90, None)).unwrap();
        assert_eq!((store.next(), store.head()), (9, 1008), "{torn}");
        let again = entries(&store, 1, 10);
        store.append(&again).unwrap();
        drop(store);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn t128_segments_are_dropped_whole_when_they_are_too_old_or_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), keep(16, None)).unwrap();
    for day in 0..40 {
        let some = entries(&store, 10, 1 + day * DAY);
        store.append(&some).unwrap();
        store.expire(1 + day * DAY, u64::MAX).unwrap();
    }
    let held = indices(&store, Range::default());
    assert_eq!(held.first(), Some(&store.minimum()));
    // Sixteen days are kept, and nothing much older than that.
    assert!((220..=240).contains(&store.minimum()), "{}", store.minimum());
    assert_eq!(held, (store.minimum()..400).collect::<Vec<_>>());
    // Segments are also dropped by size, and never if no checkpoint covers them.
    let size = store.bytes();
    store.keep.bytes = Some(size / 2);
    store.expire(1 + 40 * DAY, store.minimum()).unwrap();
    assert_eq!(store.bytes(), size);
    store.expire(1 + 40 * DAY, u64::MAX).unwrap();
    assert!(store.bytes() <= size / 2 && store.next() == 400);
    let reopened = Store::open(dir.path(), keep(16, None)).unwrap();
    assert_eq!((reopened.next(), reopened.head(), reopened.minimum()), (400, 1399, store.minimum()));
}

#[test]
fn a_missing_segment_is_noticed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), keep(16, None)).unwrap();
    for day in 0..5 {
        let some = entries(&store, 10, 1 + day * DAY);
        store.append(&some).unwrap();
    }
    drop(store);
    let firsts = list(dir.path()).unwrap();
    assert!(firsts.len() > 3, "{firsts:?}");
    fs::remove_file(Segment { first: *firsts.get(1).unwrap(), ..Segment::default() }.path(dir.path())).unwrap();
    let refused = Store::open(dir.path(), keep(16, None)).map(drop).unwrap_err();
    assert!(refused.contains("are missing"), "{refused}");
}
