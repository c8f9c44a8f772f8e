//! How fast one peer may give this node work.
//!
//! A few hundred bytes of gossip can ask for a signature to be checked, and the actor serves all links. So each peer has
//! an allowance of bytes that refills slowly: whoever sends more waits at its own end, because what is not read fills the
//! window that QUIC gives its sender. It outlives a link, so that nobody gains by a new one. Datagrams, which carry
//! heartbeats, have a small one of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

/// What may come at once: a node that joins thousands is told of all of them over a few links.
const BURST: f64 = 4.0 * 1024.0 * 1024.0;

/// What may come every second for long: a hundred times what a large mesh sends over a link when much changes, and less
/// than a tenth of a core even if every part of it is forged.
const BYTES_PER_SECOND: f64 = 256.0 * 1024.0;

/// What may come at once as datagrams: some hundred heartbeats.
const DATAGRAM_BURST: f64 = 32.0 * 1024.0;

/// What may come every second as datagrams: a heartbeat or a few probes are a hundred bytes each.
const DATAGRAM_BYTES_PER_SECOND: f64 = 8.0 * 1024.0;

/// What a frame costs besides its bytes.
const FRAME: usize = 64;

/// Peers whose allowance is remembered: more than have links at a time, so that the links of others do not drive out
/// the memory of one that comes back at once.
const MOST_REMEMBERED: usize = 256;

/// An allowance.
#[derive(Debug)]
pub(super) struct Pace {
    burst: f64,
    rate: f64,
    left: f64,
    counted: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { burst: BURST, rate: BYTES_PER_SECOND, left: BURST, counted: now }
    }

    pub(super) const fn of_datagrams(now: Instant) -> Self {
        Self { burst: DATAGRAM_BURST, rate: DATAGRAM_BYTES_PER_SECOND, left: DATAGRAM_BURST, counted: now }
    }

    /// A frame of so many bytes came. Answers for how long nothing more is read.
    pub(super) fn charge(&mut self, now: Instant, bytes: usize) -> Duration {
        self.left = self.left_at(now) - (bytes + FRAME) as f64;
        self.counted = self.counted.max(now);
        Duration::from_secs_f64((-self.left).max(0.0) / self.rate)
    }

    fn left_at(&self, now: Instant) -> f64 {
        let grown = now.saturating_duration_since(self.counted).as_secs_f64() * self.rate;
        (self.left + grown).min(self.burst)
    }
}

/// The allowances of peers that have links or had them lately.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<PeerId, Arc<Mutex<Pace>>>);

impl Paces {
    /// The allowance of a peer, over whichever link it comes.
    pub(super) fn of(&mut self, peer: PeerId, now: Instant) -> Arc<Mutex<Pace>> {
        if !self.0.contains_key(&peer) && self.0.len() >= MOST_REMEMBERED {
            self.forget_one(now);
        }
        Arc::clone(self.0.entry(peer).or_insert_with(|| Arc::new(Mutex::new(Pace::new(now)))))
    }

    /// Forgets who has no link and loses least by it.
    fn forget_one(&mut self, now: Instant) {
        let left = |pace: &Mutex<Pace>| pace.lock().unwrap_or_else(PoisonError::into_inner).left_at(now);
        let unlinked = self.0.iter().filter(|(_, pace)| Arc::strong_count(pace) == 1);
        let fullest = unlinked.max_by(|one, other| left(one.1).total_cmp(&left(other.1))).map(|(peer, _)| *peer);
        if let Some(peer) = fullest {
            self.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_a_flood_at_its_rate() {
        let start = Instant::now();
        let (mut now, mut pace, mut taken) = (start, Pace::new(start), 0usize);
        let mut at_once = 0;
        while now < start + Duration::from_secs(60) {
            let wait = pace.charge(now, 1000);
            at_once += usize::from(wait.is_zero() && now == start);
            taken += 1064;
            now += wait;
        }
        assert!((3900..4000).contains(&at_once), "{at_once}");
        let most = (BURST + 60.0 * BYTES_PER_SECOND) as usize + 2000;
        assert!((most - 4000..=most).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_not_used_is_there_again_but_no_more_than_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(!pace.charge(start, BURST as usize).is_zero());
        let later = start + Duration::from_secs(3600);
        assert!(pace.charge(later, BURST as usize - FRAME).is_zero());
        assert!(!pace.charge(later, 1).is_zero());
    }

    #[test]
    fn a_new_link_brings_no_new_allowance_and_few_peers_are_remembered() {
        let (start, mut paces) = (Instant::now(), Paces::default());
        let peer = |number: usize| PeerId((number as u128).to_be_bytes());
        let spend = |pace: Arc<Mutex<Pace>>, bytes| pace.lock().expect("whole").charge(start, bytes);
        assert!(spend(paces.of(peer(0), start), BURST as usize - FRAME).is_zero());
        assert!(!spend(paces.of(peer(0), start), 1).is_zero(), "the same allowance");
        for number in 1..10 * MOST_REMEMBERED {
            assert!(spend(paces.of(peer(number), start), 1000).is_zero(), "somebody else's allowance");
        }
        assert_eq!(paces.0.len(), MOST_REMEMBERED);
        assert!(!spend(paces.of(peer(0), start), 1).is_zero(), "it owes most and is not forgotten");
        let linked: Vec<_> = (0..2 * MOST_REMEMBERED).map(|number| paces.of(peer(number), start)).collect();
        assert_eq!(Arc::strong_count(&linked[0]), 2, "the allowance of a peer with a link stays");
    }

    #[test]
    fn datagrams_have_an_allowance_of_their_own() {
        let start = Instant::now();
        let mut pace = Pace::of_datagrams(start);
        let at = |step: u32| start + step * Duration::from_millis(250);
        assert!((0..600).all(|step| pace.charge(at(step), 40).is_zero()), "heartbeats and probes pass");
        let flood = (0..1000).map(|_| pace.charge(at(600), 1000)).max();
        assert!(flood.is_some_and(|wait| wait > Duration::from_secs(60)), "{flood:?}");
    }
}
