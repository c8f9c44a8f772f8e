//! Makes a pod's link, and takes it away.
//!
//! [`attach`] leases addresses from `meshd`, makes a veth pair with one end in the pod's namespace, configures that end
//! and asks `meshd` to route the other one. When it answers, the pod can be reached. Whatever fails, everything made so
//! far is undone. `mesh-cni` and `meshctl attach` both stand on it, and both run in the network namespace of `meshd`.
//!
//! Invariants: the same sandbox and interface get the same link and addresses however often they are attached; a link
//! of anyone else in the pod is never touched; a lease that was in use before is never released by a failed repetition.

mod attachment;
mod detach;
mod error;
mod link;
mod pod;
mod sandbox;

pub use attachment::{AttachRequest, Attachment, attach, check};
pub use detach::{DetachRequest, detach};
pub use error::AttachError;
pub use meshwork_api::link::Mac;
pub use sandbox::{SANDBOX_PREFIX, sandbox_of};

#[cfg(test)]
mod fake_meshd;
#[cfg(test)]
mod tests;
