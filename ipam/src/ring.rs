//! The ring as what it is: a function from addresses to ranks, merged by the greater rank at every address.
//!
//! Prefixes only compress it. Kept disjoint, with buddies of one rank joined, so that merging the same entries in any
//! order, any number of times, ends in the same map.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use meshwork_wire::{Order, PeerId};

use crate::prefix::{at, buddy, cut, size, span, without};

/// Rank, and with it the owner, of every address that some entry covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    /// Prefix length and rank by first address.
    pieces: BTreeMap<u32, (u8, Order)>,
}

impl Ring {
    /// Raises every address of `prefix` to at least `order`. Says whether that changed anything.
    pub(crate) fn merge(&mut self, prefix: Ipv4Net, order: Order) -> bool {
        if let Some((cover, held)) = self.covering(prefix) {
            return order > held && {
                self.pieces.remove(&span(cover).0);
                without(cover, prefix).into_iter().for_each(|rest| self.put(rest, held));
                self.put(prefix, order);
                true
            };
        }
        let raised = self.gaps_below(prefix, order);
        raised.iter().for_each(|(first, last)| self.clear(*first, *last));
        raised.iter().flat_map(|(first, last)| cut(*first, *last)).for_each(|piece| self.put(piece, order));
        !raised.is_empty()
    }

    /// Every piece, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Net, Order)> + '_ {
        self.pieces.iter().map(|(first, (length, order))| (at(*first, *length), *order))
    }

    /// What is known within `prefix`, cut to it.
    pub(crate) fn within(&self, prefix: Ipv4Net) -> Vec<(Ipv4Net, Order)> {
        match self.covering(prefix) {
            Some((_, order)) => vec![(prefix, order)],
            None => {
                let (first, last) = span(prefix);
                self.pieces.range(first..=last).map(|(first, (length, order))| (at(*first, *length), *order)).collect()
            }
        }
    }

    /// Whether every address of `prefix` has at least this rank.
    pub(crate) fn reaches(&self, prefix: Ipv4Net, order: Order) -> bool {
        let pieces = self.within(prefix);
        let covered: u64 = pieces.iter().map(|(piece, _)| size(*piece)).sum();
        covered == size(prefix) && pieces.iter().all(|(_, held)| *held >= order)
    }

    /// Whether every address of `prefix` has this very rank.
    pub(crate) fn holds(&self, prefix: Ipv4Net, order: Order) -> bool {
        self.within(prefix) == [(prefix, order)]
    }

    /// The owner of one address.
    pub(crate) fn owner(&self, address: u32) -> Option<PeerId> {
        self.covering(at(address, 32)).map(|(_, order)| order.peer)
    }

    /// The piece that holds all of `prefix`.
    fn covering(&self, prefix: Ipv4Net) -> Option<(Ipv4Net, Order)> {
        let (first, last) = span(prefix);
        let (start, (length, order)) = self.pieces.range(..=first).next_back()?;
        let piece = at(*start, *length);
        (span(piece).1 >= last).then_some((piece, *order))
    }

    /// Spans of `prefix` that are below `order` or not covered, when no single piece covers it.
    fn gaps_below(&self, prefix: Ipv4Net, order: Order) -> Vec<(u32, u32)> {
        let (first, last) = span(prefix);
        let mut spans = Vec::new();
        let mut next = Some(first);
        for (start, (length, held)) in self.pieces.range(first..=last) {
            if *held < order {
                continue;
            }
            if let Some(from) = next.filter(|from| from < start) {
                spans.push((from, start - 1));
            }
            next = span(at(*start, *length)).1.checked_add(1);
        }
        spans.extend(next.filter(|from| *from <= last).map(|from| (from, last)));
        spans
    }

    /// Removes the pieces that begin in the span; callers know that none reaches out of it.
    fn clear(&mut self, first: u32, last: u32) {
        let inside: Vec<u32> = self.pieces.range(first..=last).map(|(start, _)| *start).collect();
        for start in inside {
            self.pieces.remove(&start);
        }
    }

    /// Puts a piece where nothing is, joining it with its buddy as often as that has the same rank.
    fn put(&mut self, prefix: Ipv4Net, order: Order) {
        let mut piece = prefix;
        while let Some((other, parent)) = buddy(piece) {
            let start = span(other).0;
            if self.pieces.get(&start) != Some(&(other.prefix_len(), order)) {
                break;
            }
            self.pieces.remove(&start);
            piece = parent;
        }
        self.pieces.insert(span(piece).0, (piece.prefix_len(), order));
    }
}

