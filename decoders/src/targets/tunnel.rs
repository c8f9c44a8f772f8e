//! Datagrams of strangers and of members, inner packets, what a TUN device hands over, and probes of the clear path.

use std::time::Duration;

use meshwork_identity::{Secret, Secrets};
use meshwork_router::clear::probe::{Probe, ProbeKeys};
use meshwork_sys::tun::{GsoKind, VnetHeader};
use meshwork_tunnel::decoders::{DEVICE_HEADER, Ear, cut, is_whole, joined, like};
use meshwork_wire::PeerId;

use crate::input::{Input, of_kind, part, parts};

/// Steps of one input.
const MOST_STEPS: usize = 24;

/// Largest datagram that is heard.
const MTU: usize = 1500;

pub(super) fn datagrams(bytes: &[u8]) {
    let (mut ear, mut input) = (Ear::new(), Input(bytes));
    let mut last = Vec::new();
    for _ in 0..MOST_STEPS {
        if input.is_empty() {
            break;
        }
        match input.byte() % 6 {
            0 => last = input.part().to_vec(),
            1 => last = ear.vouch(input.part()),
            2 | 3 => {
                let (kind, flags) = (input.byte(), input.byte());
                last = ear.seal(kind, flags, input.part()).unwrap_or_default();
            }
            4 => {
                ear.wait(Duration::from_millis(u64::from(input.byte()) * 40));
                continue;
            }
            // The same once more.
            _ => {}
        }
        last.truncate(MTU);
        if let Some(packet) = ear.hear(&last, input.byte()) {
            assert!(is_whole(&packet) && packet.len() < last.len());
        }
    }
}

pub(super) fn datagram_seeds() -> Vec<Vec<u8>> {
    let call = Ear::call();
    let sealed = |kind: u8, plaintext: &[u8]| [&[2, kind, 1][..], &part(plaintext), &[0]].concat();
    let question = [1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0];
    let answer = [2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0];
    let raw = [&[0][..], &part(&call), &[0]].concat();
    let vouched = [&[1][..], &part(&call[..call.len() - 32]), &[0]].concat();
    let packet = sealed(4, &udp(40));
    let moved = [&packet[..packet.len() - 1], &[2, 4, 100], &packet].concat();
    vec![raw, vouched, packet, moved, sealed(5, &question), sealed(5, &answer), sealed(4, &[]), sealed(4, &tcp6(0, 60))]
}

/// A datagram from the peer's addresses to ours.
fn udp(length: u8) -> Vec<u8> {
    let header = [0x45, 0, 0, 28 + length, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 32, 1, 9, 10, 32, 0, 9];
    let transport = [0x12, 0x34, 0, 53, 0, 8 + length, 0, 0];
    [&header[..], &transport, &vec![7; length.into()]].concat()
}

/// A segment from the peer's addresses to ours.
fn tcp6(sequence: u8, length: u8) -> Vec<u8> {
    let mut source = [0; 16];
    (source[0], source[3], source[15]) = (0xfd, 1, 9);
    let mut destination = [0; 16];
    (destination[0], destination[15]) = (0xfd, 9);
    let transport = [0x12, 0x34, 0, 80, 0, 0, 0, sequence, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
    let header = [0x60, 0, 0, 0, 0, 20 + length, 6, 64];
    [&header[..], &source, &destination, &transport, &vec![7; length.into()]].concat()
}

/// What is cut are whole packets, and what joins is cut into what it was.
pub(super) fn packets(bytes: &[u8]) {
    let mut input = Input(bytes);
    if input.byte().is_multiple_of(2) {
        let pieces = cut(input.0).unwrap_or_default();
        let partial = pieces.iter().filter(|(partial, _)| *partial);
        assert!(partial.count() == 0 || pieces.iter().all(|(_, piece)| is_whole(piece)));
        return;
    }
    let packets: Vec<Vec<u8>> =
        input.parts().into_iter().map(<[u8]>::to_vec).filter(|packet| is_whole(packet)).collect();
    let mut rest = packets.as_slice();
    for (count, write) in joined(&packets) {
        // Packets without a transport are not written at all.
        while rest.first().is_some_and(|packet| like(packet).is_none()) {
            rest = &rest[1..];
        }
        let pieces = cut(&write).expect("what is written can be cut");
        let pieces = pieces.iter().map(|(_, piece)| like(piece));
        assert!(pieces.eq(rest.iter().take(count).map(|packet| like(packet))), "what joins is cut into what it was");
        rest = &rest[count..];
    }
}

pub(super) fn packet_seeds() -> Vec<Vec<u8>> {
    let kernel = |gso, segment_size, start, offset, packet: &[u8]| {
        let header = VnetHeader {
            needs_checksum: true,
            gso,
            segment_size,
            checksum_start: start,
            checksum_offset: offset,
            ..VnetHeader::default()
        };
        let header = header.to_bytes();
        assert_eq!(header.len(), DEVICE_HEADER);
        of_kind(0, &[&header[..], packet].concat())
    };
    vec![
        kernel(GsoKind::None, 0, 20, 6, &udp(40)),
        kernel(GsoKind::Udp, 13, 20, 6, &udp(40)),
        kernel(GsoKind::Tcp6, 20, 40, 16, &tcp6(0, 60)),
        of_kind(1, &parts([udp(40), udp(40), udp(7)])),
        of_kind(1, &parts([tcp6(0, 60), tcp6(60, 60), tcp6(120, 9)])),
    ]
}

fn keys() -> ProbeKeys {
    ProbeKeys::new(&Secrets::new(vec![Secret::generate([7; 32])]).expect("one secret"))
}

pub(super) fn probes(bytes: &[u8]) {
    if let Some(probe) = keys().open(bytes) {
        assert_eq!(keys().seal(&probe, bytes.len())[..62], bytes[..62]);
    }
}

pub(super) fn probe_seeds() -> Vec<Vec<u8>> {
    let probe = |answer| Probe { answer, from: PeerId([1; 16]), to: PeerId([2; 16]), token: 77 };
    vec![keys().seal(&probe(false), 200), keys().seal(&probe(true), 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_heard_and_its_packets_come_out() {
        let mut ear = Ear::new();
        let sealed = ear.seal(4, 1, &udp(40)).expect("two nodes that know each other meet");
        assert_eq!(ear.hear(&sealed, 1), Some(udp(40)));
        assert_eq!(ear.hear(&sealed, 1), None, "a repetition");
    }
}
