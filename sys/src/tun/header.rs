//! The virtio-net header in front of every packet of a TUN device, little-endian.

/// Bytes of the header: the form without a buffer count.
pub const VNET_HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_ECN: u8 = 0x80;

/// How a packet larger than the MTU is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GsoKind {
    /// Not at all: one packet.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP, either family: equal datagrams in a row.
    Udp,
}

/// What the kernel and we tell each other about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// The transport checksum holds only the pseudo-header's sum: whoever sends the packet on finishes it.
    pub needs_checksum: bool,
    /// The kind of the segments.
    pub gso: GsoKind,
    /// TCP only: the first segment alone carries CWR (RFC 3168).
    pub ecn: bool,
    /// Bytes of the headers in front of the payload; a hint, never to be trusted for bounds.
    pub header_len: u16,
    /// Payload bytes per segment.
    pub segment_size: u16,
    /// Where the transport header starts.
    pub checksum_start: u16,
    /// Where in the transport header the checksum lies.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// The header at the start of what was read, and the packet behind it; `None` if there is no whole header or its
    /// kind is one that was never asked for.
    #[must_use]
    pub fn split(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, packet) = bytes.split_first_chunk::<VNET_HEADER_LEN>()?;
        let &[flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = header;
        let gso = match kind & !GSO_ECN {
            0 => GsoKind::None,
            1 => GsoKind::Tcp4,
            4 => GsoKind::Tcp6,
            5 => GsoKind::Udp,
            _ => return None,
        };
        let header = Self {
            needs_checksum: flags & NEEDS_CHECKSUM != 0,
            gso,
            ecn: kind & GSO_ECN != 0,
            header_len: u16::from_le_bytes([h0, h1]),
            segment_size: u16::from_le_bytes([s0, s1]),
            checksum_start: u16::from_le_bytes([c0, c1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        };
        Some((header, packet))
    }

    /// The bytes to write in front of a packet.
    #[must_use]
    pub fn to_bytes(self) -> [u8; VNET_HEADER_LEN] {
        let kind = match self.gso {
            GsoKind::None => 0,
            GsoKind::Tcp4 => 1,
            GsoKind::Tcp6 => 4,
            GsoKind::Udp => 5,
        };
        let [h0, h1] = self.header_len.to_le_bytes();
        let [s0, s1] = self.segment_size.to_le_bytes();
        let [c0, c1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        [u8::from(self.needs_checksum), kind | if self.ecn { GSO_ECN } else { 0 }, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_unknown_kinds_do_not_read() {
        let header = VnetHeader {
            needs_checksum: true,
            gso: GsoKind::Tcp6,
            ecn: true,
            header_len: 72,
            segment_size: 1328,
            checksum_start: 40,
            checksum_offset: 16,
        };
        let mut bytes = header.to_bytes().to_vec();
        assert_eq!(bytes, [1, 0x84, 72, 0, 0x30, 5, 40, 0, 16, 0]);
        bytes.extend([0x60, 1]);
        assert_eq!(VnetHeader::split(&bytes), Some((header, &[0x60, 1][..])));
        bytes[1] = 3;
        assert_eq!(VnetHeader::split(&bytes), None);
        assert_eq!(VnetHeader::split(&bytes[..9]), None);
    }
}
