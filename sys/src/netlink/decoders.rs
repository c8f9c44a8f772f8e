//! What tests need that feed this crate with foreign messages; nothing else does.

use netlink_packet_route::RouteNetlinkMessage;

use super::nexthop::NexthopMessage;
use super::socket::{Answers, read_datagram};
use super::{address, firewall, link, neighbour, nexthop, route, watch};

/// Reads a datagram as every sort of answer, up to the values that callers see: how many those are.
#[must_use]
pub fn answers(datagram: &[u8], sequence: u32) -> usize {
    let mut answers = Answers::<RouteNetlinkMessage>::default();
    let ended = read_datagram(datagram, sequence, "list", &mut answers);
    let values = |answer: &RouteNetlinkMessage| {
        let neighbour = match answer {
            RouteNetlinkMessage::NewNeighbour(entry) => neighbour::read(entry),
            _ => None,
        };
        let others = [link::read(answer).is_some(), address::read(answer).is_some(), route::read(answer).is_some()];
        usize::from(neighbour.is_some() || others.contains(&true))
    };
    let count: usize = answers.messages.iter().map(values).sum();
    let mut nexthops = Answers::<NexthopMessage>::default();
    let ended_alike = read_datagram(datagram, sequence, "list", &mut nexthops);
    assert_eq!(ended.is_ok(), ended_alike.is_ok(), "how an exchange ends does not depend on what is asked for");
    count + nexthops.messages.iter().filter_map(nexthop::read).count()
}

/// Reads a datagram as notices of both sorts: how many there are.
#[must_use]
pub fn notices(datagram: &[u8]) -> usize {
    watch::notices(datagram)
}

/// Reads a datagram as a listing of counters: how many there are.
#[must_use]
pub fn counters(datagram: &[u8]) -> usize {
    firewall::counters(datagram)
}
