//! The veth pair: one end on the node, named by the lease, the other in the pod.

use meshwork_api::link::LinkMacs;
use meshwork_api::model::Lease;
use meshwork_sys::netlink::{Link, Netlink, Veth};
use meshwork_sys::netns::NetNs;
use meshwork_sys::tun;

use crate::error::{AttachError, Tried};

/// Both ends as the kernel has them.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) host: Link,
    pub(crate) pod: Link,
}

const VETH: &str = "veth";

/// The pair of this lease, if both ends stand and belong to each other.
pub(crate) fn find(host: &mut Netlink, pod: &mut Netlink, lease: &Lease) -> Result<Option<Pair>, AttachError> {
    let host_end = host.link(&lease.host_interface).tried("look up the host end of the pod's link")?;
    let pod_end = pod.link(&lease.interface).tried("look up the pod's link")?;
    let pair = host_end.zip(pod_end).map(|(host, pod)| Pair { host, pod });
    Ok(pair.filter(|pair| is_ours(&pair.host) && is_pair(&pair.host, &pair.pod)))
}

/// Whether a link of the node was made here: a veth whose Ethernet address is the one of its name.
pub(crate) fn is_ours(host: &Link) -> bool {
    let mac = LinkMacs::of_host_interface(&host.name).map(|macs| macs.host.0);
    host.kind.as_deref() == Some(VETH) && host.mac.is_some() && host.mac == mac
}

/// Whether each is the other's far end.
pub(crate) fn is_pair(host: &Link, pod: &Link) -> bool {
    pod.kind.as_deref() == Some(VETH) && pod.parent == Some(host.index) && host.parent == Some(pod.index)
}

/// Makes the pair, both ends in place at once. What remains of an earlier one goes first; a link of anyone else in the
/// pod stays, and is an error.
pub(crate) fn create(
    host: &mut Netlink,
    pod: &mut Netlink,
    netns: &NetNs,
    lease: &Lease,
    macs: LinkMacs,
) -> Result<(), AttachError> {
    host.delete_link(&lease.host_interface).tried("remove a stale pod link")?;
    if pod.link(&lease.interface).tried("look up the pod's link")?.is_some() {
        return Err(AttachError::Taken { interface: lease.interface.clone() });
    }
    let veth = Veth {
        mtu: Some(lease.mtu),
        mac: Some(macs.host.0),
        peer_netns: Some(netns),
        peer_mtu: Some(lease.mtu),
        peer_mac: Some(macs.pod.0),
        ..Veth::new(&lease.host_interface, &lease.interface)
    };
    host.create_veth(&veth).tried("make the pod's link")
}

/// Lets the pod's kernel hand over at once what one send of the encrypted path carries, and no more: anything larger
/// would be cut into single packets in front of the TUN, at half the throughput.
pub(crate) fn fit_to_tun(host: &mut Netlink, pod: &mut Netlink, pair: &Pair) -> Result<(), AttachError> {
    for (netlink, end) in [(host, &pair.host), (pod, &pair.pod)] {
        netlink
            .set_offload_limits(end.index, tun::GSO_MAX_SIZE, tun::GSO_MAX_SEGMENTS)
            .tried("limit the segmentation offload of the pod's link")?;
    }
    Ok(())
}
