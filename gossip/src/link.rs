//! One link: its queue, its liveness and what the neighbour is known to hold.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

use crate::frames::Stamp;
use crate::limits::{
    DIGEST_INTERVAL, HEARTBEAT, HEARTBEAT_SLACK, LINK_SILENT, MAX_MEMBERS, MAX_QUEUE, NEW_MEMBERS_BURST,
    NEW_MEMBERS_PER_SECOND, PROBE, RTT_CHANGE, RTT_CHANGE_PERCENT, RTT_INTERVAL, RTT_STEADY, SILENCE,
};

/// State of a link from the moment that the driver reports it until the driver takes it away.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) queue: Queue,
    pub(crate) pulse: Pulse,
    pub(crate) rtt: Rtt,
    pub(crate) newcomers: Newcomers,
    /// What the neighbour said it holds. It lacks nothing of that.
    known: BTreeMap<PeerId, Stamp>,
    /// What the neighbour holds and we lack.
    pub(crate) wants: BTreeMap<PeerId, Stamp>,
    /// The neighbour told all that it held when the link came up.
    pub(crate) told_all: bool,
    /// The driver knows that this link is synced.
    pub(crate) synced: bool,
    /// Heartbeats in a row that disagreed with us.
    mismatches: u32,
    digests_sent: Option<Instant>,
}

impl Link {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            queue: Queue::default(),
            pulse: Pulse::new(now),
            rtt: Rtt::default(),
            newcomers: Newcomers { allowance: NEW_MEMBERS_BURST, counted: now },
            known: BTreeMap::new(),
            wants: BTreeMap::new(),
            told_all: false,
            synced: false,
            mismatches: 0,
            digests_sent: None,
        }
    }

    /// Notes that the neighbour holds this.
    pub(crate) fn holds(&mut self, origin: PeerId, stamp: Stamp) {
        if self.known.len() < MAX_MEMBERS || self.known.contains_key(&origin) {
            let known = self.known.entry(origin).or_insert(stamp);
            *known = stamp.max(*known);
        }
    }

    pub(crate) fn lacks(&self, origin: PeerId, stamp: Stamp) -> bool {
        self.known.get(&origin).is_none_or(|known| *known < stamp)
    }

    /// Notes that the neighbour holds what we lack.
    pub(crate) fn want(&mut self, origin: PeerId, stamp: Stamp) {
        if self.wants.len() < MAX_MEMBERS || self.wants.contains_key(&origin) {
            let wanted = self.wants.entry(origin).or_insert(stamp);
            *wanted = stamp.max(*wanted);
        }
    }

    pub(crate) const fn digests_went_out(&mut self, now: Instant) {
        self.digests_sent = Some(now);
        self.mismatches = 0;
    }

    pub(crate) fn told_lately(&self, now: Instant) -> bool {
        self.digests_sent.is_some_and(|sent| now.saturating_duration_since(sent) < DIGEST_INTERVAL)
    }

    /// Notes whether a heartbeat agreed with us. Answers whether to compare digests: one disagreement is likely a
    /// change still on its way, two are not.
    pub(crate) fn compare(&mut self, now: Instant, agrees: bool) -> bool {
        self.mismatches = if agrees { 0 } else { self.mismatches + 1 };
        self.mismatches >= 2 && !self.told_lately(now)
    }
}

/// Frames that wait for the driver.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    frames: VecDeque<(Vec<u8>, bool)>,
    bytes: usize,
}

impl Queue {
    /// Answers whether there was room.
    pub(crate) fn push(&mut self, frame: Vec<u8>, reliable: bool) -> bool {
        let fits = self.bytes + frame.len() <= MAX_QUEUE;
        if fits {
            self.bytes += frame.len();
            self.frames.push_back((frame, reliable));
        }
        fits
    }

    pub(crate) fn pop(&mut self) -> Option<(Vec<u8>, bool)> {
        let (frame, reliable) = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some((frame, reliable))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

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
}

impl Pulse {
    const fn new(now: Instant) -> Self {
        Self { heard: now, next_heartbeat: now, next_probe: now, up: true, silent: false }
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// Takes the observer's own stall out of the neighbour's silence.
    pub(crate) fn forgive(&mut self, stall: Duration) {
        self.heard += stall;
    }

    /// Something came. Answers whether the link came up again with it.
    pub(crate) fn heard(&mut self, now: Instant) -> bool {
        self.heard = self.heard.max(now);
        self.silent = false;
        !std::mem::replace(&mut self.up, true)
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

/// How many origins the neighbour may still introduce.
#[derive(Debug)]
pub(crate) struct Newcomers {
    allowance: u32,
    counted: Instant,
}

impl Newcomers {
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.counted).as_secs();
        if seconds > 0 {
            self.counted += Duration::from_secs(seconds);
            let grown = seconds.saturating_mul(NEW_MEMBERS_PER_SECOND.into()).saturating_add(self.allowance.into());
            self.allowance = u32::try_from(grown).unwrap_or(u32::MAX).min(NEW_MEMBERS_BURST);
        }
        let admitted = self.allowance > 0;
        self.allowance = self.allowance.saturating_sub(1);
        admitted
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
        let mut pulse = Pulse::new(start);
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
    fn our_own_stall_is_not_the_neighbours_silence() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
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

    #[test]
    fn newcomers_are_admitted_in_a_burst_and_then_at_a_steady_rate() {
        let start = Instant::now();
        let mut newcomers = Newcomers { allowance: NEW_MEMBERS_BURST, counted: start };
        let mut admitted = |now| std::iter::repeat_with(|| newcomers.admit(now)).take_while(|&yes| yes).count();
        assert_eq!(admitted(start), NEW_MEMBERS_BURST as usize);
        assert_eq!(admitted(start + 1500 * MS), NEW_MEMBERS_PER_SECOND as usize);
        assert_eq!(admitted(start + 2000 * MS), NEW_MEMBERS_PER_SECOND as usize);
    }

    #[test]
    fn a_full_queue_refuses_and_recovers() {
        let mut queue = Queue::default();
        assert!(queue.push(vec![0; MAX_QUEUE], true));
        assert!(!queue.push(vec![0; 1], true));
        assert!(queue.pop().is_some() && queue.push(vec![0; 1], true));
    }
}
