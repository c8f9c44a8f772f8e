//! What of the host already lives in the overlay's ranges: routes, addresses and resolvers that pods' routes would cut off.
//! Pure: what was read comes in, sentences come out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use meshwork_sys::netlink::Route;

use super::{ROUTE_PROTOCOL, is_ours};

/// The name server that the overlay's own range holds: the last part of its address.
const OWN_RESOLVER: u128 = 0x53;

/// Says what overlaps the ranges, one sentence each. `links` names interfaces by index.
pub fn overlaps(
    ranges: [IpNet; 2],
    routes: &[Route],
    links: &BTreeMap<u32, String>,
    addresses: &[(IpAddr, String)],
    resolv_conf: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    for range in ranges {
        let routes = routes.iter().filter(|route| is_foreign(route, links) && meets(range, route.destination));
        found.extend(routes.map(|route| {
            let by = route.output.and_then(|index| links.get(&index));
            let by = by.map(|name| format!(" by {name}")).unwrap_or_default();
            format!("{range} overlaps this host's route to {}{by}", route.destination)
        }));
        let addresses = addresses.iter().filter(|(address, _)| range.contains(address));
        found.extend(addresses.map(|(address, link)| format!("{range} holds this host's address {address} on {link}")));
        let resolvers = resolvers(resolv_conf).filter(|resolver| range.contains(resolver) && !is_own(range, *resolver));
        found.extend(resolvers.map(|resolver| format!("{range} holds this host's name server {resolver}")));
    }
    found
}

/// A default route leads everywhere and overlaps nothing.
fn is_foreign(route: &Route, links: &BTreeMap<u32, String>) -> bool {
    let ours = route.output.and_then(|index| links.get(&index)).is_some_and(|name| is_ours(name));
    route.protocol != ROUTE_PROTOCOL && route.destination.prefix_len() > 0 && !ours
}

fn meets(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn resolvers(resolv_conf: &str) -> impl Iterator<Item = IpAddr> {
    resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next())??;
        address.split('%').next()?.parse().ok()
    })
}

fn is_own(range: IpNet, resolver: IpAddr) -> bool {
    match (range, resolver) {
        (IpNet::V6(range), IpAddr::V6(resolver)) => resolver.to_bits() == range.network().to_bits() | OWN_RESOLVER,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::TUN_NAME;

    fn found(routes: &[Route], addresses: &[(IpAddr, String)], resolv_conf: &str) -> Vec<String> {
        let ranges = ["10.32.0.0/12", "fd4d:6573:6877::/48"].map(|text| text.parse().expect("a prefix"));
        let links = BTreeMap::from([(2, "eth0".to_owned()), (3, TUN_NAME.to_owned())]);
        overlaps(ranges, routes, &links, addresses, resolv_conf)
    }

    fn route(destination: &str, output: u32) -> Route {
        Route { output: Some(output), ..Route::new(destination.parse().expect("a prefix")) }
    }

    #[test]
    fn routes_within_and_around_a_range_are_named() {
        let routes = [route("10.40.0.0/24", 2), route("10.0.0.0/8", 2), route("fd4d:6573:6877:1::/64", 2)];
        let said = found(&routes, &[], "");
        assert_eq!(said.len(), 3);
        assert_eq!(said[0], "10.32.0.0/12 overlaps this host's route to 10.40.0.0/24 by eth0");
    }

    #[test]
    fn default_routes_neighbouring_ones_and_our_own_overlap_nothing() {
        let ours = Route { protocol: ROUTE_PROTOCOL, ..route("10.32.0.0/12", 2) };
        let routes =
            [route("0.0.0.0/0", 2), route("10.48.0.0/12", 2), route("::/0", 2), ours, route("10.32.0.1/32", 3)];
        assert_eq!(found(&routes, &[], "nameserver 9.9.9.9\n"), Vec::<String>::new());
    }

    #[test]
    fn addresses_and_name_servers_within_a_range_are_named_but_for_our_own() {
        let conf =
            "# nameserver 10.32.9.9\nnameserver 10.33.0.53\nnameserver fd4d:6573:6877::53\nnameserver fe80::1%eth0\n";
        let said = found(&[], &[("10.34.0.9".parse().expect("an address"), "eth1".to_owned())], conf);
        assert_eq!(
            said,
            [
                "10.32.0.0/12 holds this host's address 10.34.0.9 on eth1",
                "10.32.0.0/12 holds this host's name server 10.33.0.53"
            ]
        );
    }
}
