//! What one input may cost.
//!
//! Memory is counted: the most that was in use at once, which no other load changes. Time cannot be counted so, and is
//! measured with room to spare; what took too long is given two more chances, since a machine may be busy.

use std::time::{Duration, Instant};

use crate::target::Target;
use crate::targets::TARGETS;

/// A decoder takes microseconds, the dearest state machine some tens of milliseconds without optimisation.
const LONGEST: Duration = Duration::from_secs(2);

/// Chances of an input to be fast enough.
const CHANCES: usize = 3;

/// Runs the target of this name on `bytes`.
///
/// # Panics
/// When there is no such target, or something does not hold.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    check(target.expect("a target of this name"), bytes);
}

/// Runs a target on `bytes` and judges memory and time.
///
/// # Panics
/// When something does not hold.
pub fn check(target: &Target, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(target.bound.longest)];
    let mut elapsed = Duration::MAX;
    for _ in 0..CHANCES {
        let begun = Instant::now();
        let used = allocation_counter::measure(|| (target.run)(bytes)).bytes_max;
        let allowed = target.bound.fixed + target.bound.per_byte * bytes.len() as u64;
        assert!(used <= allowed, "{used} bytes in use for {} bytes, and {allowed} are allowed", bytes.len());
        elapsed = elapsed.min(begun.elapsed());
        if elapsed <= LONGEST {
            return;
        }
    }
    panic!("{elapsed:?} for {} bytes", bytes.len());
}

/// Runs a target once without judging it: what is made once for all runs is no run's cost.
pub fn warm(target: &Target) {
    (target.run)(&[]);
}
