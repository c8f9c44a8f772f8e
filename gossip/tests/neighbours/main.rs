//! The choice of links in meshes of 11 to 5,000 nodes, as a graph and in rounds.

mod graph;
mod promises;
#[path = "../simulation/random.rs"]
#[allow(dead_code, reason = "shared with the simulation, which uses all of it")]
mod random;
mod world;
