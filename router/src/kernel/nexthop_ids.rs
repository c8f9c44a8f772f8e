//! Ids of nexthop objects: one per peer and family, derived from the peer id so that a restarted daemon finds its own.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_wire::PeerId;

/// Ids of ours lie at and above this; they are recognised by protocol number, the base only keeps clear of the small
/// numbers that people use.
const BASE: u32 = 0x4d00_0000;

/// Ids of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerNexthops {
    pub(super) v4: u32,
    pub(super) v6: u32,
}

/// Gives every peer its pair. Where two peers' hashes meet, the greater peer id moves on to the next free pair.
pub(super) fn assign(peers: impl Iterator<Item = PeerId>) -> BTreeMap<PeerId, PeerNexthops> {
    let mut taken = BTreeSet::new();
    let sorted: BTreeSet<PeerId> = peers.collect();
    let give = |peer: PeerId| {
        let [a, b, c, ..] = peer.0;
        let mut slot = u32::from_be_bytes([0, a & 0x7f, b, c]);
        while !taken.insert(slot) {
            slot = (slot + 1) & 0x7f_ffff;
        }
        let v4 = BASE | slot << 1;
        (peer, PeerNexthops { v4, v6: v4 | 1 })
    };
    sorted.into_iter().map(give).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_distinct_and_survive_a_meeting() {
        let mut twin = [9; 16];
        twin[15] = 10;
        let peers = [PeerId([9; 16]), PeerId(twin), PeerId([200; 16])];
        let ids = assign(peers.into_iter());
        let all: BTreeSet<u32> = ids.values().flat_map(|id| [id.v4, id.v6]).collect();
        assert_eq!(all.len(), 6);
        assert_eq!(assign([peers[0]].into_iter())[&peers[0]], ids[&peers[0]]);
    }
}
