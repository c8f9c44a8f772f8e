//! Links come up, carry frames and go.

use super::{MEASURE, REDIAL, What, Wiring, World};
use crate::wire::{End, Packet, Passage};

/// Frames that may wait for a cut to end; a daemon drops what its queue has no room for.
const MOST_HELD: usize = 1024;

/// Round trips from a dial to a link: handshake and proof.
pub(super) const HANDSHAKE: u32 = 2;

impl World {
    /// Blocks both ways between two nodes.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    /// Blocks one way.
    pub fn cut_way(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// Parts the nodes: those on different sides do not reach each other.
    pub fn partition(&mut self, side: impl Fn(usize) -> u8) {
        self.sides = Some((0..self.nodes.len()).map(side).collect());
    }

    /// Ends all cuts; what waited on streams goes on.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.sides = None;
        let held: Vec<Packet> = self
            .nodes
            .iter_mut()
            .flat_map(|node| node.ends.values_mut())
            .flat_map(|end| std::mem::take(&mut end.held))
            .collect();
        for packet in held {
            self.fly(packet);
        }
    }

    /// Whether nothing gets from one to the other.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        let apart = self.sides.as_ref().is_some_and(|sides| sides[from] != sides[to]);
        apart || self.cuts.contains(&(from, to))
    }

    /// Links as each end sees them.
    pub fn links(&self) -> impl Iterator<Item = (usize, usize)> {
        self.nodes.iter().enumerate().flat_map(|(near, node)| node.ends.keys().map(move |far| (near, *far)))
    }

    /// Links that came about so far.
    #[must_use]
    pub const fn connections(&self) -> u64 {
        self.connections
    }

    pub(super) fn is_whole(&self, one: usize, other: usize) -> bool {
        let near = self.nodes[one].ends.get(&other).map(|end| end.connection);
        near.is_some() && near == self.nodes[other].ends.get(&one).map(|end| end.connection)
    }

    fn can_meet(&self, one: usize, other: usize) -> bool {
        let cut = self.is_cut(one, other) || self.is_cut(other, one);
        !cut && self.runs(one) && self.runs(other) && !self.is_whole(one, other)
    }

    /// Dials whoever is wanted and not there; of a pair, the one that comes first, since both would.
    pub(super) fn dial(&mut self, node: usize, start: u64) {
        if !self.is_running(node) || self.nodes[node].starts != start {
            return;
        }
        let Wiring::Fixed(graph) = &self.wiring else { return };
        let wanted: Vec<usize> = graph.neighbours(node).filter(|&far| node < far && self.can_meet(node, far)).collect();
        for far in wanted {
            let at = self.now + self.conditions.latency * 2 * HANDSHAKE;
            self.at(at, What::Connect(node, far));
        }
        self.at(self.now + REDIAL, What::Dial(node, start));
    }

    pub(super) fn connect(&mut self, one: usize, other: usize) {
        if !self.can_meet(one, other) {
            return;
        }
        self.link(one, other, |_, _| ());
    }

    /// Gives two nodes a link. `note` says what each end is.
    pub(super) fn link(&mut self, one: usize, other: usize, note: impl Fn(&mut End, usize)) {
        self.connections += 1;
        for (near, far) in [(one, other), (other, one)] {
            let mut end = End::new(self.connections, self.now);
            note(&mut end, near);
            self.nodes[near].ends.insert(far, end);
        }
        let rtt = self.conditions.latency * 2;
        for (near, far) in [(one, other), (other, one)] {
            let (peer, key) = (self.id(far), self.nodes[far].identity.public_key());
            self.on(near, |gossip, now| {
                gossip.link_up(now, peer, key);
                gossip.link_rtt(now, peer, rtt);
            });
        }
    }

    /// Tells a node of the round trips of its links.
    pub(super) fn measure(&mut self, node: usize, start: u64) {
        if !self.is_running(node) || self.nodes[node].starts != start {
            return;
        }
        self.at(self.now + MEASURE, What::Measure(node, start));
        if !self.runs(node) {
            return;
        }
        let far: Vec<usize> = self.nodes[node].ends.keys().copied().collect();
        for far in far {
            let rtt = self.conditions.latency * 2 + self.conditions.late(&mut self.random);
            let peer = self.id(far);
            self.on(node, |gossip, now| gossip.link_rtt(now, peer, rtt));
        }
    }

    pub(super) fn arrive(&mut self, packet: Packet) {
        let cut = self.is_cut(packet.from, packet.to);
        if packet.reliable {
            let end = self.nodes[packet.from].ends.get_mut(&packet.to);
            let Some(end) = end.filter(|end| end.connection == packet.connection) else { return };
            if cut || !end.held.is_empty() {
                if end.held.len() < MOST_HELD {
                    end.held.push_back(packet);
                }
                return;
            }
        }
        if cut {
            return;
        }
        if self.nodes[packet.to].paused_until.is_some() {
            self.nodes[packet.to].backlog.push_back(packet);
        } else {
            self.deliver(packet);
        }
    }

    pub(super) fn deliver(&mut self, packet: Packet) {
        let (from, now) = (self.id(packet.from), self.now);
        let end = self.nodes[packet.to].ends.get_mut(&packet.from);
        let Some(end) = end.filter(|end| end.connection == packet.connection) else {
            return self.reset(packet.to, packet.from, packet.connection);
        };
        end.heard = now;
        if !packet.reliable {
            self.acknowledge(packet.to, packet.from, packet.connection);
        }
        if self.is_running(packet.to) {
            let (random, state, frame) = (&mut self.random, &mut self.nodes[packet.to], packet.frame.unfold());
            if state.hostile.as_mut().is_some_and(|hostile| !hostile.takes(random, &frame)) {
                return;
            }
            let outcome = self.on(packet.to, |gossip, now| gossip.receive(now, from, &frame));
            assert!(outcome.is_ok() || self.disturbed, "honest nodes behave: {outcome:?}");
        }
    }

    /// What the transport says of itself does not wait behind frames.
    fn acknowledge(&mut self, by: usize, to: usize, connection: u64) {
        let Passage { bytes, arrives } = self.conditions.acknowledgement(&mut self.random, self.now);
        self.nodes[by].sent += bytes;
        self.tally(bytes);
        if let Some(arrives) = arrives {
            self.at(arrives, What::Acknowledged(by, to, connection));
        }
    }

    /// What comes while a process stands still is lost here: the harder way, as most of it waits in truth.
    pub(super) fn acknowledged(&mut self, by: usize, node: usize, connection: u64) {
        if self.is_cut(by, node) || !self.runs(node) {
            return;
        }
        let end = self.nodes[node].ends.get_mut(&by);
        if let Some(end) = end.filter(|end| end.connection == connection) {
            end.acknowledged += 1;
        }
    }

    /// Notes on which links the transport had something of the other end.
    pub(super) fn hear_links(&mut self, node: usize) {
        let now = self.now;
        let state = &mut self.nodes[node];
        let Some(gossip) = state.gossip.as_mut() else { return };
        for (far, end) in &mut state.ends {
            if let Some(since) = end.hearing.look(now, end.acknowledged) {
                end.heard = end.heard.max(since);
                gossip.link_heard(now, self.ids[*far], since);
            }
        }
    }
}
