//! What happened on this node, told to those who ask and watch.
//!
//! What the actor learns one by one (members, links, dials, what the operator does) is recorded where it learns of it.
//! Everything else is compared with what was last told, here and nowhere else: leases and the ring whenever the allocator
//! shows another view, paths, readiness, health and the kernel thread's news every [`LOOK_INTERVAL`]. What comes and goes
//! between two looks is not told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use meshwork_api::event::{Event, Happening, LeaseRef, PodChange};
use meshwork_api::model::{IpamState, Lease, Path, PathKind};
use meshwork_wire::PeerId;
use meshwork_wire::record::Peers;

use super::Node;
use crate::events::parts::{Ownership, gained};
use crate::events::{Feed, Watcher};
use crate::kernel::driver::KernelNews;

/// Events that are kept: days of a quiet node, and a mesh of hundreds that falls apart.
const MOST_EVENTS: usize = 2048;

/// Changes of leases that a watcher may be behind: more than a node has pods.
const MOST_POD_CHANGES: usize = 1024;

/// How often paths and health are compared: a path moves within 2 s, and a comparison reads every member's record.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes of subject and reason: enough for any sentence of ours, and others' texts are cut.
const LONGEST_TEXT: usize = 1024;

/// Reasons that one event lists; `status` has them all.
const MOST_REASONS: usize = 8;

/// Parts of the ring that one event names.
const MOST_PARTS: usize = 32;

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

    /// When to compare again.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.look_at
    }

    pub(super) fn record(&self, happening: Happening, subject: &str, reason: &str) {
        self.events.push(|sequence| self.clock.event(sequence, happening, subject, reason));
    }
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
        let nickname = self.gossip.get::<Peers>(peer, &()).map(|record| record.nickname);
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

    /// Tells what became different since the last call.
    pub(super) fn chronicle(&mut self, now: Instant) {
        if std::mem::take(&mut self.chronicle.addresses_changed) {
            self.tell_leases();
            self.tell_parts();
            self.tell_ring();
        }
        if now >= self.chronicle.look_at {
            self.chronicle.look_at = now + LOOK_INTERVAL;
            self.tell_kernel_news();
            self.tell_paths();
            self.tell_health();
        }
    }

    fn leases_by_name(&self) -> BTreeMap<(String, String), Lease> {
        self.leases().into_iter().map(|lease| ((lease.sandbox.clone(), lease.interface.clone()), lease)).collect()
    }

    fn tell_leases(&mut self) {
        let new = self.leases_by_name();
        let old = std::mem::replace(&mut self.chronicle.leases, new);
        let told = &self.chronicle;
        for (name, lease) in &old {
            if !told.leases.contains_key(name) {
                told.lease_gone(lease);
            }
        }
        for (name, lease) in &told.leases {
            if old.get(name) != Some(lease) {
                told.lease_changed(old.get(name), lease);
            }
        }
    }

    fn tell_parts(&mut self) {
        let (me, view) = (self.parts.identity.peer_id(), self.parts.allocator.view());
        let old = std::mem::replace(&mut self.chronicle.ownership, view.ownership.clone());
        let new = &self.chronicle.ownership;
        for (from, parts) in gained(me, new, &old) {
            let reason = match from {
                Some(from) => format!("given by {}", self.name_of(from)),
                None => "nobody's before: the ring is new, or this node's entries of it are".to_owned(),
            };
            let (subject, parts) = named(&parts);
            self.chronicle.record(Happening::PartsGained { parts, from }, &subject, &reason);
        }
        for to in new.keys().filter(|peer| **peer != me) {
            let Some(parts) = gained(*to, new, &old).remove(&Some(me)) else { continue };
            let (subject, parts) = named(&parts);
            let reason = format!("given to {}, which asked for space", self.name_of(*to));
            self.chronicle.record(Happening::PartsGiven { parts, to: Some(*to) }, &subject, &reason);
        }
    }

    fn tell_ring(&mut self) {
        let summary = self.ipam_summary();
        if self.chronicle.ring.replace(summary.state) == Some(summary.state) {
            return;
        }
        let happening = match summary.state {
            IpamState::Ready => Happening::RingReady,
            IpamState::Waiting => Happening::RingWaiting,
            IpamState::Seeding => Happening::RingSeeding,
            IpamState::Conflict => Happening::RingConflict,
        };
        self.chronicle.record(happening, "addresses", &summary.reason);
    }

    fn tell_kernel_news(&self) {
        for news in self.parts.kernel.take_news() {
            match news {
                KernelNews::Repaired(objects) => {
                    let subject = objects.join(", ");
                    let reason = "changed by others, and put back";
                    self.chronicle.record(Happening::KernelRepaired { objects }, &subject, reason);
                }
                KernelNews::Refused(error) => self.chronicle.record(Happening::KernelRefused, "kernel", &error),
            }
        }
    }

    fn tell_paths(&mut self) {
        let new = self.paths().paths.into_iter().map(|path| (path.peer, path)).collect();
        let old = std::mem::replace(&mut self.chronicle.paths, new);
        for (peer, path) in &self.chronicle.paths {
            let before = old.get(peer).filter(|before| before.up);
            let way = |path: &Path| (path.kind, path.endpoint);
            let (kind, endpoint) = way(path);
            let happening = match (before, path.up) {
                (Some(before), true) if way(before) == way(path) => continue,
                (_, true) => Happening::PathUp { peer: *peer, path: kind, endpoint },
                (Some(before), false) => {
                    Happening::PathDown { peer: *peer, path: before.kind, endpoint: before.endpoint }
                }
                (None, false) => continue,
            };
            self.record_of(*peer, happening, &path_reason(path));
        }
    }

    fn tell_health(&mut self) {
        let (kernel, ipam) = (self.parts.kernel.health(), self.ipam_summary());
        let (ready, reasons) = (self.is_ready(&kernel, &ipam), self.reasons(&kernel, &ipam));
        let nickname = &self.parts.config.nickname;
        if self.chronicle.ready.replace(ready) != Some(ready) {
            let (happening, reason) = match ready {
                true => (Happening::Ready, "kernel objects are in place and addresses are handed out".to_owned()),
                false => (Happening::NotReady, reasons.join("; ")),
            };
            self.chronicle.record(happening, nickname, &reason);
        }
        let wrong: Vec<String> = reasons.iter().map(|reason| without_numbers(reason)).collect();
        if self.chronicle.wrong.as_ref() != Some(&wrong) {
            self.chronicle.wrong = Some(wrong);
            let reason = reasons.join("; ");
            match reasons.is_empty() {
                true => self.chronicle.record(Happening::Healthy, nickname, "nothing is known to be wrong"),
                false => {
                    let reasons = reasons.iter().take(MOST_REASONS).map(|reason| shortened(reason)).collect();
                    self.chronicle.record(Happening::Unhealthy { reasons }, nickname, &reason);
                }
            }
        }
    }
}

