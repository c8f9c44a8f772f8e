//! Compares what the kernel holds with what is desired, and changes the difference, make before break.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use meshwork_sys::Result;
use meshwork_sys::netlink::{InterfaceAddress, Link, Netlink, Nexthop, RouteFilter, Scope, Traffic};

use super::clear::{self, ClearLinks};
use super::desired::{Overlay, Routing};
use super::mended::Mended;
use super::{ROUTE_PROTOCOL, TUN_NAME, is_pod_link};

/// What a comparison found and left.
#[derive(Debug, Default)]
pub(super) struct Reconciled {
    /// What had to change.
    pub(super) mended: Mended,
    /// Devices of the clear path that stand.
    pub(super) clear: ClearLinks,
    /// What they carried.
    pub(super) clear_traffic: Traffic,
}

/// Brings devices, addresses, nexthops and routes in line.
pub(super) fn reconcile(netlink: &mut Netlink, overlay: &Overlay) -> Result<Reconciled> {
    let links = netlink.links()?;
    let Some(tun) = links.iter().find(|link| link.name == TUN_NAME) else { return Ok(Reconciled::default()) };
    let mut mended = Mended::default();
    settle_tun(netlink, tun, overlay, &mut mended)?;
    addresses(netlink, tun.index, overlay, &mut mended)?;
    let wanted = overlay.clear.as_ref();
    let devices = clear::devices(netlink, &links, wanted, overlay.mtu, &mut mended)?;
    if let Some(wanted) = wanted {
        clear::open(netlink, devices, wanted, &mut mended)?;
    }
    let desired = overlay.routing(tun.index, &pod_links(&links), devices);
    let kept = |nexthop: &Nexthop| {
        wanted.is_some_and(|clear| clear.inherits) && nexthop.output.is_some_and(|output| devices.contains(output))
    };
    routing(netlink, &desired, kept, &mut mended)?;
    if let Some(wanted) = wanted {
        clear::close(netlink, devices, wanted, &mut mended)?;
    }
    clear::remove(netlink, &links, wanted, &mut mended)?;
    Ok(Reconciled { mended, clear: devices, clear_traffic: clear::traffic(&links) })
}

/// Pod links by name, with their indices.
pub(super) fn pod_links(links: &[Link]) -> BTreeMap<String, u32> {
    let pods = links.iter().filter(|link| is_pod_link(&link.name) && link.up);
    pods.map(|link| (link.name.clone(), link.index)).collect()
}

fn settle_tun(netlink: &mut Netlink, tun: &Link, overlay: &Overlay, mended: &mut Mended) -> Result<()> {
    if tun.mtu != overlay.mtu {
        netlink.set_mtu(tun.index, overlay.mtu)?;
        mended.note("MTU of", TUN_NAME);
    }
    if !tun.up {
        netlink.set_up(tun.index)?;
        mended.note("link", TUN_NAME);
    }
    Ok(())
}

/// The node's own addresses, and no others, on the TUN.
fn addresses(netlink: &mut Netlink, tun: u32, overlay: &Overlay, mended: &mut Mended) -> Result<()> {
    let present: BTreeSet<_> = netlink.addresses(tun)?.into_iter().map(|address| address.net).collect();
    let desired: BTreeSet<_> = overlay.own_addresses().collect();
    for net in desired.difference(&present) {
        netlink.add_address(tun, &InterfaceAddress { net: *net, scope: Scope::Global, nodad: true })?;
    }
    for net in present.difference(&desired) {
        netlink.delete_address(tun, *net)?;
    }
    present.symmetric_difference(&desired).for_each(|net| mended.note("address", net));
    Ok(())
}

/// Nexthops come before the routes that name them, and go after. Nexthops that nobody wants and that are `kept` stay,
/// and so do their routes.
fn routing(
    netlink: &mut Netlink,
    desired: &Routing,
    kept: impl Fn(&Nexthop) -> bool,
    mended: &mut Mended,
) -> Result<()> {
    let present = present(netlink)?;
    for nexthop in desired.nexthops.values().filter(|nexthop| present.nexthops.get(&nexthop.id) != Some(nexthop)) {
        netlink.replace_nexthop(nexthop)?;
        mended.note("nexthop", nexthop.id);
    }
    let taken: BTreeSet<_> = present.routes.iter().map(|route| (route.destination, route.metric)).collect();
    for route in desired.routes.difference(&present.routes) {
        // A replacement would take the place of anybody's route: only our own may give way.
        match taken.contains(&(route.destination, route.metric)) {
            true => netlink.replace_route(route)?,
            false => netlink.add_route(route)?,
        }
        mended.note("route to", route.destination);
    }
    let unwanted = present.nexthops.values().filter(|nexthop| !desired.nexthops.contains_key(&nexthop.id));
    let (kept, unwanted): (Vec<_>, Vec<_>) = unwanted.partition(|nexthop| kept(nexthop));
    let kept: BTreeSet<u32> = kept.iter().map(|nexthop| nexthop.id).collect();
    // A replacement may have taken an old route's place: only what has no successor at its metric is deleted.
    let followed: BTreeSet<_> = desired.routes.iter().map(|route| (route.destination, route.metric)).collect();
    for route in present.routes.difference(&desired.routes) {
        let stays = route.nexthop.is_some_and(|id| kept.contains(&id));
        if !stays && !followed.contains(&(route.destination, route.metric)) {
            netlink.delete_route(route)?;
            mended.note("route to", route.destination);
        }
    }
    for nexthop in unwanted {
        netlink.delete_nexthop(nexthop.id)?;
        mended.note("nexthop", nexthop.id);
    }
    Ok(())
}

/// Addresses that are routed to pod links which stand: their pods may live, whatever is known of their leases.
///
/// # Errors
/// When the kernel does not tell its links or routes.
pub fn held_by_pods(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>> {
    let links: BTreeSet<u32> = pod_links(&netlink.links()?).into_values().collect();
    let routes = netlink.routes(RouteFilter { protocol: Some(ROUTE_PROTOCOL) })?.into_iter();
    let to_pods = routes.filter(|route| route.output.is_some_and(|output| links.contains(&output)));
    let hosts = to_pods.map(|route| route.destination).filter(|net| net.prefix_len() == net.max_prefix_len());
    Ok(hosts.map(|net| net.addr()).collect())
}

/// What the kernel holds of ours.
pub(super) fn present(netlink: &mut Netlink) -> Result<Routing> {
    let ours = netlink.nexthops()?.into_iter().filter(|nexthop| nexthop.protocol == ROUTE_PROTOCOL);
    let nexthops = ours.map(|nexthop| (nexthop.id, nexthop)).collect();
    let routes = netlink.routes(RouteFilter { protocol: Some(ROUTE_PROTOCOL) })?.into_iter().collect();
    Ok(Routing { nexthops, routes })
}
