//! What one send carries: sealed segments of one size, the last of which may be shorter (UDP GSO).
//!
//! A read from the TUN goes out whole where it fits. Torn, its halves would reach the other side in different runs and
//! be two packets for its kernel: in bulk the sends drift against the reads, until each is torn somewhere.

use std::ops::Range;

use meshwork_sys::udp::{MAX_SEGMENTS, MAX_SEND_BYTES};

use crate::header::SEALED_OVERHEAD;

/// What every segment of one read but the first repeats: the usual headers of IPv6 and TCP.
const HEADERS: usize = 40 + 32;

/// The segments sealed so far.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    used: usize,
    segment_size: usize,
    segments: usize,
    /// The last segment is shorter: nothing may follow it in the same send.
    closed: bool,
}

impl Batch {
    /// Whether a segment that takes `length` bytes when sealed may follow.
    pub(crate) fn takes(&self, length: usize) -> bool {
        let alike = self.segments == 0 || length <= self.segment_size;
        alike && !self.closed && self.segments < MAX_SEGMENTS && self.used + length <= MAX_SEND_BYTES
    }

    /// Whether a read of `count` segments and `length` bytes may follow without being torn, or would be torn anyway.
    pub(crate) fn takes_whole(&self, count: usize, length: usize) -> bool {
        let sealed = length + count * (SEALED_OVERHEAD + HEADERS);
        self.segments == 0 || self.segments + count <= MAX_SEGMENTS && self.used + sealed <= MAX_SEND_BYTES
    }

    /// Where the next segment lies.
    pub(crate) fn place(&self, length: usize) -> Range<usize> {
        self.used..self.used + length
    }

    /// A segment was sealed into its place.
    pub(crate) fn add(&mut self, length: usize) {
        if self.segments == 0 {
            self.segment_size = length;
        }
        self.closed = length < self.segment_size;
        self.used += length;
        self.segments += 1;
    }

    /// What is to be sent, if anything.
    pub(crate) fn sealed<'a>(&self, out: &'a [u8]) -> Option<&'a [u8]> {
        out.get(..self.used).filter(|sealed| !sealed.is_empty())
    }

    pub(crate) const fn segment_size(&self) -> usize {
        self.segment_size
    }

    pub(crate) const fn segments(&self) -> usize {
        self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends of a row of reads of so many segments each, as the sealer makes them.
    fn sends(reads: &[usize], segment: usize) -> Vec<usize> {
        let (mut batch, mut sends) = (Batch::default(), Vec::new());
        let mut flush = |batch: &mut Batch| sends.push(std::mem::take(batch).segments());
        for count in reads {
            if !batch.takes_whole(*count, count * (segment - SEALED_OVERHEAD - HEADERS)) {
                flush(&mut batch);
            }
            for _ in 0..*count {
                if !batch.takes(segment) {
                    flush(&mut batch);
                }
                batch.add(segment);
            }
        }
        flush(&mut batch);
        sends
    }

    #[test]
    fn bulk_reads_go_out_as_they_came_and_small_ones_together() {
        assert_eq!(sends(&[44; 5], 1432), [44; 5]);
        assert_eq!(sends(&[1, 44, 1, 1, 44], 1432), [45, 2, 44]);
        assert_eq!(sends(&[1; 100], 200), [64, 36]);
        assert_eq!(sends(&[100], 200), [64, 36], "what fits no send is torn");
    }

    #[test]
    fn a_shorter_segment_is_the_last_and_a_longer_one_begins_anew() {
        let mut batch = Batch::default();
        batch.add(1000);
        assert!(batch.takes(1000) && batch.takes(500) && !batch.takes(1001));
        assert_eq!(batch.place(500), 1000..1500);
        batch.add(500);
        assert!(!batch.takes(500) && !batch.takes(100));
        let out = [7; 2000];
        assert_eq!(batch.sealed(&out).map(<[u8]>::len), Some(1500));
        assert_eq!(Batch::default().sealed(&out), None);
    }
}
