//! What tests need that feed a tunnel with foreign datagrams and packets; nothing else does.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use meshwork_identity::{Identity, Secret, Secrets};
use meshwork_sys::tun::{VNET_HEADER_LEN, VnetHeader};
use meshwork_wire::Incarnation;

use crate::coalesce::partial;
use crate::config::{Desired, TunnelConfig, TunnelPeer};
use crate::drops::Drop;
use crate::header::{FLAG_PARTIAL_CHECKSUM, HEADER_LEN, Header, PacketType, SEALED_OVERHEAD};
use crate::inbound::{Opened, Recent, admit, join};
use crate::machine::{Machine, Output, Randomness, answer, answer_endpoint, read_answer, read_question};
use crate::noise::{SecretKeys, vouched};
use crate::packet::{TCP, TCP_CHECKSUM, Transport, UDP, UDP_CHECKSUM, addresses, put};
use crate::segment::{count, for_each_segment};
use crate::session::Session;

/// The run of both nodes.
const RUN: Incarnation = Incarnation(1);

/// The node's own identity and its peer's.
static IDENTITIES: LazyLock<[Arc<Identity>; 2]> =
    LazyLock::new(|| [1, 2].map(|seed| Arc::new(Identity::from_seed([seed; 32]))));

/// A node that knows a peer, which may send it anything.
pub struct Ear {
    machine: Machine,
    secret: SecretKeys,
    peer: Machine,
    /// The peer's end of the session, once there is one.
    session: Option<Arc<Session>>,
    now: Instant,
}

impl Default for Ear {
    fn default() -> Self {
        Self::new()
    }
}

impl Ear {
    /// Owns `10.32.0.0/24` and `fd00::/64`; the peer owns `10.32.1.0/24` and `fd00:1::/64`.
    #[must_use]
    pub fn new() -> Self {
        let now = Instant::now();
        let secret = Secret::generate([7; 32]);
        let [machine, peer] = [0, 1].map(|number: usize| node(number, RUN, &secret, now));
        Self { machine, secret: SecretKeys::new(&secret), peer, session: None, now }
    }

    /// Lets the peer call, and keeps its end of the session.
    fn meet(&mut self) {
        self.peer.want(IDENTITIES[0].peer_id(), self.now);
        for _ in 0..4 {
            while let Some(output) = self.peer.poll_output() {
                match output {
                    Output::Send { mut datagram, .. } => drop(self.open(&mut datagram, place(1))),
                    Output::Open { path } => self.session = Some(path.session.clone()),
                    Output::Close { .. } => {}
                }
            }
            while let Some(output) = self.machine.poll_output() {
                if let Output::Send { datagram, .. } = output {
                    // An answer that the peer does not take shows below: there is no session.
                    let _ = self.peer.handle_handshake(&datagram, answer_endpoint(place(0), None), self.now);
                }
            }
        }
    }

    /// Takes a datagram as it came, from one of a few places: the inner packet in it, if there is one.
    pub fn hear(&mut self, datagram: &[u8], from: u8) -> Option<Vec<u8>> {
        let outcome = self.open(&mut datagram.to_vec(), place(from % 4));
        self.settle();
        outcome.ok().flatten()
    }

    /// A handshake message with MACs as a member makes them.
    #[must_use]
    pub fn vouch(&self, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        let [a, b, c, d] = self.secret.key_id;
        if let Some(hint) = message.get_mut(8..12) {
            hint.copy_from_slice(&[a, b, c, d]);
        }
        self.secret.append_macs(IDENTITIES[0].peer_id(), &mut message);
        message
    }

    /// What the peer seals: any kind of packet with anything in it.
    #[must_use]
    pub fn seal(&mut self, kind: u8, flags: u8, plaintext: &[u8]) -> Option<Vec<u8>> {
        if self.session.is_none() {
            self.meet();
        }
        let session = self.session.as_ref()?;
        let counter = session.reserve(1)?;
        let mut out = vec![0; plaintext.len() + SEALED_OVERHEAD];
        session.seal(PacketType::from_byte(kind)?, flags, counter, plaintext, &mut out).then_some(out)
    }

