//! Whom a node lets in that has as many links as it wants to carry.
//!
//! A full node turns nobody away for good. It names members with room; who comes back says why it insists.

use serde::{Deserialize, Serialize};

use crate::limits::{MOST_ALONE, MOST_LINKS, MOST_NAMED};

/// What a caller says of itself. Claims: what they gain is bounded apart from all else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Its operator named this node.
    pub named: bool,
    /// It has no other link.
    pub alone: bool,
    /// It was sent elsewhere before.
    pub insists: bool,
}

/// Links that a node has, without those that its own operator asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// All.
    pub links: usize,
    /// Of callers that named this node.
    pub named: usize,
    /// Of callers that were let in because they had nobody else.
    pub alone: usize,
}

/// Why a caller is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// There is room.
    Room,
    /// It has nobody else.
    Alone,
}

impl Occupancy {
    /// Whether a caller is let in; nothing where it is sent elsewhere.
    #[must_use]
    pub fn admits(self, caller: Caller) -> Option<Welcome> {
        let Caller { named, alone, insists } = caller;
        if self.links < MOST_LINKS || insists && named && self.named < MOST_NAMED {
            Some(Welcome::Room)
        } else if insists && alone && self.alone < MOST_ALONE {
            Some(Welcome::Alone)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Occupancy = Occupancy { links: MOST_LINKS, named: 0, alone: 0 };

    #[test]
    fn everyone_is_let_in_while_there_is_room_and_nobody_at_the_first_call_after_that() {
        let anyone = Caller::default();
        assert_eq!(Occupancy { links: MOST_LINKS - 1, ..FULL }.admits(anyone), Some(Welcome::Room));
        assert_eq!(FULL.admits(anyone), None);
        assert_eq!(FULL.admits(Caller { named: true, alone: true, insists: false }), None);
        assert_eq!(FULL.admits(Caller { insists: true, ..anyone }), None);
    }

    #[test]
    fn who_insists_with_a_reason_is_let_in_within_bounds() {
        let named = Caller { named: true, alone: false, insists: true };
        assert_eq!(FULL.admits(named), Some(Welcome::Room));
        assert_eq!(Occupancy { named: MOST_NAMED, ..FULL }.admits(named), None);
        let alone = Caller { named: false, alone: true, insists: true };
        assert_eq!(FULL.admits(alone), Some(Welcome::Alone));
        assert_eq!(Occupancy { alone: MOST_ALONE, ..FULL }.admits(alone), None);
    }
}
