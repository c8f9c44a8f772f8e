//! Which packet numbers have been seen (the ring of words of RFC 6479).

/// How far behind the newest a packet may be: 8,192 full packets are 9 ms at 10 Gbit/s, more than reordering on one
/// path ever is.
const WINDOW: u64 = 8192;
/// Words of the ring; a power of two, so that finding one is cheap, and twice the window, so that the word being
/// filled never overlaps its tail.
const WORDS: usize = 2 * WINDOW as usize / 64;

/// The replay window of one session and direction.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// One more than the newest accepted number.
    next: u64,
    seen: [u64; WORDS],
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self { next: 0, seen: [0; WORDS] }
    }

    /// Whether `counter` is neither seen nor too old to tell. To be asked before the costly opening.
    pub(crate) fn is_fresh(&self, counter: u64) -> bool {
        counter >= self.next || (self.next - counter <= WINDOW && self.seen[word(counter)] & bit(counter) == 0)
    }

    /// Marks an authentic, fresh `counter` as seen: true if it is the newest so far.
    pub(crate) fn accept(&mut self, counter: u64) -> bool {
        let newest = counter >= self.next;
        if newest {
            let (first, last) = (self.next.div_ceil(64), counter / 64);
            let skipped = (last + 1).saturating_sub(first).min(WORDS as u64);
            for number in (last + 1 - skipped)..=last {
                self.seen[number as usize % WORDS] = 0;
            }
            self.next = counter.saturating_add(1);
        }
        self.seen[word(counter)] |= bit(counter);
        newest
    }
}

const fn word(counter: u64) -> usize {
    (counter / 64) as usize % WORDS
}

const fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn accepts_exactly_what_a_set_with_a_horizon_would(
            steps in prop::collection::vec((0_u8..4, 0_u64..20_000), 1..400),
            start in prop_oneof![Just(0_u64), Just((1 << 28) - 30_000)],
        ) {
            let (mut window, mut seen, mut next) = (Window::new(), BTreeSet::new(), 0_u64);
            for (kind, distance) in steps {
                let counter = match kind {
                    0 => start + distance,
                    1 => next + distance % 100,
                    2 => next.saturating_sub(distance),
                    _ => next.saturating_sub(8185 + distance % 16),
                };
                let fresh = !seen.contains(&counter) && (counter >= next || next - counter <= WINDOW);
                prop_assert_eq!(window.is_fresh(counter), fresh, "counter {} next {}", counter, next);
                if fresh {
                    prop_assert_eq!(window.accept(counter), counter >= next);
                    seen.insert(counter);
                    next = next.max(counter + 1);
                }
            }
        }
    }
}
