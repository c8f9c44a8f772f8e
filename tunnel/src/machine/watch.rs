//! Whether a peer is there: when to look, when to ask it, and when it is dead.
//!
//! A question that finds no word is repeated soon, so that one lost datagram means nothing. A peer that says nothing for
//! [`DEAD_AFTER`] of this node's own running time is dead, and is asked on until it is heard: what this node itself slept
//! through is no silence of the peer's.

use std::time::{Duration, Instant};

/// Between questions to a peer in use that answers, and to one that is dead.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Between questions as long as nothing is heard: above the round trip of any sane path.
const REPEAT: Duration = Duration::from_millis(250);
/// Eight questions' worth of silence.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// A look that comes later than this was held up by this node.
const STALL: Duration = Duration::from_millis(200);

/// The watch over one peer.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When to look next; nothing while nobody watches.
    at: Option<Instant>,
    /// The first question since the peer was last heard.
    asked: Option<Instant>,
    /// The latest question.
    latest: Option<Instant>,
    /// What this node slept through since `asked`.
    slept: Duration,
    dead: bool,
}

impl Watch {
    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) const fn is_dead(&self) -> bool {
        self.dead
    }

    /// Looks and asks at once, unless it does so within a second anyway.
    pub(super) fn begin(&mut self, now: Instant) {
        if self.at.is_none_or(|at| at > now + WATCH_INTERVAL) {
            *self = Self { at: Some(now), dead: self.dead, ..Self::default() };
        }
    }

    /// The peer was heard by other means than packets: its silence begins anew.
    pub(super) fn revive(&mut self) {
        (self.asked, self.slept, self.dead) = (None, Duration::ZERO, false);
    }

    /// Nobody watches any more.
    pub(super) fn end(&mut self) {
        *self = Self { dead: self.dead, ..Self::default() };
    }

    /// A look, nothing having been heard for `silent`.
    pub(super) fn look(&mut self, silent: Duration, now: Instant) {
        let late = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if late >= STALL {
            self.slept += late;
        }
        if self.asked.is_some_and(|asked| silent < now.saturating_duration_since(asked)) {
            self.revive();
        }
        self.dead = self.waited(now) >= DEAD_AFTER;
    }

    /// Whether to ask now, where a peer that answers is asked every `pace`. Says when to look next.
    pub(super) fn asks(&mut self, pace: Duration, now: Instant) -> bool {
        let interval = match self.asked {
            Some(_) if self.dead => WATCH_INTERVAL,
            Some(_) => REPEAT,
            None => pace,
        };
        let due = self.latest.map_or(now, |latest| latest + interval);
        if due > now {
            self.at = Some(due);
            return false;
        }
        self.asked.get_or_insert(now);
        self.latest = Some(now);
        let until_dead = DEAD_AFTER.saturating_sub(self.waited(now));
        self.at = Some(now + if until_dead.is_zero() { WATCH_INTERVAL } else { until_dead.min(REPEAT) });
        true
    }

    /// How long answers have been waited for.
    fn waited(&self, now: Instant) -> Duration {
        let asked = self.asked.map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        asked.saturating_sub(self.slept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Duration = Duration::from_secs(15);

    /// Looks whenever it is due, `late` each time; the peer was last heard at `heard`. Counts the questions.
    fn watch_for(watch: &mut Watch, heard: Instant, late: Duration, until: Instant) -> u32 {
        let mut questions = 0;
        while let Some(now) = watch.at().map(|at| at + late).filter(|now| *now <= until) {
            watch.look(now.saturating_duration_since(heard), now);
            questions += u32::from(watch.asks(PACE, now));
        }
        questions
    }

    #[test]
    fn silence_is_asked_into_and_ends_in_death_after_two_seconds() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(start);
        let almost = start + DEAD_AFTER - Duration::from_millis(1);
        let questions = watch_for(&mut watch, start, Duration::ZERO, almost);
        assert_eq!(questions, 8);
        assert!(!watch.is_dead());
        assert_eq!(watch_for(&mut watch, start, Duration::ZERO, start + DEAD_AFTER + WATCH_INTERVAL * 3), 3);
        assert!(watch.is_dead());
        println!("figure: {questions} questions lost before a peer is given up");
    }

    #[test]
    fn one_lost_question_means_nothing_and_an_idle_peer_is_left_in_peace() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(start);
        watch_for(&mut watch, start, Duration::ZERO, start + REPEAT);
        let heard = start + REPEAT + Duration::from_millis(5);
        assert_eq!(watch_for(&mut watch, heard, Duration::ZERO, start + PACE), 0);
        assert_eq!(
            watch_for(&mut watch, heard, Duration::ZERO, start + PACE + REPEAT * 2),
            2,
            "then it is silent again"
        );
        assert!(!watch.is_dead());
    }

    #[test]
    fn what_the_watcher_slept_through_is_no_silence() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.begin(start);
        watch_for(&mut watch, start, Duration::ZERO, start);
        let woken = start + Duration::from_secs(60);
        watch.look(woken - start, woken);
        assert!(!watch.is_dead() && watch.asks(PACE, woken), "it asks first");
        println!("figure: {} s of one's own sleep, 0 peers given up", (woken - start).as_secs());
        watch_for(&mut watch, start, Duration::ZERO, woken + DEAD_AFTER);
        assert!(watch.is_dead());
        // Whoever always runs late finds out in the end.
        let (mut watch, late) = (Watch::default(), Duration::from_millis(400));
        watch.begin(start);
        watch_for(&mut watch, start, late, start + DEAD_AFTER * 4);
        assert!(watch.is_dead());
    }
}
