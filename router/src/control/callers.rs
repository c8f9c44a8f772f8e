//! Who called and was refused lately, for people; no IO.
//!
//! One entry for each address, the last [`MOST`] of them, each for [`MEMORY`]: whoever goes on calling stays, and
//! strangers push out no more than each other.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Callers kept: more than the hosts that are given a wrong secret at a time.
const MOST: usize = 16;

/// How long a caller is kept after its last call: twice the longest pause between two attempts of a dialler.
const MEMORY: Duration = Duration::from_secs(60);

/// Somebody who called in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCaller {
    /// Where its last call came from.
    pub address: SocketAddr,
    /// Why the last one was refused.
    pub reason: String,
    /// When the first one was.
    pub since: Instant,
    last: Instant,
}

/// Callers refused lately, the latest last.
#[derive(Debug, Default)]
pub(super) struct RefusedCallers(VecDeque<RefusedCaller>);

impl RefusedCallers {
    pub(super) fn refused(&mut self, now: Instant, address: SocketAddr, reason: String) {
        self.expire(now);
        let since = self.take(address.ip()).map_or(now, |known| known.since);
        self.0.push_back(RefusedCaller { address, reason, since, last: now });
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }

    /// Somebody at this address was admitted: what was refused there before is settled.
    pub(super) fn admitted(&mut self, address: SocketAddr) {
        self.take(address.ip());
    }

    pub(super) fn lately(&mut self, now: Instant) -> Vec<RefusedCaller> {
        self.expire(now);
        self.0.iter().cloned().collect()
    }

    fn take(&mut self, address: IpAddr) -> Option<RefusedCaller> {
        let place = self.0.iter().position(|caller| caller.address.ip() == address)?;
        self.0.remove(place)
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|caller| now.saturating_duration_since(caller.last) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 6783))
    }

    #[test]
    fn a_caller_is_kept_once_with_its_first_moment_and_its_last_reason() {
        let (start, mut callers) = (Instant::now(), RefusedCallers::default());
        callers.refused(start, address(1), "malformed".into());
        callers.refused(start + MEMORY / 2, SocketAddr::from(([192, 0, 2, 1], 99)), "secret".into());
        let known = callers.lately(start + MEMORY);
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].reason.as_str(), known[0].since, known[0].address.port()), ("secret", start, 99));
        assert!(callers.lately(start + MEMORY / 2 + MEMORY).is_empty());
    }

    #[test]
    fn a_crowd_of_callers_is_bounded_and_an_admitted_one_is_settled() {
        let (now, mut callers) = (Instant::now(), RefusedCallers::default());
        (0..100).for_each(|host| callers.refused(now, address(host), String::new()));
        assert_eq!(callers.lately(now).len(), MOST);
        callers.admitted(address(99));
        assert_eq!(callers.lately(now).last().map(|caller| caller.address), Some(address(98)));
    }
}
