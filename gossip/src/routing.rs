//! Ways of messages to members over published links.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use meshwork_wire::PeerId;

use crate::gossip::Gossip;
use crate::limits::ROUTE_PAUSE;
use crate::membership::{Members, SELF};
use crate::replica::links_in;

/// What crossing a link costs besides its round trip, in µs: between ways that are equally fast the shorter one wins.
const HOP_COST: u64 = 1000;

/// No way.
const NOWHERE: u32 = u32::MAX;

/// First hop to everyone.
#[derive(Debug)]
pub(crate) struct Routes {
    hops: Vec<u32>,
    computed: Instant,
}

/// A link that its near end claims: near, far, round trip in µs.
pub(crate) type Claim = (u32, u32, u64);

impl Gossip {
    /// The neighbour over which the best way to `target` leads. Ways are computed anew when links changed, not too
    /// often while those in use stand.
    pub(crate) fn first_hop(&mut self, now: Instant, target: PeerId) -> Option<PeerId> {
        let target = self.members.find(target)?;
        let hop = |routes: &Routes| routes.hops.get(target as usize).copied();
        let held = self.routes.as_ref().filter(|routes| now < routes.computed + ROUTE_PAUSE || !self.routes_stale);
        if let Some(neighbour) = held.and_then(hop).and_then(|hop| self.live_neighbour(hop)) {
            return Some(neighbour);
        }
        if self.routes.is_none() || self.routes_stale {
            self.routes_stale = false;
            let hops = first_hops(self.members.list.len(), claims(&self.members));
            self.routes = Some(Routes { hops, computed: now });
        }
        self.live_neighbour(self.routes.as_ref().and_then(hop)?)
    }

    fn live_neighbour(&self, number: u32) -> Option<PeerId> {
        let peer = self.members.get(number)?.id;
        self.links.get(&peer).filter(|link| link.pulse.is_up()).map(|_| peer)
    }
}

fn claims(members: &Members) -> Vec<Claim> {
    let mut claims = Vec::new();
    for near in 0..u32::try_from(members.list.len()).unwrap_or(NOWHERE) {
        for (peer, record) in members.block(near).into_iter().flat_map(links_in) {
            claims.extend(members.find(peer).map(|far| (near, far, record.rtt_us.unwrap_or_default().into())));
        }
    }
    claims.sort_unstable();
    claims
}

/// First hop of the cheapest way from this node to everyone, over links that both ends claim (E. W. Dijkstra, 1959).
/// `claims` are in order.
pub(crate) fn first_hops(count: usize, claims: Vec<Claim>) -> Vec<u32> {
    let of = |near: u32| {
        let start = claims.partition_point(|claim| claim.0 < near);
        claims.iter().skip(start).take_while(move |claim| claim.0 == near)
    };
    let mut hops = vec![NOWHERE; count];
    let mut done = vec![false; count];
    let mut open = BinaryHeap::from([Reverse((0, SELF, SELF))]);
    while let Some(Reverse((cost, near, first))) = open.pop() {
        let Some(done_here) = done.get_mut(near as usize).filter(|done| !**done) else { continue };
        *done_here = true;
        if let Some(hop) = hops.get_mut(near as usize) {
            *hop = first;
        }
        for &(_, far, rtt) in of(near) {
            let open_there = done.get(far as usize).is_some_and(|done| !done);
            if open_there && of(far).any(|back| back.1 == near) {
                let first = if near == SELF { far } else { first };
                open.push(Reverse((cost + HOP_COST + rtt, far, first)));
            }
        }
    }
    if let Some(hop) = hops.get_mut(SELF as usize) {
        *hop = NOWHERE;
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_way_wins_and_one_sided_links_are_not_used() {
        let mut claims = vec![(0, 1, 9000), (1, 0, 9000), (0, 2, 10), (2, 0, 10), (2, 1, 10), (1, 2, 10), (0, 3, 10)];
        claims.sort_unstable();
        assert_eq!(first_hops(4, claims), [NOWHERE, 2, 2, NOWHERE]);
    }
}
