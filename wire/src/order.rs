//! The one total order by which replicated entries are compared.

use serde::{Deserialize, Serialize};

use crate::{Incarnation, PeerId};

/// Which write of its writer an entry is. Only the writer counts it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// The run of the writer that wrote.
    pub incarnation: Incarnation,
    /// Writes within that run.
    pub counter: u64,
}

/// Rank of an entry: the greater one wins, at every node alike. The field order is the rule: an epoch (raised by a
/// takeover alone) outranks any version, and the peer id breaks what is left, so no two different entries tie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Counts takeovers.
    pub epoch: u32,
    /// Counts the writes of one owner.
    pub version: Version,
    /// The peer that wrote the entry or owns what it names.
    pub peer: PeerId,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(epoch: u32, incarnation: u64, counter: u64, peer: u8) -> Order {
        let version = Version { incarnation: Incarnation(incarnation), counter };
        Order { epoch, version, peer: PeerId([peer; 16]) }
    }

    #[test]
    fn epoch_outranks_incarnation_outranks_counter_outranks_peer() {
        let ascending = [order(0, 0, 0, 9), order(0, 0, 1, 0), order(0, 1, 0, 0), order(1, 0, 0, 0), order(1, 0, 0, 1)];
        assert!(ascending.is_sorted());
    }
}
