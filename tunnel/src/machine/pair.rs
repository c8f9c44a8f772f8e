//! Two machines over a channel that loses, delays, reorders and doubles, under a virtual clock.

use std::collections::BTreeMap;

use meshwork_identity::{Identity, Secret};
use meshwork_wire::Incarnation;

use super::*;
use crate::config::PathState;
use crate::header::HEADER_LEN;

/// Counted up from a seed: enough to be different every time and equal in every run.
pub(super) fn randomness(seed: u64) -> Randomness {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
    })
}

pub(super) fn number(randomness: &mut Randomness, below: u64) -> u64 {
    let mut bytes = [0; 8];
    randomness(&mut bytes);
    u64::from_be_bytes(bytes) % below
}

pub(super) fn address(node: usize) -> SocketAddr {
    format!("192.0.2.{}:6783", node + 1).parse().unwrap()
}

pub(super) fn secrets(numbers: &[u8]) -> Secrets {
    Secrets::new(numbers.iter().map(|number| Secret::generate([*number; 32])).collect()).unwrap()
}

pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) identity: Arc<Identity>,
    pub(super) incarnation: u64,
    pub(super) drops: BTreeMap<&'static str, u32>,
    /// Payloads that were delivered, in order.
    pub(super) delivered: Vec<u64>,
}

impl Node {
    pub(super) fn new(number: u8, incarnation: u64, secrets: Secrets, now: Instant) -> Self {
        let identity = Arc::new(Identity::from_seed([number + 1; 32]));
        let config = TunnelConfig {
            identity: identity.clone(),
            secrets,
            incarnation: Incarnation(incarnation),
            prefers_aes: true,
            inner_mtu: 1400,
        };
        let seed = u64::from(number) << 32 | incarnation;
        let machine = Machine::new(config, randomness(seed), now);
        Self { machine, identity, incarnation, drops: BTreeMap::new(), delivered: Vec::new() }
    }
}

pub(super) struct Flight {
    pub(super) at: Instant,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) datagram: Vec<u8>,
}

/// The channel's faults, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) loss: u64,
    pub(super) doubling: u64,
    /// Beyond the 5 ms that everything takes.
    pub(super) jitter_ms: u64,
}

pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    /// Where each node is now.
    pub(super) places: [SocketAddr; 2],
    pub(super) flights: Vec<Flight>,
    pub(super) faults: Faults,
    pub(super) dice: Randomness,
    pub(super) now: Instant,
    pub(super) next_payload: u64,
    /// Every datagram that was sent.
    pub(super) log: Vec<Vec<u8>>,
}

