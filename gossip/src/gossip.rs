//! The state machine: what it holds, how frames come in and go out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use meshwork_identity::Identity;
use meshwork_wire::record::{LinkRecord, StoreId};
use meshwork_wire::{Incarnation, PeerId, frame};

use crate::clock::RunningClock;
use crate::event::{Counters, Event, Member, Misbehaved, Transmit};
use crate::frames::{Frame, Hello, Manifest, Name, Stamp};
use crate::limits::MAX_FRAME;
use crate::link::Link;
use crate::membership::Membership;
use crate::replica::{Contents, Replica, empty_stamp};
use crate::routing::{self, Topology};
use crate::snapshot::Pull;
use crate::trie::{self, Hash, Leaf};

/// Membership, topology and replicated stores of one node.
#[derive(Debug)]
pub struct Gossip {
    pub(crate) identity: Arc<Identity>,
    pub(crate) id: PeerId,
    pub(crate) replicas: Replicas,
    /// Own entries that changed since the own manifest was signed, and the bytes of a delta over them.
    pub(crate) unsigned: BTreeSet<Name>,
    pub(crate) unsigned_size: usize,
    pub(crate) links: BTreeMap<PeerId, Link>,
    pub(crate) membership: Membership,
    pub(crate) pulls: BTreeMap<PeerId, Pull>,
    /// Origins whose new state came as a snapshot and has to be made known to other links.
    pub(crate) unannounced: BTreeSet<PeerId>,
    /// Links changed somewhere since reachability was computed.
    pub(crate) topology_changed: bool,
    /// First hop to everyone, computed when a message first asks for it.
    pub(crate) routes: Option<BTreeMap<PeerId, PeerId>>,
    pub(crate) clock: RunningClock,
    /// The latest own state known elsewhere that outranked ours.
    pub(crate) outranked: Option<Stamp>,
    /// The latest own state that outranked ours, with its entries.
    pub(crate) former: Option<Replica>,
    events: VecDeque<Event>,
    changed: BTreeSet<(StoreId, PeerId)>,
    pub(crate) inbox: usize,
    pub(crate) counters: Counters,
    pub(crate) undecodable: AtomicU64,
    served: PeerId,
}

/// All origins, this node included.
#[derive(Debug)]
pub(crate) struct Replicas {
    by_origin: BTreeMap<PeerId, Replica>,
    digest: Option<Hash>,
}

impl Replicas {
    pub(crate) fn of(&self, origin: PeerId) -> Option<&Replica> {
        self.by_origin.get(&origin)
    }

    pub(crate) fn of_mut(&mut self, origin: PeerId) -> Option<&mut Replica> {
        self.digest = None;
        self.by_origin.get_mut(&origin)
    }

    pub(crate) fn install(&mut self, origin: PeerId, replica: Replica) -> Option<Replica> {
        self.digest = None;
        self.by_origin.insert(origin, replica)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (PeerId, &Replica)> {
        self.by_origin.iter().map(|(origin, replica)| (*origin, replica))
    }

    pub(crate) fn range(&self, from: PeerId, to: PeerId) -> impl Iterator<Item = (PeerId, &Replica)> {
        let bounds = (Bound::Included(from), Bound::Included(to.max(from)));
        self.by_origin.range(bounds).map(|(origin, replica)| (*origin, replica))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_origin.len()
    }

    /// Root over all manifests, cut to what a heartbeat carries.
    pub(crate) fn digest(&mut self) -> [u8; 16] {
        let leaf = |(origin, replica): (&PeerId, &Replica)| Leaf::new(&[&origin.0], &frame::encode(&replica.stamp()));
        let root = *self.digest.get_or_insert_with(|| trie::root(self.by_origin.iter().map(leaf)));
        let mut half = [0; 16];
        half.iter_mut().zip(root).for_each(|(to, from)| *to = from);
        half
    }
}

impl Topology for Replicas {
    fn links_of(&self, peer: PeerId) -> Option<&BTreeMap<PeerId, LinkRecord>> {
        self.of(peer).map(|replica| &replica.neighbours)
    }
}

impl Gossip {
    /// Starts with nothing but this node. Own entries that outlived a restart are best put before the first link comes
    /// up, because others replace those of the run before by the first state that they see of this one.
    #[must_use]
    pub fn new(identity: Arc<Identity>, incarnation: Incarnation, now: Instant) -> Self {
        let id = identity.peer_id();
        let own = Replica::new(Manifest::sign(&identity, empty_stamp(incarnation)), Contents::default());
        Self {
            identity,
            id,
            replicas: Replicas { by_origin: BTreeMap::from([(id, own)]), digest: None },
            unsigned: BTreeSet::new(),
            unsigned_size: 0,
            links: BTreeMap::new(),
            membership: Membership::default(),
            pulls: BTreeMap::new(),
            unannounced: BTreeSet::new(),
            topology_changed: false,
            routes: None,
            clock: RunningClock::new(now),
            outranked: None,
            former: None,
            events: VecDeque::new(),
            changed: BTreeSet::new(),
            inbox: 0,
            counters: Counters::default(),
            undecodable: AtomicU64::new(0),
            served: id,
        }
    }

    /// This node.
    #[must_use]
    pub const fn peer_id(&self) -> PeerId {
        self.id
    }

    /// Run of this node, as published.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.own_replica().incarnation()
    }

