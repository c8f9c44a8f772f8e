//! Whether a link lives, and how long its round trip is.
//!
//! Of both ends the one with the lesser identity sends a heartbeat every second. The other end need not: what it sends is
//! the transport's acknowledgement, which says as much, costs less, and wakes nobody but the first. It sends heartbeats
//! of its own where it misses those.

use std::time::{Duration, Instant};

use crate::limits::{
    HEARTBEAT, HEARTBEAT_SLACK, LINK_SILENT, PROBE, RTT_CHANGE, RTT_CHANGE_PERCENT, RTT_INTERVAL, RTT_STEADY, SILENCE,
};

/// What a moment asks of a link's driver side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Send a heartbeat.
    Heartbeat,
    /// Send one that asks for an answer.
    Probe,
    /// The link went down.
    Down,
    /// The driver should close the link.
    Silent,
}

/// Liveness of a link, in the observer's running time.
#[derive(Debug)]
pub(crate) struct Pulse {
    heard: Instant,
    next_heartbeat: Instant,
    next_probe: Instant,
    up: bool,
    silent: bool,
    /// This end's heartbeat can wait where the neighbour's came.
    yields: bool,
}

impl Pulse {
    /// Begins with a heartbeat at a moment that all links of a node share, so that it wakes once for all of them.
    pub(crate) const fn new(now: Instant, next_heartbeat: Instant, yields: bool) -> Self {
        Self { heard: now, next_heartbeat, next_probe: now, up: true, silent: false, yields }
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// Takes the observer's own stall out of the neighbour's silence.
    pub(crate) fn forgive(&mut self, stall: Duration) {
        self.heard += stall;
    }

    /// Something came at `at`, or later. Answers whether the link came up again with it.
    pub(crate) fn heard(&mut self, at: Instant) -> bool {
        self.heard = self.heard.max(at);
        self.silent = false;
        !std::mem::replace(&mut self.up, true)
    }

    /// The neighbour's heartbeat came. Answers whether the own one waits for the next.
    pub(crate) fn beaten(&mut self, now: Instant) -> bool {
        if self.yields {
            self.next_heartbeat = now + HEARTBEAT + HEARTBEAT_SLACK / 2;
        }
        self.yields
    }

    /// What is due at `now`; called until nothing is.
    pub(crate) fn beat(&mut self, now: Instant) -> Option<Beat> {
        if self.up && now >= self.down_at() {
            self.up = false;
            Some(Beat::Down)
        } else if !self.silent && now >= self.heard + LINK_SILENT {
            self.silent = true;
            Some(Beat::Silent)
        } else if now >= self.next_heartbeat {
            self.next_heartbeat = now + HEARTBEAT;
            Some(Beat::Heartbeat)
        } else if self.probe_at().is_some_and(|at| now >= at) {
            self.next_probe = now + PROBE;
            Some(Beat::Probe)
        } else {
            None
        }
    }

    pub(crate) fn timeout(&self) -> Instant {
        let down = self.up.then(|| self.down_at());
        let silent = (!self.silent).then(|| self.heard + LINK_SILENT);
        [down, silent, self.probe_at()].into_iter().flatten().fold(self.next_heartbeat, Instant::min)
    }

    fn down_at(&self) -> Instant {
        self.heard + HEARTBEAT + SILENCE
    }

    /// Probing ends when the driver has been told to close the link.
    fn probe_at(&self) -> Option<Instant> {
        (!self.silent).then(|| self.next_probe.max(self.heard + HEARTBEAT + HEARTBEAT_SLACK))
    }
}

/// Round trip of a link, and what the mesh was told of it.
#[derive(Debug, Default)]
pub(crate) struct Rtt {
    published: Option<(Duration, Instant)>,
    moved_since: Option<Instant>,
}

impl Rtt {
    /// The round trip that the mesh was told.
    pub(crate) fn published(&self) -> Option<Duration> {
        self.published.map(|(rtt, _)| rtt)
    }

