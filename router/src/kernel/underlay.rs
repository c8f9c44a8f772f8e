//! What the host gives: its addresses and MTU, read, and what is prepared on it before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_sys::capability::{self, Capability};
use meshwork_sys::netlink::{InterfaceAddress, Netlink, RouteFilter, Scope};
use meshwork_sys::{Result, tun};

use super::overlap::overlaps;
use super::{GATEWAY4, POD_LINK_PREFIX, TUN_NAME, host_prefix, is_ours, settings};
use crate::config::{ENCAPSULATION_BUDGET, SMALLEST_POD_MTU};

/// MTU of an underlay that shows no address of its own: Ethernet's.
const USUAL_MTU: u32 = 1500;

/// Name servers of the host (resolv.conf(5)).
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Most bytes read of such a file: it has a few lines.
const MOST_RESOLV_CONF: u64 = 64 * 1024;

/// The host as seen from the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Addresses that others may reach, best first: IPv4 before IPv6, each in order of interface.
    pub addresses: Vec<IpAddr>,
    /// Smallest MTU among the interfaces that hold them.
    pub mtu: u32,
    /// Interfaces whose names begin like those of our pod links: the guard takes them for pods.
    pub misnamed: Vec<String>,
    /// What of the host lives in the overlay's ranges and would be cut off, a sentence each.
    pub overlaps: Vec<String>,
}

impl Underlay {
    /// Reads interfaces and addresses.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn read(netlink: &mut Netlink, range4: Ipv4Net, range6: Ipv6Net) -> Result<Self> {
        let (mut addresses, mut mtu, mut misnamed) = (BTreeSet::new(), None, Vec::new());
        let (mut within, mut names) = (Vec::new(), BTreeMap::new());
        for link in netlink.links()? {
            names.insert(link.index, link.name.clone());
            if !link.up || link.name == "lo" || is_ours(&link.name) {
                continue;
            }
            if link.name.starts_with(POD_LINK_PREFIX) {
                misnamed.push(link.name.clone());
            }
            let found = netlink.addresses(link.index)?.into_iter().filter(|address| address.scope == Scope::Global);
            for address in found.map(|address| address.net.addr()) {
                if is_within(address, range4, range6) {
                    within.push((address, link.name.clone()));
                    continue;
                }
                addresses.insert((address.is_ipv6(), link.index, address));
                mtu = Some(mtu.map_or(link.mtu, |smallest: u32| smallest.min(link.mtu)));
            }
        }
        let addresses = addresses.into_iter().map(|(_, _, address)| address).collect();
        let routes = netlink.routes(RouteFilter::default())?;
        // A host without the file has no name servers to lose.
        let resolv_conf = RESOLV_CONF.map(|file| resolvers_in(file).unwrap_or_default()).join("\n");
        let overlaps = overlaps([range4.into(), range6.into()], &routes, &names, &within, &resolv_conf);
        Ok(Self { addresses, mtu: mtu.unwrap_or(USUAL_MTU), misnamed, overlaps })
    }

    /// What a pod may send at most so that the encapsulated packet still fits.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        self.mtu.saturating_sub(ENCAPSULATION_BUDGET).max(SMALLEST_POD_MTU)
    }

    /// Endpoints for others, at the port that is listened on.
    #[must_use]
    pub fn endpoints(&self, listen: SocketAddr) -> Vec<SocketAddr> {
        let listening = |address: &&IpAddr| match listen.ip() {
            IpAddr::V6(any) if any.is_unspecified() => true,
            IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
            one => **address == one,
        };
        self.addresses.iter().filter(listening).map(|address| SocketAddr::new(*address, listen.port())).collect()
    }
}

fn is_within(address: IpAddr, range4: Ipv4Net, range6: Ipv6Net) -> bool {
    match address {
        IpAddr::V4(address) => range4.contains(&address),
        IpAddr::V6(address) => range6.contains(&address),
    }
}

/// Whether this host speaks IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Capabilities without which nothing works, by name.
///
/// # Errors
/// What the kernel refuses.
pub fn missing_capabilities() -> Result<Vec<String>> {
    let missing = capability::missing(&[Capability::NetAdmin, Capability::NetRaw])?;
    Ok(missing.into_iter().map(|capability| capability.to_string()).collect())
}

/// Lets the host forward for its pods and puts the pods' gateway on the loopback device.
///
/// # Errors
/// What the kernel refuses.
pub fn prepare(netlink: &mut Netlink) -> Result<()> {
    settings::of_host()?;
    if let Some(lo) = netlink.link("lo")? {
        netlink.add_address(lo.index, &gateway())?;
    }
    Ok(())
}

/// The pods' IPv4 gateway.
pub(super) fn gateway() -> InterfaceAddress {
    InterfaceAddress { net: host_prefix(GATEWAY4.into()), scope: Scope::Host, nodad: false }
}

/// Settings of the TUN that only exist once it does.
///
/// # Errors
/// What the kernel refuses.
pub fn prepare_tun(netlink: &mut Netlink) -> Result<()> {
    let Some(device) = netlink.link(TUN_NAME)? else { return Ok(()) };
    settings::of_device(TUN_NAME)?;
    netlink.set_offload_limits(device.index, tun::GSO_MAX_SIZE, tun::GSO_MAX_SEGMENTS)?;
    if has_ipv6() {
        netlink.set_address_generation_none(device.index)?;
    }
    Ok(())
}
/// What such a file says, as far as it is read.
fn resolvers_in(file: &str) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(file)?.take(MOST_RESOLV_CONF).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
