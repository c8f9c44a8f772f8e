//! Every decoder of bytes from elsewhere as one function each, for fuzzing and for replaying what it found.
//!
//! A [`Target`] takes any bytes and gives them to one decoder, or to a state machine that takes what was decoded, and
//! checks what has to hold besides: what was read can be written and is read as the same again, and what was accepted
//! is within its bounds. `fuzz/` runs these functions under libFuzzer; `tests/replay.rs` runs them, on any compiler,
//! over the corpus in `fuzz/corpus` and over mutations of it. Both go through [`run`], which judges memory and time.
//!
//! - [`targets`]: all of them
//! - [`bound`]: what one input may cost
//! - [`corpus`], [`mutation`]: where inputs come from

pub mod bound;
pub mod corpus;
mod input;
pub mod mutation;
mod target;
pub mod targets;

pub use bound::run;
pub use target::{Bound, Target};
