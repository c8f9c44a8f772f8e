//! What the kernel should hold, computed from the mesh; no IO.
//!
//! - the whole range of each family points at the TUN, with the node's own address as source
//! - each peer's prefixes point at that peer's nexthop object, so that one replacement moves them all
//! - the node's own prefixes are unreachable but for the host routes of its pods
//! - an unreachable route at the worst metric covers each range: when everything else of ours is gone, packets end here

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_sys::netlink::{Family, Nexthop, Route, RouteKind, Scope};
use meshwork_wire::PeerId;

use super::clear::{Clear, ClearLinks, ClearPeer};
use super::nexthop_ids::{self, PeerNexthops};
use super::{ROUTE_PROTOCOL, host_prefix};
use crate::clear::mac_of;

/// The worst metric: any other route to the same prefix comes first.
const WORST_METRIC: u32 = u32::MAX;

/// The overlay as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// IPv4 range.
    pub range4: Ipv4Net,
    /// IPv6 range.
    pub range6: Ipv6Net,
    /// The node's own addresses, once leased.
    pub own4: Option<Ipv4Addr>,
    /// See `own4`.
    pub own6: Option<Ipv6Addr>,
    /// Prefixes that this node hands out.
    pub local: BTreeSet<IpNet>,
    /// Prefixes of the others.
    pub peers: BTreeMap<PeerId, BTreeSet<IpNet>>,
    /// Pods whose link is made, by the name of its host end.
    pub pods: BTreeMap<String, Vec<IpAddr>>,
    /// Addresses that another CNI plugin links and routes.
    pub unlinked: BTreeSet<IpAddr>,
    /// Addresses that keep their source when they leave the overlay.
    pub unmasqueraded: BTreeSet<IpAddr>,
    /// Whether others may reach the host at the node's own addresses.
    pub exposed: bool,
    /// MTU of the TUN, the clear path's devices and the pods.
    pub mtu: u32,
    /// The clear path, where this node allows any.
    pub clear: Option<Clear>,
}

/// Routes and nexthop objects of the overlay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routing {
    pub(super) nexthops: BTreeMap<u32, Nexthop>,
    pub(super) routes: BTreeSet<Route>,
}

impl Routing {
    /// In the form in which the kernel lists it, so that both can be compared.
    fn add(&mut self, route: Route) {
        self.routes.insert(route.canonical());
    }
}

