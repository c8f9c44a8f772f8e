//! Record types of the replicated stores. Each store maps keys of one origin to values; a store is named by a number
//! that never changes, so that builds which do not know it can carry it unread.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{PeerId, Version};

/// Number of a store on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub u16);

/// A replicated store: every peer writes its own map of keys to values, and everyone reads all of them.
pub trait Store {
    /// Number on the wire.
    const ID: StoreId;
    /// Name for people.
    const NAME: &'static str;
    /// Key within one origin's map.
    type Key: Serialize + DeserializeOwned + Ord + Clone;
    /// What the origin says under that key.
    type Value: Serialize + DeserializeOwned + Clone + PartialEq;
}

/// What a peer says of itself. One entry per origin.
pub struct Peers;

impl Store for Peers {
    const ID: StoreId = StoreId(1);
    const NAME: &'static str = "peers";
    type Key = ();
    type Value = PeerRecord;
}

/// Control links of a peer, keyed by the neighbour.
pub struct Links;

impl Store for Links {
    const ID: StoreId = StoreId(2);
    const NAME: &'static str = "links";
    type Key = PeerId;
    type Value = LinkRecord;
}

/// Parts of the IPv4 ring that a peer owns or has given away, keyed by prefix.
pub struct Ring;

impl Store for Ring {
    const ID: StoreId = StoreId(3);
    const NAME: &'static str = "ring";
    type Key = Ipv4Net;
    type Value = RingPart;
}

/// Pods of a peer, keyed by sandbox and interface.
pub struct Pods;

impl Store for Pods {
    const ID: StoreId = StoreId(4);
    const NAME: &'static str = "pods";
    type Key = PodKey;
    type Value = PodRecord;
}

/// Free addresses of a peer as a coarse hint, apart from ownership.
pub struct FreeSpace;

impl Store for FreeSpace {
    const ID: StoreId = StoreId(5);
    const NAME: &'static str = "free-space";
    type Key = ();
    type Value = FreeSpaceRecord;
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Name for people; defaults to the host name.
    pub nickname: String,
    /// Cluster that the node belongs to.
    pub cluster: String,
    /// Version of the software.
    pub software: String,
    /// X25519 public key of the encrypted path, bound to the identity by the signature over the record.
    pub noise_key: [u8; 32],
    /// Whether AES-GCM is the faster cipher on this node.
    pub prefers_aes: bool,
    /// Which clear paths the node would allow.
    pub encryption: Encryption,
    /// Underlay addresses at which the node takes control and encrypted packets, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Overlay addresses of the node itself, one per family once leased.
    pub overlay: Vec<IpAddr>,
    /// Between whom and where it takes packets in clear, as far as `encryption` allows any.
    pub clear: ClearTerms,
    /// Owners that witness this peer's gifts (`PROTOCOL` 1.2).
    pub witnesses: Vec<PeerId>,
    /// What its addresses come from.
    pub ranges: Ranges,
}

/// The overlay as one node was told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranges {
    /// Shared out by the ring.
    pub v4: Ipv4Net,
    /// Holds a /112 of each node.
    pub v6: Ipv6Net,
}

impl Ranges {
    /// Both, IPv4 first.
    #[must_use]
    pub fn of_each_family(self) -> [IpNet; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Whether a node's pod traffic may travel in clear. The stricter side of a pair wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Never.
    #[default]
    Required,
    /// Between trusted subnets.
    Trusted,
    /// With whoever says the same.
    Off,
}

/// Where a node takes overlay packets in clear.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClearTerms {
    /// UDP port of its VXLAN device.
    pub port: u16,
    /// Underlay addresses of its interfaces, best first: what is translated on the way carries no VXLAN.
    pub addresses: Vec<IpAddr>,
    /// Subnets whose nodes it trusts.
    pub trusted: Vec<IpNet>,
}

/// One end's view of a control link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// Smoothed round trip, republished only when it moved much.
    pub rtt_us: Option<u32>,
}

/// Ownership of one prefix of the ring, as its writer says it. The greatest `(epoch, version, owner)` over all origins
/// decides at every address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingPart {
    /// Which ring: drawn at random by whoever seeded it. Rings of different ids never mix.
    pub ring: [u8; 16],
    /// Raised only by a takeover.
    pub epoch: u32,
    /// Counted by the owner; a gift carries the giver's next one.
    pub version: Version,
    /// Who may allocate from it.
    pub owner: PeerId,
    /// For a part that was given: who gave it, with its signature over [`RingPart::signed_bytes`].
    pub gift: Option<Gift>,
}

