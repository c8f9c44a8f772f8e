//! Links coming up, going down and falling silent; timers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meshwork_identity::PublicKey;
use meshwork_wire::record::{LinkRecord, Links};
use meshwork_wire::{Incarnation, PeerId, frame};

use crate::event::Event;
use crate::frames::{Frame, Heartbeat, Hello};
use crate::gossip::Gossip;
use crate::link::{Beat, Link};

impl Gossip {
    /// An authenticated link to `peer` came up, or was replaced by a new one. The other side has to be told likewise.
    pub fn link_up(&mut self, now: Instant, peer: PeerId, key: PublicKey) {
        self.observe(now);
        self.links.insert(peer, Link::new(now));
        self.pulls.retain(|_, pull| pull.from != peer);
        self.learn(now, peer, key, Incarnation::default());
        self.publish_link(now, peer);
        self.greet(now, peer);
        self.settle(now);
    }

    /// The link to `peer` is gone.
    pub fn link_down(&mut self, now: Instant, peer: PeerId) {
        self.observe(now);
        self.links.remove(&peer);
        self.pulls.retain(|_, pull| pull.from != peer);
        self.remove::<Links>(now, &peer);
        self.request_from_all(now);
        self.settle(now);
    }

    /// The driver measured the round trip of a link. It is published when it moved far and for long.
    pub fn link_rtt(&mut self, now: Instant, peer: PeerId, rtt: Duration) {
        self.observe(now);
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.rtt.measure(now, rtt) && link.pulse.is_up() {
            self.publish_link(now, peer);
        }
    }

    /// When to call [`Gossip::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let links = self.links.values().map(|link| link.pulse.timeout());
        let pulls = self.pulls.values().map(|pull| pull.deadline);
        links.chain(pulls).chain(self.membership.timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.sign_changes();
        let links: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in links {
            while let Some(beat) = self.links.get_mut(&peer).and_then(|link| link.pulse.beat(now)) {
                self.on_beat(now, peer, beat);
            }
        }
        for event in self.membership.bury(now) {
            self.emit(event);
        }
        self.drop_late_pulls(now);
        self.request_from_all(now);
        self.settle(now);
    }

    fn on_beat(&mut self, now: Instant, peer: PeerId, beat: Beat) {
        match beat {
            Beat::Heartbeat => self.send_heartbeat(peer, false),
            Beat::Probe => self.send_heartbeat(peer, true),
            Beat::Down => {
                self.remove::<Links>(now, &peer);
                self.emit(Event::LinkDown { peer });
            }
            Beat::Silent => self.emit(Event::LinkSilent { peer }),
        }
    }

    fn send_heartbeat(&mut self, peer: PeerId, probe: bool) {
        let digest = self.replicas.digest();
        self.transmit(peer, frame::encode(&Frame::Heartbeat(Heartbeat { digest, probe })), false);
    }

    pub(crate) fn on_heartbeat(&mut self, now: Instant, from: PeerId, heartbeat: Heartbeat) {
        if heartbeat.probe {
            self.send_heartbeat(from, false);
        }
        let agrees = heartbeat.digest == self.replicas.digest();
        if self.links.get_mut(&from).is_some_and(|link| link.compare(now, agrees)) {
            self.send_all_digests(now, from);
        }
    }

    /// Something came from `from`. Answers whether there is a link to it.
    pub(crate) fn hear(&mut self, now: Instant, from: PeerId) -> bool {
        let Some(link) = self.links.get_mut(&from) else { return false };
        if link.pulse.heard(now) {
            self.publish_link(now, from);
            self.greet(now, from);
        }
        true
    }

    /// Opens the conversation: who speaks, what it knows of the other side, and all that it holds.
    fn greet(&mut self, now: Instant, peer: PeerId) {
        self.sign_changes();
        let echo = self.replicas.of(peer).map(|replica| replica.manifest);
        let hello = Hello { incarnation: self.incarnation(), echo };
        self.transmit(peer, frame::encode(&Frame::Hello(hello)), true);
        self.send_all_digests(now, peer);
    }

    pub(crate) fn learn(&mut self, now: Instant, peer: PeerId, key: PublicKey, incarnation: Incarnation) {
        let known = self.membership.standing(peer).is_some();
        let restarted = self.membership.learn(now, peer, key, incarnation);
        self.topology_changed |= !known;
        if let Some(event) = restarted {
            self.emit(event);
        }
    }

    /// Own links take precedence over the bounds of an origin only in so far as they come first: a node with a full
    /// map goes on without publishing the link.
    fn publish_link(&mut self, now: Instant, peer: PeerId) {
        let rtt = self.links.get(&peer).and_then(|link| link.rtt.published());
        let rtt_us = rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
        if let Err(full) = self.put::<Links>(now, &peer, &LinkRecord { rtt_us }) {
            tracing::warn!(%peer, %full, "cannot publish a link");
        }
    }

    /// Links to peers that are up.
    #[must_use]
    pub fn live_links(&self) -> BTreeSet<PeerId> {
        self.links.iter().filter(|(_, link)| link.pulse.is_up()).map(|(peer, _)| *peer).collect()
    }
}
