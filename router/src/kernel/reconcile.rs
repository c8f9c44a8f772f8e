//! Compares what the kernel holds with what is desired, and changes the difference, make before break.

use std::collections::{BTreeMap, BTreeSet};

use meshwork_sys::Result;
use meshwork_sys::netlink::{InterfaceAddress, Link, Netlink, RouteFilter, Scope};

use super::desired::{Overlay, Routing};
use super::{ROUTE_PROTOCOL, TUN_NAME, is_pod_link};

/// Brings addresses, nexthops and routes in line. True where anything had to change.
pub(super) fn reconcile(netlink: &mut Netlink, overlay: &Overlay) -> Result<bool> {
    let links = netlink.links()?;
    let Some(tun) = links.iter().find(|link| link.name == TUN_NAME) else { return Ok(false) };
    let mut changed = settle_tun(netlink, tun, overlay)?;
    changed |= addresses(netlink, tun.index, overlay)?;
    let desired = overlay.routing(tun.index, &pod_links(&links));
    changed |= routing(netlink, &desired)?;
    Ok(changed)
}

/// Pod links by name, with their indices.
pub(super) fn pod_links(links: &[Link]) -> BTreeMap<String, u32> {
    let pods = links.iter().filter(|link| is_pod_link(&link.name) && link.up);
    pods.map(|link| (link.name.clone(), link.index)).collect()
}

fn settle_tun(netlink: &mut Netlink, tun: &Link, overlay: &Overlay) -> Result<bool> {
    let mut changed = false;
    if tun.mtu != overlay.mtu {
        netlink.set_mtu(tun.index, overlay.mtu)?;
        changed = true;
    }
    if !tun.up {
        netlink.set_up(tun.index)?;
        changed = true;
    }
    Ok(changed)
}

/// The node's own addresses, and no others, on the TUN.
fn addresses(netlink: &mut Netlink, tun: u32, overlay: &Overlay) -> Result<bool> {
    let present: BTreeSet<_> = netlink.addresses(tun)?.into_iter().map(|address| address.net).collect();
    let desired: BTreeSet<_> = overlay.own_addresses().collect();
    for net in desired.difference(&present) {
        netlink.add_address(tun, &InterfaceAddress { net: *net, scope: Scope::Global, nodad: true })?;
    }
    for net in present.difference(&desired) {
        netlink.delete_address(tun, *net)?;
    }
    Ok(present != desired)
}

/// Nexthops come before the routes that name them, and go after.
fn routing(netlink: &mut Netlink, desired: &Routing) -> Result<bool> {
    let present = present(netlink)?;
    for nexthop in desired.nexthops.values().filter(|nexthop| present.nexthops.get(&nexthop.id) != Some(nexthop)) {
        netlink.replace_nexthop(nexthop)?;
    }
    let taken: BTreeSet<_> = present.routes.iter().map(|route| (route.destination, route.metric)).collect();
    for route in desired.routes.difference(&present.routes) {
        // A replacement would take the place of anybody's route: only our own may give way.
        match taken.contains(&(route.destination, route.metric)) {
            true => netlink.replace_route(route)?,
            false => netlink.add_route(route)?,
        }
    }
    // A replacement may have taken an old route's place: only what has no successor at its metric is deleted.
    let kept: BTreeSet<_> = desired.routes.iter().map(|route| (route.destination, route.metric)).collect();
    for route in present.routes.difference(&desired.routes) {
        if !kept.contains(&(route.destination, route.metric)) {
            netlink.delete_route(route)?;
        }
    }
    for id in present.nexthops.keys().filter(|id| !desired.nexthops.contains_key(id)) {
        netlink.delete_nexthop(*id)?;
    }
    Ok(&present != desired)
}

/// What the kernel holds of ours.
pub(super) fn present(netlink: &mut Netlink) -> Result<Routing> {
    let ours = netlink.nexthops()?.into_iter().filter(|nexthop| nexthop.protocol == ROUTE_PROTOCOL);
    let nexthops = ours.map(|nexthop| (nexthop.id, nexthop)).collect();
    let routes = netlink.routes(RouteFilter { protocol: Some(ROUTE_PROTOCOL) })?.into_iter().collect();
    Ok(Routing { nexthops, routes })
}
