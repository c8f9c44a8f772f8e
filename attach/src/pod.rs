//! The pod's end of the link: addresses, routes, neighbours.
//!
//! Every step replaces what is there, so that a second run over a standing link changes nothing. The gateways are the
//! same on every link and answer nothing else; their Ethernet address is fixed, so that the first packet does not wait.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_api::client::Client;
use meshwork_api::link::Mac;
use meshwork_api::model::{Ipam, Lease};
use meshwork_sys::netlink::{InterfaceAddress, Link, Netlink, Route, RouteFilter, RouteKind, Scope};
use meshwork_sys::netns::NetNs;
use meshwork_sys::sysctl;

use crate::attachment::gateway;
use crate::error::{AttachError, Tried};

/// Routing protocol number of everything of ours.
const PROTOCOL: u8 = 83;

/// The pod's end while it is configured.
pub(crate) struct PodEnd<'a> {
    pub(crate) netlink: &'a mut Netlink,
    pub(crate) netns: &'a NetNs,
    pub(crate) lease: &'a Lease,
    pub(crate) link: Link,
}

impl PodEnd<'_> {
    /// Which of the lease's addresses can be used, and why not all.
    pub(crate) fn usable_addresses(&self) -> Result<(Vec<IpAddr>, Vec<String>), AttachError> {
        let all = self.lease.addresses.clone();
        if all.iter().all(IpAddr::is_ipv4) {
            return Ok((all, Vec::new()));
        }
        let interface = &self.lease.interface;
        // With slashes, since an interface's name may have dots.
        let key = format!("net/ipv6/conf/{interface}/disable_ipv6");
        let enabled = self.netns.run(|| sysctl::write(&key, "0")).tried("enter the pod's namespace")?;
        let Err(error) = enabled else { return Ok((all, Vec::new())) };
        let remark = format!("{interface} gets no IPv6 address: {error}");
        Ok((all.into_iter().filter(IpAddr::is_ipv4).collect(), vec![remark]))
    }

    /// Brings the link and the loopback up.
    pub(crate) fn set_up(&mut self) -> Result<(), AttachError> {
        if let Some(loopback) = self.netlink.link("lo").tried("look up the pod's loopback")? {
            self.netlink.set_up(loopback.index).tried("bring the pod's loopback up")?;
        }
        if self.link.mtu != self.lease.mtu {
            self.netlink.set_mtu(self.link.index, self.lease.mtu).tried("set the MTU of the pod's link")?;
        }
        self.netlink.set_up(self.link.index).tried("bring the pod's link up")
    }

    /// Whole addresses: nothing else is on the link. They are the ring's, so nobody has to be asked whether they are free.
    pub(crate) fn add_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), AttachError> {
        for address in addresses {
            let address =
                InterfaceAddress { net: IpNet::from(*address), scope: Scope::Global, nodad: address.is_ipv6() };
            self.netlink.add_address(self.link.index, &address).tried("give the pod its address")?;
        }
        Ok(())
    }

    /// What the pod reaches through the link: everything, or only the overlay where another link has the default route
    /// already.
    pub(crate) fn destinations(&mut self, client: &Client, addresses: &[IpAddr]) -> Result<Vec<IpNet>, AttachError> {
        let present = self.netlink.routes(RouteFilter::default()).tried("list the pod's routes")?;
        let foreign = |default: &IpNet| {
            let same = |route: &&Route| route.destination == *default && route.kind == RouteKind::Unicast;
            present.iter().filter(same).any(|route| route.output != Some(self.link.index))
        };
        let mut destinations = Vec::new();
        for address in addresses {
            let default = default_route(*address);
            if foreign(&default) {
                let ranges = client.get::<Ipam>("/v1/ipam")?.summary.range;
                destinations.extend(ranges.into_iter().filter(|range| range.addr().is_ipv4() == address.is_ipv4()));
            } else {
                destinations.push(default);
            }
        }
        Ok(destinations)
    }

    /// The gateways on the link, and everything else behind them.
    pub(crate) fn add_routes(&mut self, destinations: &[IpNet]) -> Result<(), AttachError> {
        for destination in destinations {
            let gateway = gateway(self.lease, destination.addr());
            let route =
                |destination| Route { output: Some(self.link.index), protocol: PROTOCOL, ..Route::new(destination) };
            // fe80::/64 is on every link, 169.254.1.1 is not.
            if gateway.is_ipv4() {
                let on_link = Route { scope: Scope::Link, ..route(IpNet::from(gateway)) };
                self.netlink.replace_route(&on_link).tried("route the pod to its gateway")?;
            }
            let behind = Route { gateway: Some(gateway), ..route(*destination) };
            self.netlink.replace_route(&behind).tried("route the pod to the mesh")?;
        }
        Ok(())
    }

    /// The gateways' Ethernet address.
    pub(crate) fn add_neighbours(&mut self, addresses: &[IpAddr], host: Mac) -> Result<(), AttachError> {
        for address in addresses {
            let gateway = gateway(self.lease, *address);
            self.netlink.replace_neighbour(self.link.index, gateway, host.0).tried("tell the pod its gateway")?;
        }
        Ok(())
    }
}

/// The default route of the family of `address`.
fn default_route(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => Ipv4Net::default().into(),
        IpAddr::V6(_) => Ipv6Net::default().into(),
    }
}
