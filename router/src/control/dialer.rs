//! Whom to dial and when: [gossip's dialler](meshwork_gossip::neighbours::Dialer), of what operators name.

use meshwork_gossip::neighbours;

pub use meshwork_gossip::neighbours::TargetState;

use crate::config::Target;

/// Every target and its schedule.
pub type Dialer = neighbours::Dialer<Target>;

/// What is dialled.
pub type TargetKey = neighbours::TargetKey<Target>;

/// A target to dial.
pub type Due = neighbours::Due<Target>;

/// One target as people see it.
pub type TargetStatus = neighbours::TargetStatus<Target>;
