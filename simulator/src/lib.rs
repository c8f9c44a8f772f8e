//! Whole meshes of gossip in one process, under a virtual clock.
//!
//! A [`World`] holds nodes that run the state machine and codecs of the daemon, and what lies between them: links with
//! latency, loss, cuts and slow ends. Everything follows from a seed, so whatever happens happens again.
//!
//! - [`world`]: nodes, time and what befalls them
//! - [`wire`]: what a frame costs and when it arrives
//! - [`graph`]: who wants a link to whom
//! - [`content`]: what a node of a real mesh publishes
//! - [`hostile`]: members that misbehave
//! - [`judge`]: what has to hold, and what one node sees of another
//! - [`schedule`]: random things that befall small meshes, and the smallest of them that break something
//! - [`bars`]: the figures that a large mesh has to reach
//! - [`growth`]: how the figures grow with the mesh
//! - [`memory`]: what a known peer costs a daemon
//! - [`draw`], [`plot`]: convergence, traffic and the mesh as pictures

pub mod bars;
pub mod content;
pub mod draw;
pub mod graph;
pub mod growth;
pub mod hostile;
pub mod judge;
pub mod memory;
pub mod plot;
pub mod random;
pub mod schedule;
pub mod wire;
pub mod world;

pub use random::Random;
pub use world::World;