impl Chronicle {
    fn lease_changed(&self, old: Option<&Lease>, lease: &Lease) {
        let change = match old {
            None => PodChange::Added { lease: lease.clone() },
            Some(_) => PodChange::Changed { lease: lease.clone() },
        };
        self.pods.push(|_| change);
        if old.is_none_or(|old| old.addresses != lease.addresses) {
            let reason = format!("{}; asked for by its runtime or `meshctl attach`", addresses(lease));
            self.record(Happening::LeaseGranted(lease_ref(lease)), &pod_name(lease), &reason);
        }
        let was_routed = old.is_some_and(|old| old.routed);
        if lease.routed && !was_routed {
            let reason = format!("{} is linked by {}", addresses(lease), lease.host_interface);
            self.record(Happening::PodRouted(lease_ref(lease)), &pod_name(lease), &reason);
        }
        if was_routed && !lease.routed {
            self.pod_removed(lease);
        }
    }

    fn lease_gone(&self, lease: &Lease) {
        if lease.routed {
            self.pod_removed(lease);
        }
        let reason = format!("{}; given back by its runtime or `meshctl detach`", addresses(lease));
        self.record(Happening::LeaseReleased(lease_ref(lease)), &pod_name(lease), &reason);
        self.pods.push(|_| PodChange::Removed { lease: lease.clone() });
    }

    fn pod_removed(&self, lease: &Lease) {
        let reason = format!("its link {} is taken away", lease.host_interface);
        self.record(Happening::PodRemoved(lease_ref(lease)), &pod_name(lease), &reason);
    }
}

fn lease_ref(lease: &Lease) -> LeaseRef {
    let (sandbox, interface) = (lease.sandbox.clone(), lease.interface.clone());
    LeaseRef { sandbox, interface, addresses: lease.addresses.clone() }
}

/// `shop/web-0`, or the sandbox where the pod has no name.
fn pod_name(lease: &Lease) -> String {
    match (lease.pod.namespace.as_str(), lease.pod.name.as_str()) {
        (_, "") => format!("{} {}", lease.sandbox, lease.interface),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

fn addresses(lease: &Lease) -> String {
    lease.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The first parts, as text and as they are.
fn named(parts: &[ipnet::Ipv4Net]) -> (String, Vec<IpNet>) {
    let first: Vec<IpNet> = parts.iter().take(MOST_PARTS).map(|part| IpNet::V4(*part)).collect();
    let mut text = first.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if parts.len() > first.len() {
        text.push_str(&format!(" and {} more", parts.len() - first.len()));
    }
    (text, first)
}

/// `vxlan by 198.18.0.14:6784: both sides allow clear …`
fn path_reason(path: &Path) -> String {
    let kind = match path.kind {
        PathKind::Vxlan => "vxlan",
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
    };
    match path.endpoint {
        Some(endpoint) => format!("{kind} by {endpoint}: {}", path.reason),
        None => format!("{kind}: {}", path.reason),
    }
}

fn without_numbers(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_ascii_digit()).collect()
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

    #[test]
    fn a_reason_that_only_counts_on_is_the_same_one() {
        let reason = |seconds| without_numbers(&format!("no other node can be reached, h2 for {seconds} s"));
        assert_eq!(reason(9), reason(120));
        assert_ne!(reason(9), without_numbers("no ring"));
    }

    #[test]
    fn many_parts_are_counted() {
        let parts: Vec<ipnet::Ipv4Net> =
            (0..40).map(|third| format!("10.32.{third}.0/24").parse().expect("a prefix")).collect();
        let (text, first) = named(&parts);
        assert_eq!(first.len(), MOST_PARTS);
        assert!(text.starts_with("10.32.0.0/24 10.32.1.0/24") && text.ends_with("and 8 more"));
    }
}
