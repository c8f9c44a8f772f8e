//! What a node is told at start.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_identity::Identity;
use meshwork_wire::Incarnation;

use crate::durable::Snapshot;
use crate::prefix::node_prefix6;

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

/// Greatest place in the queue for reuse that is believed. Half of the numbers: nobody counts that far, and there is always
/// another one behind it.
const LAST_PLACE: u64 = u64::MAX / 2;

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
    /// An address that rests at a place which leaves no room behind it.
    #[error(
        "the state directory holds an address for reuse at place {0}, which nobody counts to: it was damaged; move it \
         aside and start as a new peer"
    )]
    NoSuchPlace(u64),
}

/// Whether what is configured can work, and fits what the disk holds.
pub(crate) fn check(config: &Config, durable: &Snapshot) -> Result<(), RestoreError> {
    if config.range4.prefix_len() > MAX_RANGE4 {
        return Err(RestoreError::Range4TooSmall(config.range4));
    }
    if config.range6.prefix_len() > MAX_RANGE6 {
        return Err(RestoreError::Range6TooSmall(config.range6));
    }
    let changed = |held: String, range: String| Err(RestoreError::RangeChanged { held, range });
    if let Some(prefix) = durable.parts.keys().find(|prefix| !config.range4.contains(*prefix)) {
        return changed(prefix.to_string(), config.range4.to_string());
    }
    let mut rings = durable.parts.values().map(|held| held.part.ring);
    let ring = rings.next();
    if rings.any(|other| Some(other) != ring) {
        return Err(RestoreError::TwoRings);
    }
    if let Some(place) = durable.freed.keys().next_back().filter(|place| **place > LAST_PLACE) {
        return Err(RestoreError::NoSuchPlace(*place));
    }
    let mut seen = BTreeSet::new();
    let prefix6 = node_prefix6(config.range6, config.identity.peer_id());
    for address in durable.leases.values().flat_map(|lease| &lease.pod.addresses) {
        match address {
            IpAddr::V4(held) if !config.range4.contains(held) => {
                return changed(held.to_string(), config.range4.to_string());
            }
            IpAddr::V6(held) if !prefix6.contains(held) => {
                return changed(held.to_string(), config.range6.to_string());
            }
            _ if !seen.insert(*address) => return Err(RestoreError::LeasedTwice(*address)),
            _ => {}
        }
    }
    Ok(())
}
