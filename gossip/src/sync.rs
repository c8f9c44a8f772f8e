//! Keeping replicas equal: deltas are pushed, digests find what was missed.

use std::collections::BTreeSet;
use std::time::Instant;

use meshwork_wire::record::{Links, Store};
use meshwork_wire::{PeerId, frame};

use crate::event::{Event, Misbehaved};
use crate::frames::{Delta, Digests, Frame, Manifest, Stamp, Summary};
use crate::gossip::Gossip;
use crate::limits::{DIGEST_BATCH, MAX_MEMBERS};
use crate::replica::{Contents, Replica, Unfit, after_delta};

/// The greatest id: a range that ends here ends the list.
const LAST: PeerId = PeerId([0xff; 16]);

impl Gossip {
    /// Tells a link all that we hold, in frames that together cover every id.
    pub(crate) fn send_all_digests(&mut self, now: Instant, to: PeerId) {
        let summaries: Vec<Summary> = self.replicas.iter().map(|(origin, replica)| replica.summary(origin)).collect();
        let batches: Vec<&[Summary]> = summaries.chunks(DIGEST_BATCH).collect();
        let mut from = PeerId([0; 16]);
        for (index, batch) in batches.iter().enumerate() {
            let end = batch.last().filter(|_| index + 1 < batches.len()).map_or(LAST, |last| last.origin);
            let digests = Digests { covers: Some((from, end)), summaries: batch.to_vec() };
            self.transmit(to, frame::encode(&Frame::Digests(digests)), true);
            from = successor(end);
        }
        if let Some(link) = self.links.get_mut(&to) {
            link.digests_went_out(now);
        }
    }

    fn send_summaries(&mut self, to: PeerId, summaries: &[Summary]) {
        for batch in summaries.chunks(DIGEST_BATCH) {
            let digests = Digests { covers: None, summaries: batch.to_vec() };
            self.transmit(to, frame::encode(&Frame::Digests(digests)), true);
        }
    }

    /// Notes what the neighbour holds; what is newer there is pulled, what is newer here is told.
    pub(crate) fn on_digests(&mut self, now: Instant, from: PeerId, digests: &Digests) {
        let mut newer_here = Vec::new();
        let Some(link) = self.links.get_mut(&from) else { return };
        for &Summary { origin, stamp } in &digests.summaries {
            let ours = self.replicas.of(origin);
            if ours.is_some() || self.replicas.len() < MAX_MEMBERS {
                link.holds(origin, stamp);
            }
            match ours {
                Some(ours) if ours.stamp() > stamp => newer_here.push(ours.summary(origin)),
                Some(ours) if ours.stamp() == stamp => {}
                _ => link.want(origin, stamp),
            }
        }
        if let Some((start, end)) = digests.covers {
            let listed: BTreeSet<PeerId> = digests.summaries.iter().map(|summary| summary.origin).collect();
            let unlisted = self.replicas.range(start, end).filter(|(origin, _)| !listed.contains(origin));
            newer_here.extend(unlisted.map(|(origin, replica)| replica.summary(origin)));
            link.told_all |= end == LAST;
        }
        // Whoever was just told everything knows it already.
        if !link.told_lately(now) {
            self.send_summaries(from, &newer_here);
        }
    }

