//! A mesh that grows fast: whoever stands beside a node on the rings now does not a moment later.

use std::collections::BTreeSet;
use std::time::Instant;

use meshwork_wire::PeerId;

use super::Own;
use crate::limits::{FEW_LINKS, RIPE};

/// How many others there were.
#[derive(Debug, Default)]
pub(super) struct Growth {
    others: usize,
    grown: Option<Instant>,
}

impl Growth {
    /// There are so many others.
    pub(super) fn note(&mut self, now: Instant, others: usize) {
        if others > self.others + self.others / 8 {
            self.grown = Some(now);
            self.others = others;
        } else if !self.is_unripe(now) {
            self.others = others;
        }
    }

    /// Whether it grew a moment ago.
    pub(super) fn is_unripe(&self, now: Instant) -> bool {
        self.grown.is_some_and(|grown| now < grown + RIPE)
    }

    /// When links are chosen for good, unless it grows again.
    pub(super) fn ripe_at(&self) -> Option<Instant> {
        self.grown.map(|grown| grown + RIPE)
    }

    /// Whether so many links will do for the moment.
    pub(super) fn holds_back(&self, now: Instant, links: usize) -> bool {
        links >= FEW_LINKS && self.is_unripe(now)
    }

    /// Leaves of those that were chosen the ones that have a link, and as many more as hold the mesh together. Those of
    /// `dialled` that still can be stay chosen for that: to turn to another one each time that the mesh has grown would
    /// make links to all of them.
    pub(super) fn thin(&self, picks: &mut BTreeSet<PeerId>, dialled: &BTreeSet<PeerId>, own: &Own) {
        let room = FEW_LINKS.saturating_sub(own.links.len());
        let unlinked = |peer: &&PeerId| !own.links.contains_key(peer);
        let others = picks.iter().filter(|peer| unlinked(peer) && !dialled.contains(peer));
        let few: BTreeSet<PeerId> = dialled.iter().filter(unlinked).chain(others).take(room).copied().collect();
        picks.retain(|peer| own.links.contains_key(peer));
        picks.extend(few);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::neighbours::OwnLink;

    #[test]
    fn a_mesh_is_ripe_when_it_has_been_about_as_large_for_a_while() {
        let (start, mut growth) = (Instant::now(), Growth::default());
        let at = |ms| start + Duration::from_millis(ms);
        growth.note(start, 100);
        assert!(growth.is_unripe(at(999)) && !growth.is_unripe(at(1000)));
        growth.note(at(900), 113);
        assert!(growth.is_unripe(at(1800)));
        growth.note(at(1900), 120);
        assert!(!growth.is_unripe(at(1900)));
        growth.note(at(1950), 110);
        growth.note(at(1960), 120);
        assert!(!growth.is_unripe(at(1960)), "a few that come back are no growth");
    }

    #[test]
    fn links_that_are_there_stay_and_few_are_made() {
        let peer = |number| PeerId([number; 16]);
        let mut picks: BTreeSet<PeerId> = (0..8).map(peer).collect();
        let own = |count: u8| Own {
            links: (4..4 + count).map(|n| (peer(n), OwnLink::default())).collect(),
            ..Own::default()
        };
        Growth::default().thin(&mut picks, &BTreeSet::new(), &own(1));
        assert_eq!(picks, [0, 1, 4].map(peer).into());
        let mut picks: BTreeSet<PeerId> = (0..8).map(peer).collect();
        Growth::default().thin(&mut picks, &BTreeSet::new(), &own(4));
        assert_eq!(picks, [4, 5, 6, 7].map(peer).into());
        let mut picks: BTreeSet<PeerId> = (0..8).map(peer).collect();
        Growth::default().thin(&mut picks, &[4, 9].map(peer).into(), &own(1));
        assert_eq!(picks, [0, 4, 9].map(peer).into(), "who is dialled already is not left for another");
    }
}
