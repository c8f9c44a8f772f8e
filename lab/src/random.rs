//! Random numbers that replay from a seed, for conditions of a link and for schedules of faults.

/// SplitMix64 (Steele, Lea, Flood 2014): plenty for chance, and the same everywhere for one seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if there is none.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number().checked_rem(limit).unwrap_or(0)
    }

    /// One of `choices`.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let place = self.below(choices.len() as u64);
        choices.get(usize::try_from(place).unwrap_or(0))
    }

    /// Whether something happens that does so in `percent` of all cases.
    pub fn happens(&mut self, percent: f64) -> bool {
        // The upper 53 bits are a whole number that a float holds exactly.
        let share = (self.number() >> 11) as f64 / (1_u64 << 53) as f64;
        share * 100.0 < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let numbers = |seed| (0..3).map(|_| 0).scan(Random::new(seed), |random, _: u64| Some(random.number()));
        assert!(numbers(7).eq(numbers(7)));
        assert!(numbers(7).ne(numbers(8)));
    }

    #[test]
    fn chance_keeps_to_its_share() {
        let mut random = Random::new(1);
        let happened = (0..10_000).filter(|_| random.happens(10.0)).count();
        assert!((900..1100).contains(&happened), "{happened}");
        assert!(!random.happens(0.0) && random.happens(100.0));
        assert_eq!(random.one_of::<u8>(&[]), None);
    }
}
