//! What has to survive a crash, and the fold that rebuilds memory from it.
//!
//! Invariants: at every address the held part of the greatest order says whether this node may allocate; a record of
//! a part that was given away is kept for good, so that an old gift that is heard again can never bring it back.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use meshwork_wire::record::{PodKey, RingPart};
use meshwork_wire::{Order, Version};
use serde::{Deserialize, Serialize};

use crate::lease::Lease;
use crate::ring::Ring;

/// One durable change. A decision's changes are committed together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Records a part of the ring, replacing what was held under the same prefix.
    PutPart {
        /// The addresses.
        prefix: Ipv4Net,
        /// Its entry and whose turn it is.
        held: HeldPart,
    },
    /// Forgets a part: others cover its addresses, or the whole ring was yielded unused.
    DropPart(Ipv4Net),
    /// Records a lease, replacing the one of the same sandbox and interface.
    PutLease(Lease),
    /// Forgets a lease.
    DropLease(PodKey),
    /// Puts an address at the end of the queue for reuse.
    PutFreed {
        /// Place in the queue: greater is later.
        sequence: u64,
        /// The address.
        address: IpAddr,
    },
    /// Takes an address out of the queue for reuse.
    DropFreed {
        /// Its place.
        sequence: u64,
    },
}

/// A part of the ring that this node holds or held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPart {
    /// The entry as published.
    pub part: RingPart,
    /// What this node may do with it.
    pub holding: Holding,
}

/// What a node may do with a part on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// Allocate from it and give it.
    Owned,
    /// Nothing: it was given away. Published until the receiver publishes it itself.
    Given {
        /// The request that it answered.
        request: Version,
        /// Whether the receiver was seen to publish it.
        acknowledged: bool,
    },
    /// Nothing: an entry of greater order by another owner was heard.
    Overtaken,
}

impl HeldPart {
    /// Rank of the entry.
    #[must_use]
    pub fn order(&self) -> Order {
        order_of(&self.part)
    }

    /// Whether others have to be told.
    pub(crate) fn is_published(&self) -> bool {
        match self.holding {
            Holding::Owned => true,
            Holding::Given { acknowledged, .. } => !acknowledged,
            Holding::Overtaken => false,
        }
    }
}

/// Rank of an entry of the ring.
pub(crate) fn order_of(part: &RingPart) -> Order {
    Order { epoch: part.epoch, version: part.version, peer: part.owner }
}

/// Everything durable, as loaded at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Parts by prefix.
    pub parts: BTreeMap<Ipv4Net, HeldPart>,
    /// Leases by sandbox and interface.
    pub leases: BTreeMap<PodKey, Lease>,
    /// Addresses for reuse, soonest first.
    pub freed: BTreeMap<u64, IpAddr>,
}

impl Snapshot {
    /// Folds changes in.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change.clone() {
                Change::PutPart { prefix, held } => drop(self.parts.insert(prefix, held)),
                Change::DropPart(prefix) => drop(self.parts.remove(&prefix)),
                Change::PutLease(lease) => drop(self.leases.insert(lease.name.clone(), lease)),
                Change::DropLease(name) => drop(self.leases.remove(&name)),
                Change::PutFreed { sequence, address } => drop(self.freed.insert(sequence, address)),
                Change::DropFreed { sequence } => drop(self.freed.remove(&sequence)),
            }
        }
    }

    /// The held parts as a function of the address.
    pub(crate) fn ring(&self) -> Ring {
        let mut ring = Ring::default();
        for (prefix, held) in &self.parts {
            ring.merge(*prefix, held.order());
        }
        ring
    }
}
