//! Whole meshes in one process, under a virtual clock.

mod mesh;
mod random;
mod schedules;
mod simulator;
