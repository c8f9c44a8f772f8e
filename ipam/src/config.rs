//! What a node is told at start.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_identity::Identity;
use meshwork_wire::Incarnation;

/// What an [`crate::Ipam`] is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node: names it and signs its gifts.
    pub identity: Arc<Identity>,
    /// Which run of this node it is, as counted up durably before.
    pub incarnation: Incarnation,
    /// The range that the ring covers; the same on every node.
    pub range4: Ipv4Net,
    /// The range that holds every node's /112; the same on every node.
    pub range6: Ipv6Net,
    /// How a node without a ring comes by one.
    pub init: Init,
}

/// How a node without a ring comes by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Seeds when it was given no peers, joins when it was given some.
    Auto {
        /// Whether peers to begin from are configured.
        has_peers: bool,
    },
    /// Makes a ring at once.
    Seed,
    /// Waits for the ring of others.
    Join,
}

/// Longest IPv4 range: a ring needs a few addresses to hand out.
pub(crate) const MAX_RANGE4: u8 = 28;

/// Longest IPv6 range: the /112 of each node is told apart by the 64 bits after bit 48.
pub(crate) const MAX_RANGE6: u8 = 48;

/// The configuration, or what the disk holds for it, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Too few addresses.
    #[error("the IPv4 range {0} is too small: give a /{MAX_RANGE4} or a larger one")]
    Range4TooSmall(Ipv4Net),
    /// No room for the nodes' prefixes.
    #[error("the IPv6 range {0} is too small for one /112 per node: give a /{MAX_RANGE6} or a larger one")]
    Range6TooSmall(Ipv6Net),
    /// The disk knows addresses of another range.
    #[error(
        "the state directory holds {held}, which is outside the configured range {range}: start with the range that \
         the mesh uses, or remove this node and begin with an empty state directory"
    )]
    RangeChanged {
        /// What the disk holds.
        held: String,
        /// What was configured.
        range: String,
    },
    /// One address in two leases.
    #[error("the state directory holds two leases of {0}: it was damaged; move it aside and start as a new peer")]
    LeasedTwice(IpAddr),
    /// Parts of two rings.
    #[error("the state directory holds parts of two rings: it was damaged; move it aside and start as a new peer")]
    TwoRings,
}
