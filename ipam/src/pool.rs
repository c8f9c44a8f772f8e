//! Free addresses of one family: those not used lately, and a queue of those that were.
//!
//! Addresses are numbers here: IPv4 addresses, or the last 16 bits of IPv6 ones. Fresh ones are taken lowest first,
//! which keeps large blocks whole; freed ones follow in the order in which they were freed.

use std::collections::BTreeMap;

use crate::interval::IntervalSet;

/// How many freed addresses are kept apart. At one pod a second the last-freed address rests for more than an hour
/// while there is space, and the queue stays under 200 KB.
pub(crate) const RESTING: usize = 4096;

/// Free addresses of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    fresh: IntervalSet,
    queue: BTreeMap<u64, u32>,
    places: BTreeMap<u32, u64>,
}

impl Pool {
    /// A pool of all numbers in `spans`, none of them used lately.
    pub(crate) fn new(spans: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut pool = Self::default();
        spans.into_iter().for_each(|(first, last)| pool.fresh.insert(first, last));
        pool
    }

    /// How many are free.
    pub(crate) fn free(&self) -> u64 {
        self.fresh.len() + self.queue.len() as u64
    }

    /// Whether this number is free.
    pub(crate) fn is_free(&self, number: u32) -> bool {
        self.fresh.contains(number) || self.places.contains_key(&number)
    }

    /// The number to use next: the lowest fresh one, else the one that was freed first.
    pub(crate) fn next(&self) -> Option<u32> {
        self.fresh.first().or_else(|| self.queue.values().next().copied())
    }

    /// Place of a number in the queue.
    pub(crate) fn place(&self, number: u32) -> Option<u64> {
        self.places.get(&number).copied()
    }

    /// Places whose numbers have to count as fresh before this many more are queued.
    pub(crate) fn overdue(&self, adding: usize) -> Vec<u64> {
        let excess = (self.queue.len() + adding).saturating_sub(RESTING);
        self.queue.keys().take(excess).copied().collect()
    }

    /// Fresh spans, ascending.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.fresh.spans()
    }

    /// Numbers in the queue with their places.
    pub(crate) fn resting(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.queue.iter().map(|(sequence, number)| (*sequence, *number))
    }

    /// Takes a free number out, whichever kind it was.
    pub(crate) fn take(&mut self, number: u32) {
        self.fresh.remove(number, number);
        if let Some(sequence) = self.places.remove(&number) {
            self.queue.remove(&sequence);
        }
    }

    /// Queues a number at a place.
    pub(crate) fn rest(&mut self, sequence: u64, number: u32) {
        self.take(number);
        self.queue.insert(sequence, number);
        self.places.insert(number, sequence);
    }

    /// Makes the number at a place fresh.
    pub(crate) fn refresh(&mut self, sequence: u64) {
        if let Some(number) = self.queue.remove(&sequence) {
            self.places.remove(&number);
            self.fresh.insert(number, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_numbers_come_lowest_first_then_freed_ones_in_their_order() {
        let mut pool = Pool::new([(5, 6)]);
        for (sequence, number) in [(1, 9), (2, 3)] {
            pool.rest(sequence, number);
        }
        let mut taken = Vec::new();
        while let Some(number) = pool.next() {
            assert!(pool.is_free(number));
            pool.take(number);
            assert!(!pool.is_free(number));
            taken.push(number);
        }
        assert_eq!(taken, [5, 6, 9, 3]);
    }

    #[test]
    fn a_number_is_free_once_however_it_came() {
        let mut pool = Pool::new([(1, 10)]);
        pool.rest(1, 4);
        pool.rest(2, 4);
        assert_eq!(pool.free(), 10);
        assert_eq!(pool.place(4), Some(2));
        pool.refresh(2);
        assert_eq!((pool.free(), pool.place(4)), (10, None));
    }

    #[test]
    fn the_queue_is_bounded_by_its_oldest_becoming_fresh() {
        let mut pool = Pool::default();
        for number in 0..RESTING as u32 {
            assert!(pool.overdue(1).is_empty());
            pool.rest(u64::from(number), number);
        }
        assert_eq!(pool.overdue(2), [0, 1]);
        pool.refresh(0);
        assert_eq!((pool.overdue(1), pool.next()), (vec![], Some(0)));
    }
}
