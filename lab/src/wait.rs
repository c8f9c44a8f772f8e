//! The one place that waits: nothing in a lab sleeps for luck, everything is asked for until it holds or the deadline
//! says what was missing.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::interrupt;

/// Between two looks. Short against what is measured with it (a mesh forms in about a second), long enough that
/// looking does not load two cores.
const POLL: Duration = Duration::from_millis(10);

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look<T> {
    /// It holds.
    Done(T),
    /// It does not hold yet; this is missing.
    Missing(String),
}

/// Looks until `look` is done. Ends early when `look` fails or a signal asks the process to end.
///
/// # Errors
/// [`Error::TimedOut`] with `what` and the last thing missing, or what `look` failed with.
pub fn eventually<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        // First, since after a signal what is looked at comes to an end, too.
        interrupt::check()?;
        let missing = match look()? {
            Look::Done(value) => return Ok(value),
            Look::Missing(missing) => missing,
        };
        if started.elapsed() >= deadline {
            return Err(Error::TimedOut { what: what.to_owned(), deadline, missing });
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_the_look_is_done() {
        let mut looks = 0;
        let value = eventually(Duration::from_secs(5), "third look", || {
            looks += 1;
            Ok(if looks == 3 { Look::Done(looks) } else { Look::Missing("more looks".into()) })
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn says_what_was_missing_at_the_deadline() {
        let error = eventually::<()>(Duration::ZERO, "mesh of 3", || Ok(Look::Missing("h2: not ready".into())))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "mesh of 3 not reached within 0 s; missing: h2: not ready");
    }

    #[test]
    fn a_failing_look_ends_the_wait() {
        let error = eventually::<()>(Duration::from_secs(60), "daemon", || Err(Error::Unproven("gone".into())));
        assert!(matches!(error, Err(Error::Unproven(_))));
    }
}
