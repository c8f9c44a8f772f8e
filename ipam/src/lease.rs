//! Leases: an address of each family held by one interface of one sandbox.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use meshwork_wire::PeerId;
use meshwork_wire::record::{PodKey, PodRecord};
use serde::{Deserialize, Serialize};

use crate::origin::Origin;

/// Sandbox of the lease that holds the node's own overlay addresses. It is no pod, so it is not published as one.
pub const NODE_SANDBOX: &str = "node";

/// Asks for a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Sandbox id given by the container runtime.
    pub sandbox: String,
    /// Interface inside the sandbox.
    pub interface: String,
    /// Path of the network namespace.
    pub netns: String,
    /// Namespace of the pod, empty when unknown.
    pub namespace: String,
    /// Name of the pod, empty when unknown.
    pub pod: String,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// The IPv4 address that it has to be, when it matters.
    pub wished: Option<Ipv4Addr>,
    /// Where the request comes from.
    pub origin: Origin,
}

impl LeaseRequest {
    /// Names the lease.
    #[must_use]
    pub fn name(&self) -> PodKey {
        PodKey { sandbox: self.sandbox.clone(), interface: self.interface.clone() }
    }

    /// The lease of this request with the given addresses.
    pub(crate) fn lease(&self, addresses: Vec<IpAddr>) -> Lease {
        let (namespace, name) = (self.namespace.clone(), self.pod.clone());
        let pod = PodRecord { namespace, name, labels: self.labels.clone(), addresses };
        Lease { name: self.name(), netns: self.netns.clone(), pod, origin: self.origin.clone() }
    }
}

/// Addresses held by an interface of a sandbox until they are released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Sandbox and interface.
    pub name: PodKey,
    /// Path of the network namespace.
    pub netns: String,
    /// The pod as other nodes see it, with the leased addresses.
    pub pod: PodRecord,
    /// Where it comes from. Kept in a record of its own, so that those written without one stay readable.
    #[serde(skip)]
    pub origin: Origin,
}

impl Lease {
    /// The IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.pod.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })
    }

    /// The IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.pod.addresses.iter().find_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        })
    }

    /// Whether it is the node's own.
    #[must_use]
    pub fn is_node(&self) -> bool {
        self.name.sandbox == NODE_SANDBOX
    }
}

/// Why a lease was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Nobody gave space in time.
    #[error("this node has no free address and no peer gave it any: {0}")]
    NoSpace(String),
    /// There was no ring in time.
    #[error("no address can be handed out yet: {0}")]
    WaitingForRing(String),
    /// Another sandbox holds the wished address.
    #[error("{address} is held by interface {interface} of sandbox {sandbox}: release that one, or wish another")]
    AddressInUse {
        /// The wished address.
        address: Ipv4Addr,
        /// Who holds it.
        sandbox: String,
        /// Which interface holds it.
        interface: String,
    },
    /// The sandbox has another address than the wished one.
    #[error("sandbox {sandbox} already holds {held}: release it before wishing {address}")]
    SandboxHoldsOther {
        /// The wished address.
        address: Ipv4Addr,
        /// The asking sandbox.
        sandbox: String,
        /// What it holds.
        held: Ipv4Addr,
    },
    /// The wished address belongs to another node.
    #[error("{address} belongs to peer {owner}: wish an address of this node, or start the pod there")]
    OwnedElsewhere {
        /// The wished address.
        address: Ipv4Addr,
        /// Its owner.
        owner: PeerId,
    },
    /// Nobody may hold the wished address.
    #[error("{address} cannot be leased: it is outside {range}, or its first or last address")]
    Reserved {
        /// The wished address.
        address: Ipv4Addr,
        /// The range.
        range: Ipv4Net,
    },
    /// Every reachable owner said that it has none to give.
    #[error("{range} is exhausted as far as this node can see: {reason}; release pods or use a larger range")]
    RangeExhausted {
        /// The range.
        range: String,
        /// What was tried.
        reason: String,
    },
    /// The change could not be made durable.
    #[error("the lease could not be recorded: {0}")]
    Storage(String),
    /// The sandbox was released while it waited.
    #[error("the sandbox was released while its lease was waited for")]
    Released,
}

impl LeaseError {
    /// Code word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSpace(_) => "no_space",
            Self::WaitingForRing(_) => "waiting_for_ring",
            Self::AddressInUse { .. } | Self::SandboxHoldsOther { .. } => "address_in_use",
            Self::OwnedElsewhere { .. } | Self::Reserved { .. } => "address_not_ours",
            Self::RangeExhausted { .. } => "range_exhausted",
            Self::Storage(_) => "storage",
            Self::Released => "released",
        }
    }
}
