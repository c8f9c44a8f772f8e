//! What tests measure, in lines that `scripts/faults` collects and prints beside the fault.
//!
//! A bar is told with its figure and asserted nowhere: a busy machine may miss it, and whoever collects the figures judges.

use std::fmt::Display;
use std::time::Duration;

/// Tells a figure in words, such as `600 of 600 packets arrived`. Tests that do not know this crate print such a line
/// themselves.
pub fn figure(words: impl Display) {
    println!("figure: {words}");
}

/// Tells how long something took.
pub fn took(what: &str, time: Duration) {
    figure(format_args!("{what} in {:.2} s", time.as_secs_f64()));
}

/// Tells how long something took that should take no longer than `bar`.
pub fn took_within(what: &str, time: Duration, bar: Duration) {
    figure(format_args!("{what} in {:.2} s (bar {} s)", time.as_secs_f64(), bar.as_secs_f64()));
}
