//! The host ends of pods' links: up, with the pods' IPv6 gateway, with fixed neighbours so that neither side ever asks for
//! the other, and deaf to what pods say of routes. They are made by others; from the moment that a lease is confirmed they
//! are kept as this module says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use meshwork_api::link::LinkMacs;
use meshwork_sys::Result;
use meshwork_sys::netlink::{InterfaceAddress, Link, Neighbour, Netlink, Scope};

use super::desired::Overlay;
use super::mended::Mended;
use super::reconcile::concerns;
use super::{GATEWAY6, settings, underlay};
use crate::config::SMALLEST_POD_MTU;

/// What interfaces have, by their indices.
pub(super) struct Standing {
    addresses: BTreeSet<(u32, IpNet)>,
    neighbours: BTreeSet<(u32, Neighbour)>,
}

impl Standing {
    /// Reads everything at once: one listing for each kind, however many pods there are.
    pub(super) fn read(netlink: &mut Netlink, overlay: &Overlay) -> Result<Self> {
        let addresses = netlink.all_addresses()?.into_iter().map(|(index, address)| (index, address.net)).collect();
        let neighbours = if overlay.pods.is_empty() { Vec::new() } else { netlink.all_neighbours()? };
        Ok(Self { addresses, neighbours: neighbours.into_iter().collect() })
    }

    /// Addresses of one interface.
    pub(super) fn addresses(&self, index: u32) -> BTreeSet<IpNet> {
        self.addresses.iter().filter(|(of, _)| *of == index).map(|(_, net)| *net).collect()
    }
}

/// Puts the links of confirmed leases in order, as far as they exist. `settings` names the interfaces whose settings may
/// have been changed; those of a link that was just made are always set.
pub(super) fn settle(
    netlink: &mut Netlink,
    links: &mut [Link],
    overlay: &Overlay,
    standing: &Standing,
    settings: &BTreeSet<i32>,
    mended: &mut Mended,
) -> Result<()> {
    for link in links.iter_mut() {
        let Some(addresses) = overlay.pods.get(&link.name) else { continue };
        let ipv6 = underlay::has_ipv6() && link.mtu >= SMALLEST_POD_MTU;
        if !link.up {
            set(link, ipv6)?;
            netlink.set_address_generation_none(link.index)?;
        } else if concerns(settings, link.index) && set(link, ipv6)? {
            mended.note("settings of", &link.name);
        }
        if !link.up {
            netlink.set_up(link.index)?;
            link.up = true;
            mended.note("link", &link.name);
        }
        let gateway = gateway();
        if ipv6 && !standing.addresses.contains(&(link.index, gateway.net)) {
            netlink.add_address(link.index, &gateway)?;
            mended.note("gateway on", &link.name);
        }
        let known = addresses.iter().filter(|address| ipv6 || address.is_ipv4());
        know(netlink, link, known, standing, mended)?;
    }
    Ok(())
}

fn set(link: &Link, ipv6: bool) -> Result<bool> {
    let distrusted = settings::distrust(&link.name)?;
    Ok(ipv6 && settings::speak_ipv6(&link.name)? || distrusted)
}

fn gateway() -> InterfaceAddress {
    InterfaceAddress { net: Ipv6Net::new_assert(GATEWAY6, 64).into(), scope: Scope::Link, nodad: true }
}

/// Both ends' Ethernet addresses follow from the link's name, so the host need not ask the pod for its own.
fn know<'a>(
    netlink: &mut Netlink,
    link: &Link,
    addresses: impl Iterator<Item = &'a IpAddr>,
    standing: &Standing,
    mended: &mut Mended,
) -> Result<()> {
    let Some(macs) = LinkMacs::of_host_interface(&link.name) else { return Ok(()) };
    for address in addresses {
        let wanted = Neighbour { address: *address, mac: macs.pod.0 };
        if !standing.neighbours.contains(&(link.index, wanted)) {
            netlink.replace_neighbour(link.index, *address, macs.pod.0)?;
            mended.note("neighbour", address);
        }
    }
    Ok(())
}
