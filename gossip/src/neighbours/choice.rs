//! The choice of links with what it takes to carry it out: who is on its way in, and whether the mesh is known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

use super::{Caller, Neighbours, Occupancy, Own, Random, View, Welcome, share};
use crate::event::{Event, MemberState};
use crate::limits::{MOST_REFERRED, ROOMY};

/// How long a caller that was let in may take to come: its greeting is answered, and the link is up.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// Members that return together are not all dialled in the same moment.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

/// The choice, and who is on its way in.
#[derive(Debug)]
pub struct Choice {
    neighbours: Neighbours,
    expected: BTreeMap<PeerId, Expected>,
    /// A neighbour told all that it held, so that the mesh is known.
    told: bool,
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    until: Instant,
    named: bool,
    welcome: Welcome,
}

/// A link as the door counts it.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// To whom.
    pub peer: PeerId,
    /// The operator of this node asked for it.
    pub ours: bool,
    /// The other side dialled it.
    pub inbound: bool,
    /// The dialler's operator named the other side.
    pub named: bool,
    /// Its caller was let in because it had nobody else.
    pub alone: bool,
}

impl Choice {
    /// Of a node that knows nobody yet.
    #[must_use]
    pub fn new(me: PeerId, now: Instant) -> Self {
        Self { neighbours: Neighbours::new(me, now), expected: BTreeMap::new(), told: false }
    }

    /// When to call [`Self::review`].
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.neighbours.poll_timeout()
    }

    /// Members that should have a link, each with the moment from which it is dialled.
    pub fn chosen(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        self.neighbours.chosen()
    }

    /// Something happened on which the choice may depend; there are so many links. Where a member without a link
    /// returned, answers after which pause what was tried in vain before is tried anew.
    pub fn heed(
        &mut self,
        now: Instant,
        random: Random<'_>,
        event: &Event,
        links: usize,
        linked: impl Fn(PeerId) -> bool,
    ) -> Option<(PeerId, Duration)> {
        let mut revived = None;
        match event {
            Event::Member { peer, state: MemberState::Alive, .. } if !linked(*peer) => {
                let sparse = self.neighbours.is_sparse();
                let pause = if sparse { share(RETURN_PAUSE, random()) } else { Duration::ZERO };
                revived = Some((*peer, pause));
            }
            Event::Member { .. } | Event::LinkDown { .. } => {}
            Event::Synced { .. } => self.told = true,
            _ => return None,
        }
        self.changed(now, random, links);
        revived
    }

    /// Members or links changed; there are so many links.
    pub fn changed(&mut self, now: Instant, random: Random<'_>, links: usize) {
        self.told &= links > 0;
        self.neighbours.changed(now, random, links, self.told);
    }

    /// A member sent this node elsewhere.
    pub fn refused(&mut self, now: Instant, random: Random<'_>, peer: PeerId, links: usize) {
        self.neighbours.refused(now, random, peer, links);
    }

    /// Chooses anew. Answers whether other members are chosen than before.
    pub fn review(&mut self, now: Instant, random: Random<'_>, view: &View, own: &Own) -> bool {
        self.neighbours.review(now, random, view, own)
    }

    /// A link to close, because both ends have more than enough; asked for after each review.
    pub fn give_up(&mut self, now: Instant, random: Random<'_>, own: &Own) -> Option<PeerId> {
        self.neighbours.give_up(now, random, own)
    }

    /// Someone asks for a link. Answers whether it is let in. `wanted` where this node has a link to it already or its
    /// operator asked for one.
    pub fn knock(&mut self, now: Instant, peer: PeerId, caller: Caller, wanted: bool, links: &[Held]) -> bool {
        self.expected.retain(|_, expected| expected.until > now);
        let welcome = if wanted { Some(Welcome::Room) } else { self.occupancy(links).admits(caller) };
        let expected = welcome.map(|welcome| Expected { until: now + ON_ITS_WAY, named: caller.named, welcome });
        self.expected.extend(expected.map(|expected| (peer, expected)));
        welcome.is_some()
    }

    /// A caller that was let in is here. Answers whether that was because it had nobody else.
    pub fn came(&mut self, peer: PeerId) -> bool {
        self.expected.remove(&peer).is_some_and(|expected| expected.welcome == Welcome::Alone)
    }

    /// Links that this node's operator did not ask for, and callers on their way in.
    fn occupancy(&self, links: &[Held]) -> Occupancy {
        let mut occupancy = Occupancy::default();
        for link in links.iter().filter(|link| !link.ours) {
            occupancy.links += 1;
            occupancy.named += usize::from(link.inbound && link.named);
            occupancy.alone += usize::from(link.alone);
        }
        let here = |peer: &PeerId| links.iter().any(|link| link.peer == *peer);
        for expected in self.expected.iter().filter(|(peer, _)| !here(peer)).map(|(_, expected)| expected) {
            occupancy.links += 1;
            occupancy.named += usize::from(expected.named);
            occupancy.alone += usize::from(expected.welcome == Welcome::Alone);
        }
        occupancy
    }
}

impl View {
    /// A few members with room, for a caller that `me` sends elsewhere; where they are is left to the driver, and who is
    /// nowhere is not named.
    pub fn refer<E>(
        &self,
        me: PeerId,
        caller: PeerId,
        random: Random<'_>,
        place: impl Fn(PeerId) -> Option<E>,
    ) -> Vec<(PeerId, E)> {
        let roomy = self.others(me).filter(|(peer, known)| known.reachable && known.degree < ROOMY && *peer != caller);
        let mut roomy: Vec<PeerId> = roomy.map(|(peer, _)| peer).collect();
        let mut named = Vec::new();
        while named.len() < MOST_REFERRED && !roomy.is_empty() {
            let peer = roomy.swap_remove((random() % roomy.len() as u64) as usize);
            named.extend(place(peer).map(|place| (peer, place)));
        }
        named
    }
}
