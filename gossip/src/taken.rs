//! Taking what was asked for: states in one part or several, and changes to states that are held.

use std::time::Instant;

use meshwork_wire::{PeerId, frame};

use crate::block::Unfit;
use crate::event::Misbehaved;
use crate::frames::{Answer, Manifest, Part};
use crate::gossip::Gossip;
use crate::limits::{MAX_BATCH, MAX_PARTS};
use crate::link::{Link, Mask, Partial};
use crate::pull::Pull;

impl Gossip {
    /// Takes states that were asked for, each by itself. The first that is refused is reported.
    pub(crate) fn on_states(&mut self, now: Instant, from: PeerId, parts: Vec<Part>) -> Result<(), Misbehaved> {
        let (mut outcome, mut latest) = (Ok(()), 0);
        for part in parts {
            outcome = outcome.and(self.on_part(now, from, part, &mut latest));
        }
        self.drop_skipped(from, latest);
        outcome
    }

    fn on_part(&mut self, now: Instant, from: PeerId, part: Part, latest: &mut u64) -> Result<(), Misbehaved> {
        let origin = part.manifest.origin.peer_id();
        let Some(link) = self.links.get_mut(&from) else { return Ok(()) };
        let Some(order) = self.pulls.get(&origin).filter(|pull| pull.from == from).map(|pull| pull.order) else {
            self.counters.unexpected += 1;
            return Ok(());
        };
        link.progress = now;
        let manifest = part.manifest;
        let taken = match link.gather(part) {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => self.take_state(now, from, origin, manifest, &bytes),
            Err(()) => Err(Misbehaved::TooLarge(origin)),
        };
        self.end_pull(origin, from);
        self.give_up(origin, from);
        *latest = order.max(*latest);
        taken
    }

    /// Takes changes that were asked for, each by itself. The first that is refused is reported.
    pub(crate) fn on_asked(&mut self, now: Instant, from: PeerId, answers: Vec<Answer>) -> Result<(), Misbehaved> {
        let (mut outcome, mut latest) = (Ok(()), 0);
        for answer in answers {
            outcome = outcome.and(self.on_asked_change(now, from, &answer, &mut latest));
        }
        self.drop_skipped(from, latest);
        outcome
    }

    /// Where it does not fit after all, the neighbour is not asked again: others are, and a comparison finds the rest.
    fn on_asked_change(
        &mut self,
        now: Instant,
        from: PeerId,
        answer: &Answer,
        latest: &mut u64,
    ) -> Result<(), Misbehaved> {
        let manifest: Manifest = frame::decode_first(&answer.change)?;
        let origin = manifest.origin.peer_id();
        let Some(order) = self.pulls.get(&origin).filter(|pull| pull.from == from).map(|pull| pull.order) else {
            self.counters.unexpected += 1;
            return Ok(());
        };
        if let Some(link) = self.links.get_mut(&from) {
            link.progress = now;
        }
        let taken = self.on_delta(now, from, &answer.change, answer.patient);
        self.end_pull(origin, from);
        self.give_up(origin, from);
        *latest = order.max(*latest);
        taken
    }

    /// Gives up on what a neighbour was asked for before something that has come: it does not have it.
    fn drop_skipped(&mut self, from: PeerId, order: u64) {
        let skipped = |(origin, pull): (&PeerId, &Pull)| (pull.from == from && pull.order < order).then_some(*origin);
        let skipped: Vec<PeerId> = self.pulls.iter().filter_map(skipped).collect();
        for origin in skipped {
            self.end_pull(origin, from);
            self.give_up(origin, from);
        }
    }

    fn take_state(
        &mut self,
        now: Instant,
        from: PeerId,
        origin: PeerId,
        manifest: Manifest,
        bytes: &[u8],
    ) -> Result<(), Misbehaved> {
        if self.members.of(origin).is_some_and(|held| held.stamp() >= manifest.stamp) && origin != self.id {
            return Ok(());
        }
        if !self.pool.is_signed(&manifest) {
            return Err(Misbehaved::Forged(origin));
        }
        let replica = self.pool.parse(manifest, bytes).map_err(|unfit| match unfit {
            Unfit::Excess => Misbehaved::TooLarge(origin),
            Unfit::Root => Misbehaved::Altered(origin),
        })?;
        if origin == self.id {
            self.on_own_manifest(from, &replica.manifest)?;
            self.hold_former(replica);
        } else {
            self.counters.snapshots += 1;
            self.install(now, from, origin, replica, Mask::default(), false);
        }
        Ok(())
    }
}

impl Link {
    /// Takes a part; answers all bytes when it is the last one. Parts come in order, and those of another manifest
    /// begin anew.
    fn gather(&mut self, part: Part) -> Result<Option<Vec<u8>>, ()> {
        let Part { manifest, part, parts, bytes } = part;
        let mut partial = match self.partial.take() {
            Some(partial) if part > 0 && partial.manifest == manifest && partial.parts == parts => partial,
            _ => Partial { manifest, parts, next: 0, bytes: Vec::new() },
        };
        if parts > MAX_PARTS || part != partial.next || bytes.len() > MAX_BATCH {
            return Err(());
        }
        partial.next += 1;
        partial.bytes.extend(bytes);
        if partial.next >= parts {
            return Ok(Some(partial.bytes));
        }
        self.partial = Some(partial);
        Ok(None)
    }
}
