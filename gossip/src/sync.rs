//! Applying changes of others, and what others know of this node.

use std::sync::Arc;
use std::time::Instant;

use meshwork_wire::record::{Links, Store};
use meshwork_wire::{PeerId, frame};
use serde_bytes::ByteBuf;

use crate::block::{Block, Unfit};
use crate::event::Misbehaved;
use crate::frames::{Delta, Manifest, Stamp, Summary};
use crate::gossip::Gossip;
use crate::limits::MAX_FRAME;
use crate::link::Mask;
use crate::replica::Replica;

/// What a state is taken to weigh whose size nobody told.
pub(crate) const USUAL_SIZE: u32 = 2048;

impl Gossip {
    /// Applies changes, each by itself. The first that is refused is reported.
    pub(crate) fn on_changes(&mut self, now: Instant, from: PeerId, changes: Vec<ByteBuf>) -> Result<(), Misbehaved> {
        let mut outcome = Ok(());
        for bytes in changes {
            outcome = outcome.and(self.on_delta(now, from, &bytes, false));
        }
        outcome
    }

    /// Applies a change and passes it on, or asks for the whole state where it does not fit. Most changes come over
    /// several links, and all but the first copy are done with once their manifest was read.
    pub(crate) fn on_delta(
        &mut self,
        now: Instant,
        from: PeerId,
        bytes: &[u8],
        patient: bool,
    ) -> Result<(), Misbehaved> {
        let manifest: Manifest = frame::decode_first(bytes)?;
        let (origin, stamp) = (manifest.origin.peer_id(), manifest.stamp);
        if origin == self.id {
            return self.on_own_manifest(from, &manifest);
        }
        let summary = Summary { origin, mark: stamp.mark(), size: USUAL_SIZE };
        if self.members.of(origin).is_some_and(|held| held.stamp() >= stamp) {
            self.compare(from, &summary, false);
            return Ok(());
        }
        let delta: Delta = frame::decode(bytes, MAX_FRAME)?;
        if !self.pool.is_signed(&manifest) {
            return Err(Misbehaved::Forged(origin));
        }
        let Some(base) = self.base_of(now, from, origin, stamp, delta.from)? else {
            self.want(from, &summary);
            return Ok(());
        };
        let before = self.members.of(origin).map(|held| held.mark());
        match self.pool.after(&base, delta) {
            Ok(replica) => {
                self.counters.deltas += 1;
                let served = self.served_by(from);
                let number = self.install(now, from, origin, replica, served, patient);
                self.note_change(number, before, patient, bytes.into());
                Ok(())
            }
            Err(Unfit::Excess) => Err(Misbehaved::TooLarge(origin)),
            Err(Unfit::Root) => {
                self.want(from, &summary);
                Err(Misbehaved::Altered(origin))
            }
        }
    }

    /// The entries on which a delta builds, if we hold them.
    fn base_of(
        &mut self,
        now: Instant,
        from: PeerId,
        origin: PeerId,
        stamp: Stamp,
        sequence: u64,
    ) -> Result<Option<Block>, Misbehaved> {
        if let Some(held) = self.members.of(origin) {
            let same_run = held.incarnation() == stamp.incarnation;
            return Ok(match sequence {
                _ if same_run => (held.stamp().sequence == sequence).then(|| held.block.clone()),
                0 => Some(Block::default()),
                _ => None,
            });
        }
        if self.members.is_full() {
            return Err(Misbehaved::TooManyMembers(origin));
        }
        Ok((sequence == 0 && self.admits(now, from, origin)).then(Block::default))
    }

    /// Replaces what is held of an origin by a later state, and has links told but those that have it or get it from
    /// elsewhere. Answers the origin's number. `patient` where its change says that nobody's view of who lives follows.
    pub(crate) fn install(
        &mut self,
        now: Instant,
        from: PeerId,
        origin: PeerId,
        replica: Arc<Replica>,
        served: Mask,
        patient: bool,
    ) -> u32 {
        let number = self.learn(now, origin, replica.manifest.origin, replica.incarnation());
        let before = self.members.block(number).cloned().unwrap_or_default();
        let stores = before.difference(&replica.block);
        let mark = replica.mark();
        if stores.contains(&Links::ID) && !patient {
            self.hurry(now, &before, &replica.block);
        }
        self.members.install(number, replica);
        self.installed = now;
        if stores.contains(&Links::ID) {
            self.routes_stale = true;
            self.members.links_changed(number, &before);
        }
        self.emit_changed(&stores, origin);
        let source = self.links.get(&from).map_or(Mask::default(), |link| link.bit);
        let informed = self.satisfied(origin, mark).with(source).with(served);
        self.tell_all(number, informed);
        number
    }
}