impl Pair {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self::with_secrets(seed, faults, [secrets(&[7]), secrets(&[7])])
    }

    pub(super) fn with_secrets(seed: u64, faults: Faults, [first, second]: [Secrets; 2]) -> Self {
        let now = Instant::now();
        let nodes = [Node::new(0, 1, first, now), Node::new(1, 1, second, now)];
        let places = [address(0), address(1)];
        let dice = randomness(seed + 1);
        Self { nodes, places, flights: Vec::new(), faults, dice, now, next_payload: 0, log: Vec::new() }
    }

    /// A pair of which each knows the other.
    pub(super) fn introduced(seed: u64, faults: Faults) -> Self {
        let mut pair = Self::new(seed, faults);
        pair.introduce(0, false);
        pair.introduce(1, false);
        pair
    }

    pub(super) fn introduce(&mut self, node: usize, eager: bool) {
        let other = &self.nodes[1 - node];
        let peer = TunnelPeer {
            id: other.identity.peer_id(),
            noise_key: other.identity.noise_public(),
            prefers_aes: true,
            incarnation: Incarnation(other.incarnation),
            endpoints: vec![address(1 - node)],
            prefixes: vec![],
            eager,
        };
        self.nodes[node].machine.configure(Desired { local: vec![], peers: vec![peer] }, self.now);
        self.collect(node);
    }

    pub(super) fn restart(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation + 1;
        self.nodes[node] = Node::new(node as u8, incarnation, secrets(&[7]), self.now);
        self.introduce(node, false);
    }

    pub(super) fn peer_id(&self, node: usize) -> PeerId {
        self.nodes[1 - node].identity.peer_id()
    }

    pub(super) fn shared(&self, node: usize) -> Arc<Peer> {
        self.nodes[node].machine.contacts.get(&self.peer_id(node)).unwrap().shared.clone()
    }

    pub(super) fn state(&self, node: usize) -> PathState {
        self.nodes[node].machine.paths(self.now).remove(0).state
    }

    /// Sends one numbered payload, or lets it be lost for want of a path, which is asked for.
    pub(super) fn send(&mut self, node: usize) -> bool {
        let (id, shared) = (self.peer_id(node), self.shared(node));
        let Some(path) = shared.path.load_full() else {
            self.nodes[node].machine.want(id, self.now);
            self.collect(node);
            return false;
        };
        self.next_payload += 1;
        let datagram = path.session.seal_alone(PacketType::Data, &self.next_payload.to_be_bytes()).unwrap();
        shared.sent.store(self.nodes[node].machine.milliseconds(self.now), Relaxed);
        if !shared.watched.swap(true, Relaxed) {
            self.nodes[node].machine.handle_use(id, self.now);
        }
        self.launch(self.places[node], path.endpoint.address, datagram);
        self.collect(node);
        true
    }

    pub(super) fn collect(&mut self, node: usize) {
        let machine = &self.nodes[node].machine;
        assert_eq!(machine.deadline(), machine.contacts.values().filter_map(Contact::deadline).min());
        while let Some(output) = self.nodes[node].machine.poll_output() {
            match output {
                Output::Send { to, datagram } => self.launch(self.places[node], to.address, datagram),
                Output::Open { path } => {
                    let peer = path.session.peer.clone();
                    peer.open_path(path, |_, _| {});
                }
                Output::Close { peer } => drop(peer.close_path()),
            }
        }
    }

    pub(super) fn launch(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.log.push(datagram.clone());
        let copies = 1 + u64::from(number(&mut self.dice, 100) < self.faults.doubling);
        for _ in 0..copies {
            if number(&mut self.dice, 100) < self.faults.loss {
                continue;
            }
            let delay = 5 + number(&mut self.dice, self.faults.jitter_ms + 1);
            let at = self.now + Duration::from_millis(delay);
            self.flights.push(Flight { at, from, to, datagram: datagram.clone() });
        }
    }

    pub(super) fn arrive(&mut self, flight: Flight) {
        let Some(node) = self.places.iter().position(|place| *place == flight.to) else { return };
        if let Err(reason) = self.receive(node, flight) {
            *self.nodes[node].drops.entry(reason.name()).or_default() += 1;
        }
        self.collect(node);
    }

    /// What the receiving thread does.
    pub(super) fn receive(&mut self, node: usize, mut flight: Flight) -> Result<(), Drop> {
        let from = answer_endpoint(flight.from, None);
        let now = self.now;
        let header = Header::read(&flight.datagram).ok_or(Drop::Malformed)?;
        let Node { machine, delivered, .. } = &mut self.nodes[node];
        if matches!(header.kind, PacketType::Initiation | PacketType::Response) {
            return machine.handle_handshake(&flight.datagram, from, now);
        }
        let session = machine.sessions.get(&header.index).cloned().ok_or(Drop::UnknownSession)?;
        let (length, newest) = session.open(header, &mut flight.datagram)?;
        session.peer.hear(machine.milliseconds(now));
        if session.confirm() {
            machine.handle_confirmed(header.index, from, now);
        } else if newest {
            machine.handle_move(header.index, from, now);
        }
        let plaintext = &flight.datagram[HEADER_LEN..HEADER_LEN + length];
        if header.kind == PacketType::Data {
            delivered.extend(plaintext.try_into().ok().map(u64::from_be_bytes));
        } else if let Some(token) = read_question(plaintext) {
            let datagram = session.seal_alone(PacketType::Probe, &answer(token)).unwrap();
            self.launch(self.places[node], from.address, datagram);
        } else if let Some(token) = read_answer(plaintext) {
            machine.handle_answer(header.index, token, from, now);
        }
        Ok(())
    }

    /// Lets everything happen that happens within `duration`.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadlines = self.nodes.iter().filter_map(|node| node.machine.deadline());
            let next = deadlines.chain(self.flights.iter().map(|flight| flight.at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if let Some(place) = self.flights.iter().position(|flight| flight.at <= self.now) {
                let flight = self.flights.remove(place);
                self.arrive(flight);
            }
            for node in 0..2 {
                if self.nodes[node].machine.deadline().is_some_and(|deadline| deadline <= self.now) {
                    self.nodes[node].machine.handle_deadline(self.now);
                    self.collect(node);
                }
            }
        }
        self.now = end;
    }

    pub(super) fn run_ms(&mut self, milliseconds: u64) {
        self.run(Duration::from_millis(milliseconds));
    }

    /// Both send for `seconds`, every 100 ms.
    pub(super) fn talk(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.send(0);
            self.send(1);
            self.run_ms(100);
        }
    }

    pub(super) fn establish(&mut self) {
        self.send(0);
        self.run_ms(100);
        assert_eq!([self.state(0), self.state(1)], [PathState::Established; 2]);
    }
}