    /// A first message of the peer's next run, as it makes them.
    #[must_use]
    pub fn call() -> Vec<u8> {
        let (secret, now) = (Secret::generate([7; 32]), Instant::now());
        let mut peer = node(1, Incarnation(2), &secret, now);
        peer.want(IDENTITIES[0].peer_id(), now);
        match peer.poll_output() {
            Some(Output::Send { datagram, .. }) => datagram,
            _ => Vec::new(),
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, duration: Duration) {
        self.now += duration;
        self.settle();
    }

    /// Carries out what is due. What one datagram leads to is bounded.
    fn settle(&mut self) {
        for round in 0.. {
            if self.machine.deadline().is_none_or(|due| due > self.now) {
                break;
            }
            assert!(round < 64, "deadlines end");
            self.machine.handle_deadline(self.now);
        }
        let mut outputs = 0;
        while let Some(output) = self.machine.poll_output() {
            outputs += 1;
            assert!(outputs < 64, "one datagram leads to few");
            if let Output::Open { path } = output {
                path.session.peer.clone().open_path(path, |_, _| {});
            }
        }
        assert!(self.machine.table().sessions.len() <= 4, "sessions are bounded");
    }

    /// What the receiving thread does with one segment.
    fn open(&mut self, segment: &mut [u8], from: SocketAddr) -> Result<Option<Vec<u8>>, Drop> {
        let (table, from) = (self.machine.table(), answer_endpoint(from, None));
        let header = Header::read(segment).ok_or(Drop::Malformed)?;
        assert_eq!(header.to_bytes()[..], segment[..HEADER_LEN]);
        match header.kind {
            PacketType::Data | PacketType::Probe => {}
            PacketType::Initiation | PacketType::Response => {
                vouched(header, segment, table.local, &table.secrets)?;
                return self.machine.handle_handshake(segment, from, self.now).map(|()| None);
            }
            _ => return Err(Drop::Malformed),
        }
        let session = table.sessions.get(&header.index).ok_or(Drop::UnknownSession)?;
        let (length, newest) = session.open(header, segment)?;
        if session.confirm() {
            self.machine.handle_confirmed(header.index, from, self.now);
        } else if newest {
            self.machine.handle_move(header.index, from, self.now);
        }
        let plaintext = segment.get(HEADER_LEN..HEADER_LEN + length).ok_or(Drop::Malformed)?;
        if header.kind == PacketType::Probe {
            return self.probe(session, header.index, plaintext, from.address).map(|()| None);
        }
        if plaintext.is_empty() {
            return Ok(None);
        }
        admit(&table, &mut Recent::default(), session, plaintext)?;
        Ok(Some(plaintext.to_vec()))
    }

    fn probe(&mut self, session: &Session, index: u32, plaintext: &[u8], from: SocketAddr) -> Result<(), Drop> {
        if let Some(token) = read_question(plaintext) {
            return session.seal_alone(PacketType::Probe, &answer(token)).map(drop).ok_or(Drop::QueueFull);
        }
        let token = read_answer(plaintext).ok_or(Drop::Malformed)?;
        self.machine.handle_answer(index, token, answer_endpoint(from, None), self.now);
        Ok(())
    }
}

fn place(number: u8) -> SocketAddr {
    ([192, 0, 2, number + 1], 6783).into()
}

/// The same bytes in every run, different ones in each call.
fn randomness(number: usize) -> Randomness {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_add(number as u64);
    Box::new(move |bytes| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
    })
}

