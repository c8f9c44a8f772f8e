//! Keeps work that follows every change of the mesh to a small share of a core.
//!
//! What is computed from the whole mesh costs more in a larger one, which also changes more often. Each piece of such work is
//! paid for by a rest; a node that had little to do has rest in hand, so that a start, a failure or a few changes are acted
//! upon at once, and only a mesh that goes on changing has to wait. No clock is read here.

use std::time::{Duration, Instant};

/// Rest for each piece of work, as a multiple of what it took: a hundredth of a core is what it may use for long.
const REST: u32 = 99;

/// Rest that is in hand after a quiet time: a third of a second of work.
const IN_HAND: Duration = Duration::from_secs(30);

/// Nothing rests longer.
const LONGEST: Duration = Duration::from_secs(1);

/// When the next piece of work may begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moderation {
    paid: Instant,
}

impl Moderation {
    /// Of a process that begins, which has much to learn at once.
    #[must_use]
    pub(crate) fn new(now: Instant) -> Self {
        Self { paid: in_hand(now) }
    }

    /// A piece of work took this long.
    pub(crate) fn worked(&mut self, begun: Instant, ended: Instant) {
        let paid = self.paid.max(in_hand(ended)) + (ended - begun) * REST;
        self.paid = paid.min(ended + LONGEST);
    }

    /// The moment from which on the next piece may be done; one that is over if it may be done at once.
    #[must_use]
    pub(crate) const fn rests_until(&self) -> Instant {
        self.paid
    }
}

fn in_hand(now: Instant) -> Instant {
    now.checked_sub(IN_HAND).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Duration = Duration::from_millis(10);

    #[test]
    fn a_few_changes_are_acted_upon_at_once_and_many_share_a_hundredth_of_a_core() {
        let start = Instant::now();
        let (mut now, mut moderation) = (start, Moderation::new(start));
        let (mut pieces, mut at_once) = (0, 0);
        let end = now + Duration::from_secs(60);
        while now < end {
            at_once += u32::from(pieces == at_once && moderation.rests_until() <= now);
            now = now.max(moderation.rests_until()) + PIECE;
            moderation.worked(now - PIECE, now);
            pieces += 1;
        }
        assert!((28..36).contains(&at_once), "{at_once}");
        assert!((85..95).contains(&pieces), "{pieces} of 10 ms in a minute");
    }

    #[test]
    fn nothing_rests_for_long() {
        let now = Instant::now();
        let mut moderation = Moderation::new(now);
        moderation.worked(now, now + Duration::from_secs(3));
        assert_eq!(moderation.rests_until(), now + Duration::from_secs(3) + LONGEST);
    }
}
