//! What became different since it was last told: leases, parts of the ring, paths, readiness, health, and what the kernel
//! thread did. Each comparison takes the new state as the one that is told, so that nothing is told twice.

use std::collections::BTreeMap;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use meshwork_api::event::{Happening, LeaseRef, PodChange};
use meshwork_api::model::{IpamState, Lease, Path, PathKind};

use super::{Chronicle, LOOK_INTERVAL, shortened};
use crate::events::parts::gained;
use crate::kernel::driver::KernelNews;
use crate::node::Node;

/// How long a look rests at least, as a multiple of what it took: in a mesh of thousands it would cost more than all else.
const LOOK_REST: u32 = 9_999;

/// Reasons that one event lists; `status` has them all.
const MOST_REASONS: usize = 8;

/// Parts of the ring that one event names.
const MOST_PARTS: usize = 32;

/// Why a lease goes that the node itself has no reason to free.
const GIVEN_BACK: &str = "given back by its runtime or `meshctl detach`";

impl Node {
    /// Tells what became different since the last call.
    pub(in crate::node) fn chronicle(&mut self, now: Instant) {
        if std::mem::take(&mut self.chronicle.addresses_changed) {
            self.tell_leases();
            self.tell_parts();
            self.tell_ring();
        }
        if now >= self.chronicle.look_at {
            let begun = Instant::now();
            self.tell_kernel_news();
            self.tell_paths();
            self.tell_health();
            self.chronicle.look_at = now + LOOK_INTERVAL.max(begun.elapsed() * LOOK_REST);
        }
    }

    pub(super) fn leases_by_name(&self) -> BTreeMap<(String, String), Lease> {
        self.leases().into_iter().map(|lease| ((lease.sandbox.clone(), lease.interface.clone()), lease)).collect()
    }

    pub(in crate::node) fn tell_leases(&mut self) {
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
        let why = self.going.get(&(lease.sandbox.clone(), lease.interface.clone())).map_or(GIVEN_BACK, String::as_str);
        let reason = format!("{}; {why}", addresses(lease));
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
fn named(parts: &[Ipv4Net]) -> (String, Vec<IpNet>) {
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
    fn a_reason_that_only_counts_on_is_the_same_one() {
        let reason = |seconds| without_numbers(&format!("no other node can be reached, h2 for {seconds} s"));
        assert_eq!(reason(9), reason(120));
        assert_ne!(reason(9), without_numbers("no ring"));
    }

    #[test]
    fn many_parts_are_counted() {
        let parts: Vec<Ipv4Net> =
            (0..40).map(|third| format!("10.32.{third}.0/24").parse().expect("a prefix")).collect();
        let (text, first) = named(&parts);
        assert_eq!(first.len(), MOST_PARTS);
        assert!(text.starts_with("10.32.0.0/24 10.32.1.0/24") && text.ends_with("and 8 more"));
    }
}
