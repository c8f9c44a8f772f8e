//! Learns from a transport's counter that the other end of a link lives.
//!
//! One of both ends sends heartbeats, and all that the other one sends is the transport's acknowledgement of them: no
//! frame comes of it, but the transport counts what it could open. Whoever owns a link keeps one [`Hearing`] for it and
//! looks before each call of [`Gossip::handle_timeout`](crate::Gossip::handle_timeout).

use std::time::Instant;

/// What was counted on a link, and when.
#[derive(Debug, Clone, Copy)]
pub struct Hearing {
    counted: u64,
    looked: Instant,
}

impl Hearing {
    /// Begins with a link on which so much came.
    #[must_use]
    pub const fn new(now: Instant, counted: u64) -> Self {
        Self { counted, looked: now }
    }

    /// Takes the present count of what came and was authentic. Answers with the moment after which the latest of it
    /// came, which is the one before this: to have heard something later than it came would prolong the life of the dead.
    pub fn look(&mut self, now: Instant, counted: u64) -> Option<Instant> {
        let before = std::mem::replace(self, Self { counted, looked: now });
        (before.counted != counted).then_some(before.looked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_came_is_heard_no_later_than_it_came() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut hearing = Hearing::new(start, 7);
        assert_eq!(hearing.look(at(1), 7), None);
        assert_eq!(hearing.look(at(3), 8), Some(at(1)));
        assert_eq!(hearing.look(at(4), 8), None);
        assert_eq!(hearing.look(at(5), 9), Some(at(4)));
    }
}
