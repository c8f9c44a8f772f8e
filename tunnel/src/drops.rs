//! Counts of what was dropped, by reason.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drops {
    ($($(#[doc = $text:literal])* $name:ident = $label:literal),* $(,)?) => {
        /// Why something was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Drop { $($(#[doc = $text])* $name),* }

        const NAMES: &[&str] = &[$($label),*];
    };
}

drops! {
    /// Says it was made with a secret that is not accepted here.
    BadSecret = "bad_secret",
    /// Authentication failed.
    Forged = "forged",
    /// Seen before, or too old to tell.
    Replay = "replay",
    /// Not what its type says.
    Malformed = "malformed",
    /// A session that is not ours, or no longer.
    UnknownSession = "unknown_session",
    /// A handshake from somebody who is not a configured peer.
    UnknownPeer = "unknown_peer",
    /// A handshake that is older than one already answered, or meant for a former run of ours.
    Stale = "stale",
    /// The inner source is not the peer's.
    WrongSource = "wrong_source",
    /// The inner destination is not this node's.
    WrongDestination = "wrong_destination",
    /// No peer owns the inner destination.
    NoRoute = "no_route",
    /// Too much waits already.
    QueueFull = "queue_full",
    /// The kernel did not take it.
    SendFailed = "send_failed",
}

#[cfg(test)]
impl Drop {
    /// The reason's name in metrics.
    pub(crate) fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or_default()
    }
}

/// One counter for each reason.
#[derive(Debug, Default)]
pub(crate) struct Drops([AtomicU64; NAMES.len()]);

impl Drops {
    pub(crate) fn add(&self, reason: Drop, count: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(count, Relaxed);
        }
    }

    pub(crate) fn by_name(&self) -> BTreeMap<&'static str, u64> {
        NAMES.iter().copied().zip(self.0.iter().map(|counter| counter.load(Relaxed))).collect()
    }
}
