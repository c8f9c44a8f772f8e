//! What is cut and joined again is what it was, and every piece is a packet of its own.

use meshwork_sys::tun::{GsoKind, VnetHeader};
use proptest::prelude::*;

use crate::coalesce::Joined;
use crate::header::FLAG_PARTIAL_CHECKSUM;
use crate::packet::{TCP, Transport, UDP, addresses, fold, put, renew_ipv4_checksum, sum, take, take32};
use crate::segment::{count, for_each_segment};

/// A large packet as the kernel hands it over.
fn stretch(protocol: u8, v6: bool, payload_len: usize, segment_size: u16, flags: u8) -> (VnetHeader, Vec<u8>) {
    let mut packet = if v6 {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        header.extend([0xfd; 16]);
        header.extend([0xfe; 16]);
        header
    } else {
        vec![0x45, 0, 0, 0, 0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    };
    let start = packet.len();
    if protocol == TCP {
        packet.extend([0x12, 0x34, 0, 80, 0xff, 0xff, 0xff, 0x00, 0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    } else {
        packet.extend([0x12, 0x34, 0, 53, 0, 0, 0, 0]);
    }
    packet.extend((0..payload_len).map(|n| (n * 7) as u8));
    let length = packet.len();
    let transport = Transport::find(&packet).unwrap();
    put(&mut packet, if v6 { 4 } else { 2 }, (length - if v6 { start } else { 0 }) as u16);
    if protocol == UDP {
        put(&mut packet, start + 4, (length - start) as u16);
    }
    let pseudo = transport.pseudo_sum(&packet, length - start);
    put(&mut packet, start + transport.checksum_offset(), pseudo);
    if !v6 {
        renew_ipv4_checksum(&mut packet, start);
    }
    let gso = match (protocol, v6) {
        (TCP, false) => GsoKind::Tcp4,
        (TCP, true) => GsoKind::Tcp6,
        _ => GsoKind::Udp,
    };
    let header = VnetHeader {
        needs_checksum: true,
        gso,
        ecn: false,
        header_len: transport.payload as u16,
        segment_size,
        checksum_start: start as u16,
        checksum_offset: transport.checksum_offset() as u16,
    };
    (header, packet)
}

fn cut(header: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let (mut packet, mut segments) = (packet.to_vec(), Vec::new());
    let expected = count(header, &packet);
    let found = for_each_segment(header, &mut packet, |flags, segment| {
        assert_eq!(flags, FLAG_PARTIAL_CHECKSUM);
        segments.push(segment.to_vec());
    });
    assert_eq!((found, expected), (Some(segments.len()), Some(segments.len())));
    segments
}

/// What a network card would do with a partial checksum: the sum over all must then be all ones.
fn finished_sum(segment: &[u8]) -> u16 {
    let transport = Transport::find(segment).unwrap();
    let mut segment = segment.to_vec();
    let checksum = !fold(sum(&segment[transport.start..], 0));
    put(&mut segment, transport.start + transport.checksum_offset(), checksum);
    let length = segment.len() - transport.start;
    let pseudo = u64::from(transport.pseudo_sum(&segment, length));
    fold(sum(&segment[transport.start..], pseudo))
}

proptest! {
    #[test]
    fn a_stretch_is_cut_into_packets_that_join_to_the_stretch(
        tcp in any::<bool>(), v6 in any::<bool>(), payload_len in 1_usize..60_000, segment_size in 500_u16..1400,
        last_flags in prop::sample::select(vec![0x10_u8, 0x18, 0x19, 0x11]),
    ) {
        let protocol = if tcp { TCP } else { UDP };
        let (header, original) = stretch(protocol, v6, payload_len, segment_size, last_flags);
        let segments = cut(&header, &original);
        prop_assert_eq!(segments.len(), payload_len.div_ceil(usize::from(segment_size)));
        for segment in &segments {
            prop_assert!(addresses(segment).is_some(), "the length agrees");
            prop_assert_eq!(finished_sum(segment), 0xffff);
            if !v6 {
                prop_assert_eq!(fold(sum(&segment[..20], 0)), 0xffff);
            }
        }
        let mut pieces = segments.iter();
        let mut rebuilt = Vec::new();
        while let Some(first) = pieces.next() {
            let mut whole = first.clone();
            let Some(mut joined) = Joined::start(first, true) else { panic!("a segment may be first") };
            let mut rest = pieces.clone();
            while let Some(next) = rest.next().filter(|next| joined.append(first, next)) {
                whole.extend(&next[joined.payload_start()..]);
                pieces.next();
            }
            rebuilt.push((joined.finish(&mut whole), whole));
        }
        prop_assert_eq!(rebuilt.len(), segments.len().div_ceil(crate::coalesce::MOST_JOINED));
        if let [(told, whole)] = &rebuilt[..] {
            prop_assert_eq!(whole, &original);
            let size = header.segment_size.min(payload_len as u16);
            prop_assert_eq!(*told, VnetHeader { segment_size: size, ..header });
        }
    }

    #[test]
    fn bytes_of_any_kind_neither_panic_nor_lie(
        mut packet in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(vec![0x45_u8, 0x46, 0x60, 0]),
        protocol in prop::sample::select(vec![TCP, UDP, 1]), kind in 0_usize..4, size in any::<u16>(), start in any::<u16>(),
    ) {
        for (place, value) in [(0, first), (6, protocol), (9, protocol)] {
            if let Some(byte) = packet.get_mut(place) {
                *byte = value;
            }
        }
        let gso = [GsoKind::None, GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][kind];
        let header = VnetHeader { needs_checksum: true, gso, segment_size: size, checksum_start: start % 256, ..VnetHeader::default() };
        let length = packet.len();
        for_each_segment(&header, &mut packet, |_, segment| assert!(segment.len() <= length));
        if let Some(mut joined) = Joined::start(&packet, true) {
            let next = packet.clone();
            joined.append(&packet, &next);
            joined.finish(&mut packet);
        }
    }
}

#[test]
fn only_the_first_segment_has_cwr_and_only_the_last_psh() {
    let (header, original) = stretch(TCP, false, 2500, 1000, 0x98);
    let segments = cut(&header, &original);
    let flags: Vec<u8> = segments.iter().map(|segment| segment[33]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x18]);
    let numbers: Vec<u32> = segments.iter().map(|segment| take32(segment, 24)).collect();
    assert_eq!(numbers, [0xffff_ff00, 0x2e8, 0x6d0], "sequence numbers wrap");
    assert_eq!(segments.iter().map(|segment| take(segment, 4)).collect::<Vec<_>>(), [0xfffe, 0xffff, 0]);
}

#[test]
fn packets_of_another_flow_or_out_of_order_do_not_join() {
    let (header, original) = stretch(TCP, true, 3000, 1000, 0x10);
    let segments = cut(&header, &original);
    let joins = |next: &[u8]| Joined::start(&segments[0], true).unwrap().append(&segments[0], next);
    assert!(joins(&segments[1]));
    assert!(!joins(&segments[2]) && !joins(&segments[0]));
    // Source, port, acknowledgement, window, an option: any difference keeps them apart.
    for place in [8, 41, 48, 54, 70] {
        let mut other = segments[1].clone();
        other[place] ^= 1;
        assert!(!joins(&other), "byte {place}");
    }
}

#[test]
fn a_checksum_the_receiver_would_not_find_is_finished() {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 47, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 5, 6, 0, 0];
    put(&mut packet, 2, 28);
    let header = VnetHeader { needs_checksum: true, checksum_start: 20, checksum_offset: 6, ..VnetHeader::default() };
    for_each_segment(&header, &mut packet, |flags, _| assert_eq!(flags, 0));
    assert_eq!(fold(sum(&packet[20..], 0)), 0xffff);
}
