//! Joins consecutive inner packets of one flow, so that the kernel takes up to 64 KB in one write.
//!
//! Only packets with a partial checksum join: their bytes are known to be what the sender's kernel meant, and the
//! joined packet has a partial one again. What joins could have been cut from one packet: equal headers but for length,
//! identification and sequence number, equal payloads but for a shorter last, nothing behind PSH or FIN.

use meshwork_sys::tun::{GsoKind, VnetHeader};

use crate::packet::{TCP, Transport, put, renew_ipv4_checksum, take, take32};

/// Most packets in one: what older kernels cut UDP into.
pub(crate) const MOST_JOINED: usize = 64;
/// Largest IP packet.
const LARGEST: usize = 65_535;
const TCP_ACK: u8 = 0x10;
const TCP_FIN_PSH: u8 = 0x09;
const DONT_FRAGMENT: u8 = 0x40;

/// Packets that have joined so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joined {
    transport: Transport,
    /// Payload of each but the last.
    segment_size: usize,
    /// Of the whole, with the header once.
    length: usize,
    count: usize,
    last_flags: u8,
    /// Nothing may follow.
    closed: bool,
}

impl Joined {
    /// A first packet that others may follow; `None` if it must stay alone.
    pub(crate) fn start(packet: &[u8], udp_allowed: bool) -> Option<Self> {
        let transport = Transport::find(packet)?;
        let segment_size = packet.len() - transport.payload;
        let tcp = transport.protocol == TCP;
        let flags = if tcp { *packet.get(transport.start + 13)? } else { 0 };
        (segment_size > 0 && (tcp || udp_allowed)).then_some(())?;
        let closed = tcp && flags != TCP_ACK;
        Some(Self { transport, segment_size, length: packet.len(), count: 1, last_flags: flags, closed })
    }

    /// Where the payload of every packet starts.
    pub(crate) fn payload_start(&self) -> usize {
        self.transport.payload
    }

    /// Takes `next` behind what has joined `first`, if it fits: whether it did.
    pub(crate) fn append(&mut self, first: &[u8], next: &[u8]) -> bool {
        let payload = next.len().saturating_sub(self.transport.payload);
        if self.closed || self.count >= MOST_JOINED || payload == 0 || payload > self.segment_size {
            return false;
        }
        if self.length + payload > LARGEST || !self.follows(first, next) {
            return false;
        }
        self.count += 1;
        self.length += payload;
        self.closed = payload < self.segment_size;
        if self.transport.protocol == TCP {
            self.last_flags = next.get(self.transport.start + 13).copied().unwrap_or(0);
            self.closed |= self.last_flags != TCP_ACK;
        }
        true
    }

    fn follows(&self, first: &[u8], next: &[u8]) -> bool {
        let start = self.transport.start;
        let equal = |from: usize, to: usize| first.get(from..to).is_some_and(|part| next.get(from..to) == Some(part));
        let network = if self.transport.v6 {
            equal(0, 4) && equal(6, 40)
        } else {
            let expected = take(first, 4).wrapping_add(self.count as u16);
            let free_id = first.get(6).is_some_and(|flags| flags & DONT_FRAGMENT != 0);
            equal(0, 2) && equal(6, 10) && equal(12, start) && (free_id || take(next, 4) == expected)
        };
        if !network || !equal(start, start + 4) {
            return false;
        }
        if self.transport.protocol != TCP {
            return true;
        }
        let sequence = take32(first, start + 4).wrapping_add((self.length - self.transport.payload) as u32);
        let flags = next.get(start + 13).copied().unwrap_or(0);
        take32(next, start + 4) == sequence
            && flags & !TCP_FIN_PSH == TCP_ACK
            && equal(start + 8, start + 13)
            && equal(start + 14, start + 16)
            && equal(start + 18, self.transport.payload)
    }

    /// Makes `first` the header of the whole, and returns what the kernel is told.
    pub(crate) fn finish(&self, first: &mut [u8]) -> VnetHeader {
        let Transport { start, payload, v6, protocol } = self.transport;
        let transport_len = self.length - start;
        let checksum = self.transport.pseudo_sum(first, transport_len);
        put(first, start + self.transport.checksum_offset(), checksum);
        if protocol == TCP {
            if let Some(flags) = first.get_mut(start + 13) {
                *flags |= self.last_flags;
            }
        } else {
            put(first, start + 4, transport_len as u16);
        }
        if v6 {
            put(first, 4, transport_len as u16);
        } else {
            put(first, 2, self.length as u16);
            renew_ipv4_checksum(first, start);
        }
        let gso = match (protocol, v6) {
            (TCP, false) => GsoKind::Tcp4,
            (TCP, true) => GsoKind::Tcp6,
            _ => GsoKind::Udp,
        };
        VnetHeader {
            gso,
            header_len: payload as u16,
            segment_size: self.segment_size as u16,
            ..partial(self.transport)
        }
    }
}

/// What the kernel is told of a single packet with a partial checksum.
pub(crate) fn partial(transport: Transport) -> VnetHeader {
    VnetHeader {
        needs_checksum: true,
        checksum_start: transport.start as u16,
        checksum_offset: transport.checksum_offset() as u16,
        ..VnetHeader::default()
    }
}
