//! The control API: HTTP and JSON on the unix socket, and metrics and health on TCP.
//!
//! Handlers do no work of their own: they ask the node's actor, the allocator or the kernel thread and turn the answer
//! into the shared models. The socket is reachable by root alone.

#[doc(hidden)]
pub mod decoders;
mod errors;
mod metrics;
mod pods;
mod routes;
mod slots;
pub mod socket;
mod streams;

pub use metrics::{bind as bind_metrics, serve as serve_metrics};
pub use routes::serve;

pub use streams::Slots as StreamSlots;

use std::sync::Arc;

use crate::addresses::Allocator;
use crate::kernel::driver::KernelDriver;
use crate::log::LogFilter;
use crate::node::NodeHandle;

/// What the handlers ask.
#[derive(Clone)]
pub struct Services {
    /// The node's actor.
    pub node: NodeHandle,
    /// Leases.
    pub allocator: Allocator,
    /// Pod links.
    pub kernel: Arc<KernelDriver>,
    /// What is logged.
    pub log: LogFilter,
    /// Room for those who watch.
    pub streams: StreamSlots,
}
