//! The encrypted path: Noise sessions and the packet pump between TUN and UDP.
//!
//! - [`header`]: the sixteen bytes in front of everything we send
//! - [`Tunnel`]: three threads around one TUN device and one UDP socket
//! - [`Desired`]: what a node wants of its tunnel, always given whole
//!
//! Inside, `machine` decides about handshakes, probes and endpoints without any IO, clock or randomness of its own, and
//! `decider` lets threads share it;
//! `noise` makes and reads handshake messages; `session` seals and opens; `outbound` and `inbound` carry packets.

mod batch;
#[cfg(feature = "bench-internals")]
#[doc(hidden)]
pub mod bench_internals;
mod coalesce;
mod config;
mod decider;
#[doc(hidden)]
pub mod decoders;
mod drops;
pub mod header;
mod inbound;
mod machine;
mod noise;
mod outbound;
mod packet;
mod peer;
mod replay;
mod segment;
#[cfg(test)]
mod segment_tests;
mod session;
mod shared;
mod table;
mod tunnel;

pub use config::{ControlSink, Desired, PathState, PathStatus, TunnelConfig, TunnelError, TunnelPeer};
pub use header::is_ours;
pub use tunnel::Tunnel;
