//! Meters: the state of a rate or a total between two spawns.

/// Longest window of a total, and longest time until a whole burst is free again, in microseconds. The journal keeps admissions for
/// at least that long.
pub const WINDOW: u64 = 3_600_000_000;

/// The state of one meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of a rate: the theoretical arrival time. Of a total: how many spawns fell into the window that ends at `until`.
    pub value: u64,
    /// Unix microseconds. From this time on the reading is void.
    pub until: u64,
}

impl super::State {
    /// The reading of a meter.
    pub fn meter(&self, meter: &[u8; 16]) -> Option<Reading> {
        self.meters.get(meter).copied()
    }
}

// INVARIANT: the admissions that a reading was computed from are in the journal for as long as the reading matters.
const _: () = assert!(super::KEEP >= WINDOW, "admissions are kept as long as any window");
