//! Where a lease comes from: what is needed to tell later whether it may be freed. It concerns this node alone and is
//! never published.

use serde::{Deserialize, Serialize};

/// Who asked for a lease, for which namespace, and how it is to be treated. A lease recorded before origins were has
/// the default one: made by nobody that is known, for a namespace that was not seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the CNI network that it was asked for; nothing where people asked.
    pub network: Option<String>,
    /// The namespace at the recorded path, where this node could see it.
    pub namespace: Option<SeenNamespace>,
    /// Somebody else makes the link and routes it: there is no host end of ours.
    pub address_only: bool,
    /// What the pod sends out of the overlay keeps its source.
    pub unmasqueraded: bool,
}

/// A network namespace while the machine runs: its numbers may mean another one after the next boot, and, once it is
/// gone, even before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeenNamespace {
    /// Device of the namespace's file.
    pub device: u64,
    /// Inode of the namespace's file.
    pub inode: u64,
    /// Which boot of the machine: `/proc/sys/kernel/random/boot_id`.
    pub boot: BootId,
}

/// Names one boot of a machine.
pub type BootId = [u8; 16];