impl Overlay {
    /// Addresses of the TUN.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.own4.map(|address| host_prefix(address.into()));
        let v6 = self.own6.map(|address| host_prefix(address.into()));
        v4.into_iter().chain(v6)
    }

    fn own(&self, prefix: IpNet) -> Option<IpAddr> {
        match prefix {
            IpNet::V4(_) => self.own4.map(IpAddr::from),
            IpNet::V6(_) => self.own6.map(IpAddr::from),
        }
    }

    /// Computes routes and nexthops. `tun` is the index of the TUN; `links` gives those of pod links that exist, `devices`
    /// those of the clear path.
    pub(super) fn routing(&self, tun: u32, links: &BTreeMap<String, u32>, devices: ClearLinks) -> Routing {
        let mut routing = Routing::default();
        for range in [IpNet::V4(self.range4), IpNet::V6(self.range6)] {
            routing.add(Route { metric: WORST_METRIC, ..unreachable(range) });
            // A node that owns the whole range has nobody to send to.
            if let Some(own) = self.own(range).filter(|_| !self.local.contains(&range)) {
                routing.add(Route { output: Some(tun), source: Some(own), ..unicast(range) });
            }
        }
        self.local.iter().for_each(|prefix| routing.add(unreachable(*prefix)));
        let ids = nexthop_ids::assign(self.peers.keys().copied());
        for (peer, prefixes) in &self.peers {
            if let Some(ids) = ids.get(peer) {
                self.add_peer(&mut routing, *ids, prefixes, |family| self.way(*peer, family, tun, devices));
            }
        }
        for (link, addresses) in &self.pods {
            if let Some(index) = links.get(link) {
                addresses.iter().for_each(|address| routing.add(self.pod_route(*address, *index)));
            }
        }
        routing
    }

    fn add_peer(
        &self,
        routing: &mut Routing,
        ids: PeerNexthops,
        prefixes: &BTreeSet<IpNet>,
        way: impl Fn(Family) -> (u32, Option<IpAddr>),
    ) {
        for prefix in prefixes {
            let Some(own) = self.own(*prefix) else { continue };
            let (id, family) = match prefix {
                IpNet::V4(_) => (ids.v4, Family::V4),
                IpNet::V6(_) => (ids.v6, Family::V6),
            };
            let (output, gateway) = way(family);
            let onlink = gateway.is_some_and(|gateway| gateway.is_ipv4());
            let nexthop = Nexthop { id, family, output: Some(output), gateway, onlink, protocol: ROUTE_PROTOCOL };
            routing.nexthops.insert(id, nexthop);
            // A gateway may come and go behind the nexthop object, and routes of narrower scope refuse one.
            let route = Route { nexthop: Some(id), source: Some(own), ..unicast(*prefix) };
            routing.add(Route { scope: Scope::Global, ..route });
        }
    }

    /// By which interface and gateway a peer is reached: in clear where that is proven, else through the TUN.
    fn way(&self, peer: PeerId, family: Family, tun: u32, devices: ClearLinks) -> (u32, Option<IpAddr>) {
        let clear = self.clear.as_ref().and_then(|clear| clear.peers.get(&peer)?.way(family, devices));
        clear.map_or((tun, None), |(output, gateway)| (output, Some(gateway)))
    }

    /// Peers to which packets go in clear, in one family at least, where these devices stand, and to which address.
    pub(super) fn in_clear(&self, devices: ClearLinks) -> BTreeMap<PeerId, IpAddr> {
        let peers = self.clear.iter().flat_map(|clear| &clear.peers);
        let goes =
            |peer: &ClearPeer| [Family::V4, Family::V6].iter().any(|family| peer.way(*family, devices).is_some());
        peers.filter(|(_, peer)| goes(peer)).map(|(id, peer)| (*id, peer.remote)).collect()
    }

    /// Ethernet addresses of peers that are not known yet and to which packets still go in clear as an earlier run left it,
    /// and where to.
    pub(super) fn left_in_clear(&self, devices: ClearLinks) -> BTreeMap<[u8; 6], IpAddr> {
        let known: BTreeSet<[u8; 6]> = self.peers.keys().map(|peer| mac_of(*peer)).collect();
        let left = self.clear.iter().flat_map(|clear| &clear.inherited);
        left.filter(|(mac, left)| !known.contains(*mac) && devices.towards(left.remote).is_some())
            .map(|(mac, left)| (*mac, left.remote))
            .collect()
    }

    /// Whether packets go in clear in `before` that are sealed now, or go another way.
    pub(super) fn takes_clear_from(&self, before: &Self) -> bool {
        match (&self.clear, &before.clear) {
            (Some(clear), Some(before)) => clear.takes_from(before),
            (clear, before) => clear.is_none() && before.is_some(),
        }
    }

    fn pod_route(&self, address: IpAddr, index: u32) -> Route {
        let prefix = host_prefix(address);
        Route { output: Some(index), source: self.own(prefix), ..unicast(prefix) }
    }
}

/// A route of ours without its way out.
fn unicast(destination: IpNet) -> Route {
    let scope = if matches!(destination, IpNet::V4(_)) { Scope::Link } else { Scope::Global };
    Route { scope, protocol: ROUTE_PROTOCOL, ..Route::new(destination) }
}

