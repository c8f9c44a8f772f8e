//! Making a link from lease to confirmation, undone whole on failure, and checking one.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use meshwork_api::client::Client;
use meshwork_api::link::{LinkMacs, Mac};
use meshwork_api::model::{Done, Lease, LeaseName, LeaseRequest, PodIdentity};
use meshwork_sys::netlink::Netlink;
use meshwork_sys::netns::NetNs;

use crate::error::{AttachError, Tried};
use crate::link::{self, Pair};
use crate::pod::PodEnd;
use crate::sandbox;

/// What is to be linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Sandbox id given by the container runtime, or [`crate::sandbox_of`] the namespace.
    pub sandbox: String,
    /// Name of the link inside the pod.
    pub interface: String,
    /// File of the pod's network namespace.
    pub netns: PathBuf,
    /// Who the pod is.
    pub pod: PodIdentity,
    /// Wished MTU; the node's own if nothing or more than that.
    pub mtu: Option<u32>,
    /// Wished IPv4 address.
    pub address: Option<IpAddr>,
    /// What is to be reached through the link besides.
    pub routes: Vec<IpNet>,
    /// CNI network that asks; nothing where people ask.
    pub network: Option<String>,
    /// Whether what the pod sends out of the overlay takes the node's address.
    pub masquerade: bool,
}

/// A link that stands and is routed.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// The lease behind it.
    pub lease: Lease,
    /// Ethernet address of the node's end.
    pub host_mac: Mac,
    /// Ethernet address of the pod's end.
    pub pod_mac: Mac,
    /// File of the pod's network namespace.
    pub netns: PathBuf,
    /// Addresses of the lease that the pod got: all, unless it cannot have IPv6.
    pub addresses: Vec<IpAddr>,
    /// What the pod reaches through the link: everything, or the overlay only where it had a default route already.
    pub routes: Vec<IpNet>,
    /// What people should know, such as why there is no IPv6.
    pub remarks: Vec<String>,
}

impl Attachment {
    /// The gateway for the family of `address`.
    #[must_use]
    pub fn gateway(&self, address: IpAddr) -> IpAddr {
        gateway(&self.lease, address)
    }
}

/// The steps of [`attach`], in order; each may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Lease,
    Create,
    Ipv6,
    SetUp,
    Addresses,
    Routes,
    Neighbours,
    Confirm,
    Finish,
}

/// Asked before each step; tests use it to fail there.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(Step) -> Result<(), AttachError>;

/// Links a pod to the mesh and returns once it can be reached.
///
/// # Errors
/// The first thing that failed; by then the link and a lease that was new are gone again, or
/// [`AttachError::Undone`] names what is left.
pub fn attach(client: &Client, request: &AttachRequest) -> Result<Attachment, AttachError> {
    attach_watched(client, request, &mut |_| Ok(()))
}

pub(crate) fn attach_watched(
    client: &Client,
    request: &AttachRequest,
    watch: Watch<'_>,
) -> Result<Attachment, AttachError> {
    let netns = sandbox::open_pod(&request.netns)?;
    watch(Step::Lease)?;
    let lease: Lease = client.post("/v1/pods", &lease_request(request, false))?;
    let mut making = Making { client, netns, lease, created: false };
    making.make(request, watch).map_err(|cause| making.undo(cause))
}

/// How a lease is asked for, with the link or as an address alone.
pub(crate) fn lease_request(request: &AttachRequest, address_only: bool) -> LeaseRequest {
    LeaseRequest {
        sandbox: request.sandbox.clone(),
        interface: request.interface.clone(),
        netns: request.netns.to_string_lossy().into_owned(),
        pod: request.pod.clone(),
        address: request.address,
        mtu: request.mtu,
        network: request.network.clone(),
        address_only,
        masquerade: request.masquerade,
    }
}

/// A link between lease and confirmation.
struct Making<'a> {
    client: &'a Client,
    netns: NetNs,
    lease: Lease,
    /// The link was made here, not found.
    created: bool,
}

