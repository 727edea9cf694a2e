//! What `Live::check` says of itself: but for the first on a thread, a check allocates nothing, however many cuts are known.
//!
//! One test in a file of its own: the allocator counts for the whole process.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "feed/agent.rs"]
mod agent;
#[path = "feed/issuer.rs"]
#[expect(dead_code, reason = "each test file uses what it needs")]
mod issuer;

use std::alloc::System;
use std::time::Duration;

use agent::{UUID, agent};
use issuer::{Issuer, START, subject, td};
use mayfly_verify::feed::Limits;
use mayfly_verify::{Freshness, Live, Reject, Target};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CHECKS: usize = 100;

#[test]
fn a_check_allocates_nothing_however_many_cuts_are_known() {
    let svid = agent();
    let now = Duration::from_secs(START);
    for cuts in [0, 1_000, 100_000] {
        let mut issuer = Issuer::new();
        (0..cuts).for_each(|n| issuer.cut(subject(n), u64::MAX, START + 1000));
        let live = Live::new(td(), Freshness::default());
        let mut follower = issuer.follower(Limits::default());
        let mut publish = |issuer: &Issuer| live.publish(follower.take(issuer.snapshot()).unwrap().unwrap());
        publish(&issuer);
        assert_eq!(live.known().unwrap().cuts.len() as u64, cuts);
        assert_eq!(allocations(|| live.check(now, &svid)), (Ok(()), 0), "{cuts} cuts");
        // A no costs no more than a yes.
        issuer.cut(Target::Agent(UUID.parse().unwrap()).unsalted(), u64::MAX, START + 1000);
        publish(&issuer);
        assert_eq!(allocations(|| live.check(now, &svid)), (Err(Reject::Cut), 0), "{cuts} cuts and its own");
    }
    let counts = Region::new(ALLOCATOR);
    drop(std::hint::black_box(vec![1u8]));
    assert_eq!(counts.change().allocations, 1, "what is counted is counted");
}

/// The answer, the same each time, and how often memory was asked for.
fn allocations(check: impl Fn() -> Result<(), Reject>) -> (Result<(), Reject>, usize) {
    // The first on a thread may.
    let first = check();
    let counts = Region::new(ALLOCATOR);
    let same = (0..CHECKS).all(|_| check() == first);
    let counted = counts.change();
    assert!(same);
    (first, counted.allocations + counted.reallocations)
}
