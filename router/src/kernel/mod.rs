//! Kernel objects of the overlay: what they should be, and the thread that makes them so.
//!
//! [`desired`] computes, without touching anything, every route, nexthop object and address that the mesh asks for;
//! [`guard`] does the same for the nftables table, [`clear`] for the VXLAN devices; [`reconcile`] compares with what the kernel has and changes the
//! difference. [`driver`] owns the thread that does this on each change and at intervals. Objects of ours are known by
//! name (`meshwork0`, `meshwork-vx`, `meshwork-vx6`, `mw` and 11 hex digits, table `inet meshwork`) or by routing protocol number 83; nothing else is
//! touched. [`mended`] names what was changed.
//!
//! Life-cycle: [`underlay::prepare`] before the tunnel starts, [`driver::KernelDriver`] while it runs, [`purge`] on the
//! operator's word alone: a daemon that ends leaves everything in place, so that pods stay closed, not clear.

pub mod clear;
pub mod desired;
pub mod driver;
pub mod guard;
mod mended;
mod nexthop_ids;
mod overlap;
mod pods;
pub mod purge;
mod reconcile;
mod settings;
mod transactions;
pub mod underlay;
mod watcher;
mod worker;

#[doc(hidden)]
pub use overlap::overlaps;
pub use reconcile::held_by_pods;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The TUN device of the encrypted path.
pub const TUN_NAME: &str = "meshwork0";

/// Routing protocol number of our routes and nexthop objects.
pub const ROUTE_PROTOCOL: u8 = 83;

/// Prefix of the host ends of pod links; 11 hex digits follow.
pub const POD_LINK_PREFIX: &str = "mw";

/// IPv4 gateway of every pod: link-local, held by the loopback device, so that the kernel answers for it on each link.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// IPv6 gateway of every pod, on each link's host end.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Whether a name is one of our pod links.
#[must_use]
pub fn is_pod_link(name: &str) -> bool {
    name.strip_prefix(POD_LINK_PREFIX)
        .is_some_and(|rest| rest.len() == 11 && rest.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
}

/// Whether a name is one of an interface that we make.
fn is_ours(name: &str) -> bool {
    name == TUN_NAME || clear::is_clear_link(name) || is_pod_link(name)
}

/// Host prefix of an address.
fn host_prefix(address: IpAddr) -> ipnet::IpNet {
    ipnet::IpNet::from(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_form_of_name_is_a_pod_link() {
        assert!(is_pod_link("mw0123456789a"));
        for name in ["mw0123456789", "mw0123456789ab", "mw0123456789G", "mw0123456789A", "eth0", "mw"] {
            assert!(!is_pod_link(name), "{name}");
        }
    }
}
