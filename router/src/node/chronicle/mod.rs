//! What happened on this node, told to those who ask and watch.
//!
//! What the actor learns one by one (members, links, dials, what the operator does) is recorded where it learns of it.
//! Everything else is compared with what was last told, in [`differences`] and nowhere else: leases and the ring whenever the allocator
//! shows another view, paths, readiness, health and the kernel thread's news every [`LOOK_INTERVAL`]. What comes and goes
//! between two looks is not told.

mod differences;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use meshwork_api::event::{Event, Happening, PodChange};
use meshwork_api::model::{IpamState, Lease, Path};
use meshwork_wire::PeerId;
use meshwork_wire::record::PodKey;

use super::Node;
use crate::events::parts::Ownership;
use crate::events::{Feed, Watcher};

/// Events that are kept: days of a quiet node, and a mesh of hundreds that falls apart.
const MOST_EVENTS: usize = 2048;

/// Changes of leases that a watcher may be behind: more than a node has pods.
const MOST_POD_CHANGES: usize = 1024;

/// How often paths and health are compared: a path moves within 2 s, and a comparison reads every member's record.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes of subject and reason: enough for any sentence of ours, and others' texts are cut.
const LONGEST_TEXT: usize = 1024;

/// Gives events their time.
#[derive(Debug, Clone, Copy)]
pub struct EventClock {
    started: Instant,
}

impl EventClock {
    /// An event of this moment.
    #[must_use]
    pub fn event(self, sequence: u64, happening: Happening, subject: &str, reason: &str) -> Event {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Event {
            sequence,
            uptime_s: self.started.elapsed().as_secs_f64(),
            unix_s: unix.as_secs_f64(),
            happening,
            subject: shortened(subject),
            reason: shortened(reason),
        }
    }
}

pub(super) fn shortened(text: &str) -> String {
    text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default().to_owned()
}

/// What was told, and what was last seen of that which is compared.
pub(super) struct Chronicle {
    clock: EventClock,
    events: Feed<Event>,
    pods: Feed<PodChange>,
    addresses_changed: bool,
    look_at: Instant,
    leases: BTreeMap<(String, String), Lease>,
    /// Why leases are about to go that nobody gives back.
    going: BTreeMap<(String, String), String>,
    ownership: Ownership,
    ring: Option<IpamState>,
    paths: BTreeMap<PeerId, Path>,
    ready: Option<bool>,
    /// What was wrong, without numbers: they count on while nothing else happens.
    wrong: Option<Vec<String>>,
}

impl Chronicle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            clock: EventClock { started: now },
            events: Feed::new(MOST_EVENTS),
            pods: Feed::new(MOST_POD_CHANGES),
            addresses_changed: true,
            look_at: now,
            leases: BTreeMap::new(),
            going: BTreeMap::new(),
            ownership: Ownership::new(),
            ring: None,
            paths: BTreeMap::new(),
            ready: None,
            wrong: None,
        }
    }

    /// Leases, links of pods or the ring may have changed.
    pub(super) fn addresses_changed(&mut self) {
        self.addresses_changed = true;
    }

    /// Remembers why a lease is about to go.
    pub(super) fn going(&mut self, lease: &PodKey, reason: String) {
        self.going.insert(key(lease), reason);
    }

    /// The lease has gone, or stays after all.
    pub(super) fn gone(&mut self, lease: &PodKey) {
        self.going.remove(&key(lease));
    }

    /// When to compare again.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.look_at
    }

    pub(super) fn record(&self, happening: Happening, subject: &str, reason: &str) {
        self.events.push(|sequence| self.clock.event(sequence, happening, subject, reason));
    }
}

fn key(lease: &PodKey) -> (String, String) {
    (lease.sandbox.clone(), lease.interface.clone())
}

impl Node {
    /// Events that are kept, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.chronicle.events.kept()
    }

    /// Reads events, those that are kept first; the clock is for what the reader has to be told itself.
    #[must_use]
    pub fn watch_events(&self) -> (EventClock, Watcher<Event>) {
        (self.chronicle.clock, self.chronicle.events.watch_kept())
    }

    /// Every lease there is, and the changes from this moment on.
    pub fn watch_pods(&mut self) -> (Vec<Lease>, Watcher<PodChange>) {
        self.tell_leases();
        (self.chronicle.leases.values().cloned().collect(), self.chronicle.pods.watch_new())
    }

    /// Records what happened to a member.
    pub(super) fn record_of(&self, peer: PeerId, happening: Happening, reason: &str) {
        self.chronicle.record(happening, &self.name_of(peer), reason);
    }

    /// A member as `meshctl peers` names it; its nickname comes a moment after its first link.
    pub(super) fn name_of(&self, peer: PeerId) -> String {
        let nickname = self.records.get(&peer).map(|record| &record.nickname);
        match nickname.filter(|nickname| !nickname.is_empty()) {
            Some(nickname) => format!("{}({nickname})", peer.short()),
            None => peer.short(),
        }
    }

    /// What the disk held is no news.
    pub(super) fn begin_chronicle(&mut self) {
        self.chronicle.leases = self.leases_by_name();
        self.chronicle.ownership = self.parts.allocator.view().ownership.clone();
        let incarnation = self.parts.run.incarnation.0;
        let started = Happening::Started { incarnation, version: env!("CARGO_PKG_VERSION").to_owned() };
        let reason = format!("run {incarnation} of this node, version {}", env!("CARGO_PKG_VERSION"));
        self.chronicle.record(started, &self.parts.config.nickname, &reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_others_are_cut_between_letters() {
        let text = "ä".repeat(LONGEST_TEXT);
        let cut = shortened(&format!("x{text}"));
        assert!(cut.len() < LONGEST_TEXT && text.starts_with(&cut[1..]));
        assert_eq!(shortened("h2"), "h2");
    }
}
