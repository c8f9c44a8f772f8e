//! Links coming up, going down and falling silent; timers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meshwork_identity::PublicKey;
use meshwork_wire::record::{LinkRecord, Links};
use meshwork_wire::{Incarnation, PeerId};

use crate::event::Event;
use crate::frames::{Frame, Heartbeat, Hello};
use crate::gossip::Gossip;
use crate::limits::{
    GROWTH_ENDED, HASTY_MEMBERS, HEARTBEAT, LONGEST_SPARE_LINK_PAUSE, SETTLED, SPARE_LINK_PAUSE,
    SPARE_LINK_PAUSE_PER_MEMBER, SPARE_LINK_PAUSE_WHILE_GROWING,
};
use crate::link::{Link, Mask};
use crate::pulse::{Beat, Pulse};

impl Gossip {
    /// An authenticated link to `peer` came up, or was replaced by a new one. The other side has to be told likewise.
    pub fn link_up(&mut self, now: Instant, peer: PeerId, key: PublicKey) {
        self.observe(now);
        self.forget_link(peer);
        let bit = Mask::of(self.places.free());
        self.places = self.places.with(bit);
        if self.beat <= now {
            self.beat = now + HEARTBEAT;
        }
        let link = Link::new(now, bit, Pulse::new(now, self.beat, peer < self.id));
        self.arm(link.pulse.timeout());
        self.links.insert(peer, link);
        self.learn(now, peer, key, Incarnation::default());
        self.publish_link(now, peer);
        self.greet(now, peer);
        // Both ends were told, and one comparison finds what either lacks.
        if self.id < peer {
            self.begin_walk(now, peer);
        }
        self.settle(now);
    }

    /// The link to `peer` is gone.
    pub fn link_down(&mut self, now: Instant, peer: PeerId) {
        self.observe(now);
        self.forget_link(peer);
        self.remove::<Links>(now, &peer);
        self.settle(now);
    }

    /// The link to `peer` was ended on purpose, here or there, because neither end needs it: unlike one that was lost, it
    /// says nothing about the peer, and nobody is in a hurry to know.
    pub fn link_given_up(&mut self, now: Instant, peer: PeerId) {
        self.observe(now);
        self.forget_link(peer);
        self.remove_within::<Links>(now, &peer, self.spare_link_pause(now));
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
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.sign_due(now);
        let links: Vec<PeerId> = self.links.keys().copied().collect();
        for peer in links {
            while let Some(beat) = self.links.get_mut(&peer).and_then(|link| link.pulse.beat(now)) {
                self.on_beat(now, peer, beat);
            }
        }
        for event in self.members.bury(now) {
            self.emit(event);
        }
        if now >= self.beat {
            self.beat = now + HEARTBEAT;
            self.drop_late_pulls(now);
            self.review_unvouched();
        }
        self.due = None;
        self.stirred = true;
        self.settle(now);
        self.arm_all(now);
    }

    fn arm_all(&mut self, now: Instant) {
        let links = self.links.values().map(|link| link.pulse.timeout());
        let pulled = (!self.pulls.is_empty()).then_some(self.beat);
        let rested = self.rested(now);
        let announced = self.links.values().filter_map(|link| Some(link.announces_at(now)?.max(rested)));
        let timers = links.chain(announced).chain(self.members.timeout()).chain(self.sign_at).chain(pulled);
        let quiet = self.quiet_until.filter(|until| *until > now);
        let timers = timers.chain(quiet);
        let next = timers.min();
        next.into_iter().for_each(|at| self.arm(at.max(now)));
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
        let digest = self.members.digest();
        self.transmit(peer, &Frame::Heartbeat(Heartbeat { digest, probe }));
    }

    pub(crate) fn on_heartbeat(&mut self, now: Instant, from: PeerId, heartbeat: Heartbeat) {
        let agrees = heartbeat.digest == self.members.digest();
        let yields = self.links.get_mut(&from).is_some_and(|link| link.pulse.beaten(now));
        // Where both agree an acknowledgement is enough; otherwise the other end has to know as well.
        if heartbeat.probe || yields && !agrees {
            self.send_heartbeat(from, false);
        }
        let settled = now >= self.installed + SETTLED;
        self.stirred |= agrees;
        if self.links.get_mut(&from).is_some_and(|link| link.walk.compare(now, agrees, settled)) {
            self.begin_walk(now, from);
        }
    }

    /// The transport had something authentic from `peer` besides frames, `since` or later: what it sends of itself says
    /// as well that the peer lives. [`Hearing`](crate::Hearing) finds out about it.
    pub fn link_heard(&mut self, now: Instant, peer: PeerId, since: Instant) {
        self.observe(now);
        if self.hear(now, peer, since) {
            self.settle(now);
        }
    }

    /// Something came from `from`, `at` or later. Answers whether there is a link to it.
    pub(crate) fn hear(&mut self, now: Instant, from: PeerId, at: Instant) -> bool {
        let Some(link) = self.links.get_mut(&from) else { return false };
        if link.pulse.heard(at) {
            self.publish_link(now, from);
            self.greet(now, from);
            self.begin_walk(now, from);
        }
        true
    }

    /// Opens the conversation: who speaks, and what it knows of the other side.
    fn greet(&mut self, now: Instant, peer: PeerId) {
        self.sign_due(now);
        let echo = self.members.of(peer).map(|replica| replica.manifest);
        let hello = Hello { incarnation: self.incarnation(), echo };
        self.transmit(peer, &Frame::Hello(hello));
    }

    pub(crate) fn learn(&mut self, now: Instant, peer: PeerId, key: PublicKey, incarnation: Incarnation) -> u32 {
        if self.members.find(peer).is_none() {
            self.grown = now;
        }
        let (number, restarted) = self.members.learn(now, peer, key, incarnation);
        if let Some(event) = restarted {
            self.emit(event);
        }
        number
    }

    /// Own links take precedence over the bounds of an origin only in so far as they come first: a node with a full
    /// map goes on without publishing the link.
    fn publish_link(&mut self, now: Instant, peer: PeerId) {
        let rtt = self.links.get(&peer).and_then(|link| link.rtt.published());
        let rtt_us = rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
        let spare = self.members.find(peer).is_some_and(|number| self.members.is_reachable(number));
        let pause = if spare { SPARE_LINK_PAUSE.max(self.spare_link_pause(now)) } else { Duration::ZERO };
        if let Err(full) = self.put_within::<Links>(now, &peer, &LinkRecord { rtt_us }, pause) {
            tracing::warn!(%peer, %full, "cannot publish a link");
        }
    }

    /// How long to gather changes of links that nobody waits for, because everyone handles them.
    fn spare_link_pause(&self, now: Instant) -> Duration {
        let grows = now < self.grown + GROWTH_ENDED;
        let each = if grows { SPARE_LINK_PAUSE_WHILE_GROWING } else { SPARE_LINK_PAUSE_PER_MEMBER };
        each.saturating_mul(self.members_beyond_hasty()).min(LONGEST_SPARE_LINK_PAUSE)
    }

    /// Members of a mesh that is so large that what nobody waits for takes its time. Those that cannot be reached do not
    /// count: anyone could have invented them.
    pub(crate) fn members_beyond_hasty(&self) -> u32 {
        u32::try_from(self.members.alive().saturating_sub(HASTY_MEMBERS)).unwrap_or(u32::MAX)
    }

    /// Links to peers that are up.
    #[must_use]
    pub fn live_links(&self) -> BTreeSet<PeerId> {
        self.links.iter().filter(|(_, link)| link.pulse.is_up()).map(|(peer, _)| *peer).collect()
    }
}
