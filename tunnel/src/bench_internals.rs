//! The steps that every packet goes through, one by one, for benches; nothing else uses them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_identity::Identity;
use meshwork_sys::tun::{GsoKind, VnetHeader};
use meshwork_wire::Incarnation;
use zeroize::Zeroizing;

use crate::header::{HEADER_LEN, Header, PacketType, SEALED_OVERHEAD};
use crate::inbound::{Opened, join};
use crate::packet::{IPV4_HEADER, IPV6_HEADER, TCP, put};
use crate::peer::Peer;
use crate::segment::for_each_segment;
use crate::session::{Cipher, Keys, Session};
use crate::table::Routes;

/// Of a TCP header without options.
const TCP_HEADER: usize = 20;
const TCP_ACK: u8 = 0x10;

/// Both ends of a session.
pub struct Pair {
    sealing: Session,
    opening: Session,
}

impl Pair {
    /// Seals by AES-256-GCM, or by ChaCha20-Poly1305. `None` never, unless a cipher refuses its keys.
    #[must_use]
    pub fn new(aes: bool) -> Option<Self> {
        let cipher = if aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let end = |send: u8, receive: u8| {
            let keys = Keys {
                cipher,
                send: Zeroizing::new([send; 32]),
                receive: Zeroizing::new([receive; 32]),
                key_id: [0; 4],
                incarnation: Incarnation(1),
                remote_index: 1,
                initiator: true,
            };
            Session::new(&keys, 1, peer(1), Instant::now())
        };
        Some(Self { sealing: end(1, 2)?, opening: end(2, 1)? })
    }

    /// Seals one packet; empty when the key is used up.
    #[must_use]
    pub fn sealed(&self, plaintext: &[u8]) -> Vec<u8> {
        self.sealing.seal_alone(PacketType::Data, plaintext).unwrap_or_default()
    }

    /// Seals one packet into `out`, which is [`OVERHEAD`] longer, over and over under one number.
    pub fn seal_into(&self, plaintext: &[u8], out: &mut [u8]) -> bool {
        self.sealing.seal(PacketType::Data, 0, 0, plaintext, out)
    }

    /// Opens a packet that was not opened before.
    pub fn open(&self, datagram: &mut [u8]) -> bool {
        Header::read(datagram).is_some_and(|header| self.opening.open(header, datagram).is_ok())
    }
}

/// What a sealed packet is longer by.
pub const OVERHEAD: usize = SEALED_OVERHEAD;

/// A stretch of one TCP stream, as the kernel hands it over and takes it.
pub struct Stretch {
    header: VnetHeader,
    packet: Vec<u8>,
}

impl Stretch {
    /// Of so many segments with so many bytes each.
    #[must_use]
    pub fn new(segments: usize, segment_size: usize, v6: bool) -> Self {
        let start = if v6 { IPV6_HEADER } else { IPV4_HEADER };
        let mut packet = vec![0; start + TCP_HEADER + segments * segment_size];
        let length = packet.len();
        let (front, rest) = packet.split_at_mut(start);
        if v6 {
            front[0] = 0x60;
            front[6] = TCP;
            put(front, 4, (length - start) as u16);
        } else {
            front[0] = 0x45;
            front[9] = TCP;
            put(front, 2, length as u16);
        }
        rest[12] = (TCP_HEADER as u8 / 4) << 4;
        rest[13] = TCP_ACK;
        let header = VnetHeader {
            gso: if v6 { GsoKind::Tcp6 } else { GsoKind::Tcp4 },
            segment_size: segment_size as u16,
            ..VnetHeader::default()
        };
        Self { header, packet }
    }

    /// Cuts it into inner packets: how many.
    pub fn cut(&mut self) -> usize {
        let mut bytes = 0;
        let count = for_each_segment(&self.header, &mut self.packet, |_, segment| bytes += segment.len());
        if bytes > 0 { count.unwrap_or(0) } else { 0 }
    }

    /// Its inner packets, as they lie in a run of opened datagrams.
    #[must_use]
    pub fn opened(mut self) -> Run {
        let mut run = Run { bytes: Vec::new(), opened: Vec::new() };
        for_each_segment(&self.header, &mut self.packet, |_, segment| {
            run.bytes.extend([0; HEADER_LEN]);
            let start = run.bytes.len();
            run.bytes.extend(segment);
            run.opened.push(Opened { start, end: run.bytes.len(), partial: true });
            run.bytes.extend([0; SEALED_OVERHEAD - HEADER_LEN]);
        });
        run
    }
}

/// Datagrams of one peer that were opened where they lie.
pub struct Run {
    bytes: Vec<u8>,
    opened: Vec<Opened>,
}

impl Run {
    /// Joins what goes together: how many packets the first write to the device carries.
    pub fn join(&mut self) -> usize {
        let Some((joined, count)) = join(&self.bytes, &self.opened, true) else { return 0 };
        let first = self.opened.first().map_or(0..0, |first| first.start..first.end);
        self.bytes.get_mut(first).map_or(0, |first| {
            joined.finish(first);
            count
        })
    }
}

/// Who owns which addresses, of so many peers with a prefix of each family.
pub struct Directory(Routes);

impl Directory {
    /// Peer `n` owns the `n`th /24 of `10.0.0.0/8` and a /64.
    #[must_use]
    pub fn new(peers: u16) -> Self {
        let mut routes = Routes::new(Vec::new());
        for number in 0..peers {
            let owner = peer(number.to_be_bytes()[1]);
            for address in Self::addresses(number) {
                routes.insert(prefix(address), &owner);
            }
        }
        Self(routes)
    }

    /// An address of either family of peer `number`.
    #[must_use]
    pub fn addresses(number: u16) -> [IpAddr; 2] {
        let [second, third] = number.to_be_bytes();
        [Ipv4Addr::new(10, second, third, 7).into(), Ipv6Addr::new(0xfd00, 0, 0, number, 0, 0, 0, 7).into()]
    }

    /// Whether somebody owns the address.
    #[must_use]
    pub fn knows(&self, address: IpAddr) -> bool {
        self.0.owner(address).is_some()
    }
}

fn prefix(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(v4) => Ipv4Net::new_assert(v4, 24).trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new_assert(v6, 64).trunc().into(),
    }
}

fn peer(seed: u8) -> Arc<Peer> {
    Arc::new(Peer::new(Identity::from_seed([seed; 32]).peer_id()))
}
