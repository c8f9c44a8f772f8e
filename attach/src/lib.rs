//! Makes a pod's link, and takes it away.
//!
//! [`attach`] leases addresses from `meshd`, makes a veth pair with one end in the pod's namespace, configures that end
//! and asks `meshd` to route the other one. When it answers, the pod can be reached. Whatever fails, everything made so
//! far is undone. Where another CNI plugin makes the link, [`lease_address`] does the first step alone. `mesh-cni` and
//! `meshctl attach` both stand on it, and both run in the network namespace of `meshd`.
//!
//! Invariants: the same sandbox and interface get the same link and addresses however often they are attached; a link
//! of anyone else in the pod is never touched; a lease that was in use before is never released by a failed repetition.

mod address;
mod attachment;
mod check;
mod detach;
mod error;
mod link;
mod pod;
mod sandbox;

pub use address::{LeasedAddress, check_address, lease_address};
pub use attachment::{AttachRequest, Attachment, attach};
pub use check::{Expected, check};
pub use detach::{DetachRequest, collect_garbage, detach};
pub use error::AttachError;
pub use meshwork_api::link::Mac;
pub use sandbox::{SANDBOX_PREFIX, sandbox_of};

#[cfg(test)]
mod fake_meshd;
#[cfg(test)]
mod tests;