    /// Takes a measurement; answers whether to publish it.
    pub(crate) fn measure(&mut self, now: Instant, rtt: Duration) -> bool {
        let Some((published, at)) = self.published else {
            self.published = Some((rtt, now));
            return true;
        };
        let change = rtt.abs_diff(published);
        if change <= RTT_CHANGE || change * 100 <= published * RTT_CHANGE_PERCENT {
            self.moved_since = None;
            return false;
        }
        let moved_since = *self.moved_since.get_or_insert(now);
        let publish = now >= moved_since + RTT_STEADY && now >= at + RTT_INTERVAL;
        if publish {
            *self = Self { published: Some((rtt, now)), moved_since: None };
        }
        publish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn beats(pulse: &mut Pulse, now: Instant) -> Vec<Beat> {
        std::iter::from_fn(|| pulse.beat(now)).collect()
    }

    #[test]
    fn a_quiet_link_is_probed_then_down_then_given_up() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start, false);
        let mut seen = Vec::new();
        for step in 0..11_000 {
            seen.extend(beats(&mut pulse, start + step * MS).into_iter().map(|beat| (beat, step)));
        }
        let at = |wanted| seen.iter().filter(|(beat, _)| *beat == wanted).map(|(_, at)| *at).collect::<Vec<_>>();
        assert_eq!(at(Beat::Heartbeat).len(), 11);
        assert_eq!(at(Beat::Probe).iter().take(3).copied().collect::<Vec<_>>(), [1250, 1500, 1750]);
        assert_eq!((at(Beat::Down), at(Beat::Silent)), (vec![4000], vec![10_000]));
        assert!(pulse.heard(start + 11_000 * MS) && pulse.is_up());
    }

    #[test]
    fn of_two_ends_one_sends_heartbeats_and_the_other_acknowledges_them() {
        let start = Instant::now();
        for apart in [0, 100, 499, 700, 999] {
            let mut ends = [Pulse::new(start, start, false), Pulse::new(start, start + apart * MS, true)];
            let mut sent = [0, 0];
            for now in (0..60_000).map(|step| start + step * MS) {
                for end in 0..2 {
                    while let Some(beat) = ends[end].beat(now) {
                        assert_eq!(beat, Beat::Heartbeat, "nobody is missed");
                        sent[end] += 1;
                        ends[1 - end].heard(now);
                        ends[1 - end].beaten(now);
                        ends[end].heard(now);
                    }
                }
            }
            assert!((59..=61).contains(&sent[0]) && sent[1] <= 1, "{apart}: {sent:?}");
        }
    }

    #[test]
    fn an_end_whose_neighbour_sends_none_sends_its_own() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start, true);
        let sent = (0..60_000).flat_map(|step| beats(&mut pulse, start + step * MS));
        assert_eq!(sent.filter(|beat| *beat == Beat::Heartbeat).count(), 60);
    }

    #[test]
    fn our_own_stall_is_not_the_neighbours_silence() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start, start, false);
        pulse.forgive(20_000 * MS);
        assert_eq!(beats(&mut pulse, start + 20_500 * MS), [Beat::Heartbeat]);
        assert!(pulse.is_up());
    }

    #[test]
    fn a_round_trip_is_published_when_it_moved_far_and_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut rtt = Rtt::default();
        assert!(rtt.measure(start, 10 * MS));
        assert!(!rtt.measure(at(100), 15 * MS), "not by more than 5 ms");
        assert!(!rtt.measure(at(200), 20 * MS));
        assert!(!rtt.measure(at(220), 10 * MS), "back again");
        assert!(!rtt.measure(at(230), 20 * MS));
        assert!(rtt.measure(at(260), 20 * MS));
        assert!(!rtt.measure(at(261), 40 * MS));
        assert!(!rtt.measure(at(300), 40 * MS), "not within a minute");
        assert!(rtt.measure(at(321), 40 * MS));
        assert_eq!(rtt.published(), Some(40 * MS));
    }
}