#[cfg(test)]
mod tests {
    use meshwork_wire::{Incarnation, Version};
    use proptest::prelude::*;

    use super::*;

    /// Rank by address of 10.0.0.0/26, the way nobody could get wrong.
    type Naive = [Option<Order>; 64];

    fn entries() -> impl Strategy<Value = Vec<(Ipv4Net, Order)>> {
        let entry =
            (26u8..=32, 0u32..64, 0u32..2, 0u64..3, 0u8..3).prop_map(|(length, offset, epoch, counter, peer)| {
                let first = (0x0a00_0000 | offset) & (u32::MAX << (32 - length));
                let version = Version { incarnation: Incarnation(1), counter };
                (at(first, length), Order { epoch, version, peer: PeerId([peer; 16]) })
            });
        proptest::collection::vec(entry, 0..24)
    }

    fn naive(entries: &[(Ipv4Net, Order)]) -> Naive {
        let mut model = [None; 64];
        for (prefix, order) in entries {
            let (first, last) = span(*prefix);
            (first..=last).for_each(|address| model[(address & 63) as usize].merge_max(*order));
        }
        model
    }

    trait MergeMax {
        fn merge_max(&mut self, order: Order);
    }

    impl MergeMax for Option<Order> {
        fn merge_max(&mut self, order: Order) {
            *self = Some(self.map_or(order, |held| held.max(order)));
        }
    }

    fn ring(entries: &[(Ipv4Net, Order)]) -> Ring {
        let mut ring = Ring::default();
        for (prefix, order) in entries {
            ring.merge(*prefix, *order);
        }
        ring
    }

    proptest! {
        #[test]
        fn overlapping_prefixes_merge_like_single_addresses(entries in entries()) {
            let (ring, model) = (ring(&entries), naive(&entries));
            for (offset, expected) in model.iter().enumerate() {
                let address = 0x0a00_0000 | offset as u32;
                let pieces = ring.within(at(address, 32));
                prop_assert_eq!(pieces.first().map(|(_, order)| *order), *expected);
                prop_assert_eq!(ring.owner(address), expected.map(|order| order.peer));
            }
            let covered: u64 = ring.iter().map(|(piece, _)| size(piece)).sum();
            prop_assert_eq!(covered, model.iter().flatten().count() as u64);
        }

        #[test]
        fn order_and_repetition_change_nothing(entries in entries(), shuffled in entries().prop_shuffle()) {
            let mut all = entries.clone();
            all.extend(shuffled.clone());
            let forth = ring(&all);
            all.reverse();
            all.extend(shuffled);
            prop_assert_eq!(&forth, &ring(&all));
            let mut again = forth.clone();
            prop_assert!(all.iter().all(|(prefix, order)| !again.merge(*prefix, *order)));
        }

        #[test]
        fn reaching_is_decided_address_by_address(entries in entries(), asked in entries()) {
            let (ring, model) = (ring(&entries), naive(&entries));
            for (prefix, order) in asked {
                let (first, last) = span(prefix);
                let expected = (first..=last).all(|address| model[(address & 63) as usize] >= Some(order));
                prop_assert_eq!(ring.reaches(prefix, order), expected);
            }
        }
    }

    #[test]
    fn pieces_of_one_rank_are_one_prefix() {
        let order = Order { epoch: 0, version: Version::default(), peer: PeerId([1; 16]) };
        let quarters: Vec<_> = (0..4).map(|quarter| (at(quarter << 30, 2), order)).collect();
        assert_eq!(ring(&quarters).iter().collect::<Vec<_>>(), [(at(0, 0), order)]);
    }
}
