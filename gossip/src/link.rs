//! One link: what waits to be sent, what the neighbour is to be told and what it is asked for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

use crate::frames::Manifest;
use crate::limits::{
    DATAGRAM, EAGER_BYTES_PER_SECOND, HEARTBEAT, MAX_MEMBERS, MAX_QUEUE, NEW_MEMBERS_BURST, NEW_MEMBERS_PER_SECOND,
    WALK_INTERVAL,
};
use crate::pulse::{Pulse, Rtt};

/// What a burst counts at most: a second after its end changes are pushed again, however long it was.
const LOAD_MOST: u64 = 2 * EAGER_BYTES_PER_SECOND;

/// A set of links, by the place that each was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mask(u64);

impl Mask {
    /// A set of one. Links beyond the last place have none: they are told everything and asked for nothing.
    pub(crate) fn of(place: u32) -> Self {
        Self(1u64.checked_shl(place).unwrap_or(0))
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The least place that is not in the set.
    pub(crate) const fn free(self) -> u32 {
        self.0.trailing_ones()
    }
}

/// State of a link from the moment that the driver reports it until the driver takes it away.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its place.
    pub(crate) bit: Mask,
    /// The neighbour said what it holds of this node.
    pub(crate) greeted: bool,
    pub(crate) queue: Queue,
    pub(crate) pulse: Pulse,
    pub(crate) rtt: Rtt,
    pub(crate) newcomers: Newcomers,
    pub(crate) load: Load,
    /// Members, by their number, of whose state the neighbour is to be told.
    pub(crate) tell: Vec<u32>,
    /// Those of them that are going to be announced.
    pub(crate) announce: Vec<u32>,
    /// When states were last announced.
    pub(crate) announced: Option<Instant>,
    /// When they are next, if anything waits.
    pub(crate) announce_at: Option<Instant>,
    /// Origins of which the neighbour has what we lack, and that it was not asked for yet.
    pub(crate) asks: VecDeque<PeerId>,
    /// The same, of unknown origins that nobody else vouches for.
    pub(crate) unvouched: VecDeque<PeerId>,
    /// Origins of which the neighbour said that it has what we lack.
    pub(crate) wants: usize,
    /// Bytes that it was asked for and did not send yet.
    pub(crate) asked: usize,
    /// When it last sent some of them.
    pub(crate) progress: Instant,
    /// What came of a state that takes several frames.
    pub(crate) partial: Option<Partial>,
    pub(crate) walk: WalkState,
}

/// The first parts of a state.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) manifest: Manifest,
    pub(crate) parts: u16,
    pub(crate) next: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Link {
    pub(crate) fn new(now: Instant, bit: Mask, pulse: Pulse) -> Self {
        Self {
            bit,
            greeted: false,
            queue: Queue::default(),
            pulse,
            rtt: Rtt::default(),
            newcomers: Newcomers { allowance: NEW_MEMBERS_BURST, counted: now },
            load: Load { bytes: 0, counted: now },
            tell: Vec::new(),
            announce: Vec::new(),
            announced: None,
            announce_at: None,
            asks: VecDeque::new(),
            unvouched: VecDeque::new(),
            wants: 0,
            asked: 0,
            progress: now,
            partial: None,
            walk: WalkState::default(),
        }
    }

    /// Notes that the neighbour has what we lack of an origin, and will be asked.
    pub(crate) fn want(&mut self, origin: PeerId) -> bool {
        let room = self.wants < MAX_MEMBERS;
        if room {
            self.wants += 1;
            self.asks.push_back(origin);
        }
        room
    }
}

/// Where the comparisons with a neighbour stand.
#[derive(Debug, Default)]
pub(crate) struct WalkState {
    /// The comparison that we began, and the one that the neighbour did.
    pub(crate) rounds: [Round; 2],
    /// One came to its end since the link came up.
    pub(crate) complete: bool,
    /// The driver knows that this link is synced.
    pub(crate) synced: bool,
    began: Option<Instant>,
    /// Heartbeats in a row that disagreed with us: the neighbour may send those alone, so a pause ends the row.
    mismatches: u32,
    disagreed: Option<Instant>,
}

/// Whether anything was said in the round that is under way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Round {
    pub(crate) heard: bool,
    pub(crate) said: bool,
}

