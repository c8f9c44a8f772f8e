//! What the host gives: its addresses and MTU, read; its forwarding settings, set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_sys::capability::{self, Capability};
use meshwork_sys::netlink::{InterfaceAddress, Netlink, RouteFilter, Scope};
use meshwork_sys::{Result, sysctl, tun};

use super::overlap::overlaps;
use super::{GATEWAY4, POD_LINK_PREFIX, TUN_NAME, host_prefix, is_ours};
use crate::config::{ENCAPSULATION_BUDGET, SMALLEST_POD_MTU};

/// MTU of an underlay that shows no address of its own: Ethernet's.
const USUAL_MTU: u32 = 1500;

/// Name servers of the host (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

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
        let resolv_conf = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
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
    sysctl::write("net.ipv4.ip_forward", "1")?;
    loosen_reverse_path_filter()?;
    if has_ipv6() {
        keep_router_advertisements()?;
        sysctl::write("net.ipv6.conf.all.forwarding", "1")?;
    }
    if let Some(lo) = netlink.link("lo")? {
        let gateway = InterfaceAddress { net: host_prefix(GATEWAY4.into()), scope: Scope::Host, nodad: false };
        netlink.add_address(lo.index, &gateway)?;
    }
    Ok(())
}

/// Settings of the TUN that only exist once it does.
///
/// # Errors
/// What the kernel refuses.
pub fn prepare_tun(netlink: &mut Netlink) -> Result<()> {
    let Some(device) = netlink.link(TUN_NAME)? else { return Ok(()) };
    distrust(TUN_NAME)?;
    netlink.set_offload_limits(device.index, tun::GSO_MAX_SIZE, tun::GSO_MAX_SEGMENTS)?;
    if has_ipv6() {
        speak_ipv6(TUN_NAME)?;
        netlink.set_address_generation_none(device.index)?;
    }
    Ok(())
}

/// Hosts that switch IPv6 off do so for their own networks; the overlay is one of its own and has both families.
///
/// # Errors
/// What the kernel refuses.
pub fn speak_ipv6(name: &str) -> Result<()> {
    sysctl::write(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")
}

/// Strict filtering drops packets that arrive on another path than the answer takes; loose keeps what protects hosts.
fn loosen_reverse_path_filter() -> Result<()> {
    if sysctl::read("net.ipv4.conf.all.rp_filter")?.trim() == "1" {
        sysctl::write("net.ipv4.conf.all.rp_filter", "2")?;
    }
    Ok(())
}

/// A forwarding host ignores router advertisements unless told otherwise, and would lose its own default route. Only
/// for interfaces of the underlay: those that are made later begin with what `default` says, pod links among them.
fn keep_router_advertisements() -> Result<()> {
    let Ok(interfaces) = std::fs::read_dir("/proc/sys/net/ipv6/conf") else { return Ok(()) };
    for name in interfaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let underlay = !["all", "default", "lo"].contains(&name.as_str()) && !is_ours(&name);
        let key = format!("net/ipv6/conf/{name}/accept_ra");
        if underlay && sysctl::read(&key).is_ok_and(|value| value.trim() == "1") {
            sysctl::write(&key, "2")?;
        }
    }
    Ok(())
}

/// Lets nobody behind an interface of the overlay move this host's routes or addresses: neither by router
/// advertisements (RFC 4861, section 6.3.4) nor by redirects.
///
/// # Errors
/// What the kernel refuses.
pub fn distrust(name: &str) -> Result<()> {
    sysctl::write(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
    sysctl::write(&format!("net/ipv4/conf/{name}/accept_redirects"), "0")?;
    if has_ipv6() {
        for setting in ["accept_ra", "autoconf", "accept_redirects"] {
            sysctl::write(&format!("net/ipv6/conf/{name}/{setting}"), "0")?;
        }
    }
    Ok(())
}
