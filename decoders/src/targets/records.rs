//! Keys and values of every replicated store.

use std::fmt::Debug;

use meshwork_gossip::limits::{MAX_KEY, MAX_VALUE};
use meshwork_simulator::content;
use meshwork_wire::record::{
    FreeSpaceRecord, LinkRecord, PeerRecord, Peers, PodKey, PodRecord, Pods, Ring, RingPart, Store,
};
use meshwork_wire::{PeerId, frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::gossip::publisher;
use crate::input::{Input, of_kind};

pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() {
        0 => again::<PeerRecord>(input.0, MAX_VALUE),
        1 => again::<LinkRecord>(input.0, MAX_VALUE),
        2 => again::<RingPart>(input.0, MAX_VALUE),
        3 => again::<PodRecord>(input.0, MAX_VALUE),
        4 => again::<FreeSpaceRecord>(input.0, MAX_VALUE),
        5 => again::<PeerId>(input.0, MAX_KEY),
        6 => again::<<Ring as Store>::Key>(input.0, MAX_KEY),
        7 => again::<PodKey>(input.0, MAX_KEY),
        _ => again::<()>(input.0, MAX_KEY),
    }
}

/// What is read is written as something that is read as the same, and is not longer.
pub(super) fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], limit: usize) {
    let Ok(value) = frame::decode::<T>(bytes, limit) else { return };
    let written = frame::encode(&value);
    assert!(written.len() <= bytes.len());
    assert_eq!(frame::decode::<T>(&written, limit).as_ref(), Ok(&value));
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let node = publisher();
    let peer = node.own::<Peers>().map(|(_, record)| of_kind(0, &frame::encode(&record)));
    let parts = node
        .own::<Ring>()
        .flat_map(|(prefix, part)| [of_kind(2, &frame::encode(&part)), of_kind(6, &frame::encode(&prefix))]);
    let pods =
        node.own::<Pods>().flat_map(|(key, pod)| [of_kind(3, &frame::encode(&pod)), of_kind(7, &frame::encode(&key))]);
    let notes = [of_kind(8, &frame::encode(&())), of_kind(1, &frame::encode(&LinkRecord { rtt_us: Some(300_000) }))];
    let few = [
        of_kind(4, &frame::encode(&FreeSpaceRecord { log2: Some(20) })),
        of_kind(5, &frame::encode(&node.peer_id())),
        of_kind(3, &frame::encode(&content::pod_of(&mut meshwork_simulator::Random::new(1), 1, 1).1)),
    ];
    peer.chain(parts).chain(pods).chain(notes).chain(few).collect()
}
