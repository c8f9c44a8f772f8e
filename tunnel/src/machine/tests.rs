//! Two machines over a channel that loses, delays, reorders and doubles, under a virtual clock.

use std::collections::BTreeMap;

use meshwork_identity::{Identity, Secret};
use meshwork_wire::Incarnation;
use proptest::prelude::*;

use super::*;
use crate::config::PathState;
use crate::header::HEADER_LEN;
use crate::noise::{INITIATION_LEN, RESPONSE_LEN};

/// Counted up from a seed: enough to be different every time and equal in every run.
fn randomness(seed: u64) -> Randomness {
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

fn number(randomness: &mut Randomness, below: u64) -> u64 {
    let mut bytes = [0; 8];
    randomness(&mut bytes);
    u64::from_be_bytes(bytes) % below
}

fn address(node: usize) -> SocketAddr {
    format!("192.0.2.{}:6783", node + 1).parse().unwrap()
}

fn secrets(numbers: &[u8]) -> Secrets {
    Secrets::new(numbers.iter().map(|number| Secret::generate([*number; 32])).collect()).unwrap()
}

struct Node {
    machine: Machine,
    identity: Arc<Identity>,
    incarnation: u64,
    drops: BTreeMap<&'static str, u32>,
    /// Payloads that were delivered, in order.
    delivered: Vec<u64>,
}

impl Node {
    fn new(number: u8, incarnation: u64, secrets: Secrets, now: Instant) -> Self {
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

struct Flight {
    at: Instant,
    from: SocketAddr,
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// The channel's faults, in percent.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    loss: u64,
    doubling: u64,
    /// Beyond the 5 ms that everything takes.
    jitter_ms: u64,
}

struct Pair {
    nodes: [Node; 2],
    /// Where each node is now.
    places: [SocketAddr; 2],
    flights: Vec<Flight>,
    faults: Faults,
    dice: Randomness,
    now: Instant,
    next_payload: u64,
    /// Every datagram that was sent.
    log: Vec<Vec<u8>>,
}

impl Pair {
    fn new(seed: u64, faults: Faults) -> Self {
        Self::with_secrets(seed, faults, [secrets(&[7]), secrets(&[7])])
    }

    fn with_secrets(seed: u64, faults: Faults, [first, second]: [Secrets; 2]) -> Self {
        let now = Instant::now();
        let nodes = [Node::new(0, 1, first, now), Node::new(1, 1, second, now)];
        let places = [address(0), address(1)];
        let dice = randomness(seed + 1);
        Self { nodes, places, flights: Vec::new(), faults, dice, now, next_payload: 0, log: Vec::new() }
    }

    /// A pair of which each knows the other.
    fn introduced(seed: u64, faults: Faults) -> Self {
        let mut pair = Self::new(seed, faults);
        pair.introduce(0, false);
        pair.introduce(1, false);
        pair
    }

    fn introduce(&mut self, node: usize, eager: bool) {
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

    fn restart(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation + 1;
        self.nodes[node] = Node::new(node as u8, incarnation, secrets(&[7]), self.now);
        self.introduce(node, false);
    }

    fn peer_id(&self, node: usize) -> PeerId {
        self.nodes[1 - node].identity.peer_id()
    }

    fn shared(&self, node: usize) -> Arc<Peer> {
        self.nodes[node].machine.contacts.get(&self.peer_id(node)).unwrap().shared.clone()
    }

    fn state(&self, node: usize) -> PathState {
        self.nodes[node].machine.paths(self.now).remove(0).state
    }

    /// Sends one numbered payload, or lets it be lost for want of a path, which is asked for.
    fn send(&mut self, node: usize) -> bool {
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

    fn collect(&mut self, node: usize) {
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

    fn launch(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
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

    fn arrive(&mut self, flight: Flight) {
        let Some(node) = self.places.iter().position(|place| *place == flight.to) else { return };
        if let Err(reason) = self.receive(node, flight) {
            *self.nodes[node].drops.entry(reason.name()).or_default() += 1;
        }
        self.collect(node);
    }

    /// What the receiving thread does.
    fn receive(&mut self, node: usize, mut flight: Flight) -> Result<(), Drop> {
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
    fn run(&mut self, duration: Duration) {
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

    fn run_ms(&mut self, milliseconds: u64) {
        self.run(Duration::from_millis(milliseconds));
    }

    /// Both send for `seconds`, every 100 ms.
    fn talk(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.send(0);
            self.send(1);
            self.run_ms(100);
        }
    }

    fn establish(&mut self) {
        self.send(0);
        self.run_ms(100);
        assert_eq!([self.state(0), self.state(1)], [PathState::Established; 2]);
    }
}

fn duplicates(delivered: &[u64]) -> usize {
    let mut seen = delivered.to_vec();
    seen.sort_unstable();
    seen.dedup();
    delivered.len() - seen.len()
}

#[test]
fn the_first_packet_opens_a_session_within_one_round_trip() {
    let mut pair = Pair::introduced(1, Faults::default());
    assert!(!pair.send(0));
    pair.run_ms(11);
    assert_eq!(pair.state(0), PathState::Established);
    assert!(pair.shared(1).path.load().is_none(), "the responder waits for proof");
    pair.run_ms(5);
    assert_eq!(pair.state(1), PathState::Established);
    assert!(pair.send(0) && pair.send(1));
    pair.run_ms(10);
    assert_eq!([pair.nodes[0].delivered.len(), pair.nodes[1].delivered.len()], [1, 1]);
    assert_eq!([pair.log[0].len(), pair.log[1].len()], [INITIATION_LEN, RESPONSE_LEN]);
    const { assert!(RESPONSE_LEN <= INITIATION_LEN, "an answer never amplifies") };
    assert_eq!(pair.nodes[0].machine.paths(pair.now)[0].cipher, Some("AES-256-GCM"));
}

#[test]
fn both_calling_at_once_end_with_one_session() {
    let mut pair = Pair::introduced(2, Faults::default());
    pair.send(0);
    pair.send(1);
    pair.run_ms(50);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
    assert_eq!(pair.nodes.iter().map(|node| node.machine.sessions.len()).collect::<Vec<_>>(), [1, 1]);
    pair.talk(3);
    assert_eq!([pair.nodes[0].delivered.len(), pair.nodes[1].delivered.len()], [30, 30]);
}

#[test]
fn another_secret_gets_no_answer() {
    let mut pair = Pair::with_secrets(3, Faults::default(), [secrets(&[7]), secrets(&[8])]);
    pair.introduce(0, false);
    pair.introduce(1, false);
    pair.talk(2);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Handshaking; 2]);
    assert!(pair.nodes.iter().all(|node| node.drops.keys().eq(["bad_secret"].iter())), "nothing but refusals");
    assert!(pair.log.iter().all(|datagram| datagram.len() == INITIATION_LEN));
}

#[test]
fn secrets_rotate_without_losing_a_packet() {
    let mut pair = Pair::introduced(4, Faults::default());
    pair.establish();
    for step in [&[7, 9][..], &[9, 7]] {
        for node in 0..2 {
            pair.nodes[node].machine.set_secrets(&secrets(step), pair.now);
            pair.collect(node);
            pair.talk(1);
        }
    }
    pair.talk(140);
    let sent = pair.next_payload;
    pair.run_ms(100);
    let delivered = pair.nodes[0].delivered.len() + pair.nodes[1].delivered.len();
    assert_eq!(delivered as u64, sent, "rekeyed under the new secret meanwhile");
    for node in 0..2 {
        pair.nodes[node].machine.set_secrets(&secrets(&[9]), pair.now);
        pair.collect(node);
    }
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
}

#[test]
fn a_session_under_a_withdrawn_secret_closes() {
    let mut pair = Pair::introduced(5, Faults::default());
    pair.establish();
    pair.nodes[1].machine.set_secrets(&secrets(&[9]), pair.now);
    pair.collect(1);
    assert!(pair.shared(1).path.load().is_none());
    pair.talk(1);
    assert!(pair.nodes[1].delivered.is_empty());
    assert!(pair.nodes[1].drops.contains_key("unknown_session"));
}

#[test]
fn a_long_talk_rekeys_without_losing_a_packet() {
    let mut pair = Pair::introduced(6, Faults { jitter_ms: 20, ..Faults::default() });
    pair.establish();
    let first = pair.shared(0).path.load_full().unwrap().session.local_index;
    pair.talk(400);
    pair.run_ms(100);
    let sent = pair.next_payload as usize;
    assert_eq!(pair.nodes[0].delivered.len() + pair.nodes[1].delivered.len(), sent);
    let path = pair.shared(0).path.load_full().unwrap();
    assert_ne!(path.session.local_index, first);
    assert!(pair.now.saturating_duration_since(path.session.born) < Duration::from_secs(140));
    assert!(pair.nodes.iter().all(|node| node.machine.sessions.len() <= 3), "old sessions end");
}

#[test]
fn many_packets_ask_for_new_keys_before_the_key_is_used_up() {
    let mut pair = Pair::introduced(7, Faults::default());
    pair.establish();
    let session = pair.shared(0).path.load_full().unwrap().session.clone();
    session.reserve(crate::session::REKEY_PACKETS).unwrap();
    pair.talk(3);
    assert_ne!(pair.shared(0).path.load_full().unwrap().session.local_index, session.local_index);
    assert!(session.reserve(1 << 28).is_none(), "a used-up key seals nothing");
}

#[test]
fn a_restarted_peer_is_called_again_within_three_seconds() {
    let mut pair = Pair::introduced(8, Faults::default());
    pair.establish();
    pair.talk(2);
    pair.restart(1);
    // The restart is heard of, as gossip would tell.
    pair.introduce(0, false);
    pair.run_ms(50);
    assert_eq!(pair.state(0), PathState::Established);
    pair.talk(1);
    assert!(pair.nodes[1].delivered.len() >= 9, "{:?}", pair.nodes[1].delivered);
    // This time it is not heard of before the peer calls: the call works, as it is of a newer run.
    pair.restart(1);
    pair.send(1);
    pair.run_ms(50);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
}

#[test]
fn silence_under_traffic_is_noticed_after_two_seconds_and_heals() {
    let mut pair = Pair::introduced(9, Faults::default());
    pair.establish();
    pair.talk(3);
    pair.faults.loss = 100;
    pair.talk(3);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Handshaking; 2]);
    pair.faults.loss = 0;
    pair.talk(3);
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
    assert!(pair.nodes[0].machine.paths(pair.now)[0].loss.unwrap() > 0.0);
}

#[test]
fn a_peer_that_moved_is_followed_after_it_answered_a_challenge() {
    let mut pair = Pair::introduced(10, Faults::default());
    pair.establish();
    pair.talk(1);
    pair.places[1] = "198.51.100.9:4242".parse().unwrap();
    pair.send(1);
    pair.run_ms(30);
    assert_eq!(pair.nodes[0].machine.paths(pair.now)[0].endpoint, Some(pair.places[1]));
    assert_eq!(pair.state(0), PathState::Established);
}

#[test]
fn an_address_that_only_repeats_what_it_saw_is_not_followed() {
    let mut pair = Pair::introduced(11, Faults::default());
    pair.establish();
    let session = pair.shared(1).path.load_full().unwrap().session.clone();
    let datagram = session.seal_alone(PacketType::Data, &[]).unwrap();
    let (from, to) = ("203.0.113.66:1".parse().unwrap(), pair.places[0]);
    pair.launch(from, to, datagram);
    pair.run_ms(3000);
    assert_eq!(pair.nodes[0].machine.paths(pair.now)[0].endpoint, Some(address(1)));
}

#[test]
fn a_member_cannot_aim_a_new_session_at_somebody_else() {
    let elsewhere: SocketAddr = "203.0.113.66:1".parse().unwrap();
    // The caller's first use of the session says it came from elsewhere; then the same for the callee's answer.
    for (forger, forged) in [(0, PacketType::Data), (1, PacketType::Response)] {
        let mut pair = Pair::introduced(18, Faults::default());
        pair.send(0);
        for _ in 0..30 {
            for flight in &mut pair.flights {
                if flight.from == address(forger) && Header::read(&flight.datagram).unwrap().kind == forged {
                    flight.from = elsewhere;
                }
            }
            pair.run_ms(1);
        }
        assert_eq!(pair.state(1 - forger), PathState::Established);
        let path = pair.shared(1 - forger).path.load_full().unwrap();
        assert_eq!(path.endpoint.address, address(forger));
    }
}

#[test]
fn a_record_with_another_peers_key_does_not_take_its_calls() {
    let mut pair = Pair::introduced(19, Faults::default());
    let honest = pair.nodes[1].machine.contacts.values().next().unwrap().peer.clone();
    for thief in [PeerId([0; 16]), PeerId([0xff; 16])] {
        let stolen = TunnelPeer { id: thief, ..honest.clone() };
        let desired = |peer| Desired { local: vec![], peers: vec![honest.clone(), peer] };
        let other_key = TunnelPeer { noise_key: [9; 32], ..stolen.clone() };
        pair.nodes[1].machine.configure(desired(stolen), pair.now);
        pair.nodes[1].machine.configure(desired(other_key), pair.now);
    }
    pair.send(0);
    pair.run_ms(50);
    assert_eq!(
        [pair.state(0), pair.nodes[1].machine.contacts[&pair.peer_id(1)].status(pair.now, pair.now).state],
        [PathState::Established, PathState::Established]
    );
}

#[test]
fn a_recorded_first_message_displaces_nothing_and_moves_nothing() {
    let mut pair = Pair::introduced(12, Faults::default());
    pair.establish();
    let recorded = pair.log[0].clone();
    let index = pair.shared(1).path.load_full().unwrap().session.local_index;
    let from = "203.0.113.66:1".parse().unwrap();
    pair.launch(from, address(1), recorded.clone());
    pair.run_ms(20);
    assert_eq!(pair.nodes[1].drops.get("stale"), Some(&1));
    // A restarted node does not know the message, but it names its former run.
    pair.restart(1);
    pair.launch(from, address(1), recorded);
    pair.run_ms(20);
    assert_eq!(pair.nodes[1].drops.get("stale"), Some(&1));
    assert!(!pair.nodes[1].machine.sessions.contains_key(&index));
}

#[test]
fn replays_and_forgeries_are_told_apart() {
    let mut pair = Pair::introduced(13, Faults::default());
    pair.establish();
    pair.send(0);
    let good = pair.log.last().cloned().unwrap();
    pair.run_ms(10);
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[15] = forged[15].wrapping_add(9);
    forged[last] ^= 1;
    let mut flag = good.clone();
    flag[2] ^= 1;
    flag[15] = flag[15].wrapping_add(8);
    for datagram in [good, forged, flag, vec![4; 3]] {
        pair.launch(address(0), address(1), datagram);
    }
    pair.run_ms(20);
    let drops = &pair.nodes[1].drops;
    assert_eq!((drops["replay"], drops["forged"], drops["malformed"]), (1, 2, 1));
}

#[test]
fn an_idle_pair_has_nothing_to_wait_for_but_the_end_of_its_keys() {
    let mut pair = Pair::introduced(14, Faults::default());
    assert_eq!(pair.nodes[0].machine.deadline(), None);
    pair.establish();
    pair.run(Duration::from_secs(30));
    let before = pair.log.len();
    pair.run(Duration::from_secs(120));
    assert_eq!(pair.log.len(), before, "nobody speaks");
    pair.run(Duration::from_secs(60));
    assert_eq!([pair.state(0), pair.state(1)], [PathState::Idle; 2]);
    assert!(pair.nodes.iter().all(|node| node.machine.sessions.is_empty() && node.machine.deadline().is_none()));
}

#[test]
fn an_eager_pair_opens_by_itself_and_notices_a_loss_without_traffic() {
    let mut pair = Pair::new(15, Faults::default());
    pair.introduce(1, false);
    pair.introduce(0, true);
    pair.run_ms(50);
    assert_eq!(pair.state(0), PathState::Established);
    pair.run(Duration::from_secs(300));
    assert_eq!(pair.state(0), PathState::Established);
    assert!(pair.log.len() < 100, "{} datagrams in five idle minutes", pair.log.len());
    pair.faults.loss = 100;
    pair.run(Duration::from_secs(20));
    assert_eq!(pair.state(0), PathState::Handshaking);
    pair.faults.loss = 0;
    pair.run(Duration::from_secs(10));
    assert_eq!(pair.state(0), PathState::Established);
}

#[test]
fn a_removed_peer_loses_its_sessions() {
    let mut pair = Pair::introduced(16, Faults::default());
    pair.establish();
    let shared = pair.shared(1);
    pair.nodes[1].machine.configure(Desired::default(), pair.now);
    pair.collect(1);
    assert!(shared.path.load().is_none() && pair.nodes[1].machine.sessions.is_empty());
    pair.send(0);
    pair.run_ms(10);
    assert!(pair.nodes[1].delivered.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_bad_channel_delays_but_neither_doubles_nor_stops(
        seed in any::<u64>(), loss in 0_u64..40, doubling in 0_u64..50, jitter_ms in 0_u64..200,
    ) {
        let mut pair = Pair::introduced(seed >> 1, Faults { loss, doubling, jitter_ms });
        pair.talk(150);
        pair.faults = Faults::default();
        pair.talk(6);
        prop_assert_eq!([pair.state(0), pair.state(1)], [PathState::Established; 2]);
        let delivered: Vec<u64> = pair.nodes.iter().flat_map(|node| node.delivered.clone()).collect();
        prop_assert_eq!(duplicates(&delivered), 0);
        prop_assert!(delivered.len() as u64 * 100 >= pair.next_payload * (90 - loss), "{} of {}", delivered.len(), pair.next_payload);
        prop_assert!(pair.nodes.iter().all(|node| node.machine.sessions.len() <= 3));
    }

    #[test]
    fn bytes_from_anywhere_never_panic(mut datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20)) {
        let mut pair = Pair::introduced(1, Faults::default());
        pair.establish();
        for (number, datagram) in datagrams.iter_mut().enumerate() {
            // Half of them begin like ours, so that more than the first check is met.
            if number % 2 == 0 && datagram.len() >= 4 {
                datagram[..4].copy_from_slice(&[1 + number as u8 % 7, 1, 1, 0]);
            }
            let flight = Flight { at: pair.now, from: address(0), to: address(1), datagram: datagram.clone() };
            pair.arrive(flight);
        }
        prop_assert_eq!(pair.state(1), PathState::Established);
    }
}
