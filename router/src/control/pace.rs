//! How fast one link may give this node work.
//!
//! A few hundred bytes of gossip can ask for a signature to be checked, and the actor serves all links. So each link has
//! an allowance of bytes that refills slowly: whoever sends more waits at its own end, because what is not read fills the
//! window that QUIC gives its sender.

use std::time::{Duration, Instant};

/// What may come at once: a node that joins thousands is told of all of them over a few links.
const BURST: f64 = 4.0 * 1024.0 * 1024.0;

/// What may come every second for long: a hundred times what a large mesh sends over a link when much changes, and less
/// than a tenth of a core even if every part of it is forged.
const BYTES_PER_SECOND: f64 = 256.0 * 1024.0;

/// What a frame costs besides its bytes.
const FRAME: usize = 64;

/// The allowance of one link.
#[derive(Debug)]
pub(super) struct Pace {
    left: f64,
    counted: Instant,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: BURST, counted: now }
    }

    /// A frame of so many bytes came. Answers for how long nothing more is read.
    pub(super) fn charge(&mut self, now: Instant, bytes: usize) -> Duration {
        let grown = now.saturating_duration_since(self.counted).as_secs_f64() * BYTES_PER_SECOND;
        self.counted = self.counted.max(now);
        self.left = (self.left + grown).min(BURST) - (bytes + FRAME) as f64;
        Duration::from_secs_f64((-self.left).max(0.0) / BYTES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_a_flood_at_its_rate() {
        let start = Instant::now();
        let (mut now, mut pace, mut taken) = (start, Pace::new(start), 0usize);
        let mut at_once = 0;
        while now < start + Duration::from_secs(60) {
            let wait = pace.charge(now, 1000);
            at_once += usize::from(wait.is_zero() && now == start);
            taken += 1064;
            now += wait;
        }
        assert!((3900..4000).contains(&at_once), "{at_once}");
        let most = (BURST + 60.0 * BYTES_PER_SECOND) as usize + 2000;
        assert!((most - 4000..=most).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_not_used_is_there_again_but_no_more_than_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.charge(start, BURST as usize).is_zero());
        let later = start + Duration::from_secs(3600);
        assert!(pace.charge(later, BURST as usize - FRAME).is_zero());
        assert!(!pace.charge(later, 1).is_zero());
    }
}
