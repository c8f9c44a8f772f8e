//! Removes every kernel object of ours, on the operator's word.

use meshwork_sys::netlink::Netlink;
use meshwork_sys::{Result, nft};

use super::{GATEWAY4, host_prefix, is_ours, reconcile};

/// Takes away pod links, the TUN, the clear path's devices, routes, nexthop objects, the gateway address and the firewall table, and says what
/// there was. Forwarding settings of the host stay: others may have come to rely on them.
///
/// # Errors
/// What the kernel refuses; what was removed until then stays removed, and a second call goes on.
pub fn purge(netlink: &mut Netlink) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let present = reconcile::present(netlink)?;
    for route in &present.routes {
        netlink.delete_route(route)?;
        removed.push(format!("route {}", route.destination));
    }
    for id in present.nexthops.keys() {
        netlink.delete_nexthop(*id)?;
        removed.push(format!("nexthop {id}"));
    }
    for link in netlink.links()? {
        if is_ours(&link.name) {
            netlink.delete_link(&link.name)?;
            removed.push(format!("link {}", link.name));
        }
    }
    if let Some(lo) = netlink.link("lo")? {
        netlink.delete_address(lo.index, host_prefix(GATEWAY4.into()))?;
    }
    // The table goes last: it guards until nothing is left to guard.
    nft::delete_table("inet", "meshwork")?;
    Ok(removed)
}
