//! The address ring and the allocator as one state machine without IO.
//!
//! Every node owns parts of the IPv4 range and leases addresses from them without asking anyone. A part moves by its
//! owner's gift alone, so that at any time each address has exactly one owner, whatever is lost, repeated or
//! reordered. IPv6 addresses come from a /112 that follows from the peer id.
//!
//! [`Ipam`] takes an [`Input`] with the time and answers a [`Decision`]: changes that have to be durable first, then
//! effects to perform. The caller commits the changes, calls [`Ipam::apply`] and performs the effects in order; when
//! the commit fails it calls [`Ipam::abandon`] instead and performs what that returns. What decides about addresses in
//! memory is a fold of applied changes ([`Snapshot`] is that fold on disk), so nothing is promised that a crash forgets.
//! One decision is finished, either way, before the next one is asked for.

mod allocate;
mod ask;
mod catch_up;
mod config;
mod decide;
mod durable;
mod give;
mod heard;
mod interval;
mod lease;
mod message;
mod origin;
mod pool;
mod prefix;
mod ranges;
mod ring;
mod settle;
mod status;

pub use config::{Config, Init, RestoreError};
pub use decide::{Decision, Effect, Input, Ipam};
pub use durable::{Change, HeldPart, Holding, Snapshot};
pub use lease::{Lease, LeaseError, LeaseRequest, NODE_SANDBOX};
pub use message::{Denial, MAX_MESSAGE, Message};
pub use origin::{BootId, Origin, SeenNamespace};
pub use prefix::node_prefix6;
pub use status::{OwnerShare, Status, StatusState};

/// Names a ring: 16 random bytes drawn by whoever seeded it.
pub type RingId = [u8; 16];
