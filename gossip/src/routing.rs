//! Ways to members over published links.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_wire::PeerId;
use meshwork_wire::record::LinkRecord;

/// What crossing a link costs besides its round trip, in µs: between ways that are equally fast the shorter one wins.
const HOP_COST: u64 = 1000;

/// Links as their near ends claim them.
pub(crate) trait Topology {
    /// Links that `peer` says are up.
    fn links_of(&self, peer: PeerId) -> Option<&BTreeMap<PeerId, LinkRecord>>;
}

/// Those of `members` to whom no path of claims leads from `start`.
pub(crate) fn unreachable(topology: &impl Topology, start: PeerId, members: BTreeSet<PeerId>) -> BTreeSet<PeerId> {
    let mut missing = members;
    let mut found = BTreeSet::from([start]);
    let mut open = vec![start];
    while let Some(peer) = open.pop().filter(|_| !missing.is_empty()) {
        for &next in topology.links_of(peer).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(next) {
                missing.remove(&next);
                open.push(next);
            }
        }
    }
    missing
}

/// First hop of the cheapest way from `start` to everyone, over links that both ends claim (E. W. Dijkstra, 1959).
pub(crate) fn first_hops(topology: &impl Topology, start: PeerId) -> BTreeMap<PeerId, PeerId> {
    let mut hops = BTreeMap::new();
    let mut open = BTreeSet::from([(0, start, start)]);
    let mut done = BTreeSet::new();
    while let Some((cost, peer, first)) = open.pop_first() {
        if !done.insert(peer) {
            continue;
        }
        hops.insert(peer, first);
        for (&next, record) in topology.links_of(peer).into_iter().flatten() {
            let claimed = topology.links_of(next).is_some_and(|links| links.contains_key(&peer));
            if claimed && !done.contains(&next) {
                let first = if peer == start { next } else { first };
                open.insert((cost + HOP_COST + u64::from(record.rtt_us.unwrap_or_default()), next, first));
            }
        }
    }
    hops.remove(&start);
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Graph(BTreeMap<PeerId, BTreeMap<PeerId, LinkRecord>>);

    impl Topology for Graph {
        fn links_of(&self, peer: PeerId) -> Option<&BTreeMap<PeerId, LinkRecord>> {
            self.0.get(&peer)
        }
    }

    fn id(peer: u8) -> PeerId {
        PeerId([peer; 16])
    }

    fn graph(claims: &[(u8, u8, u32)]) -> Graph {
        let mut graph = BTreeMap::<_, BTreeMap<_, _>>::new();
        for &(from, to, rtt) in claims {
            graph.entry(id(from)).or_default().insert(id(to), LinkRecord { rtt_us: Some(rtt) });
        }
        Graph(graph)
    }

    #[test]
    fn the_cheapest_way_wins_and_one_sided_links_are_not_used() {
        let both = [(1, 2, 9000), (2, 1, 9000), (1, 3, 10), (3, 1, 10), (3, 2, 10), (2, 3, 10), (1, 4, 10)];
        let hops = first_hops(&graph(&both), id(1));
        assert_eq!(hops, BTreeMap::from([(id(2), id(3)), (id(3), id(3))]));
    }

    #[test]
    fn claims_of_the_unreachable_count_for_nothing() {
        let claims = graph(&[(1, 2, 0), (2, 3, 0), (4, 1, 0), (4, 5, 0)]);
        let members = (2..6).map(id).collect();
        assert_eq!(unreachable(&claims, id(1), members), BTreeSet::from([id(4), id(5)]));
    }
}
