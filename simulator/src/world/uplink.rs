//! What a node sends leaves one after the other, at the speed that its uplink has.

use std::collections::VecDeque;
use std::time::Duration;

use meshwork_gossip::Transmit;
use meshwork_gossip::limits::MAX_QUEUE;
use meshwork_wire::PeerId;

use super::{What, World};
use crate::wire::{Packet, Passage};

/// One column of the record of traffic.
const COLUMN: u128 = 100;

/// The way from a host to the network.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    /// Bytes a second, if that is what limits it.
    bandwidth: Option<u64>,
    /// What was sent last has not left yet.
    busy: bool,
    waiting: VecDeque<Packet>,
    /// Of frames that wait.
    bytes: usize,
    /// Tells a turn that is still meant from one that is not.
    turn: u64,
}

impl Uplink {
    /// Whether a frame waits; a driver drops what exceeds its queue.
    fn holds(&mut self, packet: Packet) -> Option<Packet> {
        if !self.busy {
            return Some(packet);
        }
        if self.bytes + packet.length <= MAX_QUEUE {
            self.bytes += packet.length;
            self.waiting.push_back(packet);
        }
        None
    }

    fn next(&mut self) -> Option<Packet> {
        let packet = self.waiting.pop_front()?;
        self.bytes -= packet.length;
        Some(packet)
    }

    /// Nothing is under way any more. Answers what was.
    pub(super) fn stop(&mut self) -> VecDeque<Packet> {
        self.turn += 1;
        self.busy = false;
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl World {
    /// Limits what a node can send. What waits goes on at the speed that it now has.
    pub fn slow_down(&mut self, node: usize, bytes_per_second: Option<u64>) {
        let uplink = &mut self.nodes[node].uplink;
        uplink.bandwidth = bytes_per_second;
        let waiting = uplink.stop();
        waiting.into_iter().for_each(|packet| self.leave(packet));
    }

    pub(super) fn send(&mut self, from: usize, Transmit { to, frame, reliable }: Transmit) {
        let random = &mut self.random;
        let sent = match &self.nodes[from].hostile {
            Some(hostile) => hostile.sends(random, frame, reliable),
            None => Some(frame),
        };
        if let Some(frame) = sent {
            self.carry(from, to, frame, reliable);
        }
    }

    /// Sends a frame over a node's link to a peer, if it has one.
    pub(super) fn carry(&mut self, from: usize, to: PeerId, frame: Vec<u8>, reliable: bool) {
        let to = self.index[&to];
        if let Some(connection) = self.nodes[from].ends.get(&to).map(|end| end.connection) {
            let (length, frame) = (frame.len(), self.pool.fold(frame));
            self.leave(Packet { from, to, connection, reliable, frame, length });
        }
    }

    fn leave(&mut self, packet: Packet) {
        let from = packet.from;
        if let Some(packet) = self.nodes[from].uplink.holds(packet) {
            let bytes = self.fly(packet);
            self.occupy(from, bytes);
        }
    }

    /// Keeps an uplink busy for as long as it takes to send so much.
    fn occupy(&mut self, node: usize, bytes: u64) {
        let now = self.now;
        let uplink = &mut self.nodes[node].uplink;
        let Some(bandwidth) = uplink.bandwidth else { return };
        let free = now + Duration::from_micros(bytes * 1_000_000 / bandwidth);
        uplink.busy = true;
        let turn = uplink.turn;
        self.at(free, What::Free(node, turn));
    }

    /// An uplink has sent what it had to.
    pub(super) fn free(&mut self, node: usize, turn: u64) {
        let uplink = &mut self.nodes[node].uplink;
        if uplink.turn != turn {
            return;
        }
        uplink.busy = false;
        if let Some(packet) = uplink.next() {
            let bytes = self.fly(packet);
            self.occupy(node, bytes);
        }
    }

    /// Sends a frame on its way. Answers what it costs.
    pub(super) fn fly(&mut self, packet: Packet) -> u64 {
        let (now, length) = (self.now, packet.length);
        let state = &mut self.nodes[packet.from];
        let end = state.ends.get_mut(&packet.to).filter(|end| end.connection == packet.connection);
        let Some(end) = end else { return 0 };
        let Passage { bytes, arrives } = if packet.reliable {
            self.conditions.stream(&mut self.random, now, end.last, length)
        } else {
            self.conditions.datagram(&mut self.random, now, length)
        };
        if let Some(at) = arrives.filter(|_| packet.reliable) {
            end.last = at;
        }
        state.sent += bytes;
        self.tally(bytes);
        let Some(arrives) = arrives else { return bytes };
        if !packet.reliable && self.random.chance(self.conditions.duplicates) {
            let again = arrives + self.conditions.late(&mut self.random);
            self.at(again, What::Arrival(Box::new(packet.clone())));
        }
        self.at(arrives, What::Arrival(Box::new(packet)));
        bytes
    }

    pub(super) fn tally(&mut self, bytes: u64) {
        let column = usize::try_from(self.elapsed().as_millis() / COLUMN).unwrap_or_default();
        if self.traffic.len() <= column {
            self.traffic.resize(column + 1, 0);
        }
        self.traffic[column] += bytes;
    }
}
