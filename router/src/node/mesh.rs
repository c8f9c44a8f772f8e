//! What the mesh means for this node: gossip and addresses become dial targets, tunnel peers and kernel state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use meshwork_api::event::Happening;
use meshwork_gossip::limits::MAX_ORIGIN;
use meshwork_gossip::{Event, Full, MemberState};
use meshwork_ipam::{Effect, Input, MAX_MESSAGE, Message, node_prefix6};
use meshwork_tunnel::{Desired, TunnelPeer};
use meshwork_wire::record::{FreeSpace, PeerRecord, Peers, Pods, Ranges, Ring, Store};
use meshwork_wire::{Incarnation, PeerId, frame};

use super::twins::TWIN_TOPIC;
use super::{Node, host_interface};
use crate::addresses::AddressEvent;
use crate::config::MOST_TRUSTED;
use crate::kernel::desired::Overlay;

/// Topic of ring messages between peers.
const RING_TOPIC: u16 = 1;

/// Up to this many members every pair opens its session before traffic asks; in larger meshes traffic does.
const EAGER_MEMBERS: usize = 32;

/// Endpoints of one member that are tried: more than the networks a host is usually in, in both families.
const MOST_ENDPOINTS: usize = 16;

/// Bytes of own entries up to which pods are published: a quarter of what a member may publish is kept for the rest.
const ROOM_FOR_PODS: usize = MAX_ORIGIN / 4 * 3;

/// What must be computed anew.
#[derive(Debug, Default)]
pub(super) struct Stale {
    record: bool,
    peers: bool,
    members: bool,
    overlay: bool,
    /// Writers whose ring entries the allocator has not seen as they are.
    rings: BTreeSet<PeerId>,
    /// Peers whose first exchange is complete, which the allocator has not heard.
    synced: BTreeSet<PeerId>,
    /// The disk was rolled back, which the allocator has not heard.
    outranked: bool,
    /// What the lost runs published is here up to this one, and the allocator has not got it.
    recovered: Option<Incarnation>,
}

impl Stale {
    pub(super) fn everything() -> Self {
        Self { record: true, peers: true, members: true, overlay: true, ..Self::default() }
    }

    /// There is something to compute anew.
    pub(super) fn is_any(&self) -> bool {
        self.record || self.peers || self.overlay || self.waits_for_allocator()
    }

    /// Something is left that the allocator had no room for.
    pub(super) fn waits_for_allocator(&self) -> bool {
        let heard = self.members || !self.rings.is_empty() || !self.synced.is_empty();
        heard || self.outranked || self.recovered.is_some()
    }

    /// Members, their records or their links changed.
    pub(super) fn peers(&mut self) {
        self.peers = true;
        self.members = true;
    }

    /// What the kernel holds has to change, and nothing else.
    pub(super) fn overlay(&mut self) {
        self.overlay = true;
    }

    /// Ownership, leases or the node's own address changed.
    pub(super) fn addresses(&mut self) {
        self.record = true;
        self.peers = true;
        self.overlay = true;
    }
}

/// What of a record is used: a member that tells of thousands of endpoints would have every other one dial them all.
fn believed(mut record: PeerRecord) -> PeerRecord {
    record.endpoints.truncate(MOST_ENDPOINTS);
    record.clear.addresses.truncate(MOST_ENDPOINTS);
    record.clear.trusted.truncate(MOST_TRUSTED);
    record
}

impl Node {
    pub(super) fn gossip_events(&mut self, now: Instant) {
        while let Some(event) = self.gossip.poll_event() {
            self.heed_event(now, &event);
            self.gossip_event(now, event);
        }
    }

