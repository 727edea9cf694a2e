//! What a live agent takes in memory, in bytes that the state asked the allocator for.
//!
//! One test in a file of its own: the allocator counts for the whole process.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::alloc::System;

use mayfly::clock::SECOND;
use mayfly::journal::record::{self, Record, record::Body};
use mayfly::state::{AT_ONCE, KEEP, State};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const AGENTS: u64 = 100_000;
/// Bytes for each of them at most.
const MOST: u64 = 220;
const START: u64 = 1_800_000_000;
const LIFE: u64 = 900;

#[test]
fn t261_an_agent_takes_few_bytes_and_gives_them_back() {
    let mut state = State::default();
    let opened = record::Opened { incarnation: vec![7; 16], trust_domain: "prod.example".into(), salt: vec![8; 32] };
    let put = |state: &mut State, at: u64, body: Body| {
        let record = Record { at, operator: String::new(), body: Some(body) };
        state.apply(state.revision + 1, &record).unwrap();
    };
    put(&mut state, START * SECOND, Body::Opened(opened));
    let empty = Region::new(ALLOCATOR);
    // 5,000 a second, in trees of a thousand. Their ids are in order as far as one millisecond says.
    for n in 0..AGENTS {
        let at = START * SECOND + n * 200;
        put(&mut state, at, Body::Admitted(admitted(n, at)));
    }
    let taken = bytes(&empty);
    println!("{} bytes for each agent", taken / AGENTS);
    assert_eq!(u64::try_from(state.agent_count()).unwrap(), AGENTS);
    assert!(taken >= AGENTS * 100, "{taken} bytes: what is counted is counted");
    assert!(taken <= AGENTS * MOST, "{} bytes for each agent", taken / AGENTS);
    // In every order they are found as they were before.
    let ids: Vec<Uuid> = state.agents_after(None).map(|agent| agent.uuid).collect();
    assert!(ids.is_sorted() && u64::try_from(ids.len()).unwrap() == AGENTS);
    assert!(ids.iter().all(|id| state.agent(id).is_some()));
    drop(ids);
    // An hour after their end all of them are forgotten, some with each record that comes.
    let late = (START + AGENTS / 5000 + LIFE + 1) * SECOND + KEEP;
    let passed = || Body::Passed(record::Passed {});
    for _ in 0..=2 * AGENTS / u64::try_from(AT_ONCE).unwrap() {
        let record = Record { at: late, operator: String::new(), body: Some(passed()) };
        state.apply_within(state.revision + 1, &record, None, &mut AT_ONCE.clone()).unwrap();
    }
    assert_eq!(state.agent_count(), 0);
    drop(state.take_obsolete());
    let left = bytes(&empty);
    assert!(left <= 2 * AGENTS, "{left} bytes are left of agents that are forgotten");
}

/// The bytes in use that were not in use before.
fn bytes(since: &Region<'_, System>) -> u64 {
    let change = since.change();
    u64::try_from(change.bytes_allocated.saturating_sub(change.bytes_deallocated)).unwrap()
}

fn admitted(n: u64, at: u64) -> record::Admitted {
    let uuid = id(n, at);
    let (top, seconds) = (n / 1000 * 1000, at / SECOND);
    record::Admitted {
        agent: uuid.as_bytes().to_vec(),
        class: if n == top { "researcher" } else { "worker" }.into(),
        workload: "orchestrator".into(),
        parent: if n == top { Vec::new() } else { id(top, START * SECOND + top * 200).as_bytes().to_vec() },
        key: mayfly_verify::sha256(&n.to_be_bytes()).to_vec(),
        scopes: vec!["files:read".into(), "search:read".into()],
        audiences: vec!["https://files.example".into()],
        depth_left: u32::from(n == top),
        lease_ends_at: seconds + LIFE,
        svid_ends_at: seconds + LIFE,
        svid_begins_at: seconds,
        serial: mixed(n).to_be_bytes().repeat(2),
        ..Default::default()
    }
}

fn id(n: u64, at: u64) -> Uuid {
    let [a, b, c, d, e, f, g, h] = mixed(n).to_be_bytes();
    uuid::Builder::from_unix_timestamp_millis(at / 1000, &[a, b, c, d, e, f, g, h, 0, 0]).into_uuid()
}

/// Numbers that look like chance, and are the same in each run (SplitMix64).
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
