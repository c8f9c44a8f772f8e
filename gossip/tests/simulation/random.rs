//! Reproducible randomness and how much of it to spend.

use std::time::SystemTime;

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// `MESHWORK_SEED`, or a fresh one; printed, so that a failure can be run again.
pub(crate) fn seed() -> u64 {
    let fresh = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64);
    let seed = number("MESHWORK_SEED").unwrap_or_else(fresh);
    println!("MESHWORK_SEED={seed}");
    seed
}

/// `MESHWORK_SCHEDULES`, or a tenth of the full count.
pub(crate) fn schedules(full: u64) -> u64 {
    number("MESHWORK_SCHEDULES").unwrap_or(full / 10)
}
