//! Compares what the kernel holds with what is desired, and changes the difference, make before break.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use meshwork_sys::netlink::{
    EVERY_INTERFACE, InterfaceAddress, Link, Netlink, Nexthop, Route, RouteFilter, Scope, Traffic,
};
use meshwork_sys::{Error, Result};

use super::clear::{self, ClearLinks};
use super::desired::{Overlay, Routing};
use super::mended::Mended;
use super::pods::{self, Standing};
use super::{ROUTE_PROTOCOL, TUN_NAME, is_pod_link, settings, underlay};

/// What a comparison found and left.
#[derive(Debug, Default)]
pub(super) struct Reconciled {
    /// What had to change.
    pub(super) mended: Mended,
    /// Routes that the kernel would not take, mostly because somebody else's is in their place. All others stand.
    pub(super) refused: Vec<RefusedRoute>,
    /// Interfaces of ours.
    pub(super) devices: BTreeSet<i32>,
    /// Devices of the clear path that stand.
    pub(super) clear: ClearLinks,
    /// What they carried.
    pub(super) clear_traffic: Traffic,
}

/// A route that is not there.
#[derive(Debug)]
pub(super) struct RefusedRoute {
    pub(super) destination: IpNet,
    pub(super) error: Error,
}

/// Brings devices, addresses, nexthops and routes in line, and the settings of those interfaces that `settings` names.
/// `known` is what the kernel held of nexthops and routes, where that is known, and becomes what it holds.
pub(super) fn reconcile(
    netlink: &mut Netlink,
    overlay: &Overlay,
    settings: &BTreeSet<i32>,
    known: &mut Option<Routing>,
) -> Result<Reconciled> {
    let mut links = netlink.links()?;
    let Some(tun) = links.iter().find(|link| link.name == TUN_NAME) else { return Ok(Reconciled::default()) };
    let tun = tun.clone();
    let (mut mended, standing) = (Mended::default(), Standing::read(netlink, overlay)?);
    settle_settings(&links, settings, &mut mended)?;
    settle_loopback(netlink, &links, &standing, &mut mended)?;
    settle_tun(netlink, &tun, overlay, &mut mended)?;
    addresses(netlink, &standing.addresses(tun.index), tun.index, overlay, &mut mended)?;
    pods::settle(netlink, &mut links, overlay, &standing, settings, &mut mended)?;
    let wanted = overlay.clear.as_ref();
    let devices = clear::devices(netlink, &links, wanted, overlay.mtu, &mut mended)?;
    if let Some(wanted) = wanted {
        clear::open(netlink, devices, wanted, &mut mended)?;
    }
    let desired = overlay.routing(tun.index, &pod_links(&links), devices);
    let kept = move |nexthop: &Nexthop| {
        let inherited = |gateway| wanted.is_some_and(|clear| clear.inherits(gateway));
        nexthop.gateway.is_some_and(inherited) && nexthop.output.is_some_and(|output| devices.contains(output))
    };
    // The kernel drops what leads over a device that goes down or is made anew.
    if !mended.is_empty() {
        *known = None;
    }
    // Where something goes wrong half-way, nothing is known.
    let present = known.take().map_or_else(|| present(netlink), Ok)?;
    let refused = routing(netlink, &desired, &present, kept, &mut mended)?;
    *known = refused.is_empty().then(|| remaining(desired, present, kept));
    if let Some(wanted) = wanted {
        clear::close(netlink, devices, wanted, &mut mended)?;
    }
    clear::remove(netlink, &links, wanted, &mut mended)?;
    let ours = own_devices(&links);
    Ok(Reconciled { mended, refused, devices: ours, clear: devices, clear_traffic: clear::traffic(&links) })
}

fn own_devices(links: &[Link]) -> BTreeSet<i32> {
    let ours = |link: &&Link| link.name == TUN_NAME || clear::is_clear_link(&link.name) || is_pod_link(&link.name);
    links.iter().filter(ours).filter_map(|link| i32::try_from(link.index).ok()).collect()
}

/// Whether the settings of an interface may have been changed.
pub(super) fn concerns(settings: &BTreeSet<i32>, index: u32) -> bool {
    settings.contains(&EVERY_INTERFACE) || i32::try_from(index).is_ok_and(|index| settings.contains(&index))
}