    /// Applies a change and passes it on, or asks for a snapshot where it does not fit.
    pub(crate) fn on_delta(
        &mut self,
        now: Instant,
        from: PeerId,
        delta: Delta,
        bytes: &[u8],
    ) -> Result<(), Misbehaved> {
        let manifest = delta.manifest;
        let (origin, stamp) = (manifest.origin.peer_id(), manifest.stamp);
        if origin == self.id {
            return self.on_own_manifest(&manifest);
        }
        if self.replicas.of(origin).is_some_and(|held| held.stamp() >= stamp) {
            return Ok(());
        }
        if !manifest.is_valid() {
            return Err(Misbehaved::Forged(origin));
        }
        let Some(base) = self.base_of(now, from, origin, stamp, delta.from)? else {
            self.want(from, origin, stamp);
            return Ok(());
        };
        match after_delta(&base, delta) {
            Ok(replica) => {
                self.counters.deltas += 1;
                self.pass_on(from, origin, stamp, bytes);
                self.install(now, origin, replica);
                Ok(())
            }
            Err(Unfit::Excess) => Err(Misbehaved::TooLarge(origin)),
            Err(Unfit::Root) => {
                self.want(from, origin, stamp);
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
    ) -> Result<Option<Contents>, Misbehaved> {
        if let Some(held) = self.replicas.of(origin) {
            let same_run = held.incarnation() == stamp.incarnation;
            return Ok(match sequence {
                _ if same_run => (held.stamp().sequence == sequence).then(|| held.contents.clone()),
                0 => Some(Contents::default()),
                _ => None,
            });
        }
        if self.replicas.len() >= MAX_MEMBERS {
            return Err(Misbehaved::TooManyMembers(origin));
        }
        Ok((sequence == 0 && self.admits_newcomer(now, from)).then(Contents::default))
    }

    pub(crate) fn admits_newcomer(&mut self, now: Instant, from: PeerId) -> bool {
        self.links.get_mut(&from).is_some_and(|link| link.newcomers.admit(now))
    }

    fn want(&mut self, from: PeerId, origin: PeerId, stamp: Stamp) {
        if let Some(link) = self.links.get_mut(&from) {
            link.want(origin, stamp);
        }
    }

    /// Sends a delta on to the links that lack it. Neighbours of the one it came from got it from there, or from where
    /// that one got it.
    fn pass_on(&mut self, from: PeerId, origin: PeerId, stamp: Stamp, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&from) {
            link.holds(origin, stamp);
        }
        let served = self.replicas.of(from).map(|replica| &replica.neighbours);
        let lacks =
            |peer: &PeerId| *peer != from && *peer != origin && served.is_none_or(|links| !links.contains_key(peer));
        let targets: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(peer, link)| lacks(peer) && link.lacks(origin, stamp))
            .map(|(peer, _)| *peer)
            .collect();
        for to in targets {
            self.transmit(to, bytes.to_vec(), true);
        }
    }

    /// Replaces what is held of an origin by a later state.
    pub(crate) fn install(&mut self, now: Instant, origin: PeerId, replica: Replica) {
        let (key, incarnation) = (replica.manifest.origin, replica.incarnation());
        let empty = Replica::new(replica.manifest, Contents::default());
        let stores = self.replicas.of(origin).unwrap_or(&empty).difference(&replica);
        self.topology_changed |= stores.contains(&Links::ID);
        self.replicas.install(origin, replica);
        self.learn(now, origin, key, incarnation);
        self.emit_changed(stores, origin);
        self.review_wants(now, origin);
    }

    /// Tells links of states that came as snapshots, one frame for all of them.
    pub(crate) fn announce(&mut self) {
        let origins = std::mem::take(&mut self.unannounced);
        if origins.is_empty() {
            return;
        }
        let summaries: Vec<Summary> =
            origins.iter().filter_map(|origin| Some(self.replicas.of(*origin)?.summary(*origin))).collect();
        let links: Vec<PeerId> = self.links.keys().copied().collect();
        for to in links {
            let lacking = |summary: &&Summary| {
                summary.origin != to
                    && self.links.get(&to).is_some_and(|link| link.lacks(summary.origin, summary.stamp))
            };
            let lacking: Vec<Summary> = summaries.iter().filter(lacking).copied().collect();
            self.send_summaries(to, &lacking);
        }
    }

    /// Someone holds this of us. A later state than ours, signed by us, was made by a former or a second self.
    pub(crate) fn on_own_manifest(&mut self, manifest: &Manifest) -> Result<(), Misbehaved> {
        let ours = self.own_replica().stamp();
        if manifest.stamp <= ours && !is_twin(manifest.stamp, ours) {
            return Ok(());
        }
        if manifest.origin != self.identity.public_key() || !manifest.is_valid() {
            return Err(Misbehaved::Forged(self.id));
        }
        if self.outranked.is_none_or(|known| known < manifest.stamp) {
            self.outranked = Some(manifest.stamp);
            self.emit(Event::Outranked { incarnation: manifest.stamp.incarnation });
        }
        Ok(())
    }
}

/// Two states under one number: both were signed by us, so there are two of us.
fn is_twin(theirs: Stamp, ours: Stamp) -> bool {
    (theirs.incarnation, theirs.sequence) == (ours.incarnation, ours.sequence) && theirs.root != ours.root
}

fn successor(id: PeerId) -> PeerId {
    PeerId(u128::from_be_bytes(id.0).saturating_add(1).to_be_bytes())
}
