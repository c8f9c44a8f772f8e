//! Which control links this node wants and which it takes: gossip's choice, carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use meshwork_gossip::Event;
use meshwork_gossip::neighbours::{Caller, Held, Own, OwnLink};
use meshwork_wire::PeerId;

use super::{Node, links};
use crate::control::dialer::TargetKey;
use crate::control::{Answer, Direction, Knock, MOST_REFERRED_ENDPOINTS, Referral};

impl Node {
    /// Notes what the choice of links depends on.
    pub(super) fn heed_event(&mut self, now: Instant, event: &Event) {
        let links = &self.links;
        let linked = |peer: PeerId| links.contains_key(&peer);
        let revived = self.choice.heed(now, &mut crate::random::number, event, links.len(), linked);
        if let Some((peer, pause)) = revived {
            self.dialer.revive(now + pause, peer);
        }
    }

    /// Members or links changed.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.choice.changed(now, &mut crate::random::number, self.links.len());
    }

    /// Chooses links anew where that is due, and gives one up that nobody needs.
    pub(super) fn choose_links(&mut self, now: Instant) {
        if now < self.choice.poll_timeout() {
            return;
        }
        let (view, own) = (self.gossip.view(), self.own_links());
        let random = &mut crate::random::number;
        if self.choice.review(now, random, &view, &own) {
            self.discover(now);
        }
        if !self.parts.config.discovery {
            return;
        }
        if let Some(peer) = self.choice.give_up(now, random, &own) {
            tracing::info!(%peer, "gave up a control link that neither end needs");
            self.dialer.given_up(now, peer, links::jitter());
            self.drop_link_by(now, peer, "given up: both ends have more links than they need", links::Ending::GiveUp);
        }
    }

    fn own_links(&self) -> Own {
        let live = self.gossip.live_links();
        let links = self.links.iter().filter(|(peer, _)| live.contains(peer)).map(|(peer, link)| {
            let dialled = link.sender.direction == Direction::Outbound;
            let named = link.sender.caller.named || self.dialer.names(*peer);
            (*peer, OwnLink { dialled, kept: named && !self.gossip.is_overrun(*peer) })
        });
        Own { links: links.collect(), trips: self.gossip.trips() }
    }

    /// Chosen members are dialled at the endpoints they tell.
    pub(super) fn discover(&mut self, now: Instant) {
        if !self.parts.config.discovery {
            return;
        }
        let ours: BTreeSet<SocketAddr> = self.own_endpoints().into_iter().collect();
        let mut wanted = BTreeMap::new();
        for (peer, at) in self.choice.chosen() {
            let Some(record) = self.records.get(&peer) else { continue };
            let told = record.endpoints.iter().copied().filter(|endpoint| !ours.contains(endpoint));
            wanted.insert(peer, (at.max(now), told.collect()));
        }
        self.dialer.discover(&wanted);
    }

    /// What this node says of itself to whom it dials.
    pub(super) fn as_caller(&self, key: &TargetKey, insists: bool) -> Caller {
        // Whom this node reaches anyway it has no need to burden beyond what everyone takes.
        let reached = self.dialer.leads_to(key).is_some_and(|peer| self.gossip.reaches(peer));
        Caller { named: key.member().is_none() && !reached, alone: self.links.is_empty(), insists }
    }

    /// Someone asks for a link.
    pub(super) fn knock(&mut self, now: Instant, knock: Knock) {
        let Knock { peer, address, caller, reply } = knock;
        let wanted = self.links.contains_key(&peer) || self.dialer.names(peer);
        let held = self.held_links();
        let answer = if self.choice.knock(now, peer, caller, wanted, &held) {
            Answer::Welcome
        } else {
            tracing::debug!(%peer, %address, "sent a caller elsewhere: this node has as many links as it carries");
            self.sent_elsewhere += 1;
            Answer::Elsewhere(self.referral(peer, address))
        };
        // Whoever knocked may have gone away.
        let _ = reply.send(answer);
    }

    /// Links as the door counts them.
    fn held_links(&self) -> Vec<Held> {
        let held = |(peer, link): (&PeerId, &links::Link)| Held {
            peer: *peer,
            ours: self.dialer.names(*peer),
            inbound: link.sender.direction == Direction::Inbound,
            named: link.sender.caller.named,
            alone: link.alone,
        };
        self.links.iter().map(held).collect()
    }

    /// A few members with room, at addresses of the caller's family first.
    fn referral(&self, caller: PeerId, address: SocketAddr) -> Referral {
        let endpoints = |peer: PeerId| {
            let mut endpoints = self.records.get(&peer)?.endpoints.clone();
            endpoints.sort_by_key(|endpoint| endpoint.is_ipv4() != address.is_ipv4());
            endpoints.truncate(MOST_REFERRED_ENDPOINTS);
            (!endpoints.is_empty()).then_some(endpoints)
        };
        let me = self.parts.identity.peer_id();
        Referral(self.gossip.view().refer(me, caller, &mut crate::random::number, endpoints))
    }
}
