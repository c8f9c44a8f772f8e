//! Large meshes in turns: what befalls one node within a short time is done in one go, while what it holds is in the
//! processor's caches.
//!
//! What a node sends arrives no sooner than after the latency. So what happens at one node within less than that cannot
//! depend on what happens at another meanwhile, and the order in which they are gone through does not show (K. M. Chandy,
//! J. Misra, "Distributed simulation", 1979). The one thing that touches two nodes at once, a call that comes to a door,
//! waits for the end of the turn: a link comes about by so much later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::{Moment, What, World};

/// A node's turn.
pub(super) struct Turn {
    node: usize,
    until: Instant,
    /// What befalls it until then.
    moments: BinaryHeap<Reverse<Moment>>,
}

impl What {
    /// The node that this befalls, if it is one alone.
    const fn befalls(&self) -> Option<usize> {
        match self {
            Self::Arrival(packet) => Some(packet.to),
            Self::Acknowledged(_, node, _) | Self::Timer(node) | Self::Measure(node, _) | Self::Free(node, _) => {
                Some(*node)
            }
            _ => None,
        }
    }
}

impl World {
    /// Has time pass in turns of so long, where that is less than anything takes from one node to another.
    pub fn take_turns(&mut self, length: Duration) {
        assert!(length <= self.conditions.latency, "what one node sends would befall another in the same turn");
        self.turns = Some(length);
    }

    /// Whether something befalls the node whose turn it is, before that ends.
    pub(super) fn belongs_here(&self, at: Instant, what: &What) -> bool {
        self.turn.as_ref().is_some_and(|turn| at <= turn.until && what.befalls() == Some(turn.node))
    }

    /// Keeps what befalls the node whose turn it is.
    pub(super) fn keep(&mut self, moment: Moment) {
        if let Some(turn) = &mut self.turn {
            turn.moments.push(Reverse(moment));
        }
    }

    /// Lets time pass, every node's turn after the other.
    pub(super) fn run_in_turns(&mut self, length: Duration, end: Instant) {
        while let Some(next) = self.next().filter(|next| *next <= end) {
            let (begun, until) = (self.now.max(next), (self.now.max(next) + length).min(end));
            let (mut single, mut common) = (Vec::new(), Vec::new());
            while self.next().is_some_and(|next| next <= until) {
                let Some(Reverse(moment)) = self.schedule.pop() else { break };
                match moment.what.befalls() {
                    Some(node) => single.push((node, moment)),
                    None => common.push(moment),
                }
            }
            single.sort_by_key(|(node, _)| *node);
            let mut single = single.into_iter().peekable();
            while let Some((node, first)) = single.next() {
                let others = std::iter::from_fn(|| single.next_if(|(other, _)| *other == node));
                let moments = std::iter::once(first).chain(others.map(|(_, moment)| moment)).map(Reverse).collect();
                self.take_turn(begun, Turn { node, until, moments });
            }
            self.now = until;
            common.into_iter().for_each(|moment| self.befall(moment.what));
        }
    }

    fn take_turn(&mut self, begun: Instant, turn: Turn) {
        self.turn = Some(turn);
        self.now = begun;
        while let Some(Reverse(Moment { at, what, .. })) = self.turn.as_mut().and_then(|turn| turn.moments.pop()) {
            self.now = self.now.max(at);
            self.befall(what);
        }
        self.turn = None;
    }
}
