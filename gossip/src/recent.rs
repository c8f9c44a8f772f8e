//! Changes that were applied a moment ago, for neighbours that hold what came before them and ask.
//!
//! A change is a fifth of a usual state. Only the latest of each origin is kept, and of all of them as many as fit into
//! [`MOST_RECENT`] bytes: whoever comes later gets the state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use meshwork_wire::Incarnation;

use crate::frames::Stamp;
use crate::limits::MOST_RECENT;

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
    from: u64,
    to: (Incarnation, u64),
    bytes: Arc<[u8]>,
}

impl Recent {
    /// Keeps a change that led from the state of a number to the one of this stamp. What leads from nothing is as long
    /// as the state.
    pub(crate) fn note(&mut self, origin: u32, from: u64, stamp: &Stamp, bytes: Arc<[u8]>) {
        if from == 0 {
            return;
        }
        self.noted += 1;
        self.bytes += bytes.len();
        self.order.push_back((self.noted, origin));
        let change = Change { noted: self.noted, from, to: (stamp.incarnation, stamp.sequence), bytes };
        if let Some(replaced) = self.changes.insert(origin, change) {
            self.bytes -= replaced.bytes.len();
        }
        while self.bytes > MOST_RECENT || self.order.len() > 2 * self.changes.len() + 8 {
            let Some((noted, origin)) = self.order.pop_front() else { break };
            if self.changes.get(&origin).is_some_and(|change| change.noted == noted) {
                self.bytes -= self.changes.remove(&origin).map_or(0, |change| change.bytes.len());
            }
        }
    }

    /// The change that leads from a state of the run to the one that is held.
    pub(crate) fn find(&self, origin: u32, from: u64, held: &Stamp) -> Option<Arc<[u8]>> {
        let fits = |change: &&Change| change.from == from && change.to == (held.incarnation, held.sequence);
        self.changes.get(&origin).filter(fits).map(|change| Arc::clone(&change.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stamp(sequence: u64) -> Stamp {
        Stamp { incarnation: Incarnation(1), sequence, root: [0; 32] }
    }

    #[test]
    fn the_latest_change_of_an_origin_is_found_by_what_it_builds_on() {
        let mut recent = Recent::default();
        recent.note(3, 1, &stamp(2), Arc::from([1]));
        recent.note(3, 2, &stamp(3), Arc::from([2]));
        assert_eq!(recent.find(3, 2, &stamp(3)).as_deref(), Some(&[2][..]));
        assert_eq!(recent.find(3, 1, &stamp(3)), None, "it leads from another state");
        assert_eq!(recent.find(3, 2, &stamp(4)), None, "it does not lead to what is held");
        recent.note(4, 0, &stamp(1), Arc::from([3]));
        assert_eq!(recent.find(4, 0, &stamp(1)), None);
    }

    #[test]
    fn old_changes_make_room_and_repeated_ones_leave_nothing_behind() {
        let mut recent = Recent::default();
        for origin in 0..100 {
            recent.note(origin, 1, &stamp(2), vec![0; MOST_RECENT / 10].into());
        }
        assert!(recent.bytes <= MOST_RECENT && recent.find(99, 1, &stamp(2)).is_some());
        assert_eq!((recent.changes.len(), recent.find(89, 1, &stamp(2))), (10, None));
        for number in 1..1000 {
            recent.note(7, number, &stamp(number + 1), Arc::from([0; 9]));
        }
        assert!(recent.order.len() < 40 && recent.find(7, 999, &stamp(1000)).is_some());
    }
}
