//! Defaults, each with its reason.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};

/// UDP port of control and encrypted data: the one that firewalls in front of Weave Net installations already pass.
pub const DEFAULT_PORT: u16 = 6783;

/// UDP port of the clear path: Weave Net's fast path had it, and firewalls in front of it pass it.
pub const DEFAULT_VXLAN_PORT: u16 = 6784;

/// Trusted subnets that a node may name: they travel in its record to every other.
pub const MOST_TRUSTED: usize = 32;

/// Private space that few sites use; the same as Weave Net's, so that a migration keeps its addresses.
pub const DEFAULT_RANGE4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 32, 0, 0), 12);

/// A unique local prefix that spells "meshw" (`6d 65 73 68 77`).
pub const DEFAULT_RANGE6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd4d, 0x6573, 0x6877, 0, 0, 0, 0, 0), 48);

/// 64 bits of a hash of the peer id lie between the range and a node's /112.
pub const RANGE6_PREFIX: u8 = 48;

/// Below this a range has too few addresses to be split among nodes.
pub const RANGE4_LONGEST_PREFIX: u8 = 28;

/// Where a node keeps what must survive a reboot.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/meshwork";

/// Loopback only: what a node knows of its mesh is nobody else's business unless its operator says so.
pub const DEFAULT_METRICS_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6782);

/// Bytes that encapsulation may add: IPv6 40, UDP 8, header 16, tag 16, a relay's label 20.
pub const ENCAPSULATION_BUDGET: u32 = 100;

/// Smallest MTU that IPv6 allows a link (RFC 8200, section 5).
pub const SMALLEST_POD_MTU: u32 = 1280;

/// Largest packet that IP can carry.
pub const LARGEST_POD_MTU: u32 = 65_535 - ENCAPSULATION_BUDGET;
