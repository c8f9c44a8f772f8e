//! The sixteen bytes in front of everything we send. Final: later versions add types, never change this.
//!
//! All numbers are big-endian, as in the headers around them.
//!
//! ```text
//!  byte  0         1         2         3         4 … 7             8 … 15
//!       +---------+---------+---------+---------+-----------------+---------------------------+
//!       | type    | version | flags   | zero    | receiver index  | counter                   |
//!       +---------+---------+---------+---------+-----------------+---------------------------+
//! ```
//!
//! - The first byte of a QUIC packet is 0x40 or above (RFC 9000 section 17; the fixed bit is never greased here), so
//!   one port serves both: [`is_ours`] tells them apart.
//! - The receiver index names the session at the receiver, who chose it at random.
//! - The counter is the packet's number in its session and direction. Bytes 0 to 3 and 8 to 15 together are the AEAD's
//!   nonce, so type, version, flags and counter are authenticated without extra bytes. The receiver index is not: a
//!   relay puts its own label there.
//!
//! | type | name | behind the header |
//! |---|---|---|
//! | 0x01 | initiation | the index field is the *sender's* index; the counter field is secret hint (4) and the low half of the responder's incarnation (4); Noise message 1; two MACs |
//! | 0x02 | response | receiver index; the counter field is secret hint (4) and the sender's index (4); Noise message 2; two MACs |
//! | 0x03 | cookie reply | reserved for load: answers an initiation, never longer than it |
//! | 0x04 | data | a sealed inner packet; empty: only says that the sender is alive |
//! | 0x05 | probe | a sealed [`crate::header::PROBE_LEN`]-byte question or answer |
//! | 0x06 | relay | reserved: bytes 4 to 11 hold a label of 64 bits that each hop swaps, byte 12 the hop limit, 13 to 19 are zero; the relayed packet follows |
//! | 0x07 | fragment | reserved: half of a data packet that the path cannot carry whole, sealed |
//!
//! The worst case in front of an inner packet is 100 bytes: IPv6 40, UDP 8, header 16, tag 16, relay 20.

/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Bytes of an AEAD's tag, behind the sealed bytes.
pub const TAG_LEN: usize = 16;
/// Bytes that the tunnel adds inside the UDP payload.
pub const SEALED_OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// What the underlay's MTU exceeds the pods' by: the worst case, so that a change of path never changes the pods' MTU.
pub const OVERHEAD_BUDGET: u32 = 40 + 8 + SEALED_OVERHEAD as u32 + 20;
/// The version this code speaks.
pub const VERSION: u8 = 1;
/// Bytes of a probe's plaintext: kind, token (8), zeroes.
pub const PROBE_LEN: usize = 16;

/// In a data packet: the inner transport checksum holds only the pseudo-header's sum, and whoever takes the packet out
/// of the overlay finishes it. The AEAD protects the bytes meanwhile.
pub const FLAG_PARTIAL_CHECKSUM: u8 = 0x01;

/// Whether a datagram that starts with `first_byte` is the tunnel's; else it is QUIC's.
#[must_use]
pub const fn is_ours(first_byte: u8) -> bool {
    first_byte < 0x40
}

/// What a packet of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketType {
    /// First handshake message.
    Initiation = 0x01,
    /// Second handshake message.
    Response = 0x02,
    /// Reserved.
    CookieReply = 0x03,
    /// Sealed inner packet.
    Data = 0x04,
    /// Sealed question or answer.
    Probe = 0x05,
    /// Reserved.
    Relay = 0x06,
    /// Reserved.
    Fragment = 0x07,
}

impl PacketType {
    /// The type that `byte` stands for, if any.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::Initiation,
            0x02 => Self::Response,
            0x03 => Self::CookieReply,
            0x04 => Self::Data,
            0x05 => Self::Probe,
            0x06 => Self::Relay,
            0x07 => Self::Fragment,
            _ => return None,
        })
    }
}

/// The header, read or to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: PacketType,
    /// [`FLAG_PARTIAL_CHECKSUM`], or in an initiation the cipher's number.
    pub flags: u8,
    /// The receiver's index, or the sender's in an initiation.
    pub index: u32,
    /// The packet's number, or two numbers in handshakes.
    pub counter: u64,
}

impl Header {
    /// Reads the header in front of `datagram`: `None` if it is short, of another version or unknown type, or has the
    /// zero byte set.
    #[must_use]
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let &[kind, VERSION, flags, 0, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7] =
            datagram.first_chunk::<HEADER_LEN>()?
        else {
            return None;
        };
        Some(Self {
            kind: PacketType::from_byte(kind)?,
            flags,
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        [self.kind as u8, VERSION, self.flags, 0, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7]
    }

    /// The AEAD's nonce for this packet: all but the index.
    #[must_use]
    pub const fn nonce(self) -> [u8; 12] {
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_be_bytes();
        [self.kind as u8, VERSION, self.flags, 0, c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_final() {
        let header = Header { kind: PacketType::Data, flags: 1, index: 0x0102_0304, counter: 0x0a0b_0c0d_0e0f_1011 };
        let bytes = header.to_bytes();
        assert_eq!(bytes, [4, 1, 1, 0, 1, 2, 3, 4, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11]);
        assert_eq!(header.nonce(), [4, 1, 1, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11]);
        assert_eq!(Header::read(&bytes), Some(header));
        assert_eq!(OVERHEAD_BUDGET, 100);
    }

    #[test]
    fn every_type_is_below_quics_first_bytes_and_keeps_its_number() {
        for (number, byte) in (1..=7_u8).enumerate() {
            let kind = PacketType::from_byte(byte).unwrap();
            assert_eq!((kind as u8, number as u8 + 1), (byte, byte));
            assert!(is_ours(byte));
        }
        assert!([0x40, 0x4f, 0xc0, 0xff].iter().all(|byte| !is_ours(*byte)));
    }

    #[test]
    fn short_foreign_and_future_headers_do_not_read() {
        let good = Header { kind: PacketType::Probe, flags: 0, index: 1, counter: 1 }.to_bytes();
        assert_eq!(Header::read(&good[..15]), None);
        for (place, value) in [(0, 0), (0, 8), (0, 0x40), (1, 2), (3, 1)] {
            let mut bad = good;
            bad[place] = value;
            assert_eq!(Header::read(&bad), None, "byte {place} = {value}");
        }
    }
}