impl WalkState {
    pub(crate) fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.mismatches = 0;
        self.rounds = [Round::default(), self.rounds[1]];
    }

    /// Notes whether a heartbeat agreed with us. Answers whether to compare: one disagreement is likely a change still
    /// on its way, two are not. While much arrives, `settled` is false and more are needed.
    pub(crate) fn compare(&mut self, now: Instant, agrees: bool, settled: bool) -> bool {
        let in_a_row = self.disagreed.is_some_and(|last| now.saturating_duration_since(last) < 3 * HEARTBEAT);
        self.disagreed = (!agrees).then_some(now);
        self.mismatches = match (agrees, in_a_row) {
            (true, _) => 0,
            (false, true) => self.mismatches + 1,
            (false, false) => 1,
        };
        self.complete |= agrees;
        let lately = self.began.is_some_and(|began| now.saturating_duration_since(began) < WALK_INTERVAL);
        self.mismatches >= if settled { 2 } else { 5 } && !lately
    }
}

/// Frames that wait for the driver. Those that carry whole states wait until all others are gone.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    urgent: VecDeque<(Vec<u8>, bool)>,
    bulk: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    fn takes(&mut self, length: usize) -> bool {
        let fits = self.bytes + length <= MAX_QUEUE;
        self.bytes += if fits { length } else { 0 };
        fits
    }

    /// Answers whether there was room.
    pub(crate) fn push(&mut self, frame: Vec<u8>, reliable: bool) -> bool {
        let fits = self.takes(frame.len());
        if fits {
            self.urgent.push_back((frame, reliable));
        }
        fits
    }

    pub(crate) fn push_bulk(&mut self, frame: Vec<u8>) -> bool {
        let fits = self.takes(frame.len());
        if fits {
            self.bulk.push_back(frame);
        }
        fits
    }

    pub(crate) fn pop(&mut self) -> Option<(Vec<u8>, bool)> {
        let next = self.urgent.pop_front().or_else(|| Some((self.bulk.pop_front()?, true)))?;
        self.bytes -= next.0.len();
        Some(next)
    }

    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.bulk.len()
    }
}

/// What a link carried lately.
#[derive(Debug)]
pub(crate) struct Load {
    bytes: u64,
    counted: Instant,
}

impl Load {
    pub(crate) const fn add(&mut self, length: usize) {
        let bytes = self.bytes + length as u64 + DATAGRAM;
        self.bytes = if bytes < LOAD_MOST { bytes } else { LOAD_MOST };
    }

    /// Whether changes are pushed on this link; otherwise they are announced.
    pub(crate) fn is_light(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        let gone = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).saturating_mul(EAGER_BYTES_PER_SECOND) / 1000;
        if gone > 0 {
            self.counted = now;
            self.bytes = self.bytes.saturating_sub(gone);
        }
        self.bytes < EAGER_BYTES_PER_SECOND
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

    #[test]
    fn two_disagreements_far_apart_are_two_changes_and_no_difference() {
        let (start, mut walk) = (Instant::now(), WalkState::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!walk.compare(at(0), false, true));
        assert!(!walk.compare(at(3600), false, true), "nothing was heard of the first for an hour");
        assert!(walk.compare(at(3601), false, true));
        assert!(!walk.compare(at(3602), true, true) && !walk.compare(at(3603), false, true));
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
        assert!(queue.push_bulk(vec![0; MAX_QUEUE]));
        assert!(!queue.push(vec![0; 1], true));
        assert!(queue.pop().is_some() && queue.push(vec![0; 1], true));
    }

    #[test]
    fn whole_states_let_everything_else_pass() {
        let mut queue = Queue::default();
        assert!(queue.push_bulk(vec![1]) && queue.push(vec![2], true) && queue.push(vec![3], false));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(frame, _)| frame[0]).collect();
        assert_eq!((order, queue.len()), (vec![2, 3, 1], 0));
    }

    #[test]
    fn a_link_is_light_again_when_what_it_carried_is_a_second_old() {
        let start = Instant::now();
        let mut load = Load { bytes: 0, counted: start };
        assert!(load.is_light(start));
        load.add(EAGER_BYTES_PER_SECOND as usize);
        assert!(!load.is_light(start));
        assert!(load.is_light(start + 100 * MS));
        load.add(40 * EAGER_BYTES_PER_SECOND as usize);
        assert!(!load.is_light(start + 1000 * MS));
        assert!(load.is_light(start + 1200 * MS));
    }

    #[test]
    fn a_place_beyond_the_last_is_none() {
        assert!(Mask::of(64).is_empty() && !Mask::of(63).is_empty());
        assert_eq!(Mask::of(0).with(Mask::of(1)).with(Mask::of(3)).free(), 2);
    }
}
