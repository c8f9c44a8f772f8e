//! The devices of the clear path: one static VXLAN device per family of the underlay, with a forwarding entry and fixed
//! neighbours for each peer.
//!
//! Neither device learns, floods or asks: a peer's Ethernet address and gateways follow from its id, so everything is
//! known beforehand. The devices exist only on nodes that allow clear at all. After a restart, what an earlier run left
//! is kept for each peer until it is known again ([`Clear::inherited`]), so that traffic does not notice the restart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meshwork_sys::Result;
use meshwork_sys::netlink::{Family, Forwarding, Link, Neighbour, Netlink, Traffic, Vxlan};
use meshwork_wire::PeerId;

use super::mended::Mended;
use super::{ROUTE_PROTOCOL, settings, underlay};

/// The device over an IPv4 underlay.
pub const VXLAN_NAME: &str = "meshwork-vx";
/// The device over an IPv6 underlay: one device speaks one family.
pub const VXLAN6_NAME: &str = "meshwork-vx6";
/// Network identifier, the number of the port beside it.
const VNI: u32 = 6783;

/// What the clear path needs of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clear {
    /// UDP port.
    pub port: u16,
    /// Ethernet address of this node's devices.
    pub mac: [u8; 6],
    /// Pairs of our and others' underlay addresses between which clear is allowed.
    pub pairs: BTreeSet<(IpAddr, IpAddr)>,
    /// Peers whose path is being proven or in use.
    pub peers: BTreeMap<PeerId, ClearPeer>,
    /// What an earlier run left for peers that are not known yet, by Ethernet address.
    pub inherited: BTreeMap<[u8; 6], Inherited>,
}

/// The clear path to one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClearPeer {
    /// Underlay address.
    pub remote: IpAddr,
    /// Ethernet address of its device.
    pub mac: [u8; 6],
    /// Its own overlay address: the gateway of its IPv4 prefixes.
    pub gateway4: Option<Ipv4Addr>,
    /// Packets go this way.
    pub proven: bool,
}

/// Indices of the devices that stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClearLinks {
    /// Over IPv4.
    pub v4: Option<u32>,
    /// Over IPv6.
    pub v6: Option<u32>,
}

impl ClearLinks {
    /// The device that reaches `remote`.
    #[must_use]
    pub fn towards(self, remote: IpAddr) -> Option<u32> {
        if remote.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// Whether an interface is one of them.
    #[must_use]
    pub fn contains(self, index: u32) -> bool {
        [self.v4, self.v6].contains(&Some(index))
    }

    fn iter(self) -> impl Iterator<Item = u32> {
        [self.v4, self.v6].into_iter().flatten()
    }
}

impl ClearPeer {
    /// A peer that packets of an earlier run still go to.
    #[must_use]
    pub fn inherited(mac: [u8; 6], Inherited { remote, gateway4 }: Inherited) -> Self {
        Self { remote, mac, gateway4, proven: true }
    }

    /// The gateway of a peer's IPv6 prefixes: link-local, from its Ethernet address (RFC 4291, appendix A).
    #[must_use]
    pub fn gateway6(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        let pair = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
    }

    /// The device and the gateway that lead to it in a family, where packets may go this way.
    pub(super) fn way(&self, family: Family, devices: ClearLinks) -> Option<(u32, IpAddr)> {
        let gateway = match family {
            Family::V4 => self.gateway4.map(IpAddr::from)?,
            Family::V6 => self.gateway6().into(),
        };
        Some((devices.towards(self.remote).filter(|_| self.proven)?, gateway))
    }

    fn is_behind(&self, gateway: IpAddr) -> bool {
        self.gateway4.is_some_and(|own| gateway == own) || gateway == self.gateway6()
    }

