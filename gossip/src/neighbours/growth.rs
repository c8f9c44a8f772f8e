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

    /// Leaves of those that were chosen the ones that have a link, and as many more as hold the mesh together.
    pub(super) fn thin(&self, picks: &mut BTreeSet<PeerId>, own: &Own) {
        let mut room = FEW_LINKS.saturating_sub(own.links.len());
        picks.retain(|peer| {
            let linked = own.links.contains_key(peer);
            let taken = linked || room > 0;
            room -= usize::from(taken && !linked);
            taken
        });
    }
}
