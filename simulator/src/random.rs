//! Reproducible randomness and how much of it to spend.

use std::time::SystemTime;

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// An index into something of `length` elements.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length.max(1) as u64)).unwrap_or_default()
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// Whether something happens that does so `parts` times in 10,000.
    pub const fn chance(&mut self, parts: u32) -> bool {
        parts > 0 && self.below(10_000) < parts as u64
    }

    /// Thirty-two bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.draw().to_le_bytes()));
        bytes
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// `MESHWORK_SEED`, or a fresh one; printed, so that a failure can be run again.
#[must_use]
pub fn seed() -> u64 {
    let fresh = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let seed = number("MESHWORK_SEED").unwrap_or_else(fresh);
    println!("MESHWORK_SEED={seed}");
    seed
}

/// What `make test-long` sets `MESHWORK_SCHEDULES` to.
const FULL: u64 = 2000;

/// As much of the full count as `MESHWORK_SCHEDULES` is of 2,000, or a tenth of it.
#[must_use]
pub fn schedules(full: u64) -> u64 {
    number("MESHWORK_SCHEDULES").unwrap_or(FULL / 10).saturating_mul(full).div_ceil(FULL)
}
