//! Peers that the operator wants sealed whatever both sides allow: each stays in clear until a session with it stands, so
//! that no packet waits for a handshake, and at most [`PATIENCE`] long, so that it does not stay in clear for want of one.
//!
//! Nothing here reads a clock or does IO: [`Sealing::handle_timeout`] at [`Sealing::poll_timeout`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meshwork_wire::PeerId;

/// A handshake takes one round trip; this leaves room for two lost ones to be repeated.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks for the session: shorter than anybody notices, and there are few looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The peers, and how far each is.
#[derive(Debug, Default)]
pub struct Sealing {
    peers: BTreeMap<PeerId, Stage>,
    look_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting { since: Instant },
    Sealed,
}

impl Sealing {
    /// Seals packets to `peer` as soon as may be.
    pub fn seal(&mut self, peer: PeerId, now: Instant) {
        self.peers.entry(peer).or_insert(Stage::Waiting { since: now });
        self.look_at = Some(now);
    }

    /// Both sides' terms decide again.
    pub fn release(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Whether packets to `peer` are sealed, whatever its clear path.
    #[must_use]
    pub fn is_sealed(&self, peer: PeerId) -> bool {
        self.peers.get(&peer) == Some(&Stage::Sealed)
    }

    /// When to look whether a session stands.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Seals those with which a session stands, and those that waited long enough. Whether any is.
    pub fn handle_timeout(&mut self, now: Instant, has_session: impl Fn(PeerId) -> bool) -> bool {
        if self.look_at.is_none_or(|at| at > now) {
            return false;
        }
        let (mut sealed, mut waiting) = (false, false);
        for (peer, stage) in &mut self.peers {
            let Stage::Waiting { since } = *stage else { continue };
            if now.saturating_duration_since(since) >= PATIENCE || has_session(*peer) {
                *stage = Stage::Sealed;
                sealed = true;
            } else {
                waiting = true;
            }
        }
        self.look_at = waiting.then(|| now + LOOK_INTERVAL);
        sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId([1; 16]);

    #[test]
    fn a_peer_stays_in_clear_until_its_session_stands() {
        let (mut sealing, now) = (Sealing::default(), Instant::now());
        sealing.seal(PEER, now);
        assert_eq!(sealing.poll_timeout(), Some(now));
        assert!(!sealing.handle_timeout(now, |_| false));
        let next = sealing.poll_timeout().expect("it looks again");
        assert!(!sealing.is_sealed(PEER) && next > now);
        assert!(sealing.handle_timeout(next, |peer| peer == PEER));
        assert!(sealing.is_sealed(PEER));
        assert_eq!(sealing.poll_timeout(), None, "nothing is left to look for");
        sealing.seal(PEER, next);
        assert!(sealing.is_sealed(PEER), "asked twice, it does not go back");
        sealing.release(PEER);
        assert!(!sealing.is_sealed(PEER));
    }

    #[test]
    fn nobody_stays_in_clear_for_want_of_a_session() {
        let (mut sealing, mut now) = (Sealing::default(), Instant::now());
        let asked = now;
        sealing.seal(PEER, now);
        while !sealing.handle_timeout(now, |_| false) {
            now = sealing.poll_timeout().expect("it looks again");
        }
        assert_eq!(now - asked, PATIENCE);
        println!("figure: without a session sealed in {} s (bar 3 s)", (now - asked).as_secs_f64());
    }
}
