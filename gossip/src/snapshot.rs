//! Pulling all entries of an origin in parts of bounded size.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use meshwork_wire::{PeerId, frame};

use crate::event::{Event, Misbehaved};
use crate::frames::{Entry, Frame, Manifest, Request, Snapshot, Stamp};
use crate::gossip::Gossip;
use crate::limits::{ENTRY_OVERHEAD, MAX_MEMBERS, MAX_ORIGIN, MAX_PARTS, PULL_TIMEOUT, PULLS_PER_LINK};
use crate::link::Link;
use crate::replica::{Replica, Unfit, cost, from_snapshot};

/// A snapshot on its way here.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) from: PeerId,
    pub(crate) deadline: Instant,
    gathered: Option<Gathered>,
}

/// Parts that came.
#[derive(Debug)]
struct Gathered {
    manifest: Manifest,
    parts: BTreeMap<u16, Vec<Entry>>,
    size: usize,
}

impl Gossip {
    /// Asks a link for what it holds and we lack, each origin over one link at a time.
    pub(crate) fn request_wanted(&mut self, now: Instant, peer: PeerId) {
        let origins = self.wanted_from(now, peer);
        for &origin in &origins {
            self.pulls.insert(origin, Pull { from: peer, deadline: now + PULL_TIMEOUT, gathered: None });
        }
        if !origins.is_empty() {
            self.transmit(peer, frame::encode(&Frame::Request(Request { origins })), true);
        }
        self.note_synced(peer);
    }

    pub(crate) fn request_from_all(&mut self, now: Instant) {
        let links: Vec<PeerId> = self.links.keys().copied().collect();
        links.into_iter().for_each(|peer| self.request_wanted(now, peer));
    }

    /// Turns to the other links that hold `origin`, now that it is held or its pull is over.
    pub(crate) fn review_wants(&mut self, now: Instant, origin: PeerId) {
        let wanting = |(peer, link): (&PeerId, &Link)| link.wants.contains_key(&origin).then_some(*peer);
        let links: Vec<PeerId> = self.links.iter().filter_map(wanting).collect();
        links.into_iter().for_each(|peer| self.request_wanted(now, peer));
    }

    fn wanted_from(&mut self, now: Instant, peer: PeerId) -> Vec<PeerId> {
        let Some(link) = self.links.get_mut(&peer).filter(|link| !link.wants.is_empty()) else { return Vec::new() };
        let (replicas, pulls) = (&self.replicas, &self.pulls);
        let full = replicas.len() >= MAX_MEMBERS;
        link.wants.retain(|origin, stamp| replicas.of(*origin).map_or(!full, |held| held.stamp() < *stamp));
        let mut room = PULLS_PER_LINK.saturating_sub(pulls.values().filter(|pull| pull.from == peer).count());
        let mut chosen = Vec::new();
        for origin in link.wants.keys().filter(|origin| !pulls.contains_key(*origin)) {
            if room == 0 || (replicas.of(*origin).is_none() && !link.newcomers.admit(now)) {
                break;
            }
            room -= 1;
            chosen.push(*origin);
        }
        chosen
    }

    fn note_synced(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.told_all && !link.synced && link.wants.is_empty() {
            link.synced = true;
            self.emit(Event::Synced { peer });
        }
    }

    /// Gives up on what did not come in time; it is asked for again where digests show it.
    pub(crate) fn drop_late_pulls(&mut self, now: Instant) {
        let late: Vec<(PeerId, PeerId)> = self
            .pulls
            .iter()
            .filter(|(_, pull)| now >= pull.deadline)
            .map(|(origin, pull)| (*origin, pull.from))
            .collect();
        for (origin, from) in late {
            self.end_pull(now, origin, from);
        }
    }

    fn end_pull(&mut self, now: Instant, origin: PeerId, from: PeerId) {
        self.forget_pull(origin, from);
        self.review_wants(now, origin);
    }

    fn forget_pull(&mut self, origin: PeerId, from: PeerId) {
        self.pulls.remove(&origin);
        if let Some(link) = self.links.get_mut(&from) {
            link.wants.remove(&origin);
        }
    }

