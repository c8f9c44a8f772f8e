//! The mesh as the choice of links sees it: members, how many links each tells of, and the rings.
//!
//! A **ring** is an order of all members by a hash of their ids, closed to a circle; there are [`MOST_RINGS`], with
//! different hashes. Neighbours on a few rings together form a random regular graph (C. Law, K.-Y. Siu, "Distributed
//! construction of random expander networks", 2003). Everyone computes the same rings from the same members, so both ends
//! want the same links without a word between them, and it does not matter who joined when or through whom.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_wire::PeerId;

use crate::MemberState;
use crate::gossip::Gossip;
use crate::limits::{FEW_LINKS, MOST_LINKS, MOST_RINGS};
use crate::replica::links_in;

/// A member other than this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Whether a path of links leads to it.
    pub reachable: bool,
    /// Links that it tells of.
    pub degree: usize,
}

/// All members, with or without this node.
#[derive(Debug, Default)]
pub struct View {
    /// In order of their ids.
    members: Vec<(PeerId, Known)>,
    reachable: usize,
    rings: [OnceCell<Vec<Place>>; MOST_RINGS],
}

/// Where a member stands on a ring.
type Place = (u64, PeerId);

impl View {
    /// A mesh of these members.
    #[must_use]
    pub fn new(members: BTreeMap<PeerId, Known>) -> Self {
        Self::of(members.into_iter().collect())
    }

    /// The same of members in order of their ids.
    fn of(members: Vec<(PeerId, Known)>) -> Self {
        let reachable = members.iter().filter(|(_, known)| known.reachable).count();
        Self { members, reachable, rings: Default::default() }
    }

    /// One member.
    #[must_use]
    pub fn member(&self, peer: PeerId) -> Option<Known> {
        let place = self.members.binary_search_by_key(&peer, |(peer, _)| *peer).ok()?;
        self.members.get(place).map(|(_, known)| *known)
    }

    /// All members but `me`.
    pub fn others(&self, me: PeerId) -> impl Iterator<Item = (PeerId, Known)> {
        self.members.iter().copied().filter(move |(peer, _)| *peer != me)
    }

    /// How many others can be reached.
    pub(super) fn reachable_but(&self, me: PeerId) -> usize {
        self.reachable - usize::from(self.member(me).is_some_and(|known| known.reachable))
    }

    /// The others on a ring in their order from `me` on, forwards or backwards.
    pub(super) fn walk(&self, me: PeerId, ring: usize, forwards: bool) -> impl Iterator<Item = (PeerId, Known)> {
        let places = self.ring(ring);
        let (mine, count) = (place(me, ring), places.len());
        let start = places.partition_point(|place| *place < mine);
        (0..count).filter_map(move |step| {
            let index = if forwards { start + step } else { start + 2 * count - 1 - step };
            let (_, peer) = *places.get(index % count)?;
            (peer != me).then(|| self.member(peer).map(|known| (peer, known)))?
        })
    }

    fn ring(&self, ring: usize) -> &[Place] {
        let Some(cell) = self.rings.get(ring) else { return &[] };
        cell.get_or_init(|| {
            let mut places: Vec<Place> = self.members.iter().map(|(peer, _)| place(*peer, ring)).collect();
            places.sort_unstable();
            places
        })
    }
}

/// Ids are hashes already: mixing them with the ring's number is enough (the finalizer of SplitMix64).
fn place(peer: PeerId, ring: usize) -> Place {
    let id = u128::from_be_bytes(peer.0);
    let halves = [(id >> 64) as u64, id as u64, ring as u64];
    let mixed = halves.into_iter().fold(0_u64, |mixed, half| {
        let mixed = (mixed ^ half).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    (mixed, peer)
}

impl Gossip {
    /// The mesh as links are chosen from it.
    #[must_use]
    pub fn view(&self) -> View {
        let known = |known: &crate::membership::Known| {
            let degree = known.replica.as_ref().map_or(0, |replica| replica.degree as usize);
            Some((known.id, Known { reachable: known.standing?.state == MemberState::Alive, degree }))
        };
        View::of(self.members.others().filter_map(|(_, member)| known(member)).collect())
    }

    /// Whether a peer has more links than a node takes and can be reached without one from here: then the link is kept no
    /// longer because an operator asked for it. Where it may be what joins two parts of the mesh, it always is.
    #[must_use]
    pub fn is_overrun(&self, peer: PeerId) -> bool {
        let Some(number) = self.members.find(peer) else { return false };
        let degree = self.members.of(peer).map_or(0, |replica| replica.degree as usize);
        degree > MOST_LINKS && self.members.has_ways_around(number, FEW_LINKS)
    }

    /// Whether a path of links leads to a peer.
    #[must_use]
    pub fn reaches(&self, peer: PeerId) -> bool {
        self.members.find(peer).is_some_and(|number| self.members.is_reachable(number))
    }

    /// Round trips of the neighbours, and what those to their neighbours are at most.
    #[must_use]
    pub fn trips(&self) -> BTreeMap<PeerId, Duration> {
        let mut trips = BTreeMap::new();
        let mut note = |peer: PeerId, trip: Duration| {
            let known = trips.entry(peer).or_insert(trip);
            *known = trip.min(*known);
        };
        let near = self.links.iter().filter_map(|(peer, link)| Some((*peer, link.rtt.published()?)));
        let near: Vec<(PeerId, Duration)> = near.collect();
        for (peer, trip) in &near {
            let links = self.members.of(*peer).into_iter().flat_map(|replica| links_in(&replica.block));
            let far = links.filter_map(|(far, record)| Some((far, Duration::from_micros(record.rtt_us?.into()))));
            far.for_each(|(far, more)| note(far, *trip + more));
        }
        // What was measured here counts, also where a detour claims to be shorter.
        trips.extend(near);
        trips.remove(&self.id);
        trips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> PeerId {
        PeerId([number; 16])
    }

    fn view(count: u8) -> View {
        let known = Known { reachable: true, degree: 0 };
        View::new((0..count).map(|number| (id(number), known)).collect())
    }

    #[test]
    fn a_walk_meets_everyone_else_once_and_backwards_is_the_other_way_round() {
        let view = view(9);
        for ring in 0..MOST_RINGS {
            let walk = |forwards| view.walk(id(3), ring, forwards).map(|(peer, _)| peer).collect::<Vec<_>>();
            let (mut ahead, back) = (walk(true), walk(false));
            assert_eq!(ahead.len(), 8);
            ahead.reverse();
            assert_eq!(ahead, back);
        }
    }

    #[test]
    fn both_ends_of_a_ring_link_see_it() {
        let view = view(20);
        for number in 0..20 {
            let next = view.walk(id(number), 1, true).next().expect("others").0;
            assert_eq!(view.walk(next, 1, false).next().map(|(peer, _)| peer), Some(id(number)));
        }
    }

    #[test]
    fn who_is_not_among_the_members_has_a_place_as_well() {
        assert_eq!(view(5).walk(id(99), 0, true).count(), 5);
        assert_eq!(view(0).walk(id(99), 0, true).count(), 0);
        assert_eq!(view(5).walk(id(1), MOST_RINGS, true).count(), 0);
    }
}
