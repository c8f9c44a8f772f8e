//! What a node of a real mesh publishes, and a store of the tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_gossip::{Full, Gossip};
use meshwork_wire::record::{
    ClearTerms, Encryption, FreeSpace, FreeSpaceRecord, Gift, PeerRecord, Peers, PodKey, PodRecord, Pods, Ranges, Ring,
    RingPart, Store, StoreId, WitnessSignature,
};
use meshwork_wire::{Incarnation, PeerId, Version};

use crate::random::Random;

/// A store of the tests.
pub struct Notes;

impl Store for Notes {
    const ID: StoreId = StoreId(900);
    const NAME: &'static str = "notes";
    type Key = u32;
    type Value = String;
}

/// The underlay's first address.
const UNDERLAY: u32 = 0xc0a8_0000;

/// Pods of each node.
const PODS: u32 = 3;

/// Puts a record, a part of the ring that was given, free space and some pods.
///
/// # Errors
/// [`Full`] never: it is a small part of what a node may publish.
pub fn publish(gossip: &mut Gossip, now: Instant, number: u32) -> Result<(), Full> {
    let mut random = Random::new(u64::from(number));
    gossip.put::<Peers>(now, &(), &record(&mut random, number))?;
    let (prefix, part) = part(&mut random, number, gossip.peer_id());
    gossip.put::<Ring>(now, &prefix, &part)?;
    gossip.put::<FreeSpace>(now, &(), &FreeSpaceRecord { log2: Some(9) })?;
    (0..PODS).try_for_each(|pod| {
        let (key, record) = pod_of(&mut random, number, pod);
        gossip.put::<Pods>(now, &key, &record)
    })
}

/// A pod as a kubelet makes them.
#[must_use]
pub fn pod_of(random: &mut Random, node: u32, pod: u32) -> (PodKey, PodRecord) {
    let sandbox = random.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let hash = random.below(1 << 32);
    let labels = [("app", "storefront".to_owned()), ("pod-template-hash", format!("{hash:08x}"))];
    let record = PodRecord {
        namespace: "production".to_owned(),
        name: format!("storefront-{hash:08x}-{pod:05}"),
        labels: labels.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
        addresses: overlay(node, pod + 2),
    };
    (PodKey { sandbox, interface: "eth0".to_owned() }, record)
}

fn overlay(node: u32, host: u32) -> Vec<IpAddr> {
    let v4 = Ipv4Addr::from_bits(0x0a20_0000 + node * 64 + host);
    let v6 = Ipv6Addr::from_bits((0xfd4d_6573_6877 << 80) | (u128::from(node) << 16) | u128::from(host));
    vec![v4.into(), v6.into()]
}

/// Host that has an address in the underlay.
#[must_use]
pub fn host_at(address: SocketAddr) -> Option<usize> {
    let IpAddr::V4(address) = address.ip() else { return None };
    usize::try_from(address.to_bits().checked_sub(UNDERLAY)?).ok()
}

/// What a node says of itself.
#[must_use]
pub fn record(random: &mut Random, number: u32) -> PeerRecord {
    let underlay = Ipv4Addr::from_bits(UNDERLAY + number);
    PeerRecord {
        nickname: format!("worker-{number:05}"),
        cluster: "default".to_owned(),
        software: "0.1.0".to_owned(),
        noise_key: random.bytes(),
        prefers_aes: true,
        encryption: Encryption::Required,
        endpoints: vec![SocketAddr::new(underlay.into(), 6783)],
        overlay: overlay(number, 1),
        clear: ClearTerms { port: 6784, addresses: vec![underlay.into()], trusted: Vec::new() },
        witnesses: (0..3).map(|_| some_peer(random)).collect(),
        ranges: Ranges {
            v4: Ipv4Net::new_assert(Ipv4Addr::new(10, 32, 0, 0), 12),
            v6: Ipv6Net::new_assert(Ipv6Addr::from_bits(0xfd4d_6573_6877 << 80), 48),
        },
    }
}

fn part(random: &mut Random, number: u32, owner: PeerId) -> (Ipv4Net, RingPart) {
    let mut signature = || [random.bytes(), random.bytes()].concat();
    let (given, witnessed) = (signature(), signature());
    let witnesses = vec![WitnessSignature { peer: some_peer(random), signature: witnessed }];
    let part = RingPart {
        ring: [7; 16],
        epoch: 0,
        version: Version { incarnation: Incarnation(1), counter: 1 },
        owner,
        gift: Some(Gift { giver: some_peer(random), signature: given, witnesses }),
    };
    (Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0a20_0000 + number * 64), 26), part)
}

fn some_peer(random: &mut Random) -> PeerId {
    let mut id = [0; 16];
    id.copy_from_slice(&random.bytes()[..16]);
    PeerId(id)
}
