//! Changes that were applied a moment ago, for neighbours that hold what came before them and ask.
//!
//! A change is a fifth of a usual state. Only the latest of each origin is kept, and of all of them as many as fit into
//! [`MOST_RECENT`] bytes: whoever comes later gets the state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::frames::Mark;
use crate::limits::{LONGEST_RECENT, MOST_RECENT};

/// By the numbers of their origins.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    changes: BTreeMap<u32, Change>,
    /// In the order in which they came, with those that were replaced since.
    order: VecDeque<(u64, u32)>,
    noted: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Change {
    noted: u64,
    from: Mark,
    to: Mark,
    patient: bool,
    bytes: Arc<[u8]>,
}

impl Recent {
    /// Keeps a change that led from one state of an origin to another. A long one is hardly shorter than the state.
    pub(crate) fn note(&mut self, origin: u32, from: Mark, to: Mark, patient: bool, bytes: &Arc<[u8]>) {
        if bytes.len() > LONGEST_RECENT {
            return;
        }
        let bytes = Arc::clone(bytes);
        self.noted += 1;
        self.bytes += bytes.len();
        self.order.push_back((self.noted, origin));
        let change = Change { noted: self.noted, from, to, patient, bytes };
        if let Some(replaced) = self.changes.insert(origin, change) {
            self.bytes -= replaced.bytes.len();
        }
        if self.order.len() > 2 * self.changes.len() + 8 {
            let changes = &self.changes;
            self.order.retain(|(noted, origin)| changes.get(origin).is_some_and(|change| change.noted == *noted));
        }
        while self.bytes > MOST_RECENT {
            let Some((noted, origin)) = self.order.pop_front() else { break };
            if self.changes.get(&origin).is_some_and(|change| change.noted == noted) {
                self.bytes -= self.changes.remove(&origin).map_or(0, |change| change.bytes.len());
            }
        }
    }

    /// The change that leads from a state to the one that is held, and whether nobody waits for it.
    pub(crate) fn find(&self, origin: u32, from: Mark, held: Mark) -> Option<(bool, Arc<[u8]>)> {
        let fits = |change: &&Change| change.from == from && change.to == held;
        self.changes.get(&origin).filter(fits).map(|change| (change.patient, Arc::clone(&change.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use meshwork_wire::Incarnation;

    use super::*;

    const fn mark(sequence: u64) -> Mark {
        Mark { incarnation: Incarnation(1), sequence, root: [0; 16] }
    }

    #[test]
    fn the_latest_change_of_an_origin_is_found_by_what_it_builds_on() {
        let mut recent = Recent::default();
        recent.note(3, mark(1), mark(2), true, &Arc::from([1]));
        recent.note(3, mark(2), mark(3), true, &Arc::from([2]));
        assert_eq!(recent.find(3, mark(2), mark(3)), Some((true, Arc::from([2]))));
        assert_eq!(recent.find(3, mark(1), mark(3)), None, "it leads from another state");
        assert_eq!(recent.find(3, mark(2), mark(4)), None, "it does not lead to what is held");
        let other = Mark { root: [1; 16], ..mark(2) };
        assert_eq!(recent.find(3, other, mark(3)), None, "another state under the same number");
    }

    #[test]
    fn old_changes_make_room_and_repeated_ones_leave_nothing_behind() {
        let mut recent = Recent::default();
        let fit = (MOST_RECENT / LONGEST_RECENT) as u32;
        for origin in 0..2 * fit {
            recent.note(origin, mark(1), mark(2), false, &vec![0; LONGEST_RECENT].into());
        }
        assert!(recent.bytes <= MOST_RECENT && recent.find(2 * fit - 1, mark(1), mark(2)).is_some());
        assert_eq!((recent.changes.len() as u32, recent.find(fit - 1, mark(1), mark(2))), (fit, None));
        recent.note(3, mark(1), mark(2), false, &vec![0; LONGEST_RECENT + 1].into());
        assert_eq!(recent.find(3, mark(1), mark(2)), None, "it is too long");
        for number in 1..1000 {
            recent.note(7, mark(number), mark(number + 1), false, &Arc::from([0; 9]));
        }
        assert!(recent.order.len() < 2 * fit as usize + 16 && recent.find(7, mark(999), mark(1000)).is_some());
    }
}
