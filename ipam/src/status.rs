//! What people and the router are told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::Ipv4Net;
use meshwork_wire::PeerId;

use crate::config::Init;
use crate::decide::{Ipam, PATIENCE, number_of};
use crate::durable::{HeldPart, Holding};
use crate::lease::Lease;
use crate::prefix::size;

/// Whether addresses can be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusState {
    /// They can.
    Ready,
    /// There is no ring or no space yet.
    Waiting,
    /// This node makes the ring when it is first used.
    Seeding,
    /// Two rings, two owners of one part, or a member with another range. What is owned without doubt is still handed out.
    Conflict,
}

/// The ring and the leases in one glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether addresses can be handed out.
    pub state: StatusState,
    /// Why it is so, and what to do about it.
    pub reason: String,
    /// IPv4 addresses that this node owns.
    pub owned: u64,
    /// Of those, addresses without a lease.
    pub free: u64,
    /// IPv4 addresses that this node leased.
    pub allocated: u64,
    /// Parts by owner.
    pub owners: BTreeMap<PeerId, OwnerShare>,
    /// Entries of peers that are left out because their proof is wrong.
    pub forged: usize,
    /// Entries of peers that are left out because they do not fit the range.
    pub malformed: usize,
}

/// What one peer owns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerShare {
    /// Addresses.
    pub owned: u64,
    /// Prefixes, ascending.
    pub parts: Vec<Ipv4Net>,
}

impl Ipam {
    /// The ring and the leases as of the last input.
    #[must_use]
    pub fn status(&self) -> Status {
        let (state, reason) = self.state();
        let (forged, malformed) = self.heard.isolated();
        let mut owners: BTreeMap<PeerId, OwnerShare> = BTreeMap::new();
        for (prefix, order) in self.view.iter() {
            let share = owners.entry(order.peer).or_default();
            share.owned += size(prefix);
            share.parts.push(prefix);
        }
        let allocated = self.holders.keys().filter(|address| address.is_ipv4()).count() as u64;
        let (owned, free) = (self.owned(), self.pool4.free());
        Status { state, reason, owned, free, allocated, owners, forged, malformed }
    }

    /// Prefixes of every owner: where to route them.
    #[must_use]
    pub fn ownership(&self) -> BTreeMap<PeerId, Vec<Ipv4Net>> {
        let mut owners: BTreeMap<PeerId, Vec<Ipv4Net>> = BTreeMap::new();
        for (prefix, order) in self.view.iter() {
            owners.entry(order.peer).or_default().push(prefix);
        }
        owners
    }

    /// Prefixes of one owner.
    #[must_use]
    pub fn parts_of(&self, peer: PeerId) -> Vec<Ipv4Net> {
        self.view.iter().filter(|(_, order)| order.peer == peer).map(|(prefix, _)| prefix).collect()
    }

    /// Every lease of this node.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.durable.leases.values()
    }

    /// IPv4 addresses that this node owns.
    pub(crate) fn owned(&self) -> u64 {
        self.mine.iter().filter(|(_, order)| order.peer == self.me).map(|(prefix, _)| size(prefix)).sum()
    }

    fn state(&self) -> (StatusState, String) {
        if let Some(reason) = self.conflict() {
            return (StatusState::Conflict, reason);
        }
        if self.heard.current().is_none() && self.seeds() {
            return (StatusState::Seeding, self.ring_reason());
        }
        if self.heard.current().is_none() || !self.is_proven() {
            return (StatusState::Waiting, self.ring_reason());
        }
        if self.pool4.free() == 0 {
            return (StatusState::Waiting, self.waiting_reason().to_string());
        }
        (StatusState::Ready, "this node has addresses to hand out".to_owned())
    }

    fn conflict(&self) -> Option<String> {
        let foreign = self.foreign_rings();
        if let Some((_, peers)) = foreign.first() {
            let names: Vec<String> = peers.iter().take(4).map(PeerId::short).collect();
            return Some(format!(
                "{} other address ring(s) were seeded apart from this one, one by {}: decide which ring stays, then \
                 start every node of the others with an empty state directory and `--ipam-init join`",
                foreign.len(),
                names.join(", ")
            ));
        }
        if let Some(reason) = self.misfit_reason() {
            return Some(reason);
        }
        let overtaken = |held: &&HeldPart| held.holding == Holding::Overtaken;
        let lost: Vec<_> = self.durable.parts.values().filter(overtaken).collect();
        let owner = lost.first()?.part.owner;
        let stranded = self.holders.keys().filter(|address| self.is_stranded(**address)).count();
        (stranded > 0).then(|| format!(
            "{} part(s) of this node now belong to others, one to {}, because its disk is older than what peers know \
             or it was removed; {} lease(s) lie there: restart those pods",
            lost.len(),
            owner.short(),
            stranded
        ))
    }

    /// Whether a leased address lies in a part of another node.
    fn is_stranded(&self, address: IpAddr) -> bool {
        address.is_ipv4() && self.mine.owner(number_of(address)) != Some(self.me)
    }

    /// Why there is no ring to use yet.
    pub(crate) fn ring_reason(&self) -> String {
        if self.outranked {
            return "peers know a later state of this node than its disk does: it hands out nothing before it has caught \
                    up with that, which ends this run; start meshd again then"
                .to_owned();
        }
        if let Some(reason) = self.misfit_reason().filter(|_| self.stays_out()) {
            return reason;
        }
        if !self.is_proven() {
            return "after its restart this node waits up to 5 s to hear the ring of a peer".to_owned();
        }
        let late = self.now >= self.started + PATIENCE;
        let reason = match self.config.init {
            Init::Seed | Init::Auto { has_peers: false } => {
                "this node makes the ring at the first request, 5 s after its start at the earliest"
            }
            Init::Join | Init::Auto { has_peers: true } if !late => "waiting to hear the ring of a peer",
            _ if self.alive.is_empty() => {
                "no peer can be reached: check --peer, the secret and UDP 6783 between the hosts"
            }
            _ => {
                "no peer has an address ring: start one node with --ipam-init seed, or one without --peer, and let the \
                 others join"
            }
        };
        reason.to_owned()
    }
}
