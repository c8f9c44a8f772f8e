//! Rows of the database, and the state machine of addresses that starts from them.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use meshwork_ipam::{HeldPart, Holding, Init, Input as Happening, Lease, Origin, Snapshot, node_prefix6};
use meshwork_wire::record::{PodKey, PodRecord};
use meshwork_wire::{Incarnation, Version, frame};

use super::records;
use super::ring::{Node, id, judge_disk, peers, range4, range6, some_part};
use crate::input::{Input, of_kind, part};

/// Most bytes of a row.
const MOST_ROW: usize = 1 << 20;

pub(super) fn run(bytes: &[u8]) {
    let (mut input, mut disk) = (Input(bytes), Snapshot::default());
    while !input.is_empty() {
        row(input.byte(), &mut input, &mut disk);
    }
    let Some(mut node) = Node::restore(Init::Auto { has_peers: true }, disk) else { return };
    node.happens(Happening::Started, false);
    node.happens(peers(0xe, 9, None), false);
    for step in [[3, 120], [4, 1], [5, 1], [3, 200]] {
        node.step(&mut Input(&step));
    }
    judge_disk(&node);
}

fn row(kind: u8, input: &mut Input<'_>, disk: &mut Snapshot) {
    let read = |bytes| frame::decode::<Lease>(bytes, MOST_ROW).ok();
    match kind % 4 {
        0 => {
            let (key, value) = (input.part(), input.part());
            records::again::<HeldPart>(value, MOST_ROW);
            let row = frame::decode(key, MOST_ROW).ok().zip(frame::decode(value, MOST_ROW).ok());
            disk.parts.extend(row);
        }
        1 => disk.leases.extend(read(input.part()).map(|lease| (lease.name.clone(), lease))),
        2 => {
            let (lease, origin) = (input.part(), input.part());
            records::again::<Origin>(origin, MOST_ROW);
            let Some((lease, origin)) = read(lease).zip(frame::decode(origin, MOST_ROW).ok()) else { return };
            disk.leases.insert(lease.name.clone(), Lease { origin, ..lease });
        }
        _ => {
            let sequence = if input.byte() > 250 { u64::MAX } else { u64::from(input.byte()) };
            disk.freed.extend(frame::decode(input.part(), MOST_ROW).ok().map(|address| (sequence, address)));
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let lease = some_lease();
    let row =
        |kind: u8, parts: &[Vec<u8>]| of_kind(kind, &parts.iter().flat_map(|bytes| part(bytes)).collect::<Vec<_>>());
    let held = |prefix: Ipv4Net, holding| {
        row(0, &[frame::encode(&prefix), frame::encode(&HeldPart { part: some_part(None, 0), holding })])
    };
    let origin = Origin { network: Some("mesh".to_owned()), ..Origin::default() };
    let owned = held(range4(), Holding::Owned);
    let request = Version { incarnation: Incarnation(1), counter: 1 };
    let given = held(Ipv4Net::new_assert([10, 32, 8, 0].into(), 22), Holding::Given { request, acknowledged: false });
    let freed = [vec![3, 0, 4], part(&frame::encode(&std::net::IpAddr::from([10, 32, 0, 77])))].concat();
    let leased = row(1, &[frame::encode(&lease)]);
    let with_origin = row(2, &[frame::encode(&lease), frame::encode(&origin)]);
    let overtaken = held(Ipv4Net::new_assert([10, 32, 4, 0].into(), 24), Holding::Overtaken);
    vec![
        [owned.clone(), leased.clone()].concat(),
        [owned, given, overtaken, with_origin, freed.clone()].concat(),
        leased,
        freed,
    ]
}

fn some_lease() -> Lease {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let v6 = node_prefix6(range6(), id(0)).hosts().nth(4).expect("a /112 has hosts");
    let addresses = vec![[10, 32, 0, 9].into(), v6.into()];
    let pod = PodRecord { namespace: "n".to_owned(), name: "p".to_owned(), labels, addresses };
    let name = PodKey { sandbox: "0abc".to_owned(), interface: "eth0".to_owned() };
    Lease { name, netns: "/run/netns/x".to_owned(), pod, origin: Origin::default() }
}
