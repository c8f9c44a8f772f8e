//! The choice of links in meshes of 11 to 5,000 nodes, as a graph and in rounds.

mod graph;
mod promises;
mod world;