fn node(number: usize, incarnation: Incarnation, secret: &Secret, now: Instant) -> Machine {
    let [own, other] = [number, 1 - number].map(|number| &IDENTITIES[number]);
    let secrets = Secrets::new(vec![secret.clone()]).expect("one secret");
    let config = TunnelConfig { identity: own.clone(), secrets, incarnation, prefers_aes: true, inner_mtu: 1400 };
    let mut machine = Machine::new(config, randomness(number), now);
    let prefixes = |number: u8| {
        let v4 = ipnet::Ipv4Net::new_assert([10, 32, number, 0].into(), 24);
        let v6 = ipnet::Ipv6Net::new_assert([0xfd00, u16::from(number), 0, 0, 0, 0, 0, 0].into(), 64);
        vec![v4.into(), v6.into()]
    };
    let peer = TunnelPeer {
        id: other.peer_id(),
        noise_key: other.noise_public(),
        prefers_aes: true,
        incarnation: RUN,
        endpoints: vec![place(1 - number as u8)],
        prefixes: prefixes(1 - number as u8),
        eager: false,
    };
    machine.configure(Desired { local: prefixes(number as u8), peers: vec![peer] }, now);
    machine
}

/// Whether the addresses of an inner packet can be read, and its length is what it says.
#[must_use]
pub fn is_whole(packet: &[u8]) -> bool {
    addresses(packet).is_some()
}

/// The packet without what joining and cutting may change: identification, checksums and the length that UDP repeats.
/// Nothing where no unfragmented TCP or UDP is in it.
#[must_use]
pub fn like(packet: &[u8]) -> Option<Vec<u8>> {
    let Transport { protocol, start, v6, .. } = Transport::find(packet)?;
    let (mut packet, checksum) = (packet.to_vec(), if protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM });
    put(&mut packet, start + checksum, 0);
    if protocol == UDP {
        put(&mut packet, start + 4, 0);
    }
    if !v6 {
        put(&mut packet, 4, 0);
        put(&mut packet, 10, 0);
    }
    Some(packet)
}

/// Cuts what a TUN device hands over: every inner packet, and whether its checksum is left to the receiver.
#[must_use]
pub fn cut(read: &[u8]) -> Option<Vec<(bool, Vec<u8>)>> {
    let (header, packet) = VnetHeader::split(read)?;
    addresses(packet)?;
    let expected = count(&header, packet)?;
    let (mut packet, mut pieces) = (packet.to_vec(), Vec::new());
    let found = for_each_segment(&header, &mut packet, |flags, piece| {
        pieces.push((flags & FLAG_PARTIAL_CHECKSUM != 0, piece.to_vec()));
    })?;
    assert_eq!((found, pieces.len()), (expected, expected));
    Some(pieces)
}

/// Joins inner packets with partial checksums as the receiving thread does: for each write to the device how many it
/// is made of, and its bytes.
#[must_use]
pub fn joined(packets: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
    let mut run = packets.concat();
    let mut end = 0;
    let opened = packets.iter().map(|packet| {
        let start = end;
        end += packet.len();
        Opened { start, end, partial: true }
    });
    let opened: Vec<Opened> = opened.collect();
    let (mut rest, mut writes) = (opened.as_slice(), Vec::new());
    while let Some(first) = rest.first() {
        let taken = match join(&run, rest, true).filter(|(_, count)| *count > 1) {
            Some((joined, count)) => {
                let header = joined.finish(&mut run[first.start..first.end]).to_bytes();
                let mut write = [&header[..], &run[first.start..first.end]].concat();
                for other in &rest[1..count] {
                    write.extend(&run[other.start + joined.payload_start()..other.end]);
                }
                writes.push((count, write));
                count
            }
            None => {
                let bytes = &run[first.start..first.end];
                let header = Transport::find(bytes).map(|transport| partial(transport).to_bytes());
                writes.extend(header.map(|header| (1, [&header[..], bytes].concat())));
                1
            }
        };
        rest = &rest[taken..];
    }
    writes
}

/// Bytes in front of every packet of a TUN device.
pub const DEVICE_HEADER: usize = VNET_HEADER_LEN;