    fn neighbours(&self) -> impl Iterator<Item = Neighbour> {
        let v6 = underlay::has_ipv6().then(|| self.gateway6().into());
        let gateways = self.gateway4.map(IpAddr::from).into_iter().chain(v6);
        gateways.map(|address| Neighbour { address, mac: self.mac })
    }
}

impl Clear {
    /// Whether something no longer goes in clear that did, or goes another way.
    pub(super) fn takes_from(&self, before: &Self) -> bool {
        let peer = |(id, peer): (&PeerId, &ClearPeer)| peer.proven && self.peers.get(id) != Some(peer);
        let left = |(mac, left): (&[u8; 6], &Inherited)| self.inherited.get(mac) != Some(left);
        before.peers.iter().any(peer) || before.inherited.iter().any(left) || !before.pairs.is_subset(&self.pairs)
    }

    /// Whether a gateway is that of a peer which an earlier run left.
    pub(super) fn inherits(&self, gateway: IpAddr) -> bool {
        self.inherited.iter().any(|(mac, left)| ClearPeer::inherited(*mac, *left).is_behind(gateway))
    }
}

/// Whether a link is one of the clear path's devices.
pub(super) fn is_clear_link(name: &str) -> bool {
    name == VXLAN_NAME || name == VXLAN6_NAME
}

/// Bytes that both devices carried.
pub(super) fn traffic(links: &[Link]) -> Traffic {
    let devices = links.iter().filter(|link| is_clear_link(&link.name));
    devices.fold(Traffic::default(), |sum, link| Traffic {
        sent_bytes: sum.sent_bytes + link.traffic.sent_bytes,
        received_bytes: sum.received_bytes + link.traffic.received_bytes,
    })
}

/// A peer that packets of an earlier run still go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// Its underlay address.
    pub remote: IpAddr,
    /// The gateway of its IPv4 prefixes.
    pub gateway4: Option<Ipv4Addr>,
}

/// Peers, by Ethernet address, that packets of an earlier run still go to.
///
/// # Errors
/// What the kernel refuses.
pub fn inherited(netlink: &mut Netlink) -> Result<BTreeMap<[u8; 6], Inherited>> {
    let nexthops = netlink.nexthops()?;
    let mut found = BTreeMap::new();
    for link in netlink.links()?.iter().filter(|link| is_clear_link(&link.name)) {
        let ours = nexthops.iter().filter(|nexthop| nexthop.protocol == ROUTE_PROTOCOL);
        let gateways: BTreeSet<_> =
            ours.filter(|nexthop| nexthop.output == Some(link.index)).filter_map(|nexthop| nexthop.gateway).collect();
        let neighbours = netlink.neighbours(link.index)?;
        let used: Vec<_> = neighbours.iter().filter(|entry| gateways.contains(&entry.address)).collect();
        for Forwarding { mac, remote } in netlink.forwardings(link.index)? {
            let of_peer = || used.iter().filter(|entry| entry.mac == mac);
            let gateway4 = of_peer().find_map(|entry| match entry.address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            });
            if of_peer().next().is_some() {
                found.insert(mac, Inherited { remote, gateway4 });
            }
        }
    }
    Ok(found)
}

/// Makes the devices that are wanted, takes away those that are not, and says which stand.
pub(super) fn devices(
    netlink: &mut Netlink,
    links: &[Link],
    clear: Option<&Clear>,
    mtu: u32,
    mended: &mut Mended,
) -> Result<ClearLinks> {
    let v6 = clear.filter(|_| underlay::has_ipv6());
    let v4 = device(netlink, links, VXLAN_NAME, clear.map(|clear| (clear, Family::V4)), mtu, mended)?;
    let v6 = device(netlink, links, VXLAN6_NAME, v6.map(|clear| (clear, Family::V6)), mtu, mended)?;
    Ok(ClearLinks { v4, v6 })
}

