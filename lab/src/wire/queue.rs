//! Frames on their way in one direction: when each is due, and which are turned round or doubled. No clock, no device.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use crate::link::Link;
use crate::random::Random;

/// How much longer a frame takes that is to be overtaken: longer than what TCP holds for reordering at such round trips,
/// shorter than what it waits for a retransmission.
const HELD_BACK: Duration = Duration::from_millis(5);
/// Bytes on their way at most: 100 ms at 5 Gbit/s. What comes beyond is lost, as in any full queue.
const CAPACITY: usize = 64 << 20;

/// The frames of one direction.
#[derive(Debug)]
pub(super) struct Queue {
    conditions: Link,
    random: Random,
    held: BinaryHeap<Reverse<Held>>,
    bytes: usize,
    taken: u64,
}

/// Ordered by time, and among frames of one time by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    place: u64,
    frame: Vec<u8>,
}

impl Queue {
    pub(super) fn new(conditions: Link, random: Random) -> Self {
        Self { conditions, random, held: BinaryHeap::new(), bytes: 0, taken: 0 }
    }

    /// Takes a frame that arrived at `now`.
    pub(super) fn take(&mut self, frame: &[u8], now: Instant) {
        let held_back = self.random.happens(self.conditions.reorder);
        let due = now + self.conditions.delay + if held_back { HELD_BACK } else { Duration::ZERO };
        let copies = if self.random.happens(self.conditions.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            self.hold(frame, due);
        }
    }

    fn hold(&mut self, frame: &[u8], due: Instant) {
        if self.bytes + frame.len() > CAPACITY {
            return;
        }
        self.bytes += frame.len();
        self.taken += 1;
        self.held.push(Reverse(Held { due, place: self.taken, frame: frame.to_vec() }));
    }

    /// The next frame whose time has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        self.bytes -= held.frame.len();
        Some(held.frame)
    }

    /// When the next frame is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse(held)| held.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(10);

    fn arriving(queue: &mut Queue, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| queue.due(now)).map(|frame| frame[0]).collect()
    }

    #[test]
    fn a_frame_arrives_after_the_delay_and_in_order() {
        let mut queue = Queue::new(Link::default().delay(DELAY), Random::new(0));
        let start = Instant::now();
        queue.take(&[1], start);
        queue.take(&[2], start);
        assert_eq!(queue.next_due(), Some(start + DELAY));
        assert!(arriving(&mut queue, start + DELAY - Duration::from_nanos(1)).is_empty());
        assert_eq!(arriving(&mut queue, start + DELAY), [1, 2]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_frame_held_back_is_overtaken() {
        let mut queue = Queue::new(Link::default().delay(DELAY).reorder(50.0), Random::new(3));
        let start = Instant::now();
        (0..20).for_each(|number| queue.take(&[number], start));
        let first = arriving(&mut queue, start + DELAY);
        let rest = arriving(&mut queue, start + DELAY + HELD_BACK);
        assert!(first.len() > 5 && rest.len() > 5 && first.len() + rest.len() == 20, "{first:?} {rest:?}");
        assert!(first.is_sorted() && rest.is_sorted());
    }

    #[test]
    fn a_doubled_frame_arrives_twice() {
        let mut queue = Queue::new(Link::default().duplicate(100.0), Random::new(0));
        let now = Instant::now();
        queue.take(&[7], now);
        assert_eq!(arriving(&mut queue, now), [7, 7]);
    }

    #[test]
    fn what_a_full_queue_cannot_hold_is_lost() {
        let mut queue = Queue::new(Link::default().delay(DELAY), Random::new(0));
        let now = Instant::now();
        (0..3).for_each(|number| queue.take(&vec![number; CAPACITY / 2], now));
        assert_eq!(arriving(&mut queue, now + DELAY), [0, 1]);
        queue.take(&[3], now);
        assert_eq!(arriving(&mut queue, now + DELAY), [3], "there is room again");
    }
}
