//! The address ring on simulated nodes, carried by gossip as a daemon does it: entries and free space in stores, messages
//! over links, and a disk that outlives the process. A reference keeps who holds which address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_gossip::{Event, Gossip, MemberState};
use meshwork_ipam::{Config, Decision, Effect, Init, Input, Ipam, LeaseRequest, MAX_MESSAGE, Message};
use meshwork_wire::record::{FreeSpace, Peers, PodKey, Pods, Ranges, Ring, Store};
use meshwork_wire::{Incarnation, PeerId, frame};

use super::World;

/// Messages about space.
const RING_TOPIC: u16 = 1;

/// Decisions after one input.
const MOST_DECISIONS: usize = 10_000;

/// The ring of a world.
#[derive(Debug)]
pub(super) struct Space {
    ranges: Ranges,
    tokens: u64,
    /// Who was told that it holds an address.
    holders: BTreeMap<IpAddr, (usize, PodKey)>,
    granted: u64,
    /// The first address that two held.
    double: Option<String>,
}

/// The allocator of a running node, and what it has not heard yet.
#[derive(Debug)]
pub(super) struct Allocator {
    ipam: Ipam,
    members: bool,
    rings: BTreeSet<PeerId>,
    synced: BTreeSet<PeerId>,
    messages: Vec<(PeerId, Message)>,
    outranked: bool,
    recovered: bool,
}

impl Allocator {
    pub(super) fn due(&self) -> Option<Instant> {
        self.ipam.poll_timeout()
    }

    /// What the allocator is to hear next: members before ring entries, and those before who was heard in full.
    fn news(&mut self, gossip: &Gossip) -> Option<Input> {
        if std::mem::take(&mut self.outranked) {
            Some(Input::Outranked)
        } else if std::mem::take(&mut self.members) {
            Some(members(gossip))
        } else if let Some(origin) = self.rings.pop_first() {
            Some(Input::RingEntries { origin, parts: gossip.entries_of::<Ring>(origin).collect() })
        } else if let Some(peer) = self.synced.pop_first() {
            Some(Input::PeerSynced(peer))
        } else if std::mem::take(&mut self.recovered) {
            Some(Input::Former { parts: gossip.former::<Ring>().collect(), pods: gossip.former::<Pods>().collect() })
        } else {
            let (from, message) = self.messages.pop()?;
            Some(Input::Message { from, message })
        }
    }
}

fn members(gossip: &Gossip) -> Input {
    let alive = gossip.members().filter(|member| member.state == MemberState::Alive);
    Input::Peers {
        alive: alive.map(|member| member.id).collect(),
        free_hints: gossip.entries::<FreeSpace>().map(|(origin, (), free)| (origin, free.log2)).collect(),
        keys: gossip.members().map(|member| (member.id, member.public_key)).collect(),
        ranges: gossip.entries::<Peers>().map(|(origin, (), record)| (origin, record.ranges)).collect(),
    }
}

