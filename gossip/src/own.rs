//! This node's own state: what it signed, and what others hold of it that it did not sign.
//!
//! Runs have rising incarnations, and a run counts what it signs. So a state of this run or of a later one that this
//! process did not sign was signed by another process with its key, from the same disk or a copy of it: the disk was rolled
//! back, or the node runs twice. What that other process published is pulled and kept aside. Until this node goes on as a
//! later run, or nobody has the other's state any more, it tells nobody its own, which would take its place; and a neighbour
//! learns it only after it said in its greeting which one it holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use meshwork_wire::Incarnation;
use meshwork_wire::PeerId;

use crate::event::{Event, Misbehaved};
use crate::frames::{Manifest, Mark, Stamp, Summary};
use crate::gossip::Gossip;
use crate::hash::Half;
use crate::limits::{MOST_SIGNED, QUIET};
use crate::membership::SELF;
use crate::replica::Replica;
use crate::sync::USUAL_SIZE;

/// What this run signed.
#[derive(Debug, Default)]
pub(crate) struct Signed {
    incarnation: Incarnation,
    /// Number of the latest.
    latest: u64,
    /// Roots, the latest last.
    roots: VecDeque<Half>,
}

impl Signed {
    pub(crate) fn note(&mut self, mark: Mark) {
        if mark.incarnation != self.incarnation {
            *self = Self { incarnation: mark.incarnation, ..Self::default() };
        }
        self.latest = mark.sequence;
        self.roots.push_back(mark.root);
        if self.roots.len() > MOST_SIGNED {
            self.roots.pop_front();
        }
    }

    /// Whether this process signed it, as far as it remembers, or an earlier run did.
    fn holds(&self, mark: Mark) -> bool {
        if mark.incarnation != self.incarnation {
            return mark.incarnation < self.incarnation;
        }
        let Some(ago) = self.latest.checked_sub(mark.sequence) else { return false };
        let place = usize::try_from(ago).ok().and_then(|ago| self.roots.len().checked_sub(ago + 1));
        place.and_then(|place| self.roots.get(place)).is_none_or(|root| *root == mark.root)
    }
}

impl Gossip {
    /// Goes on as a later run, with all own entries: the answer to [`Event::Outranked`]. A lower one changes nothing.
    pub fn advance(&mut self, now: Instant, incarnation: Incarnation) {
        self.observe(now);
        if incarnation <= self.incarnation() {
            return;
        }
        self.unsigned.clear();
        self.unsigned_size = 0;
        self.urgent = false;
        self.sign_at = None;
        self.outranked = self.outranked.filter(|stamp| stamp.incarnation >= incarnation);
        self.quiet_until = None;
        self.publish(Stamp { incarnation, sequence: 1, root: self.members.draft.root() });
        self.settle(now);
    }

    /// Signs the draft, whose root the stamp has.
    pub(crate) fn publish(&mut self, stamp: Stamp) {
        let replica = Replica::new(Manifest::sign(&self.identity, stamp), self.members.draft.clone());
        let replica = self.pool.keep(replica);
        self.signed_states.note(stamp.mark());
        self.members.install(SELF, replica);
        self.tell_all(SELF, crate::link::Mask::default());
    }

    /// Whether a neighbour may learn this node's own state: not before it said what it holds of this node.
    pub(crate) fn tells_own(&self, to: PeerId) -> bool {
        !self.keeps_quiet() && self.links.get(&to).is_some_and(|link| link.greeted)
    }

    /// Whether what another process of this node published has to be kept from being replaced, at others or here. Where
    /// nobody has it any more there is nothing to keep, and who only says so is not waited for any longer.
    pub(crate) fn keeps_quiet(&self) -> bool {
        let on_its_way = || self.wants.contains_key(&self.id) || self.pulls.contains_key(&self.id);
        let waits = || self.quiet_until.is_some_and(|until| self.clock.observed() < until) && on_its_way();
        self.outranked.is_some() && (self.former.is_some() || waits())
    }

    /// Whether another process of this node signed it. This one may have come to sign the very same since it was told.
    fn is_others(&self, mark: Mark) -> bool {
        self.outranked.is_some_and(|stamp| stamp.mark() == mark) || !self.signed_states.holds(mark)
    }

    /// A neighbour holds this of us.
    pub(crate) fn on_own_manifest(&mut self, from: PeerId, manifest: &Manifest) -> Result<(), Misbehaved> {
        if !self.is_others(manifest.stamp.mark()) {
            return Ok(());
        }
        if manifest.origin != self.identity.public_key() || !manifest.is_valid() {
            return Err(Misbehaved::Forged(self.id));
        }
        if self.outranked.is_none_or(|known| known < manifest.stamp) {
            self.outranked = Some(manifest.stamp);
            let until = *self.quiet_until.get_or_insert(self.clock.observed() + QUIET);
            self.arm(until);
            self.emit(Event::Outranked { incarnation: manifest.stamp.incarnation });
        }
        self.want(from, &Summary { origin: self.id, mark: manifest.stamp.mark(), size: USUAL_SIZE });
        Ok(())
    }

    /// A neighbour says that it holds this of us: nothing is believed before the state itself is here.
    pub(crate) fn compare_own(&mut self, from: PeerId, summary: &Summary, again: bool) {
        if self.is_others(summary.mark) {
            self.want(from, summary);
        } else if summary.mark != self.own_replica().mark()
            && let Some(bit) = self.links.get(&from).map(|link| link.bit)
            && (again || self.members.get(SELF).is_some_and(|own| !own.informed.has(bit)))
        {
            self.tell_again(from, SELF);
        }
    }

    /// Keeps what another process of this node published, the latest of it.
    pub(crate) fn hold_former(&mut self, replica: Arc<Replica>) {
        let is_later = self.former.as_ref().is_none_or(|former| replica.stamp() > former.stamp());
        if is_later && self.is_others(replica.mark()) {
            let incarnation = replica.incarnation();
            self.satisfied(self.id, replica.mark());
            self.former = Some(replica);
            self.emit(Event::Recovered { incarnation });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mark(incarnation: u64, sequence: u64, root: u8) -> Mark {
        Mark { incarnation: Incarnation(incarnation), sequence, root: [root; 16] }
    }

    #[test]
    fn a_run_knows_what_it_signed_and_what_another_one_did() {
        let mut signed = Signed::default();
        (1..=9).for_each(|number| signed.note(mark(4, number, 7)));
        assert!(signed.holds(mark(4, 1, 7)) && signed.holds(mark(4, 9, 7)) && signed.holds(mark(3, 99, 1)));
        assert!(!signed.holds(mark(4, 5, 8)), "another root under a number of ours");
        assert!(!signed.holds(mark(4, 10, 7)), "a number that we did not reach");
        assert!(!signed.holds(mark(5, 1, 7)), "a later run");
        signed.note(mark(6, 1, 3));
        assert!(signed.holds(mark(5, 1, 7)) && signed.holds(mark(6, 1, 3)) && !signed.holds(mark(6, 1, 4)));
    }

    #[test]
    fn what_was_signed_long_ago_is_taken_for_ours() {
        let mut signed = Signed::default();
        (1..=MOST_SIGNED as u64 + 1).for_each(|number| signed.note(mark(1, number, 7)));
        assert!(signed.holds(mark(1, 1, 8)));
        assert!(!signed.holds(mark(1, 2, 8)));
        assert_eq!(signed.roots.len(), MOST_SIGNED);
    }
}