    fn gossip_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Changed { store: Ring::ID, origin } => drop(self.stale.rings.insert(origin)),
            Event::Changed { store: Peers::ID, origin } => {
                self.read_record(origin);
                self.stale.peers();
            }
            Event::Changed { store: FreeSpace::ID, .. } => self.stale.members = true,
            Event::Changed { .. } => {}
            Event::Member { peer, state, reason, .. } => {
                tracing::info!(%peer, ?state, reason, "member");
                let happening = match state {
                    MemberState::Alive => Happening::MemberAlive { peer },
                    MemberState::Suspect => Happening::MemberSuspect { peer },
                    MemberState::Dead => Happening::MemberDead { peer },
                };
                self.record_of(peer, happening, &reason);
                self.stale.peers();
            }
            Event::Restarted { peer, incarnation } => {
                tracing::info!(%peer, %incarnation, "member restarted");
                let happening = Happening::MemberRestarted { peer, incarnation: incarnation.0 };
                self.record_of(peer, happening, &format!("its daemon was started again: run {incarnation}"));
                self.stale.peers();
            }
            Event::Message { from, topic: RING_TOPIC, payload } => self.ring_message(from, &payload),
            Event::Message { from, topic: TWIN_TOPIC, payload } => self.twin_message(now, from, &payload),
            Event::Message { .. } => {}
            Event::Synced { peer } => drop(self.stale.synced.insert(peer)),
            // What broke the link may have broken the path; without traffic nobody would ask for a while.
            Event::LinkDown { peer } => self.parts.tunnel.ask(peer),
            Event::LinkSilent { peer } => self.link_silent(now, peer),
            Event::Outranked { incarnation } => {
                tracing::error!(%incarnation, "a later state of this node is known elsewhere: its disk was rolled back or copied");
                self.outranked = Some(incarnation);
                self.stale.outranked = true;
            }
            Event::Recovered { incarnation } => self.stale.recovered = Some(incarnation),
        }
    }

    /// Tells the allocator of members, then of ring entries, then of who is heard in full: an entry is judged by its
    /// writer's key, and a full hearing means that every entry before it was seen. That the disk was rolled back comes
    /// before all, as a hearing would let it hand out addresses. What it has no room for waits.
    fn tell_allocator(&mut self, stale: &Stale) {
        self.stale.outranked = stale.outranked && !self.parts.allocator.input(Input::Outranked);
        self.stale.members = stale.members && !self.parts.allocator.input(self.members_input());
        for origin in &stale.rings {
            if self.stale.members || !self.parts.allocator.input(self.ring_input(*origin)) {
                self.stale.rings.insert(*origin);
            }
        }
        for peer in &stale.synced {
            let early = self.stale.outranked || !self.stale.rings.is_empty();
            if early || !self.parts.allocator.input(Input::PeerSynced(*peer)) {
                self.stale.synced.insert(*peer);
            }
        }
        if let Some(incarnation) = stale.recovered {
            let (parts, pods) = (self.gossip.former::<Ring>().collect(), self.gossip.former::<Pods>().collect());
            let told = self.parts.allocator.catch_up(incarnation, parts, pods);
            self.stale.recovered = (!told).then_some(incarnation);
        }
    }

    fn ring_input(&self, origin: PeerId) -> Input {
        let parts = self.gossip.entries::<Ring>().filter(|(writer, ..)| *writer == origin);
        Input::RingEntries { origin, parts: parts.map(|(_, prefix, part)| (prefix, part)).collect() }
    }

    fn ring_message(&mut self, from: PeerId, payload: &[u8]) {
        match frame::decode::<Message>(payload, MAX_MESSAGE) {
            // Messages may be lost: whoever asks asks again.
            Ok(message) => {
                self.parts.allocator.input(Input::Message { from, message });
            }
            Err(error) => {
                self.misbehaved_frames += 1;
                tracing::warn!(%from, %error, "ignored a message about addresses");
            }
        }
    }

    pub(super) fn address_event(&mut self, now: Instant, event: AddressEvent) {
        match event {
            AddressEvent::Begun => {}
            AddressEvent::Effect(effect) => self.address_effect(now, effect),
            AddressEvent::ViewChanged => {
                self.stale.addresses();
                self.chronicle.addresses_changed();
            }
            AddressEvent::CaughtUp(incarnation) => self.caught_up(now, incarnation),
            AddressEvent::Above(incarnation) => self.above_copy(now, incarnation),
            AddressEvent::Lost(error) => self.lost = Some(error.into()),
        }
    }

    fn address_effect(&mut self, now: Instant, effect: Effect) {
        let published = match effect {
            Effect::Send { to, message } => {
                self.gossip.send(now, to, RING_TOPIC, frame::encode(&message));
                Ok(())
            }
            Effect::Publish { upserts, withdrawals } => {
                for prefix in withdrawals {
                    self.gossip.remove::<Ring>(now, &prefix);
                }
                upserts.iter().try_for_each(|(prefix, part)| self.gossip.put::<Ring>(now, prefix, part))
            }
            Effect::PublishFreeSpace(record) => self.gossip.put::<FreeSpace>(now, &(), &record),
            Effect::PublishPod(key, record) => {
                self.untold.insert(key, record);
                self.tell_of_pods(now);
                Ok(())
            }
            Effect::WithdrawPod(key) => {
                self.untold.remove(&key);
                self.gossip.remove::<Pods>(now, &key);
                self.tell_of_pods(now);
                Ok(())
            }
            // The allocator answers its own requests and shows its own view.
            Effect::Granted { .. } | Effect::Refused { .. } | Effect::Released { .. } | Effect::OwnershipChanged => {
                Ok(())
            }
        };
        if let Err(error) = published {
            tracing::error!(%error, "others do not learn of an entry of this node");
        }
    }

    /// Publishes pods that others do not know yet, as far as there is room. What a node may publish is bounded, and
    /// the ring and its own record must fit whatever the pods take; the rest follows when pods go.
    fn tell_of_pods(&mut self, now: Instant) {
        while let Some((key, record)) = self.untold.pop_first() {
            let told = match self.gossip.own_bytes() {
                bytes if bytes > ROOM_FOR_PODS => Err(Full::Origin),
                _ => self.gossip.put::<Pods>(now, &key, &record),
            };
            match told {
                Ok(()) => {}
                Err(Full::Origin) => {
                    self.untold.insert(key, record);
                    return;
                }
                Err(error @ Full::Entry) => {
                    tracing::error!(sandbox = key.sandbox, %error, "a pod stays unknown to others");
                }
            }
        }
    }

    /// Computes anew what has become stale, and hands it on.
    pub(super) fn refresh(&mut self, now: Instant) {
        if now < self.moderation.rests_until() || !self.stale.is_any() {
            return;
        }
        let begun = Instant::now();
        self.refresh_all(now);
        self.moderation.worked(begun, Instant::now());
    }

    fn refresh_all(&mut self, now: Instant) {
        let stale = std::mem::take(&mut self.stale);
        if stale.record {
            self.publish_record(now);
        }
        if stale.members {
            self.discover(now);
        }
        self.tell_allocator(&stale);
        if stale.peers {
            let desired = self.tunnel_peers();
            self.parts.tunnel.configure(desired);
            self.refresh_clear(now);
        }
        if stale.peers || std::mem::take(&mut self.stale.overlay) || stale.overlay {
            self.parts.kernel.apply(self.overlay());
        }
    }

    fn publish_record(&mut self, now: Instant) {
        let config = &self.parts.config;
        let record = PeerRecord {
            nickname: config.nickname.clone(),
            cluster: config.cluster.clone(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            noise_key: self.parts.identity.noise_public(),
            prefers_aes: self.parts.prefers_aes,
            encryption: config.encryption,
            endpoints: self.own_endpoints(),
            overlay: self.own.clone(),
            clear: self.clear_terms(),
            witnesses: Vec::new(),
            ranges: Ranges { v4: config.range4, v6: config.range6 },
        };
        if let Err(error) = self.gossip.put::<Peers>(now, &(), &record) {
            tracing::error!(%error, "others do not learn of this node's record");
        }
        self.read_record(self.parts.identity.peer_id());
    }

    pub(super) fn own_endpoints(&self) -> Vec<SocketAddr> {
        match self.parts.config.advertise.as_slice() {
            [] => self.parts.underlay.endpoints(self.parts.listen),
            advertised => advertised.to_vec(),
        }
    }

    /// What every member says of itself, as far as it is believed.
    pub(super) fn records(&self) -> Arc<BTreeMap<PeerId, PeerRecord>> {
        Arc::clone(&self.records)
    }

    /// Reads a member's record anew. Records are many and change rarely, so they are kept as read.
    fn read_record(&mut self, origin: PeerId) {
        let records = Arc::make_mut(&mut self.records);
        match self.gossip.get::<Peers>(origin, &()) {
            Some(record) => drop(records.insert(origin, believed(record))),
            None => drop(records.remove(&origin)),
        }
    }

    fn members_input(&self) -> Input {
        let alive = self.gossip.members().filter(|member| member.state == MemberState::Alive);
        let alive: BTreeSet<PeerId> = alive.map(|member| member.id).collect();
        let keys = self.gossip.members().map(|member| (member.id, member.public_key)).collect();
        let free_hints = self.gossip.entries::<FreeSpace>().map(|(origin, (), free)| (origin, free.log2)).collect();
        let ranges = self.records.iter().map(|(origin, record)| (*origin, record.ranges)).collect();
        Input::Peers { alive, free_hints, keys, ranges }
    }

    fn tunnel_peers(&self) -> Desired {
        let records = self.records();
        let eager = records.len() <= EAGER_MEMBERS;
        let members = self.gossip.members();
        let peers = members.filter_map(|member| {
            let record = records.get(&member.id)?;
            Some(TunnelPeer {
                id: member.id,
                noise_key: record.noise_key,
                prefers_aes: record.prefers_aes,
                incarnation: member.incarnation,
                endpoints: self.endpoints_of(member.id, record),
                prefixes: self.prefixes_of(member.id).into_iter().collect(),
                eager: eager && member.state == MemberState::Alive,
            })
        });
        Desired { local: self.prefixes_of(self.parts.identity.peer_id()).into_iter().collect(), peers: peers.collect() }
    }

    /// The address of the control link first: it is known to work, at least for the one who dialled.
    fn endpoints_of(&self, peer: PeerId, record: &PeerRecord) -> Vec<SocketAddr> {
        let linked = self.link_address(peer);
        let told = record.endpoints.iter().copied().filter(|endpoint| Some(*endpoint) != linked);
        linked.into_iter().chain(told).collect()
    }

    /// Ring parts and the IPv6 prefix of a peer.
    pub(super) fn prefixes_of(&self, peer: PeerId) -> BTreeSet<IpNet> {
        let view = self.parts.allocator.view();
        let parts = view.ownership.get(&peer).into_iter().flatten().map(|part| IpNet::V4(*part));
        let v6 = IpNet::V6(node_prefix6(self.parts.config.range6, peer));
        parts.chain([v6]).collect()
    }

    pub(super) fn overlay(&self) -> Arc<Overlay> {
        let me = self.parts.identity.peer_id();
        let own4 = self.own.iter().find_map(|own| if let IpAddr::V4(own) = own { Some(*own) } else { None });
        let own6 = self.own.iter().find_map(|own| if let IpAddr::V6(own) = own { Some(*own) } else { None });
        let view = self.parts.allocator.view();
        let pods = || view.leases.iter().filter(|lease| !lease.is_node());
        let linked = pods().map(|lease| (host_interface(lease), lease.pod.addresses.clone()));
        let unlinked = pods().filter(|lease| lease.origin.address_only);
        let unmasqueraded = pods().filter(|lease| lease.origin.unmasqueraded);
        Arc::new(Overlay {
            range4: self.parts.config.range4,
            range6: self.parts.config.range6,
            own4,
            own6,
            local: self.prefixes_of(me),
            peers: self.gossip.members().map(|member| (member.id, self.prefixes_of(member.id))).collect(),
            pods: linked.filter(|(link, _)| self.confirmed.contains(link)).collect(),
            unlinked: unlinked.flat_map(|lease| lease.pod.addresses.iter().copied()).collect(),
            unmasqueraded: unmasqueraded.flat_map(|lease| lease.pod.addresses.iter().copied()).collect(),
            exposed: self.exposed,
            mtu: self.parts.mtu,
            clear: self.clear_overlay(),
        })
    }
}
