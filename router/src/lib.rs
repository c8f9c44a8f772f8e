//! The node daemon: assembles the other crates into `meshd`.
//!
//! - [`config`]: what the operator asked for
//! - [`control`]: QUIC links to other routers
//! - [`addresses`]: leases and the ring, with the database behind them
//! - [`clear`]: who may be sent packets in clear, and whether that path works
//! - [`kernel`]: routes, nexthop objects, guard, pod links
//! - [`sandboxes`]: frees what is held for pods that are gone
//! - [`events`]: what happened lately, for those who ask and watch
//! - [`node`]: the actor that ties them together
//! - [`api`]: control socket, metrics, health
//! - `moderation`: how much of a core it may take to follow a mesh that changes
//! - [`daemon`]: start and end of the process; [`log`]: what it says meanwhile

pub mod addresses;
pub mod api;
pub mod clear;
pub mod config;
pub mod control;
pub mod daemon;
pub mod events;
pub mod kernel;
pub mod log;
mod moderation;
pub mod node;
mod random;
pub mod sandboxes;
