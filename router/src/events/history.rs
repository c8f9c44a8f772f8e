//! The latest entries of something that goes on, numbered without gaps. No IO, no clock.

use std::collections::VecDeque;

/// At most so many entries; each new one takes the place of the oldest.
#[derive(Debug)]
pub struct History<T> {
    kept: VecDeque<T>,
    most: usize,
    /// Number of the next entry.
    next: u64,
}

/// What follows a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Since<T> {
    /// The entries from there on; none where nothing has come yet.
    Entries(Vec<T>),
    /// So many entries from there on are no longer kept.
    Missed(u64),
}

impl<T> History<T> {
    /// Keeps `most` entries.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { kept: VecDeque::new(), most, next: 0 }
    }

    /// Adds an entry; `make` gets its number.
    pub fn push(&mut self, make: impl FnOnce(u64) -> T) {
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        self.kept.push_back(make(self.next));
        self.next += 1;
    }

    /// What is kept, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &T> {
        self.kept.iter()
    }

    /// Number of the oldest entry that is kept.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    /// Number that the next entry gets.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }
}

impl<T: Clone> History<T> {
    /// At most `most` entries from number `place` on.
    #[must_use]
    pub fn since(&self, place: u64, most: usize) -> Since<T> {
        match place.checked_sub(self.first()) {
            Some(known) => {
                let known = usize::try_from(known).unwrap_or(usize::MAX);
                Since::Entries(self.kept.iter().skip(known).take(most).cloned().collect())
            }
            None => Since::Missed(self.first() - place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: u64, most: usize) -> History<u64> {
        let mut history = History::new(most);
        (0..entries).for_each(|_| history.push(|number| number * 10));
        history
    }

    #[test]
    fn only_the_latest_entries_are_kept_and_numbers_go_on() {
        let history = of(7, 3);
        assert!(history.kept().eq(&[40, 50, 60]));
        assert_eq!((history.first(), history.next()), (4, 7));
    }

    #[test]
    fn what_follows_a_place_comes_in_steps() {
        let history = of(7, 5);
        assert_eq!(history.since(2, 2), Since::Entries(vec![20, 30]));
        assert_eq!(history.since(4, 9), Since::Entries(vec![40, 50, 60]));
        assert_eq!(history.since(7, 9), Since::Entries(vec![]));
        assert_eq!(history.since(9, 9), Since::Entries(vec![]), "a place that is still to come");
    }

    #[test]
    fn a_place_before_the_oldest_entry_says_how_many_are_gone() {
        assert_eq!(of(7, 3).since(1, 9), Since::Missed(3));
        assert_eq!(of(0, 3).since(0, 9), Since::Entries(vec![]));
    }
}
