//! A disk that is older than what this node did: restored from a copy, or from a snapshot of the whole machine.
//!
//! From the moment it is known nothing is leased or given, because parts may have been given away and addresses may be
//! held that this disk knows nothing of. What the lost runs published is taken up as held: it is later than the disk
//! wherever they differ. Parts that others received meanwhile they publish themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use meshwork_wire::record::{PodKey, PodRecord, RingPart};
use meshwork_wire::{Incarnation, Version};
use tracing::warn;

use crate::RingId;
use crate::decide::{Decision, Effect, Ipam, PATIENCE, number_of};
use crate::durable::{Change, HeldPart, Holding, order_of};
use crate::lease::Lease;

impl Ipam {
    /// Takes up what lost runs of this node published.
    pub(crate) fn catch_up(
        &self,
        parts: Vec<(Ipv4Net, RingPart)>,
        pods: Vec<(PodKey, PodRecord)>,
        decision: &mut Decision,
    ) {
        let held = self.durable.parts.values().next().map(|held| held.part.ring);
        let ring = held.or_else(|| parts.first().map(|(_, part)| part.ring));
        for (prefix, part) in parts {
            self.catch_up_part(ring, prefix, part, decision);
        }
        let mut taken = BTreeSet::new();
        for (name, pod) in pods {
            let fits = pod.addresses.iter().all(|address| self.fits(*address) && !taken.contains(address));
            if fits {
                taken.extend(pod.addresses.iter().copied());
                self.catch_up_pod(name, pod, decision);
            }
        }
    }

    /// Goes on as a run that began would: all is told anew, and others may tell first what the copy gave them.
    pub(crate) fn go_on_above(&mut self, incarnation: Incarnation, decision: &mut Decision) {
        self.config.incarnation = incarnation;
        self.outranked = false;
        self.unproven_until = Some(self.now + PATIENCE);
        self.unsettled = true;
        self.publish_everything(decision);
    }

    fn catch_up_part(&self, ring: Option<RingId>, prefix: Ipv4Net, part: RingPart, decision: &mut Decision) {
        let range = self.config.range4;
        let fits = prefix == prefix.trunc() && range.contains(&prefix) && prefix.prefix_len() <= self.longest_part();
        let order = order_of(&part);
        if !fits || Some(part.ring) != ring || self.mine.reaches(prefix, order) {
            return;
        }
        // Which request a gift answered is not published; its receiver sees the entry all the same.
        let given = Holding::Given { request: Version::default(), acknowledged: false };
        let holding = if part.owner == self.me { Holding::Owned } else { given };
        self.drop_outranked(prefix, order, decision);
        decision.changes.push(Change::PutPart { prefix, held: HeldPart { part, holding } });
    }

    fn catch_up_pod(&self, name: PodKey, pod: PodRecord, decision: &mut Decision) {
        let known = self.durable.leases.get(&name);
        if known.is_some_and(|lease| lease.pod.addresses == pod.addresses) {
            return;
        }
        let others = pod.addresses.iter().filter_map(|address| self.holders.get(address));
        let others: BTreeSet<&PodKey> = others.filter(|other| **other != name).collect();
        if others.iter().any(|other| self.durable.leases.get(other).is_some_and(Lease::is_node)) {
            return;
        }
        for other in others {
            warn!(sandbox = other.sandbox, "its address is another pod's since: restart it");
            decision.changes.push(Change::DropLease(other.clone()));
            decision.effects.push(Effect::WithdrawPod(other.clone()));
        }
        for address in &pod.addresses {
            let pool = if address.is_ipv4() { &self.pool4 } else { &self.pool6 };
            decision.changes.extend(pool.place(number_of(*address)).map(|sequence| Change::DropFreed { sequence }));
        }
        // Where it came from was on the disk that was lost.
        let (netns, origin) = known.map(|lease| (lease.netns.clone(), lease.origin.clone())).unwrap_or_default();
        decision.changes.push(Change::PutLease(Lease { name, netns, pod, origin }));
    }

    /// Whether this node may have leased an address.
    fn fits(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => !self.is_reserved(address),
            IpAddr::V6(address) => self.prefix6.contains(&address),
        }
    }
}
