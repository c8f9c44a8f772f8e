//! Which of the firewall's generations are ours. The kernel numbers its transactions, whoever makes them, and we learn no
//! more of ours than the numbers before and after.

use std::collections::VecDeque;

/// Transactions of ours whose notices may still come.
const MOST_OWN: usize = 64;

/// Our latest transactions.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Generations of which exactly one is ours, after the first and up to the second.
    own: VecDeque<(u32, u32)>,
    latest: Option<(u32, u32)>,
}

impl Transactions {
    /// A transaction was made between these generations.
    pub(super) fn note(&mut self, before: u32, after: u32) {
        self.own.push_back((before, after));
        if self.own.len() > MOST_OWN {
            self.own.pop_front();
        }
        self.latest = Some((before, after));
    }

    /// Whether a generation is the one of ours; it is so once.
    pub(super) fn take(&mut self, generation: u32) -> bool {
        let within = |(before, after): &(u32, u32)| {
            generation.wrapping_sub(*before).wrapping_sub(1) < after.wrapping_sub(*before)
        };
        let place = self.own.iter().position(within);
        place.and_then(|place| self.own.remove(place)).is_some()
    }

    /// Whether the firewall is as our latest transaction left it: nothing came between, and nothing after.
    pub(super) fn stands(&self, generation: u32) -> bool {
        self.latest.is_some_and(|(before, after)| after == generation && after.wrapping_sub(before) == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_ours_is_known_once_and_others_never() {
        let mut transactions = Transactions::default();
        transactions.note(4, 5);
        transactions.note(6, 8);
        assert!(!transactions.take(4) && transactions.take(5) && !transactions.take(5));
        assert!(
            !transactions.take(6) && transactions.take(7) && !transactions.take(8),
            "one of two is somebody else's"
        );
    }

    #[test]
    fn what_nobody_touched_since_stands() {
        let mut transactions = Transactions::default();
        assert!(!transactions.stands(0));
        transactions.note(u32::MAX, 0);
        assert!(transactions.stands(0) && !transactions.stands(1));
        transactions.note(1, 3);
        assert!(!transactions.stands(3), "somebody else's may have been the later one");
    }
}
