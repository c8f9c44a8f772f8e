//! Lines for people on standard output, whose reader may go away at any time, as in `meshlab demo | head`.
//!
//! A closed output is like a signal: what waits ends, and unwinding takes the lab away. Nothing is printed about it.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::interrupt;

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Prints a line, as `println!` does, but does not panic when nobody reads it any more.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*)) };
}

/// Prints a line on standard error, as `eprintln!` does, but does not panic where there is none: a lab is taken away also
/// while nobody listens.
#[macro_export]
macro_rules! complain {
    ($($words:tt)*) => { $crate::say::complaint(format_args!($($words)*)) };
}

/// Prints one line.
pub fn line(words: fmt::Arguments<'_>) {
    if writeln!(io::stdout(), "{words}").is_err() {
        CLOSED.store(true, Ordering::Relaxed);
        interrupt::note();
    }
}

/// Prints one line on standard error.
pub fn complaint(words: fmt::Arguments<'_>) {
    // There is no better place to say that this failed.
    let _ = writeln!(io::stderr(), "{words}");
}

/// Whether nobody reads what is printed.
#[must_use]
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}