impl World {
    /// Has all nodes hand out addresses of one range, from their next start on; the first seeds the ring.
    pub fn share_addresses(&mut self, prefix: u8) {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 32, 0, 0), prefix);
        let ranges = Ranges { v4, v6: Ipv6Net::new_assert(Ipv6Addr::from_bits(0xfd4d_6573_6877 << 80), 48) };
        self.space = Some(Space { ranges, tokens: 0, holders: BTreeMap::new(), granted: 0, double: None });
    }

    /// Ranges that nodes tell, where they hand out addresses.
    pub(super) fn ranges(&self) -> Option<Ranges> {
        self.space.as_ref().map(|space| space.ranges)
    }

    /// Leases that were granted so far.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.space.as_ref().map_or(0, |space| space.granted)
    }

    /// Starts the allocator of a node whose process has begun.
    pub(super) fn begin_allocator(&mut self, node: usize) {
        let Some(ranges) = self.ranges() else { return };
        let state = &mut self.nodes[node];
        let config = Config {
            identity: state.identity.clone(),
            incarnation: Incarnation(state.incarnation),
            range4: ranges.v4,
            range6: ranges.v6,
            init: if node == 0 { Init::Seed } else { Init::Join },
        };
        let ipam = Ipam::restore(config, state.disk.clone(), self.now).expect("the disk holds what it was told");
        let (rings, synced) = (BTreeSet::new(), BTreeSet::new());
        let messages = Vec::new();
        let allocator = Allocator { ipam, members: true, rings, synced, messages, outranked: false, recovered: false };
        state.allocator = Some(allocator);
        self.input(node, Input::Started);
    }

    /// Asks a node for an address of a pod.
    pub fn lease(&mut self, node: usize, pod: u32, patience: Duration) {
        let deadline = self.now + patience;
        let request = LeaseRequest { sandbox: pod.to_string(), interface: "eth0".to_owned(), ..Default::default() };
        if let Some(token) = self.token(node) {
            self.input(node, Input::Lease { token, request, deadline });
            self.drain(node);
        }
    }

    /// Frees the address of a pod.
    pub fn release(&mut self, node: usize, pod: u32) {
        if let Some(token) = self.token(node) {
            self.input(node, Input::Release { token, sandbox: pod.to_string(), interface: None });
            self.drain(node);
        }
    }

    fn token(&mut self, node: usize) -> Option<u64> {
        let space = self.space.as_mut().filter(|_| self.nodes[node].allocator.is_some())?;
        space.tokens += 1;
        Some(space.tokens)
    }

    /// Notes what the allocator of a node has to hear.
    pub(super) fn note_for_allocator(&mut self, node: usize, event: &Event) {
        let own = self.ids[node];
        let Some(allocator) = self.nodes[node].allocator.as_mut() else { return };
        match event {
            Event::Member { .. } => allocator.members = true,
            Event::Changed { store, .. } if [Peers::ID, FreeSpace::ID].contains(store) => allocator.members = true,
            Event::Changed { store, origin } if *store == Ring::ID && *origin != own => {
                allocator.members = true;
                allocator.rings.insert(*origin);
            }
            Event::Synced { peer } => drop(allocator.synced.insert(*peer)),
            Event::Outranked { .. } => allocator.outranked = true,
            Event::Recovered { .. } => allocator.recovered = true,
            Event::Message { from, topic: RING_TOPIC, payload } => {
                let message = frame::decode(payload, MAX_MESSAGE).ok();
                allocator.messages.extend(message.map(|message| (*from, message)));
            }
            _ => {}
        }
    }

    /// Tells the allocator of a node what it has not heard, and lets it do what is due.
    pub(super) fn allocate(&mut self, node: usize) {
        for _ in 0..MOST_DECISIONS {
            let (now, state) = (self.now, &mut self.nodes[node]);
            let (None, Some(allocator), Some(gossip)) = (state.paused_until, &mut state.allocator, &state.gossip)
            else {
                return;
            };
            let due = allocator.due().is_some_and(|due| due <= now);
            let Some(input) = allocator.news(gossip).or_else(|| due.then_some(Input::Tick)) else { return };
            self.input(node, input);
        }
        panic!("the allocator of node {node} never comes to rest");
    }

    fn input(&mut self, node: usize, input: Input) {
        let (now, random, state) = (self.now, &mut self.random, &mut self.nodes[node]);
        let Some(allocator) = state.allocator.as_mut() else { return };
        let mut fill = |bytes: &mut [u8]| {
            for part in bytes.chunks_mut(8) {
                part.copy_from_slice(&random.draw().to_le_bytes()[..part.len()]);
            }
        };
        let Decision { changes, effects } = allocator.ipam.decide(now, &mut fill, input);
        state.disk.apply(&changes);
        allocator.ipam.apply(&changes);
        effects.into_iter().for_each(|effect| self.perform(node, effect));
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let (now, state) = (self.now, &mut self.nodes[node]);
        let (Some(gossip), Some(space)) = (state.gossip.as_mut(), self.space.as_mut()) else { return };
        match effect {
            Effect::Send { to, message } => gossip.send(now, to, RING_TOPIC, frame::encode(&message)),
            Effect::Publish { upserts, withdrawals } => {
                for prefix in withdrawals {
                    gossip.remove::<Ring>(now, &prefix);
                }
                for (prefix, part) in upserts {
                    gossip.put::<Ring>(now, &prefix, &part).expect("it fits");
                }
            }
            Effect::PublishFreeSpace(record) => gossip.put::<FreeSpace>(now, &(), &record).expect("it fits"),
            Effect::PublishPod(key, record) => gossip.put::<Pods>(now, &key, &record).expect("it fits"),
            Effect::WithdrawPod(key) => drop(gossip.remove::<Pods>(now, &key)),
            Effect::Granted { lease, .. } => {
                space.granted += 1;
                space.take(node, &lease.name, &lease.pod.addresses);
            }
            Effect::Released { leases, .. } => {
                let freed = leases.iter().flat_map(|lease| &lease.pod.addresses);
                freed.for_each(|address| drop(space.holders.remove(address)));
            }
            Effect::Refused { .. } | Effect::OwnershipChanged => {}
        }
    }

    /// Whether no address was ever held by two, and no space is owned by two in what they say of themselves.
    ///
    /// # Errors
    /// Names the first.
    pub fn shares_soundly(&self) -> Result<(), String> {
        self.space.as_ref().and_then(|space| space.double.clone()).map_or(Ok(()), Err)
    }

    /// Whether all see the same owners, and no space has two.
    ///
    /// # Errors
    /// Says what differs.
    pub fn agrees_on_space(&self) -> Result<(), String> {
        self.shares_soundly()?;
        let allocators = self.nodes.iter().filter_map(|node| Some((node.id, &node.allocator.as_ref()?.ipam)));
        let allocators: Vec<(PeerId, &Ipam)> = allocators.collect();
        let mut owned: Vec<(Ipv4Addr, Ipv4Addr, PeerId)> = Vec::new();
        for (id, ipam) in &allocators {
            if ipam.ownership() != allocators[0].1.ownership() {
                return Err(format!("{} and {} see other owners", id.short(), allocators[0].0.short()));
            }
            owned.extend(ipam.parts_of(*id).iter().map(|part| (part.network(), part.broadcast(), *id)));
        }
        owned.sort_unstable();
        let twice = owned.windows(2).find(|pair| pair[0].1 >= pair[1].0);
        twice.map_or(Ok(()), |pair| Err(format!("{} is owned twice", pair[1].0)))
    }
}

impl Space {
    fn take(&mut self, node: usize, pod: &PodKey, addresses: &[IpAddr]) {
        for address in addresses {
            let before = self.holders.insert(*address, (node, pod.clone()));
            if before.as_ref().is_some_and(|before| *before != (node, pod.clone())) {
                self.double.get_or_insert(format!("{address} is held by {before:?} and by node {node}, {pod:?}"));
            }
        }
    }
}
