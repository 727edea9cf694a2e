//! What a check costs, beside the least it could: one look-up in a hash map of the same size, in the same run.
//!
//! `cargo bench -p mayfly-verify` prints nanoseconds: the median of several runs, at several numbers of cuts.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

#[path = "../tests/feed/agent.rs"]
mod agent;
#[path = "../tests/feed/issuer.rs"]
#[expect(dead_code, reason = "a measurement needs little of it")]
mod issuer;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use agent::{UUID, agent};
use issuer::{Issuer, START, subject, td};
use mayfly_verify::feed::Limits;
use mayfly_verify::{Freshness, Live, Subject, Target};

const RUNS: usize = 15;
const PER_RUN: u32 = 100_000;

fn main() {
    let (svid, now) = (agent(), Duration::from_secs(START));
    let stamps = svid.binding.as_ref().map_or(0, |b| b.stamps.len());
    println!("a check of an agent with {stamps} stamps; ns, median of {RUNS} runs of {PER_RUN}");
    println!("{:>9} {:>7} {:>7} {:>15} {:>7}", "cuts", "yes", "no", "hash-map floor", "yes/floor");
    for cuts in [0, 10_000, 1_000_000] {
        let mut issuer = Issuer::new();
        (0..cuts).for_each(|n| issuer.cut(subject(n), u64::MAX, START + 1000));
        let live = Live::new(td(), Freshness::default());
        let mut follower = issuer.follower(Limits::default());
        live.publish(follower.take(issuer.snapshot()).unwrap().unwrap());
        assert!(live.check(now, &svid).is_ok());
        let yes = median(|| live.check(now, black_box(&svid)).is_ok());
        let map: HashMap<Subject, u64> = issuer.model.iter().map(|(subject, (before, _))| (*subject, *before)).collect();
        // Another one each time, as the stamps of a credential are.
        let mut wanted = (0..1024).map(|n| subject(cuts + n)).collect::<Vec<_>>().into_iter().cycle();
        let floor = median(|| !map.contains_key(black_box(&wanted.next().unwrap())));
        issuer.cut(Target::Agent(UUID.parse().unwrap()).unsalted(), u64::MAX, START + 1000);
        live.publish(follower.take(issuer.snapshot()).unwrap().unwrap());
        let no = median(|| live.check(now, black_box(&svid)).is_err());
        println!("{cuts:>9} {yes:>7.1} {no:>7.1} {floor:>15.1} {:>7.1}", yes / floor);
    }
}

fn median(mut once: impl FnMut() -> bool) -> f64 {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let all = (0..PER_RUN).all(|_| black_box(once()));
            assert!(all);
            started.elapsed().as_secs_f64() * 1e9 / f64::from(PER_RUN)
        })
        .collect();
    runs.sort_unstable_by(f64::total_cmp);
    runs.get(RUNS / 2).copied().unwrap_or_default()
}