impl Making<'_> {
    fn make(&mut self, request: &AttachRequest, watch: Watch<'_>) -> Result<Attachment, AttachError> {
        let macs = check_lease(&self.lease, request)?;
        let mut host = Netlink::connect().tried("open netlink")?;
        let mut pod = Netlink::connect_in(&self.netns).tried("open netlink in the pod")?;
        watch(Step::Create)?;
        let pair = self.link(&mut host, &mut pod, macs)?;
        let mut end = PodEnd { netlink: &mut pod, netns: &self.netns, lease: &self.lease, link: pair.pod };
        watch(Step::Ipv6)?;
        let (addresses, mut remarks) = end.usable_addresses()?;
        watch(Step::SetUp)?;
        end.set_up()?;
        watch(Step::Addresses)?;
        end.add_addresses(&addresses)?;
        watch(Step::Routes)?;
        let mut routes = end.destinations(self.client, &addresses)?;
        remarks.extend(add_wished(&mut routes, &request.routes, &addresses));
        end.add_routes(&routes)?;
        watch(Step::Neighbours)?;
        end.add_neighbours(&addresses, macs.host)?;
        let pod_mac = end.link.mac.map_or(macs.pod, Mac);
        watch(Step::Confirm)?;
        // The link has the MTU that was asked for; the daemon tells the one that links get unasked.
        let lease = Lease { mtu: self.lease.mtu, ..self.confirm()? };
        watch(Step::Finish)?;
        Ok(Attachment { lease, host_mac: macs.host, pod_mac, netns: request.netns.clone(), addresses, routes, remarks })
    }

    /// The pair that stands, or a new one.
    fn link(&mut self, host: &mut Netlink, pod: &mut Netlink, macs: LinkMacs) -> Result<Pair, AttachError> {
        if let Some(pair) = link::find(host, pod, &self.lease)? {
            return Ok(pair);
        }
        link::create(host, pod, &self.netns, &self.lease, macs)?;
        self.created = true;
        let pair = link::find(host, pod, &self.lease)?
            .ok_or_else(|| AttachError::Wrong("its ends vanished right after it was made".to_owned()))?;
        link::fit_to_tun(host, pod, &pair)?;
        Ok(pair)
    }

    fn confirm(&self) -> Result<Lease, AttachError> {
        let confirmed: Lease = self.client.post("/v1/pods/confirm", &self.name())?;
        match confirmed.routed {
            true => Ok(confirmed),
            false => Err(AttachError::BadLease("it confirmed the link without routing it".to_owned())),
        }
    }

    /// Removes what was made, and hands back the error with what could not be removed.
    fn undo(&self, cause: AttachError) -> AttachError {
        let mut left = Vec::new();
        if self.created {
            let deleted = Netlink::connect().and_then(|mut host| host.delete_link(&self.lease.host_interface));
            left.extend(deleted.err().map(|error| format!("link {} ({error})", self.lease.host_interface)));
        }
        // One that was routed before this call has an owner who relies on it.
        if !self.lease.routed {
            let released = self.client.post::<_, Done>("/v1/pods/release", &self.name());
            left.extend(released.err().map(|error| format!("the lease ({error})")));
        }
        if left.is_empty() { cause } else { AttachError::Undone { cause: Box::new(cause), left } }
    }

    fn name(&self) -> LeaseName {
        LeaseName { sandbox: self.lease.sandbox.clone(), interface: Some(self.lease.interface.clone()) }
    }
}

/// Adds the wished routes to those that the pod gets anyway; answers what is to be said of those that it cannot have.
fn add_wished(routes: &mut Vec<IpNet>, wished: &[IpNet], addresses: &[IpAddr]) -> Vec<String> {
    let mut remarks = Vec::new();
    for route in wished.iter().map(IpNet::trunc) {
        if !addresses.iter().any(|address| address.is_ipv4() == route.addr().is_ipv4()) {
            remarks.push(format!("no route to {route}: the pod has no address of its family"));
        } else if !routes.contains(&route) {
            routes.push(route);
        }
    }
    remarks
}

/// Whether a link can be made of a lease at all.
fn check_lease(lease: &Lease, request: &AttachRequest) -> Result<LinkMacs, AttachError> {
    let bad = |why: &str| AttachError::BadLease(why.to_owned());
    if lease.sandbox != request.sandbox || lease.interface != request.interface {
        return Err(bad("it is of another sandbox"));
    }
    let of_family = |wanted: bool| lease.addresses.iter().filter(|address| address.is_ipv4() == wanted).count();
    if lease.addresses.is_empty() || of_family(true) > 1 || of_family(false) > 1 {
        return Err(bad("it needs one address per family"));
    }
    if !lease.gateway4.is_ipv4() || !lease.gateway6.is_ipv6() {
        return Err(bad("its gateways are of the wrong family"));
    }
    LinkMacs::of(lease).ok_or_else(|| bad("its host end is not named `mw` and 11 hex digits"))
}

/// The gateway of a lease for the family of `address`.
pub(crate) fn gateway(lease: &Lease, address: IpAddr) -> IpAddr {
    if address.is_ipv4() { lease.gateway4 } else { lease.gateway6 }
}