/// Proof of a gift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    /// The owner before.
    pub giver: PeerId,
    /// Ed25519 signature of the giver, 64 bytes.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
    /// Witnesses that recorded the gift, with their signatures over the same bytes.
    pub witnesses: Vec<WitnessSignature>,
}

/// A witness's word that it recorded a gift.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessSignature {
    /// Who witnessed.
    pub peer: PeerId,
    /// Ed25519 signature, 64 bytes.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

impl RingPart {
    /// What a giver signs: ring, prefix, epoch, version, the new owner and the giver, under a label of its own.
    #[must_use]
    pub fn signed_bytes(&self, prefix: Ipv4Net, giver: PeerId) -> Vec<u8> {
        let label = b"meshwork ring gift v1";
        crate::frame::encode(&(&label[..], self.ring, prefix, self.epoch, self.version, self.owner, giver))
    }
}

/// Key of a pod's entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// Sandbox id given by the container runtime.
    pub sandbox: String,
    /// Interface inside the sandbox.
    pub interface: String,
}

/// A pod as every node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Namespace of the pod, empty when unknown.
    pub namespace: String,
    /// Name of the pod, empty when unknown.
    pub name: String,
    /// Labels by which policies and names select it.
    pub labels: BTreeMap<String, String>,
    /// Overlay addresses.
    pub addresses: Vec<IpAddr>,
}

/// Free space as the power of two at or below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSpaceRecord {
    /// `floor(log2(free))`, or nothing when the peer has no free address.
    pub log2: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    const PEER: PeerId = PeerId([0xaa; 16]);

    fn hex(value: &impl Serialize) -> String {
        frame::encode(value).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Other builds read these bytes: fields are only ever added behind them, under a new format.
    #[test]
    fn the_bytes_of_every_record_are_these() {
        let peer = PeerRecord {
            nickname: "n".to_owned(),
            cluster: "c".to_owned(),
            software: "1".to_owned(),
            noise_key: [0xbb; 32],
            prefers_aes: true,
            encryption: Encryption::Trusted,
            endpoints: vec!["192.0.2.1:6783".parse().expect("an endpoint")],
            overlay: vec![[10, 32, 0, 1].into()],
            clear: ClearTerms {
                port: 6784,
                addresses: vec![[192, 0, 2, 1].into()],
                trusted: vec!["192.0.2.0/24".parse().expect("a subnet")],
            },
            witnesses: vec![PEER],
            ranges: Ranges {
                v4: "10.32.0.0/12".parse().expect("a range"),
                v6: "fd4d:6573:6877::/48".parse().expect("a range"),
            },
        };
        let version = Version { incarnation: crate::Incarnation(2), counter: 3 };
        let signature = vec![0xcc; 64];
        let witnesses = vec![WitnessSignature { peer: PEER, signature: signature.clone() }];
        let gift = Some(Gift { giver: PEER, signature, witnesses });
        let part = RingPart { ring: [0xdd; 16], epoch: 1, version, owner: PEER, gift };
        let key = PodKey { sandbox: "s".to_owned(), interface: "eth0".to_owned() };
        let pod = PodRecord {
            namespace: "ns".to_owned(),
            name: "pod".to_owned(),
            labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            addresses: vec![[10, 32, 0, 2].into()],
        };
        insta::assert_snapshot!(hex(&peer), @"01016e01630131bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb01010100c0000201ff3401000a20000180350100c00002010100c00002001801aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0a2000000cfd4d657368770000000000000000000030");
        insta::assert_snapshot!(hex(&LinkRecord { rtt_us: Some(300) }), @"0101ac02");
        insta::assert_snapshot!(hex(&part), @"01dddddddddddddddddddddddddddddddd010203aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa40cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa40cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc");
        insta::assert_snapshot!(hex(&key), @"0101730465746830");
        insta::assert_snapshot!(hex(&pod), @"01026e7303706f6401016b017601000a200002");
        insta::assert_snapshot!(hex(&FreeSpaceRecord { log2: Some(10) }), @"01010a");
    }
}