    /// Sends what was asked for, as far as it is held and the queue has room.
    pub(crate) fn on_request(&mut self, from: PeerId, request: &Request) {
        let origins: BTreeSet<PeerId> = request.origins.iter().copied().take(PULLS_PER_LINK).collect();
        for origin in origins {
            let Some(replica) = self.replicas.of(origin) else { continue };
            let (manifest, batches) = (replica.manifest, replica.contents.batches());
            let parts = u16::try_from(batches.len()).unwrap_or(MAX_PARTS);
            for (part, entries) in (0..parts).zip(batches) {
                let snapshot = Frame::Snapshot(Snapshot { manifest, part, parts, entries });
                self.transmit(from, frame::encode(&snapshot), true);
            }
        }
    }

    /// Gathers parts; the last one brings the new state.
    pub(crate) fn on_snapshot(&mut self, now: Instant, from: PeerId, snapshot: Snapshot) -> Result<(), Misbehaved> {
        let (origin, stamp) = (snapshot.manifest.origin.peer_id(), snapshot.manifest.stamp);
        let Some(pull) = self.pulls.get_mut(&origin).filter(|pull| pull.from == from) else {
            self.counters.unexpected += 1;
            return Ok(());
        };
        let gathered = match pull.gather(origin, snapshot) {
            Ok(None) => return Ok(()),
            Ok(Some(gathered)) => gathered,
            Err(misbehaved) => {
                self.end_pull(now, origin, from);
                return Err(misbehaved);
            }
        };
        self.forget_pull(origin, from);
        if origin == self.id {
            self.on_own_manifest(&gathered.manifest)?;
        }
        let replica =
            from_snapshot(gathered.manifest, gathered.parts.into_values().flatten()).map_err(|unfit| match unfit {
                Unfit::Excess => Misbehaved::TooLarge(origin),
                Unfit::Root => Misbehaved::Altered(origin),
            })?;
        if origin == self.id {
            self.hold_former(replica);
        } else {
            self.hold_snapshot(now, from, origin, stamp, replica);
        }
        Ok(())
    }

    /// Keeps what a former or a second self published, as far as it is later than ours.
    fn hold_former(&mut self, replica: Replica) {
        let known = self.former.as_ref().map_or_else(|| self.own_replica().stamp(), Replica::stamp);
        if replica.stamp() > known {
            let incarnation = replica.incarnation();
            self.former = Some(replica);
            self.emit(Event::Recovered { incarnation });
        }
    }

    fn hold_snapshot(&mut self, now: Instant, from: PeerId, origin: PeerId, stamp: Stamp, replica: Replica) {
        if let Some(link) = self.links.get_mut(&from) {
            link.holds(origin, stamp);
        }
        if self.replicas.of(origin).is_none_or(|held| held.stamp() < stamp) {
            self.counters.snapshots += 1;
            self.install(now, origin, replica);
            self.unannounced.insert(origin);
        }
        self.review_wants(now, origin);
    }
}

impl Pull {
    /// Takes a part; answers all of them when none is missing. Parts of an older manifest give way to those of a
    /// newer one, which the sender turns to when it is asked again.
    fn gather(&mut self, origin: PeerId, snapshot: Snapshot) -> Result<Option<Gathered>, Misbehaved> {
        let Snapshot { manifest, part, parts, entries } = snapshot;
        if parts > MAX_PARTS || part >= parts {
            return Err(Misbehaved::TooLarge(origin));
        }
        if self.gathered.as_ref().is_none_or(|gathered| gathered.manifest != manifest) {
            if !manifest.is_valid() {
                return Err(Misbehaved::Forged(origin));
            }
            self.gathered = Some(Gathered { manifest, parts: BTreeMap::new(), size: 0 });
        }
        let Some(mut gathered) = self.gathered.take() else { return Ok(None) };
        gathered.size += entries.iter().map(|entry| cost(&entry.name, &entry.value)).sum::<usize>();
        if gathered.size > MAX_ORIGIN + ENTRY_OVERHEAD {
            return Err(Misbehaved::TooLarge(origin));
        }
        gathered.parts.insert(part, entries);
        if gathered.parts.len() == usize::from(parts) {
            return Ok(Some(gathered));
        }
        self.gathered = Some(gathered);
        Ok(None)
    }
}
