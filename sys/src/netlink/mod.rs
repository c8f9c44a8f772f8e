//! Links, addresses, routes, nexthop objects, neighbours and forwarding entries of one network namespace, over one blocking rtnetlink
//! socket (rtnetlink(7)).
//!
//! The socket belongs to the namespace of the thread that opened it and can then be used from any thread. Every call is
//! one exchange: request, answers, acknowledgement. Additions are idempotent where the kernel can tell that the same
//! thing is there, deletions always: what is absent is deleted already. Listings are consistent: one during which the
//! kernel changed something is taken again.

mod address;
#[doc(hidden)]
pub mod decoders;
mod firewall;
mod link;
mod neighbour;
mod nexthop;
mod route;
mod socket;
#[cfg(test)]
mod tests;
mod vxlan;
mod watch;

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

pub use address::InterfaceAddress;
pub use firewall::{firewall_counters, firewall_generation};
pub use link::{Link, Traffic, Veth};
pub use neighbour::{Forwarding, Neighbour};
pub use nexthop::Nexthop;
pub use route::{Route, RouteFilter, RouteKind, RouteMtu};
pub use socket::Netlink;
pub use vxlan::Vxlan;
pub use watch::{Changes, EVERY_INTERFACE, Watch};

/// How far an address or a route is valid. IPv6 knows it for addresses only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Scope {
    /// Everywhere.
    #[default]
    Global,
    /// On the link only; for IPv4 routes: the destination is a neighbour.
    Link,
    /// In this host only.
    Host,
}

impl Scope {
    fn number(self) -> u8 {
        match self {
            Self::Global => libc::RT_SCOPE_UNIVERSE,
            Self::Link => libc::RT_SCOPE_LINK,
            Self::Host => libc::RT_SCOPE_HOST,
        }
    }

    /// Scopes that nothing here makes (site and user-defined ones) count as global, like in the kernel's routing.
    fn from_number(number: u8) -> Self {
        match number {
            libc::RT_SCOPE_LINK => Self::Link,
            libc::RT_SCOPE_HOST => Self::Host,
            _ => Self::Global,
        }
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn number(self) -> u8 {
        self.address_family().into()
    }

    fn address_family(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}
