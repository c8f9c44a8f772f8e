//! Running time: what passed while this process was able to run.

use std::time::{Duration, Instant};

use crate::limits::STALL;

/// Tells the process's own stalls apart from the silence of others.
#[derive(Debug)]
pub(crate) struct RunningClock {
    observed: Instant,
}

impl RunningClock {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { observed: now }
    }

    /// The latest moment that was noted.
    pub(crate) const fn observed(&self) -> Instant {
        self.observed
    }

    /// Notes a call at `now`, when the earliest timer was `due`. Answers how long the process stood still, which has
    /// to be added to every moment at which others were heard.
    pub(crate) fn observe(&mut self, now: Instant, due: Option<Instant>) -> Duration {
        let expected = due.unwrap_or(now).max(self.observed);
        self.observed = self.observed.max(now);
        let late = now.saturating_duration_since(expected);
        if late > STALL { late } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_late_timer_is_a_stall_and_counts_once() {
        let start = Instant::now();
        let mut clock = RunningClock::new(start);
        assert_eq!(clock.observe(start + 900 * MS, Some(start + 1000 * MS)), Duration::ZERO);
        assert_eq!(clock.observe(start + 1200 * MS, Some(start + 1000 * MS)), Duration::ZERO);
        assert_eq!(clock.observe(start + 5200 * MS, Some(start + 1000 * MS)), 4000 * MS);
        assert_eq!(clock.observe(start + 5201 * MS, Some(start + 1000 * MS)), Duration::ZERO);
    }

    #[test]
    fn waiting_for_a_timer_is_no_stall() {
        let start = Instant::now();
        let mut clock = RunningClock::new(start);
        assert_eq!(clock.observe(start + 60_000 * MS, None), Duration::ZERO);
        assert_eq!(clock.observe(start + 90_000 * MS, Some(start + 90_000 * MS)), Duration::ZERO);
    }
}
