//! What the kernel does by itself: routing, and VXLAN in clear.

use crate::bench::rivals::{addresses, ip, networks};
use crate::bench::way::Way;
use crate::error::Result;
use crate::host::Host;
use crate::namespace::Namespace;

const DEVICE: &str = "plainvx";
/// The port that VXLAN was assigned, so that hardware and drivers know it.
const PORT: &str = "4789";
const ID: &str = "77";
/// 1,500 less IPv4, UDP, VXLAN and Ethernet headers.
pub(super) const MTU: &str = "1450";

/// What every overlay needs for its pods' way out, and what costs it connection tracking.
const MASQUERADE: &str = "add table ip plain; \
    add chain ip plain out { type nat hook postrouting priority 100; }; \
    add rule ip plain out ip saddr 172.26.0.0/16 ip daddr != 172.26.0.0/16 masquerade fully-random";

/// The host's default route leads to the fabric already; the fabric has to know the way back. Whatever changed the link since
/// may have taken the routes with it.
pub(super) fn route(fabric: &Namespace, host: &Host) -> Result<()> {
    let mut ways = networks(Way::Routing, host).into_iter().zip(host.underlay());
    ways.try_for_each(|(network, address)| ip(fabric, &format!("route replace {network} via {address}")))
}

/// One device with a permanent forwarding entry (its `remote`) and permanent neighbours: nothing is learned or flooded.
pub(super) fn join_by_vxlan(host: &Host, other: &Host) -> Result<()> {
    let on_host = host.namespace();
    let (own, its) = (host.number(), other.number());
    let mac = |number: u16| format!("02:00:00:00:00:{number:02x}");
    ip(
        on_host,
        &format!(
            "link add {DEVICE} address {} mtu {MTU} type vxlan id {ID} local {} remote {} dstport {PORT} nolearning",
            mac(own.get()),
            own.address4(),
            its.address4()
        ),
    )?;
    ip(on_host, &format!("link set {DEVICE} up"))?;
    for (network, gateway) in networks(Way::Vxlan, other).into_iter().zip(addresses(Way::Vxlan, other, 1)) {
        ip(on_host, &format!("neighbour add {gateway} lladdr {} dev {DEVICE} nud permanent", mac(its.get())))?;
        ip(on_host, &format!("route add {network} via {gateway} dev {DEVICE} onlink"))?;
    }
    on_host.exec(["nft", MASQUERADE]).map(|_| ())
}