    /// Goes on as a later run, with all own entries: the answer to [`Event::Outranked`]. A lower one changes nothing.
    pub fn advance(&mut self, now: Instant, incarnation: Incarnation) {
        self.observe(now);
        if incarnation <= self.incarnation() {
            return;
        }
        let contents = self.own_replica().contents.clone();
        let mut stamp = empty_stamp(incarnation);
        stamp.sequence = 1;
        stamp.root = contents.root();
        self.unsigned.clear();
        self.unsigned_size = 0;
        self.replicas.install(self.id, Replica::new(Manifest::sign(&self.identity, stamp), contents));
        self.unannounced.insert(self.id);
        self.settle(now);
    }

    /// Takes a frame that came over the link to `from`.
    ///
    /// # Errors
    /// [`Misbehaved`] when the frame, or a part of it, was refused: log it; the counters have it, the link stays.
    pub fn receive(&mut self, now: Instant, from: PeerId, frame: &[u8]) -> Result<(), Misbehaved> {
        self.observe(now);
        if !self.hear(now, from) {
            self.counters.unexpected += 1;
            return Ok(());
        }
        self.counters.frames_received += 1;
        self.counters.bytes_received += frame.len() as u64;
        self.sign_changes();
        let outcome = frame::decode(frame, MAX_FRAME)
            .map_err(Misbehaved::from)
            .and_then(|decoded| self.dispatch(now, from, decoded, frame));
        self.request_wanted(now, from);
        self.settle(now);
        outcome.inspect_err(|misbehaved| self.count(misbehaved))
    }

    fn dispatch(&mut self, now: Instant, from: PeerId, decoded: Frame, bytes: &[u8]) -> Result<(), Misbehaved> {
        match decoded {
            Frame::Hello(hello) => self.on_hello(now, from, &hello),
            Frame::Heartbeat(heartbeat) => {
                self.on_heartbeat(now, from, heartbeat);
                Ok(())
            }
            Frame::Digests(digests) => {
                self.on_digests(now, from, &digests);
                Ok(())
            }
            Frame::Request(request) => {
                self.on_request(from, &request);
                Ok(())
            }
            Frame::Delta(delta) => self.on_delta(now, from, delta, bytes),
            Frame::Snapshot(snapshot) => self.on_snapshot(now, from, snapshot),
            Frame::Message(message) => self.on_message(from, message),
        }
    }

    fn on_hello(&mut self, now: Instant, from: PeerId, hello: &Hello) -> Result<(), Misbehaved> {
        if let Some(standing) = self.membership.standing(from) {
            let key = standing.public_key;
            self.learn(now, from, key, hello.incarnation);
        }
        match &hello.echo {
            Some(manifest) => self.on_own_manifest(manifest),
            None => Ok(()),
        }
    }

    fn count(&mut self, misbehaved: &Misbehaved) {
        let counter = match misbehaved {
            Misbehaved::Malformed(_) => &mut self.counters.malformed,
            Misbehaved::Forged(_) | Misbehaved::Altered(_) => &mut self.counters.forged,
            Misbehaved::TooLarge(_) | Misbehaved::TooManyMembers(_) => &mut self.counters.too_large,
        };
        *counter += 1;
        tracing::debug!(%misbehaved, "refused what a neighbour sent");
    }

    /// Next frame to send, the links in turn.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.sign_changes();
        let after = (Bound::Excluded(self.served), Bound::Unbounded);
        let waiting = |(to, link): (&PeerId, &Link)| (!link.queue.is_empty()).then_some(*to);
        let to = self.links.range(after).find_map(waiting).or_else(|| self.links.iter().find_map(waiting))?;
        let (frame, reliable) = self.links.get_mut(&to)?.queue.pop()?;
        self.served = to;
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += frame.len() as u64;
        Some(Transmit { to, frame, reliable })
    }

    /// Next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if matches!(event, Some(Event::Message { .. })) {
            self.inbox -= 1;
        }
        event.or_else(|| self.changed.pop_first().map(|(store, origin)| Event::Changed { store, origin }))
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn emit_changed(&mut self, stores: BTreeSet<StoreId>, origin: PeerId) {
        self.changed.extend(stores.into_iter().map(|store| (store, origin)));
    }

    /// All members but this node.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.membership.iter().map(|(id, standing)| standing.member(id))
    }

    /// A member other than this node.
    #[must_use]
    pub fn member(&self, id: PeerId) -> Option<Member> {
        self.membership.standing(id).map(|standing| standing.member(id))
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let undecodable = self.undecodable.load(std::sync::atomic::Ordering::Relaxed);
        Counters { undecodable, ..self.counters }
    }

    pub(crate) fn own_replica(&self) -> &Replica {
        self.replicas.of(self.id).expect("the own replica is made with the state machine and never removed")
    }

    /// Queues a frame for a link, if there is one.
    pub(crate) fn transmit(&mut self, to: PeerId, frame: Vec<u8>, reliable: bool) -> bool {
        let Some(link) = self.links.get_mut(&to) else { return false };
        let queued = link.queue.push(frame, reliable);
        self.counters.queue_full += u64::from(!queued);
        queued
    }

    /// Notes the time of a call and forgives everyone the silence that was our own standstill.
    pub(crate) fn observe(&mut self, now: Instant) {
        let due = self.poll_timeout();
        let stall = self.clock.observe(now, due);
        if stall > Duration::ZERO {
            self.links.values_mut().for_each(|link| link.pulse.forgive(stall));
            self.membership.forgive(stall);
        }
    }

    /// Draws the conclusions of what just happened.
    pub(crate) fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.topology_changed) {
            self.routes = None;
            let unreachable = routing::unreachable(&self.replicas, self.id, self.membership.ids());
            let silent = self.links.iter().filter(|(_, link)| !link.pulse.is_up()).map(|(peer, _)| *peer).collect();
            self.events.extend(self.membership.update(now, &unreachable, &silent));
        }
        self.announce();
    }
}
