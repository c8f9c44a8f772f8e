//! A set of numbers kept as disjoint, non-touching spans: large free ranges cost nothing.

use std::collections::BTreeMap;

/// A set of `u32`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IntervalSet {
    /// Last number of each span by its first.
    spans: BTreeMap<u32, u32>,
    len: u64,
}

impl IntervalSet {
    /// How many numbers it holds.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// The least number.
    pub(crate) fn first(&self) -> Option<u32> {
        self.spans.first_key_value().map(|(first, _)| *first)
    }

    /// Whether it holds `number`.
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.spans.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// The spans, ascending.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.spans.iter().map(|(first, last)| (*first, *last))
    }

    /// The spans that have a number between `first` and `last`, ascending, uncut.
    pub(crate) fn overlapping(&self, first: u32, last: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let before = self.spans.range(..first).next_back().filter(|(_, end)| **end >= first);
        before.into_iter().chain(self.spans.range(first..=last)).map(|(first, last)| (*first, *last))
    }

    /// Adds the numbers from `first` to `last`.
    pub(crate) fn insert(&mut self, first: u32, last: u32) {
        self.remove(first, last);
        self.len += u64::from(last - first) + 1;
        let (mut start, mut end) = (first, last);
        if let Some((&before, &before_last)) = self.spans.range(..first).next_back()
            && before_last.checked_add(1) == Some(first)
        {
            self.spans.remove(&before);
            start = before;
        }
        if let Some(after_last) = last.checked_add(1).and_then(|after| self.spans.remove(&after)) {
            end = after_last;
        }
        self.spans.insert(start, end);
    }

    /// Takes out the numbers from `first` to `last`.
    pub(crate) fn remove(&mut self, first: u32, last: u32) {
        while let Some((&start, &end)) = self.spans.range(..=last).next_back() {
            if end < first {
                break;
            }
            self.spans.remove(&start);
            self.len -= u64::from(end - start) + 1;
            if start < first {
                self.put(start, first - 1);
            }
            if end > last {
                self.put(last + 1, end);
            }
            if start <= first {
                break;
            }
        }
    }

    fn put(&mut self, first: u32, last: u32) {
        self.spans.insert(first, last);
        self.len += u64::from(last - first) + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(operations in proptest::collection::vec((any::<bool>(), 0u32..64, 0u32..16), 0..40)) {
            let (mut intervals, mut model) = (IntervalSet::default(), BTreeSet::new());
            for (add, first, length) in operations {
                let last = first + length;
                if add {
                    intervals.insert(first, last);
                    model.extend(first..=last);
                } else {
                    intervals.remove(first, last);
                    model.retain(|number| *number < first || *number > last);
                }
                prop_assert_eq!(intervals.len(), model.len() as u64);
                prop_assert_eq!(intervals.first(), model.first().copied());
                prop_assert!((0..90).all(|number| intervals.contains(number) == model.contains(&number)));
                let spans: Vec<_> = intervals.spans().collect();
                prop_assert!(spans.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", spans);
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_range_are_numbers_like_others() {
        let mut set = IntervalSet::default();
        set.insert(0, u32::MAX);
        assert_eq!(set.len(), 1 << 32);
        set.remove(u32::MAX, u32::MAX);
        set.remove(0, 0);
        assert_eq!(set.spans().collect::<Vec<_>>(), [(1, u32::MAX - 1)]);
    }
}