fn device(
    netlink: &mut Netlink,
    links: &[Link],
    name: &str,
    wanted: Option<(&Clear, Family)>,
    mtu: u32,
    mended: &mut Mended,
) -> Result<Option<u32>> {
    let present = links.iter().find(|link| link.name == name);
    let Some((clear, underlay)) = wanted else {
        // It goes last, once no route leads to it: see `remove`.
        return Ok(None);
    };
    let settings = Vxlan { vni: VNI, port: clear.port, underlay, learning: false };
    let fits = present.filter(|link| link.vxlan == Some(settings) && link.mac == Some(clear.mac));
    if let Some(link) = fits {
        if link.mtu != mtu {
            netlink.set_mtu(link.index, mtu)?;
            mended.note("MTU of", name);
        }
        if !link.up {
            netlink.set_up(link.index)?;
            mended.note("link", name);
        }
        return Ok(Some(link.index));
    }
    mended.note("link", name);
    if present.is_some() {
        netlink.delete_link(name)?;
    }
    netlink.create_vxlan(name, &settings, clear.mac, mtu)?;
    let index = netlink.link(name)?.map(|link| link.index);
    if let Some(index) = index {
        settings::of_device(name)?;
        if underlay::has_ipv6() {
            netlink.set_address_generation_none(index)?;
        }
        netlink.set_up(index)?;
    }
    Ok(index)
}

/// Deletes the devices where clear is not allowed at all.
pub(super) fn remove(netlink: &mut Netlink, links: &[Link], clear: Option<&Clear>, mended: &mut Mended) -> Result<()> {
    for link in links.iter().filter(|link| clear.is_none() && is_clear_link(&link.name)) {
        netlink.delete_link(&link.name)?;
        mended.note("link", &link.name);
    }
    Ok(())
}

/// Adds what leads to the peers. Comes before the routes.
pub(super) fn open(netlink: &mut Netlink, devices: ClearLinks, clear: &Clear, mended: &mut Mended) -> Result<()> {
    for index in devices.iter() {
        let (forwardings, neighbours) = wanted(devices, index, clear);
        let present: BTreeSet<_> = netlink.forwardings(index)?.into_iter().collect();
        for forwarding in forwardings.difference(&present) {
            netlink.replace_forwarding(index, forwarding)?;
            mended.note("forwarding entry of", forwarding.remote);
        }
        let present: BTreeSet<_> = netlink.neighbours(index)?.into_iter().collect();
        for neighbour in neighbours.difference(&present) {
            netlink.replace_neighbour(index, neighbour.address, neighbour.mac)?;
            mended.note("neighbour", neighbour.address);
        }
    }
    Ok(())
}

/// Takes away what leads to nobody any more. Comes after the routes.
pub(super) fn close(netlink: &mut Netlink, devices: ClearLinks, clear: &Clear, mended: &mut Mended) -> Result<()> {
    for index in devices.iter() {
        let (forwardings, neighbours) = wanted(devices, index, clear);
        for forwarding in netlink.forwardings(index)?.iter().filter(|entry| !forwardings.contains(entry)) {
            netlink.delete_forwarding(index, forwarding)?;
            mended.note("forwarding entry of", forwarding.remote);
        }
        for neighbour in netlink.neighbours(index)?.iter().filter(|entry| !neighbours.contains(entry)) {
            netlink.delete_neighbour(index, neighbour.address)?;
            mended.note("neighbour", neighbour.address);
        }
    }
    Ok(())
}

fn wanted(devices: ClearLinks, index: u32, clear: &Clear) -> (BTreeSet<Forwarding>, BTreeSet<Neighbour>) {
    let left = clear.inherited.iter().map(|(mac, left)| ClearPeer::inherited(*mac, *left));
    let here: Vec<_> = clear.peers.values().cloned().chain(left).collect();
    let here = || here.iter().filter(|peer| devices.towards(peer.remote) == Some(index));
    let forwardings = here().map(|peer| Forwarding { mac: peer.mac, remote: peer.remote }).collect();
    (forwardings, here().flat_map(ClearPeer::neighbours).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipv6_gateway_is_the_link_local_address_of_the_device() {
        let peer = ClearPeer { remote: [192, 0, 2, 1].into(), mac: [2, 1, 2, 3, 4, 5], gateway4: None, proven: false };
        assert_eq!(peer.gateway6().to_string(), "fe80::1:2ff:fe03:405");
    }
}
