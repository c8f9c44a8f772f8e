//! Which control links this node wants and which it takes: gossip's choice, carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use meshwork_gossip::limits::{MOST_REFERRED, ROOMY};
use meshwork_gossip::neighbours::{Caller, Neighbours, Occupancy, Own, OwnLink, Welcome};
use meshwork_gossip::{Event, MemberState};
use meshwork_wire::PeerId;

use super::{Node, links};
use crate::control::dialer::TargetKey;
use crate::control::{Answer, Direction, Knock, MOST_REFERRED_ENDPOINTS, Referral};

/// How long a caller that was let in may take to come: its greeting is answered, and the link is up.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// Members that return together are not all dialled in the same moment.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

/// The choice, and who is on its way in.
pub(super) struct Choice {
    neighbours: Neighbours,
    expected: BTreeMap<PeerId, Expected>,
    /// A neighbour told all that it held, so that the mesh is known.
    told: bool,
}

#[derive(Clone, Copy)]
struct Expected {
    until: Instant,
    named: bool,
    welcome: Welcome,
}

impl Choice {
    pub(super) fn new(me: PeerId, now: Instant) -> Self {
        Self { neighbours: Neighbours::new(me, now), expected: BTreeMap::new(), told: false }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.neighbours.poll_timeout()
    }

    /// A caller that was let in is here; answers whether that was because it had nobody else.
    pub(super) fn came(&mut self, peer: PeerId) -> bool {
        self.expected.remove(&peer).is_some_and(|expected| expected.welcome == Welcome::Alone)
    }

    /// A member sent this node elsewhere.
    pub(super) fn refused(&mut self, now: Instant, peer: PeerId, links: usize) {
        self.neighbours.refused(now, &mut crate::random::number, peer, links);
    }
}

impl Node {
    /// Notes what the choice of links depends on.
    pub(super) fn heed_event(&mut self, now: Instant, event: &Event) {
        match event {
            Event::Member { peer, state: MemberState::Alive, .. } if !self.links.contains_key(peer) => {
                let sparse = self.choice.neighbours.is_sparse();
                let pause = if sparse { RETURN_PAUSE.mul_f64(links::jitter()) } else { Duration::ZERO };
                self.dialer.revive(now + pause, *peer);
            }
            Event::Member { .. } | Event::LinkDown { .. } => {}
            Event::Synced { .. } => self.choice.told = true,
            _ => return,
        }
        self.links_changed(now);
    }

    /// Members or links changed.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.choice.told &= !self.links.is_empty();
        let (links, told) = (self.links.len(), self.choice.told);
        self.choice.neighbours.changed(now, &mut crate::random::number, links, told);
    }

    /// Chooses links anew where that is due, and gives one up that nobody needs.
    pub(super) fn choose_links(&mut self, now: Instant) {
        if now < self.choice.poll_timeout() {
            return;
        }
        let (view, own) = (self.gossip.view(), self.own_links());
        let random = &mut crate::random::number;
        if self.choice.neighbours.review(now, random, &view, &own) {
            self.discover(now);
        }
        if !self.parts.config.discovery {
            return;
        }
        if let Some(peer) = self.choice.neighbours.give_up(now, random, &own) {
            tracing::info!(%peer, "gave up a control link that neither end needs");
            self.drop_link_by(now, peer, "given up: both ends have more links than they need", links::Ending::GiveUp);
        }
    }

    fn own_links(&self) -> Own {
        let live = self.gossip.live_links();
        let links = self.links.iter().filter(|(peer, _)| live.contains(peer)).map(|(peer, link)| {
            let dialled = link.sender.direction == Direction::Outbound;
            (*peer, OwnLink { dialled, kept: link.sender.caller.named || self.dialer.names(*peer) })
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
        for (peer, at) in self.choice.neighbours.chosen() {
            let Some(record) = self.records.get(&peer) else { continue };
            let told = record.endpoints.iter().copied().filter(|endpoint| !ours.contains(endpoint));
            wanted.insert(peer, (at.max(now), told.collect()));
        }
        self.dialer.discover(&wanted);
    }

    /// What this node says of itself to whom it dials.
    pub(super) fn as_caller(&self, key: &TargetKey, insists: bool) -> Caller {
        Caller { named: key.member().is_none(), alone: self.links.is_empty(), insists }
    }

    /// Someone asks for a link.
    pub(super) fn knock(&mut self, now: Instant, knock: Knock) {
        let Knock { peer, address, caller, reply } = knock;
        self.choice.expected.retain(|_, expected| expected.until > now);
        let known = self.links.contains_key(&peer) || self.dialer.names(peer);
        let welcome = if known { Some(Welcome::Room) } else { self.occupancy().admits(caller) };
        let answer = match welcome {
            Some(welcome) => {
                let expected = Expected { until: now + ON_ITS_WAY, named: caller.named, welcome };
                self.choice.expected.insert(peer, expected);
                Answer::Welcome
            }
            None => {
                tracing::debug!(%peer, %address, "sent a caller elsewhere: this node has as many links as it carries");
                self.sent_elsewhere += 1;
                Answer::Elsewhere(self.referral(peer, address))
            }
        };
        // Whoever knocked may have gone away.
        let _ = reply.send(answer);
    }

    /// Links that this node's operator did not ask for, and callers on their way in.
    fn occupancy(&self) -> Occupancy {
        let foreign = self.links.iter().filter(|(peer, _)| !self.dialer.names(**peer)).map(|(_, link)| link);
        let mut occupancy = Occupancy::default();
        for link in foreign {
            let inbound = link.sender.direction == Direction::Inbound;
            occupancy.links += 1;
            occupancy.named += usize::from(inbound && link.sender.caller.named);
            occupancy.alone += usize::from(link.alone);
        }
        for expected in self.choice.expected.iter().filter(|(peer, _)| !self.links.contains_key(peer)).map(|(_, it)| it)
        {
            occupancy.links += 1;
            occupancy.named += usize::from(expected.named);
            occupancy.alone += usize::from(expected.welcome == Welcome::Alone);
        }
        occupancy
    }

    /// A few members with room, at addresses of the caller's family first.
    fn referral(&self, caller: PeerId, address: SocketAddr) -> Referral {
        let view = self.gossip.view();
        let me = self.parts.identity.peer_id();
        let roomy = view.others(me).filter(|(peer, known)| known.reachable && known.degree < ROOMY && *peer != caller);
        let mut roomy: Vec<PeerId> = roomy.map(|(peer, _)| peer).collect();
        let mut named = Vec::new();
        while named.len() < MOST_REFERRED && !roomy.is_empty() {
            let peer = roomy.swap_remove((crate::random::number() % roomy.len() as u64) as usize);
            let Some(record) = self.records.get(&peer) else { continue };
            let mut endpoints = record.endpoints.clone();
            endpoints.sort_by_key(|endpoint| endpoint.is_ipv4() != address.is_ipv4());
            endpoints.truncate(MOST_REFERRED_ENDPOINTS);
            if !endpoints.is_empty() {
                named.push((peer, endpoints));
            }
        }
        Referral(named)
    }
}
