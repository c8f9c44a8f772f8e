//! Reads capture files: just enough to say which addresses and ports a packet carries and whether it holds some bytes.
//!
//! Format: classic pcap as `tcpdump -w` writes it (draft-ietf-opsawg-pcap), link types Ethernet (1), Linux cooked (113) and
//! Linux cooked version 2 (276, what `-i any` gives). A capture that is still being written ends in half a record, which is
//! left for the next reading.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Magic of the file header in the byte order of the writer, with microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const IPPROTO_UDP: u8 = 17;

/// One captured packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Addresses and ports of the outermost IP header; nothing for ARP and the like.
    pub ip: Option<IpHeader>,
    /// Everything that was captured, link header included.
    pub bytes: Vec<u8>,
}

/// The outermost IP header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpHeader {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// What it carries: 17 is UDP.
    pub protocol: u8,
    /// Source and destination port of UDP.
    pub udp_ports: Option<(u16, u16)>,
}

impl Packet {
    /// Whether `needle` occurs anywhere in it.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        contains(&self.bytes, needle)
    }

    /// Whether its outermost header names an address for which `is` holds.
    #[must_use]
    pub fn has_address(&self, is: impl Fn(IpAddr) -> bool) -> bool {
        self.ip.is_some_and(|ip| is(ip.source) || is(ip.destination))
    }
}

/// Whether `needle` occurs in `bytes`.
#[must_use]
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && bytes.windows(needle.len()).any(|window| window == needle)
}

/// Every whole packet of a capture file; nothing of a file that is none.
#[must_use]
pub fn packets(file: &[u8]) -> Vec<Packet> {
    let Some(header) = file.get(..FILE_HEADER) else { return Vec::new() };
    if read_u32(header, 0) != Some(MAGIC) {
        return Vec::new();
    }
    let link_type = read_u32(header, 20).unwrap_or_default();
    let mut rest = file.get(FILE_HEADER..).unwrap_or_default();
    let mut packets = Vec::new();
    while let Some((bytes, after)) = next_record(rest) {
        packets.push(Packet { ip: ip_header(link_type, bytes), bytes: bytes.to_vec() });
        rest = after;
    }
    packets
}

fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(read_u32(bytes, 8)?).ok()?;
    let after = bytes.get(RECORD_HEADER..)?;
    Some((after.get(..length)?, after.get(length..)?))
}

fn ip_header(link_type: u32, bytes: &[u8]) -> Option<IpHeader> {
    // Offset of the EtherType and of what follows the link header.
    let (kind, start) = match link_type {
        1 => (12, 14),
        113 => (14, 16),
        276 => (0, 20),
        _ => return None,
    };
    let packet = bytes.get(start..)?;
    match bytes.get(kind..kind + 2)? {
        [0x08, 0x00] => ip4_header(packet),
        [0x86, 0xdd] => ip6_header(packet),
        _ => None,
    }
}

fn ip4_header(packet: &[u8]) -> Option<IpHeader> {
    let address = |at: usize| Some(Ipv4Addr::from_bits(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?)));
    let (source, destination) = (address(12)?.into(), address(16)?.into());
    let protocol = *packet.get(9)?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    Some(IpHeader { source, destination, protocol, udp_ports: udp_ports(protocol, packet.get(header..)?) })
}

fn ip6_header(packet: &[u8]) -> Option<IpHeader> {
    let address = |at: usize| Some(Ipv6Addr::from_bits(u128::from_be_bytes(packet.get(at..at + 16)?.try_into().ok()?)));
    let (source, destination) = (address(8)?.into(), address(24)?.into());
    let protocol = *packet.get(6)?;
    Some(IpHeader { source, destination, protocol, udp_ports: udp_ports(protocol, packet.get(40..)?) })
}

fn udp_ports(protocol: u8, datagram: &[u8]) -> Option<(u16, u16)> {
    let port = |at: usize| Some(u16::from_be_bytes(datagram.get(at..at + 2)?.try_into().ok()?));
    if protocol == IPPROTO_UDP { Some((port(0)?, port(2)?)) } else { None }
}

/// tcpdump writes in the byte order of its machine, which is ours.
fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(link_type: u32, records: &[&[u8]]) -> Vec<u8> {
        let mut file = MAGIC.to_ne_bytes().to_vec();
        file.extend([0; 16]);
        file.extend(link_type.to_ne_bytes());
        for record in records {
            file.extend([0; 8]);
            let length = u32::try_from(record.len()).unwrap().to_ne_bytes();
            file.extend(length);
            file.extend(length);
            file.extend(*record);
        }
        file
    }

    fn cooked(ethertype: [u8; 2], ip: &[u8]) -> Vec<u8> {
        [ethertype.as_slice(), &[0; 18], ip].concat()
    }

    fn udp4(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
        [header.as_slice(), &source, &destination, &[0x1a, 0x7f, 0x1a, 0x7f, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn addresses_ports_and_payload_are_found() {
        let packet = cooked([8, 0], &udp4([198, 18, 0, 6], [198, 18, 0, 10], b"hello"));
        let packets = packets(&file(276, &[&packet]));
        let ip = packets[0].ip.unwrap();
        assert_eq!(ip.destination, IpAddr::from([198, 18, 0, 10]));
        assert_eq!(ip.udp_ports, Some((6783, 6783)));
        assert!(packets[0].contains(b"ello") && !packets[0].contains(b"elloo"));
    }

    #[test]
    fn ipv6_is_read_too() {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
        ip.extend("fd4d:6573:6877::1".parse::<Ipv6Addr>().unwrap().octets());
        ip.extend("fd4d:6573:6877::2".parse::<Ipv6Addr>().unwrap().octets());
        let packets = packets(&file(276, &[&cooked([0x86, 0xdd], &ip)]));
        assert!(packets[0].has_address(crate::topology::is_overlay));
        assert_eq!(packets[0].ip.unwrap().udp_ports, None);
    }

    #[test]
    fn half_a_record_waits_for_its_rest() {
        let whole = file(276, &[&cooked([8, 0], &udp4([1, 1, 1, 1], [2, 2, 2, 2], b"a")), b"second"]);
        assert_eq!(packets(&whole).len(), 2);
        assert_eq!(packets(&whole[..whole.len() - 1]).len(), 1);
        assert_eq!(packets(&whole[..FILE_HEADER + 3]).len(), 0);
        assert_eq!(packets(b"no capture").len(), 0);
    }
}
