//! The rule is that of `discovery` in `tests/fuzzed/targets.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::begin;

fuzz_target!(init: begin("discovery"), |bytes: &[u8]| _ = mayfly_fuzz::take(bytes));