/// Pod links by name, with their indices.
pub(super) fn pod_links(links: &[Link]) -> BTreeMap<String, u32> {
    let pods = links.iter().filter(|link| is_pod_link(&link.name) && link.up);
    pods.map(|link| (link.name.clone(), link.index)).collect()
}

/// Settings of the host and of the overlay's devices, where the kernel told of a change; those of pods' links are theirs.
fn settle_settings(links: &[Link], settings: &BTreeSet<i32>, mended: &mut Mended) -> Result<()> {
    if !settings.is_empty() && settings::of_host()? {
        mended.note("settings of", "this host");
    }
    let devices = links.iter().filter(|link| link.name == TUN_NAME || clear::is_clear_link(&link.name));
    for device in devices.filter(|device| concerns(settings, device.index)) {
        if settings::of_device(&device.name)? {
            mended.note("settings of", &device.name);
        }
    }
    Ok(())
}

/// The pods' IPv4 gateway is on the loopback device.
fn settle_loopback(netlink: &mut Netlink, links: &[Link], standing: &Standing, mended: &mut Mended) -> Result<()> {
    let Some(lo) = links.iter().find(|link| link.name == "lo") else { return Ok(()) };
    let gateway = underlay::gateway();
    if !standing.addresses(lo.index).contains(&gateway.net) {
        netlink.add_address(lo.index, &gateway)?;
        mended.note("address", gateway.net);
    }
    Ok(())
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
fn addresses(
    netlink: &mut Netlink,
    present: &BTreeSet<IpNet>,
    tun: u32,
    overlay: &Overlay,
    mended: &mut Mended,
) -> Result<()> {
    let desired: BTreeSet<_> = overlay.own_addresses().collect();
    for net in desired.difference(present) {
        netlink.add_address(tun, &InterfaceAddress { net: *net, scope: Scope::Global, nodad: true })?;
    }
    for net in present.difference(&desired) {
        netlink.delete_address(tun, *net)?;
    }
    present.symmetric_difference(&desired).for_each(|net| mended.note("address", net));
    Ok(())
}

/// Nexthops come before the routes that name them, and go after. Nexthops that nobody wants and that are `kept` stay,
/// and so do their routes. A route that is refused keeps none of the others away.
fn routing(
    netlink: &mut Netlink,
    desired: &Routing,
    present: &Routing,
    kept: impl Fn(&Nexthop) -> bool,
    mended: &mut Mended,
) -> Result<Vec<RefusedRoute>> {
    let mut refused = Vec::new();
    for nexthop in desired.nexthops.values().filter(|nexthop| present.nexthops.get(&nexthop.id) != Some(nexthop)) {
        netlink.replace_nexthop(nexthop)?;
        mended.note("nexthop", nexthop.id);
    }
    let taken: BTreeSet<_> = present.routes.iter().map(|route| (route.destination, route.metric)).collect();
    for route in desired.routes.difference(&present.routes) {
        // A replacement would take the place of anybody's route: only our own may give way.
        let outcome = match taken.contains(&(route.destination, route.metric)) {
            true => netlink.replace_route(route),
            false => netlink.add_route(route),
        };
        match outcome {
            Ok(()) => mended.note("route to", route.destination),
            // A link went meanwhile: all is looked at anew.
            Err(error) if error.is_not_found() => return Err(error),
            Err(error) => refused.push(RefusedRoute { destination: route.destination, error }),
        }
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
    Ok(refused)
}

/// What the kernel holds once `present` was brought in line with `desired`.
fn remaining(desired: Routing, present: Routing, kept: impl Fn(&Nexthop) -> bool) -> Routing {
    let Routing { mut nexthops, mut routes } = desired;
    let inherited = |nexthop: &Nexthop| !nexthops.contains_key(&nexthop.id) && kept(nexthop);
    let stay: BTreeMap<u32, Nexthop> = present.nexthops.into_iter().filter(|(_, nexthop)| inherited(nexthop)).collect();
    let followed: BTreeSet<_> = routes.iter().map(|route| (route.destination, route.metric)).collect();
    let stays = |route: &Route| {
        let of_kept = route.nexthop.is_some_and(|id| stay.contains_key(&id));
        of_kept && !followed.contains(&(route.destination, route.metric))
    };
    routes.extend(present.routes.into_iter().filter(stays));
    nexthops.extend(stay);
    Routing { nexthops, routes }
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
