//! The rule is that of `watermark` in `tests/fuzzed/targets.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::begin;

fuzz_target!(init: begin("watermark"), |bytes: &[u8]| _ = mayfly_fuzz::take(bytes));
