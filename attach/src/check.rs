//! Whether a link stands as it was made.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use meshwork_api::client::Client;
use meshwork_api::link::Mac;
use meshwork_api::model::{Lease, Leases};
use meshwork_sys::netlink::{Netlink, RouteFilter};
use meshwork_sys::netns::NetNs;

use crate::error::{AttachError, Tried};
use crate::{link, sandbox};

/// What somebody was told when the link was made; empty fields are not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Ethernet address of the pod's end.
    pub pod_mac: Option<Mac>,
    /// Name of the node's end.
    pub host_interface: Option<String>,
    /// Addresses of the pod's end.
    pub addresses: Vec<IpAddr>,
    /// What the pod reaches through the link.
    pub routes: Vec<IpNet>,
}

/// Checks a link against its lease and what was told of it. False where the daemon holds no lease of this name.
///
/// # Errors
/// [`AttachError::Wrong`] says what is not as it was made; otherwise why it could not be checked.
pub fn check(
    client: &Client,
    sandbox: &str,
    interface: &str,
    netns: &Path,
    expected: &Expected,
) -> Result<bool, AttachError> {
    let namespace = sandbox::open_pod(netns)?;
    let Some(lease) = find_lease(client, sandbox, interface)? else { return Ok(false) };
    if !lease.routed {
        return Err(wrong("the node does not route it"));
    }
    check_told(&lease, expected)?;
    check_link(&namespace, &lease, expected)?;
    Ok(true)
}

/// The lease of this name, if the daemon holds one.
pub(crate) fn find_lease(client: &Client, sandbox: &str, interface: &str) -> Result<Option<Lease>, AttachError> {
    let leases = client.get::<Leases>("/v1/pods")?.leases;
    Ok(leases.into_iter().find(|lease| lease.sandbox == sandbox && lease.interface == interface))
}

/// The first expected address that a lease does not hold.
pub(crate) fn check_addresses(lease: &Lease, expected: &[IpAddr]) -> Result<(), AttachError> {
    let foreign = expected.iter().find(|address| !lease.addresses.contains(address));
    foreign.map_or(Ok(()), |address| Err(wrong(format!("{address} is not leased to it"))))
}

fn check_told(lease: &Lease, expected: &Expected) -> Result<(), AttachError> {
    check_addresses(lease, &expected.addresses)?;
    if let Some(told) = expected.host_interface.as_ref().filter(|told| **told != lease.host_interface) {
        return Err(wrong(format!("its host end is {}, not {told}", lease.host_interface)));
    }
    Ok(())
}

fn check_link(netns: &NetNs, lease: &Lease, expected: &Expected) -> Result<(), AttachError> {
    let mut host = Netlink::connect().tried("open netlink")?;
    let mut pod = Netlink::connect_in(netns).tried("open netlink in the pod")?;
    let Some(pair) = link::find(&mut host, &mut pod, lease)? else {
        return Err(wrong(format!("{} and {} are not the ends of one link", lease.host_interface, lease.interface)));
    };
    if !pair.pod.running || !pair.host.running {
        return Err(wrong(format!("{} is down", lease.interface)));
    }
    // As the kernel has it: a later plugin of the chain may have changed it, and said so.
    if let Some(told) = expected.pod_mac.filter(|told| pair.pod.mac != Some(told.0)) {
        return Err(wrong(format!("the Ethernet address of {} is not {told}", lease.interface)));
    }
    let present = pod.addresses(pair.pod.index).tried("list the pod's addresses")?;
    // A pod without IPv6 was told so when it was attached.
    let leased = lease.addresses.iter().filter(|address| address.is_ipv4());
    let mut due = leased.chain(&expected.addresses);
    if let Some(address) = due.find(|address| !present.iter().any(|other| other.net == IpNet::from(**address))) {
        return Err(wrong(format!("{} lacks {address}", lease.interface)));
    }
    let routes = pod.routes(RouteFilter::default()).tried("list the pod's routes")?;
    let stands =
        |route: &IpNet| routes.iter().any(|other| other.destination == *route && other.output == Some(pair.pod.index));
    match expected.routes.iter().find(|route| !stands(route)) {
        Some(route) => Err(wrong(format!("the route to {route} through {} is gone", lease.interface))),
        None => Ok(()),
    }
}

fn wrong(what: impl Into<String>) -> AttachError {
    AttachError::Wrong(what.into())
}
