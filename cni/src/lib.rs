//! `mesh-cni`: attaches containers to the mesh for any runtime that speaks CNI.
//!
//! Synchronous and static: one process per operation, which asks `meshd` and makes the link through `meshwork-attach`.
//! The specification 0.3.1 to 1.1.0 as a whole, alone, in a chain, as a delegate, and as the address plugin of another.

mod config;
#[doc(hidden)]
pub mod decoders;
mod environment;
mod error;
#[cfg(test)]
#[path = "../../attach/src/fake_meshd.rs"]
mod fake_meshd;
#[cfg(test)]
mod hostile;
mod plugin;
mod result;
mod upkeep;
mod wishes;

pub use environment::Lookup;
pub use plugin::{Outcome, run};
