//! Whatever a feed says, what is known changes by a signed heartbeat alone, is what that counts, and never goes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly_fuzz::{Line, feeds, seed};

fuzz_target!(
    init: {
        // Whether what is signed is reached at all.
        let heads: Vec<_> = feeds().iter().map(|feed| take(feed)).collect();
        assert_eq!(heads, [Some(0), Some(2), Some(2), Some(2), None, None, None, None]);
        seed("feed", feeds());
    },
    |bytes: &[u8]| {
        take(bytes);
    }
);

/// The head in the end.
fn take(bytes: &[u8]) -> Option<u64> {
    let (mut line, mut rest) = (Line::default(), bytes);
    while let [signed, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (message, after) = more.split_at(length);
        if !line.take(message, signed & 1 == 1) {
            line.reconnect();
        }
        rest = after;
    }
    line.head()
}
