//! Reading inner packets: addresses, and where TCP and UDP lie. All bounds are checked; nothing is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const IPV4_HEADER: usize = 20;
pub(crate) const IPV6_HEADER: usize = 40;
pub(crate) const UDP_HEADER: usize = 8;
/// Where the checksum lies in the TCP header.
pub(crate) const TCP_CHECKSUM: usize = 16;
/// Where the checksum lies in the UDP header.
pub(crate) const UDP_CHECKSUM: usize = 6;

/// Source and destination of an inner packet whose length field agrees with its length.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<IPV4_HEADER>()?;
            let &[_, _, l0, l1, _, _, _, _, _, _, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
            (usize::from(u16::from_be_bytes([l0, l1])) == packet.len()).then_some(())?;
            Some((Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into()))
        }
        6 => {
            let header = packet.first_chunk::<IPV6_HEADER>()?;
            let (fixed, addresses) = header.split_first_chunk::<8>()?;
            let (source, destination) = addresses.split_first_chunk::<16>()?;
            let &[_, _, _, _, l0, l1, _, _] = fixed;
            (usize::from(u16::from_be_bytes([l0, l1])) + IPV6_HEADER == packet.len()).then_some(())?;
            let destination = <[u8; 16]>::try_from(destination).ok()?;
            Some((Ipv6Addr::from(*source).into(), Ipv6Addr::from(destination).into()))
        }
        _ => None,
    }
}

/// Where the transport header of an unfragmented TCP or UDP packet lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) protocol: u8,
    /// Where it starts.
    pub(crate) start: usize,
    /// Where the payload starts.
    pub(crate) payload: usize,
    pub(crate) v6: bool,
}

impl Transport {
    /// `None` for other protocols, fragments, IPv6 extension headers and headers that do not fit.
    pub(crate) fn find(packet: &[u8]) -> Option<Self> {
        let v6 = match packet.first()? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let (protocol, start) = if v6 {
            (*packet.get(6)?, IPV6_HEADER)
        } else {
            let header = packet.first_chunk::<IPV4_HEADER>()?;
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
            (fragment == 0).then_some((header[9], usize::from(header[0] & 0x0f) * 4))?
        };
        let length = match protocol {
            TCP => usize::from(*packet.get(start + 12)? >> 4) * 4,
            UDP => UDP_HEADER,
            _ => return None,
        };
        let payload = start + length;
        let minimum = if protocol == TCP { 20 } else { UDP_HEADER };
        (start >= IPV4_HEADER && length >= minimum && payload <= packet.len()).then_some(Self {
            protocol,
            start,
            payload,
            v6,
        })
    }

    /// Where the checksum lies, from the transport header's start.
    pub(crate) const fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    /// The pseudo-header's sum for a transport length, folded and not inverted: what a partial checksum holds.
    pub(crate) fn pseudo_sum(&self, header: &[u8], length: usize) -> u16 {
        let addresses = if self.v6 { header.get(8..IPV6_HEADER) } else { header.get(12..IPV4_HEADER) };
        let base = u64::from(self.protocol) + length as u64;
        fold(sum(addresses.unwrap_or_default(), base))
    }
}

/// Adds the 16-bit words of `bytes` (RFC 1071).
pub(crate) fn sum(bytes: &[u8], initial: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let total = words.iter().fold(initial, |total, word| total + u64::from(u16::from_be_bytes(*word)));
    total + rest.first().map_or(0, |byte| u64::from(*byte) << 8)
}

/// Folds a sum to 16 bits.
pub(crate) const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Writes `value` at `place`; out of bounds nothing is written.
pub(crate) fn put(bytes: &mut [u8], place: usize, value: u16) {
    if let Some(target) = bytes.get_mut(place..place + 2) {
        target.copy_from_slice(&value.to_be_bytes());
    }
}

/// The number at `place`; 0 out of bounds.
pub(crate) fn take(bytes: &[u8], place: usize) -> u16 {
    bytes.get(place..place + 2).and_then(|found| found.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// The number at `place`; 0 out of bounds.
pub(crate) fn take32(bytes: &[u8], place: usize) -> u32 {
    bytes.get(place..place + 4).and_then(|found| found.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Renews the checksum of the IPv4 header that `packet` starts with.
pub(crate) fn renew_ipv4_checksum(packet: &mut [u8], header_len: usize) {
    put(packet, 10, 0);
    let checksum = !fold(sum(packet.get(..header_len).unwrap_or_default(), 0));
    put(packet, 10, checksum);
}
