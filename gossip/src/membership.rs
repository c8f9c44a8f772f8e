//! Who is a member and in which state.
//!
//! A member is reachable when a path of links leads to it from here, where each link is claimed by its near end: the
//! claims of a peer that is not itself reachable count for nothing, so what a dead node once said keeps nobody alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use meshwork_identity::PublicKey;
use meshwork_wire::{Incarnation, PeerId};

use crate::event::{Event, Member, MemberState};
use crate::limits::DEATH;

/// A member as known here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) public_key: PublicKey,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: MemberState,
    pub(crate) since: Instant,
    announced: bool,
}

/// All members but this node.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    members: BTreeMap<PeerId, Standing>,
    /// Unreachable since when, not yet dead.
    suspects: BTreeMap<PeerId, Instant>,
}

impl Membership {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Standing)> {
        self.members.iter().map(|(id, standing)| (*id, standing))
    }

    pub(crate) fn ids(&self) -> BTreeSet<PeerId> {
        self.members.keys().copied().collect()
    }

    pub(crate) fn standing(&self, peer: PeerId) -> Option<&Standing> {
        self.members.get(&peer)
    }

    /// Notes that `peer` exists and which run of it speaks. Answers what is new about a known one.
    pub(crate) fn learn(
        &mut self,
        now: Instant,
        peer: PeerId,
        key: PublicKey,
        incarnation: Incarnation,
    ) -> Option<Event> {
        let state = MemberState::Suspect;
        let new = Standing { public_key: key, incarnation, state, since: now, announced: false };
        let standing = self.members.entry(peer).or_insert(new);
        let before = standing.incarnation;
        standing.incarnation = before.max(incarnation);
        // A member that is known by its link alone has not yet said which run it is.
        (before < incarnation && before > Incarnation(0)).then_some(Event::Restarted { peer, incarnation })
    }

    /// Sets every member's state by who is unreachable now. `silent` tells of links that went quiet.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        unreachable: &BTreeSet<PeerId>,
        silent: &BTreeSet<PeerId>,
    ) -> Vec<Event> {
        let suspects = &mut self.suspects;
        let change = |(peer, standing): (&PeerId, &mut Standing)| {
            let (state, reason) = match (!unreachable.contains(peer), standing.state) {
                (true, _) => (MemberState::Alive, "a path of links leads to it"),
                (false, MemberState::Dead) => (MemberState::Dead, "unreachable for long"),
                (false, _) if silent.contains(peer) => (
                    MemberState::Suspect,
                    "nothing came over our link for 3 s, and no reachable member has a link to it",
                ),
                (false, _) => (MemberState::Suspect, "no reachable member has a link to it"),
            };
            let event = standing.become_state(now, *peer, state, reason)?;
            if state == MemberState::Suspect {
                suspects.insert(*peer, now)
            } else {
                suspects.remove(peer)
            };
            Some(event)
        };
        self.members.iter_mut().filter_map(change).collect()
    }

    /// Declares dead who has been unreachable for too long.
    pub(crate) fn bury(&mut self, now: Instant) -> Vec<Event> {
        let due: Vec<PeerId> =
            self.suspects.iter().filter(|(_, since)| now >= **since + DEATH).map(|(peer, _)| *peer).collect();
        let mut events = Vec::new();
        for peer in due {
            self.suspects.remove(&peer);
            let standing = self.members.get_mut(&peer);
            let reason = "unreachable for 30 s";
            events.extend(standing.and_then(|standing| standing.become_state(now, peer, MemberState::Dead, reason)));
        }
        events
    }

    /// Takes this node's own stall out of the silence of others.
    pub(crate) fn forgive(&mut self, stall: Duration) {
        self.suspects.values_mut().for_each(|since| *since += stall);
    }

    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.suspects.values().min().map(|since| *since + DEATH)
    }
}

impl Standing {
    pub(crate) const fn member(&self, id: PeerId) -> Member {
        let Self { public_key, incarnation, state, since, .. } = *self;
        Member { id, public_key, incarnation, state, since }
    }

    fn become_state(&mut self, now: Instant, peer: PeerId, state: MemberState, reason: &str) -> Option<Event> {
        if self.announced && self.state == state {
            return None;
        }
        *self = Self { state, since: now, announced: true, ..*self };
        Some(Event::Member { peer, state, incarnation: self.incarnation, reason: reason.to_owned() })
    }
}
