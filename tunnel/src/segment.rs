//! Cuts what the kernel hands over whole into inner packets.
//!
//! The kernel leaves a TCP stretch or a row of datagrams of up to 64 KB behind one header. Each segment gets its header
//! written right in front of its payload, over the tail of the segment before, which has been sealed by then: no byte
//! of payload is copied. Transport checksums stay partial ([`FLAG_PARTIAL_CHECKSUM`]).

use meshwork_sys::tun::{GsoKind, VnetHeader};

use crate::header::FLAG_PARTIAL_CHECKSUM;
use crate::packet::{TCP, Transport, UDP, fold, put, renew_ipv4_checksum, sum, take, take32};

/// The longest header: IPv4 with options and TCP with options.
const HEADER_MAX: usize = 60 + 60;
const TCP_FIN_PSH: u8 = 0x09;
const TCP_CWR: u8 = 0x80;

/// Calls `seal` with the flags and bytes of every inner packet in `packet`, in order: how many there were, or `None`
/// if the headers make no sense.
pub(crate) fn for_each_segment(
    header: &VnetHeader,
    packet: &mut [u8],
    mut seal: impl FnMut(u8, &[u8]),
) -> Option<usize> {
    if header.gso == GsoKind::None {
        let flags = if header.needs_checksum { finish_or_defer(header, packet)? } else { 0 };
        seal(flags, packet);
        return Some(1);
    }
    let cut = Cut::new(header, packet)?;
    for number in 0..cut.count {
        let range = cut.write_header(number, packet);
        seal(FLAG_PARTIAL_CHECKSUM, packet.get(range)?);
    }
    Some(cut.count)
}

/// How many inner packets there will be.
pub(crate) fn count(header: &VnetHeader, packet: &[u8]) -> Option<usize> {
    if header.gso == GsoKind::None { Some(1) } else { Cut::new(header, packet).map(|cut| cut.count) }
}

/// Leaves the checksum to the receiver where that finds it again; else finishes it here.
fn finish_or_defer(header: &VnetHeader, packet: &mut [u8]) -> Option<u8> {
    let (start, offset) = (usize::from(header.checksum_start), usize::from(header.checksum_offset));
    if Transport::find(packet).is_some_and(|found| found.start == start && found.checksum_offset() == offset) {
        return Some(FLAG_PARTIAL_CHECKSUM);
    }
    (start + offset + 2 <= packet.len()).then_some(())?;
    let checksum = !fold(sum(packet.get(start..)?, 0));
    // A UDP checksum of 0 would say that there is none (RFC 768).
    put(packet, start + offset, if checksum == 0 { 0xffff } else { checksum });
    Some(0)
}

/// How one large packet is cut.
struct Cut {
    transport: Transport,
    template: [u8; HEADER_MAX],
    segment_size: usize,
    payload_len: usize,
    count: usize,
    sequence: u32,
    ip_id: u16,
    tcp_flags: u8,
}

impl Cut {
    fn new(header: &VnetHeader, packet: &[u8]) -> Option<Self> {
        let transport = Transport::find(packet)?;
        let expected = match header.gso {
            GsoKind::Tcp4 => (TCP, false),
            GsoKind::Tcp6 => (TCP, true),
            GsoKind::Udp => (UDP, transport.v6),
            GsoKind::None => return None,
        };
        let segment_size = usize::from(header.segment_size);
        let payload_len = packet.len() - transport.payload;
        ((transport.protocol, transport.v6) == expected && segment_size > 0 && payload_len > 0).then_some(())?;
        let mut template = [0; HEADER_MAX];
        template.get_mut(..transport.payload)?.copy_from_slice(packet.get(..transport.payload)?);
        Some(Self {
            sequence: take32(packet, transport.start + 4),
            ip_id: take(packet, 4),
            tcp_flags: packet.get(transport.start + 13).copied().unwrap_or(0),
            count: payload_len.div_ceil(segment_size),
            transport,
            template,
            segment_size,
            payload_len,
        })
    }

    /// Writes the header of segment `number` in front of its payload and returns where the whole lies.
    fn write_header(&self, number: usize, packet: &mut [u8]) -> std::ops::Range<usize> {
        let Transport { start, payload, v6, protocol } = self.transport;
        let offset = number * self.segment_size;
        let length = self.segment_size.min(self.payload_len - offset);
        let range = offset..offset + payload + length;
        let Some((target, template)) = packet.get_mut(range.clone()).zip(self.template.get(..payload)) else {
            return 0..0;
        };
        if let Some(front) = target.get_mut(..payload) {
            front.copy_from_slice(template);
        }
        let transport_len = payload - start + length;
        put(target, start + self.transport.checksum_offset(), self.transport.pseudo_sum(template, transport_len));
        if protocol == UDP {
            put(target, start + 4, transport_len as u16);
        } else {
            self.write_tcp(number, target);
        }
        if v6 {
            put(target, 4, transport_len as u16);
        } else {
            put(target, 2, (payload + length) as u16);
            put(target, 4, self.ip_id.wrapping_add(number as u16));
            renew_ipv4_checksum(target, start);
        }
        range
    }

    fn write_tcp(&self, number: usize, target: &mut [u8]) {
        let start = self.transport.start;
        let sequence = self.sequence.wrapping_add((number * self.segment_size) as u32);
        if let Some(place) = target.get_mut(start + 4..start + 8) {
            place.copy_from_slice(&sequence.to_be_bytes());
        }
        let first = if number == 0 { 0xff } else { !TCP_CWR };
        let last = if number + 1 == self.count { 0xff } else { !TCP_FIN_PSH };
        if let Some(flags) = target.get_mut(start + 13) {
            *flags = self.tcp_flags & first & last;
        }
    }
}
