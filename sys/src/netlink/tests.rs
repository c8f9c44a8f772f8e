//! Reading what the kernel sends: recorded listings, and what is left of them after damage.

use netlink_packet_core::{NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;

use super::nexthop::NexthopMessage;
use super::socket::{Answers, read_datagram};
use super::{Family, Link, RouteMtu, address, link, nexthop, route};
use crate::Error;

/// The sequence number of everything recorded.
const SEQUENCE: u32 = 1;

/// What Linux 6.18 listed for a namespace with a veth pair, a TUN, routes of most kinds and nexthop objects: links,
/// addresses, routes, neighbours, nexthop objects, one message after the other.
const RECORDED: &[u8] = include_bytes!("../../tests/data/listings.bin");

/// Everything that could go wrong with a datagram, up to the values that callers see.
fn read_all(datagram: &[u8]) {
    let mut answers = Answers::<RouteNetlinkMessage>::default();
    let _ = read_datagram(datagram, SEQUENCE, "list", &mut answers);
    for answer in &answers.messages {
        let _ = (link::read(answer), address::read(answer), route::read(answer));
    }
    let mut answers = Answers::<NexthopMessage>::default();
    let _ = read_datagram(datagram, SEQUENCE, "list", &mut answers);
    let _ = answers.messages.iter().map(nexthop::read).count();
}

fn recorded() -> Answers<RouteNetlinkMessage> {
    let mut answers = Answers::default();
    assert!(!read_datagram(RECORDED, SEQUENCE, "list", &mut answers).unwrap());
    answers
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = 16 + payload.len() as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn read_one(datagram: &[u8]) -> (crate::Result<bool>, Answers<NexthopMessage>) {
    let mut answers = Answers::default();
    let outcome = read_datagram(datagram, SEQUENCE, "list nothing", &mut answers);
    (outcome, answers)
}

#[test]
fn recorded_links_are_read() {
    let links: Vec<Link> = recorded().messages.iter().filter_map(link::read).collect();
    let named = |name| links.iter().find(|link| link.name == name).unwrap();
    assert_eq!((named("lo").kind.clone(), named("lo").mtu), (None, 65536));
    assert_eq!((named("vl").kind.as_deref(), named("vl").running), (Some("veth"), true));
    assert_eq!(named("vl").parent, Some(named("vr").index));
    assert_eq!((named("tun0").kind.as_deref(), named("tun0").mac), (Some("tun"), None));
}

#[test]
fn recorded_routes_are_read() {
    let routes: Vec<_> = recorded().messages.iter().filter_map(route::read).collect();
    let to = |net: &str| routes.iter().find(|route| route.destination == net.parse().unwrap());
    assert_eq!(to("10.9.0.0/24").unwrap().mtu, Some(RouteMtu { bytes: 1390, locked: true }));
    assert_eq!(to("10.8.0.0/16").unwrap().nexthop, Some(7));
    assert_eq!((to("10.8.0.0/16").unwrap().output, to("0.0.0.0/0").unwrap().metric), (None, u32::MAX));
    assert_eq!(to("10.6.0.0/16").unwrap().gateway, Some("fe80::1".parse().unwrap()));
    assert_eq!(to("fd00:32::/48").unwrap().metric, 0);
    // Of several ways out none is told; the local table is left out.
    let several = to("10.7.0.0/16").unwrap();
    assert_eq!((several.output, several.gateway, to("10.1.0.1/32")), (None, None, None));
}

#[test]
fn the_recorded_nexthop_object_is_read_and_the_group_left_out() {
    let mut answers = Answers::<NexthopMessage>::default();
    read_datagram(RECORDED, SEQUENCE, "list", &mut answers).unwrap();
    let nexthops: Vec<_> = answers.messages.iter().filter_map(nexthop::read).collect();
    assert_eq!(nexthops.len(), 1);
    assert_eq!((nexthops[0].id, nexthops[0].family, nexthops[0].protocol), (7, Family::V4, 152));
}

#[test]
fn answers_to_another_request_are_skipped() {
    let (outcome, answers) = read_one(&message(NLMSG_DONE, NLM_F_MULTIPART, SEQUENCE + 1, &[0; 4]));
    assert!(!outcome.unwrap());
    assert!(answers.messages.is_empty());
}

#[test]
fn a_listing_that_was_disturbed_is_inconsistent() {
    let (outcome, answers) = read_one(&message(NLMSG_DONE, NLM_F_MULTIPART | NLM_F_DUMP_INTR, SEQUENCE, &[0; 4]));
    assert!(outcome.unwrap());
    assert!(!answers.consistent);
}

#[test]
fn a_refusal_is_read_with_and_without_its_sentence() {
    let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
    payload.extend([0; 16]);
    let plain = read_one(&message(NLMSG_ERROR, 0, SEQUENCE, &payload)).0.unwrap_err();
    assert_eq!(plain.errno(), Some(libc::EINVAL));
    payload.extend([8_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
    payload.extend(b"No!\0");
    let explained = read_one(&message(NLMSG_ERROR, 0, SEQUENCE, &payload)).0.unwrap_err();
    assert!(matches!(explained, Error::Refused { detail: Some(detail), .. } if detail == "No!"));
}

#[test]
fn an_impossible_errno_is_an_error_too() {
    let outcome = read_one(&message(NLMSG_ERROR, 0, SEQUENCE, &i32::MIN.to_ne_bytes())).0;
    assert!(outcome.is_err());
}

#[test]
fn lost_answers_are_an_error() {
    let outcome = read_one(&message(NLMSG_OVERRUN, 0, SEQUENCE, &[])).0;
    assert_eq!(outcome.unwrap_err().errno(), Some(libc::ENOBUFS));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_message_is_read_or_refused(
        kind in prop_oneof![0_u16..5, 16_u16..32, 104_u16..107],
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        read_all(&message(kind, NLM_F_MULTIPART, SEQUENCE, &payload));
    }

    #[test]
    fn a_damaged_listing_is_read_or_refused(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = RECORDED.to_vec();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        read_all(&bytes);
        bytes.truncate(length.index(bytes.len()));
        read_all(&bytes);
    }
}
