//! Everything that reads bytes of others or of the disk, over what is kept of former findings and over deterministic mutations of it:
//! nothing panics, and each reader keeps its rule (T237). `.fuzz/run` goes on from here.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]

#[path = "fuzzed/targets.rs"]
#[expect(unreachable_pub, reason = "`.fuzz` uses them too")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use targets::{ALL, Target, kept};

/// Mutations of each target.
const ROUNDS: usize = 600;

/// Numbers without an end, and the same ones in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % below.max(1)
    }
}

/// What breaks readers: the ends of numbers, lengths that are not there, and characters with a meaning.
const PARTS: &[&[u8]] = &[
    &[0xff; 9],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
    &[0],
    &[0x7f, 0xff, 0xff, 0xff],
    b"18446744073709551615",
    b"-9223372036854775808",
    b"1e400",
    b"\"",
    b"{}",
    b"[",
    b"\\u0000",
    b".",
    b"\n",
];

fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], numbers: &mut Numbers) {
    for _ in 0..=numbers.next(4) {
        let at = numbers.next(bytes.len() + 1);
        let until = (at + numbers.next(16)).min(bytes.len());
        match numbers.next(8) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << (at % 8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = u8::try_from(until % 256).unwrap()),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..until)),
            4 => {
                let again = bytes[at..until].to_vec();
                drop(bytes.splice(at..at, again));
            }
            5 => {
                let other = &others[numbers.next(others.len())];
                bytes.truncate(at);
                bytes.extend(other.iter().skip(numbers.next(other.len() + 1)));
            }
            _ => drop(bytes.splice(at..until, PARTS[numbers.next(PARTS.len())].iter().copied())),
        }
    }
    bytes.truncate(16_384);
}

fn take(target: &Target, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.take)(bytes)))
        .unwrap_or_else(|_| panic!("{}: keep this in tests/fuzzed/corpus/{0}: {}", target.name, hex::encode(bytes)))
}

#[test]
fn t237_nothing_that_is_read_makes_a_reader_panic_or_break_its_rule() {
    for target in ALL {
        let mut seeds = (target.seeds)();
        seeds.extend(kept(target.name));
        // Whether what lies behind a signature or a check is reached at all.
        assert!(seeds.iter().filter(|seed| take(target, seed)).count() > 0, "{} accepts nothing", target.name);
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for round in 0..ROUNDS {
            let mut bytes = seeds[round % seeds.len()].clone();
            mutate(&mut bytes, &seeds, &mut numbers);
            take(target, &bytes);
        }
    }
}

/// What is accepted although it was mutated is mutated further.
#[test]
#[ignore = "long: a minute for each target; cargo test --release --test fuzzed -- --ignored --nocapture"]
fn t237_for_as_long_as_one_likes() {
    let seconds = std::env::var("SECONDS_OF_FUZZING").map_or(60, |s| s.parse().unwrap());
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    std::thread::scope(|scope| {
        for target in ALL {
            scope.spawn(move || {
                let mut pool = (target.seeds)();
                pool.extend(kept(target.name));
                let (seeds, started) = (pool.len(), std::time::Instant::now());
                let mut numbers = Numbers(u64::try_from(began.as_micros()).unwrap() | 1);
                let (mut executions, mut accepted) = (0u64, 0u64);
                while started.elapsed().as_secs() < seconds {
                    let mut bytes = pool[numbers.next(pool.len())].clone();
                    mutate(&mut bytes, &pool, &mut numbers);
                    executions += 1;
                    if take(target, &bytes) {
                        accepted += 1;
                        if pool.len() < 2000 {
                            pool.push(bytes);
                        } else {
                            let place = seeds + numbers.next(pool.len() - seeds);
                            pool[place] = bytes;
                        }
                    }
                }
                println!("{}: {executions} executions, {accepted} accepted", target.name);
            });
        }
    });
}