fn unreachable(destination: IpNet) -> Route {
    Route { kind: RouteKind::Unreachable, scope: Scope::Global, ..unicast(destination) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 16]);

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn overlay() -> Overlay {
        Overlay {
            range4: "10.32.0.0/12".parse().expect("a prefix"),
            range6: "fd4d:6573:6877::/48".parse().expect("a prefix"),
            own4: Some(Ipv4Addr::new(10, 32, 0, 1)),
            own6: "fd4d:6573:6877:1::1".parse().ok(),
            local: BTreeSet::from([net("10.32.0.0/13")]),
            peers: BTreeMap::from([(PEER, BTreeSet::from([net("10.40.0.0/13"), net("fd4d:6573:6877:2::/112")]))]),
            pods: BTreeMap::from([("mw0123456789a".to_owned(), vec!["10.32.0.2".parse().expect("an address")])]),
            unlinked: BTreeSet::new(),
            unmasqueraded: BTreeSet::new(),
            exposed: false,
            mtu: 1400,
            clear: None,
        }
    }

    fn to(routing: &Routing, destination: &str) -> Vec<Route> {
        routing.routes.iter().filter(|route| route.destination == net(destination)).cloned().collect()
    }

    #[test]
    fn each_range_ends_unreachable_behind_the_route_into_the_tun() {
        let routing = overlay().routing(5, &BTreeMap::new(), ClearLinks::default());
        for range in ["10.32.0.0/12", "fd4d:6573:6877::/48"] {
            let routes = to(&routing, range);
            let closed = routes.iter().find(|route| route.kind == RouteKind::Unreachable).expect("a closing route");
            let open = routes.iter().find(|route| route.kind == RouteKind::Unicast).expect("a route to the TUN");
            assert_eq!((closed.metric, open.output), (WORST_METRIC, Some(5)));
            assert!(open.metric < closed.metric && open.source.is_some());
        }
    }

    #[test]
    fn a_node_without_an_address_opens_nothing() {
        let routing =
            Overlay { own4: None, own6: None, ..overlay() }.routing(5, &BTreeMap::new(), ClearLinks::default());
        assert!(routing.routes.iter().all(|route| route.kind == RouteKind::Unreachable));
        assert!(routing.nexthops.is_empty());
    }

    #[test]
    fn a_peers_prefixes_share_its_nexthop_of_the_family() {
        let routing = overlay().routing(5, &BTreeMap::new(), ClearLinks::default());
        let [v4] = &to(&routing, "10.40.0.0/13")[..] else { panic!("one route") };
        let [v6] = &to(&routing, "fd4d:6573:6877:2::/112")[..] else { panic!("one route") };
        assert_eq!(routing.nexthops.len(), 2);
        assert_ne!(v4.nexthop, v6.nexthop);
        assert_eq!(routing.nexthops[&v4.nexthop.expect("an id")].family, Family::V4);
    }

    #[test]
    fn a_pod_is_routed_once_its_link_exists() {
        let links = BTreeMap::from([("mw0123456789a".to_owned(), 9)]);
        assert!(to(&overlay().routing(5, &BTreeMap::new(), ClearLinks::default()), "10.32.0.2/32").is_empty());
        assert_eq!(to(&overlay().routing(5, &links, ClearLinks::default()), "10.32.0.2/32")[0].output, Some(9));
    }

    #[test]
    fn a_proven_clear_path_takes_the_nexthop_and_nothing_else() {
        let peer = |proven| ClearPeer {
            remote: [192, 0, 2, 1].into(),
            mac: [2, 0, 0, 0, 0, 1],
            gateway4: Some(Ipv4Addr::new(10, 40, 0, 0)),
            proven,
        };
        let clear = |proven| Clear {
            port: 6784,
            mac: [2, 0, 0, 0, 0, 9],
            pairs: BTreeSet::new(),
            peers: BTreeMap::from([(PEER, peer(proven))]),
            inherited: BTreeMap::new(),
        };
        let devices = ClearLinks { v4: Some(7), v6: None };
        let routing = |clear, devices| Overlay { clear, ..overlay() }.routing(5, &BTreeMap::new(), devices);
        let outputs = |routing: &Routing| routing.nexthops.values().map(|nexthop| nexthop.output).collect::<Vec<_>>();

        let proven = routing(Some(clear(true)), devices);
        assert_eq!(outputs(&proven), [Some(7), Some(7)]);
        let in_clear = |clear, devices| Overlay { clear, ..overlay() }.in_clear(devices);
        assert_eq!(in_clear(Some(clear(true)), devices), BTreeMap::from([(PEER, [192, 0, 2, 1].into())]));
        assert!(in_clear(Some(clear(false)), devices).is_empty());
        let takes = |now: Option<Clear>, before| {
            let (now, before) = (Overlay { clear: now, ..overlay() }, Overlay { clear: before, ..overlay() });
            now.takes_clear_from(&before)
        };
        assert!(takes(Some(clear(false)), Some(clear(true))) && takes(None, Some(clear(true))));
        assert!(!takes(Some(clear(true)), Some(clear(false))) && !takes(Some(clear(true)), None) && !takes(None, None));
        assert!(in_clear(Some(clear(true)), ClearLinks::default()).is_empty());
        let gateways: Vec<_> = proven.nexthops.values().filter_map(|nexthop| nexthop.gateway).collect();
        assert_eq!(gateways, ["10.40.0.0", "fe80::ff:fe00:1"].map(|text| text.parse::<IpAddr>().expect("an address")));
        let encrypted = routing(None, devices);
        assert_eq!(proven.routes, encrypted.routes, "routes stay as they are");
        for other in
            [routing(Some(clear(false)), devices), routing(Some(clear(true)), ClearLinks::default()), encrypted]
        {
            assert_eq!(outputs(&other), [Some(5), Some(5)]);
        }
    }
}
