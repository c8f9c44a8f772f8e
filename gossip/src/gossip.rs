//! The state machine: what it holds, how frames come in and go out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use meshwork_identity::{Identity, PublicKey};
use meshwork_wire::record::StoreId;
use meshwork_wire::{Incarnation, PeerId, frame};

use crate::clock::RunningClock;
use crate::event::{Counters, Event, Member, Misbehaved, Transmit};
use crate::frames::{Frame, Hello, Name, Stamp};
use crate::limits::{FLUSH_PAUSE, FLUSHES_IN_HAND, MAX_FRAME};
use crate::link::{Link, Mask};
use crate::membership::{Known, Members, SELF, Standing};
use crate::own::Signed;
use crate::pull::{Pull, Want};
use crate::recent::Recent;
use crate::replica::{Pool, Replica, empty_stamp};
use crate::routing::Routes;

/// Room for frames that is kept: longer ones are rare, and a table of nodes has one each.
const USUAL_FRAME: usize = 4096;

/// Membership, topology and replicated stores of one node.
#[derive(Debug)]
pub struct Gossip {
    pub(crate) identity: Arc<Identity>,
    pub(crate) id: PeerId,
    pub(crate) pool: Arc<Pool>,
    pub(crate) members: Members,
    /// Own entries that changed since the own manifest was signed, and the bytes of a delta over them.
    pub(crate) unsigned: BTreeSet<Name>,
    pub(crate) unsigned_size: usize,
    /// Some of them must not take their time.
    pub(crate) urgent: bool,
    /// When to sign them.
    pub(crate) sign_at: Option<Instant>,
    pub(crate) signed: Option<Instant>,
    pub(crate) links: BTreeMap<PeerId, Link>,
    /// Places that links have.
    pub(crate) places: Mask,
    /// Origins of which a neighbour has what we lack.
    pub(crate) wants: BTreeMap<PeerId, Want>,
    pub(crate) pulls: BTreeMap<PeerId, Pull>,
    /// States that were ever asked for.
    pub(crate) asked: u64,
    /// Some link may have to be told or asked something, once the driver asks what to send.
    pub(crate) stirred: bool,
    /// When they may be told next; each time takes [`FLUSH_PAUSE`].
    flushes: Instant,
    /// Frames that wait for the driver.
    queued: usize,
    /// Room in which frames are written.
    draft_frame: Vec<u8>,
    /// Changes that were just applied, by the number of their origin, each building on the one before: what is pushed
    /// where it can be. None where there were too many, or the neighbours lack what they build on.
    pub(crate) fresh: BTreeMap<u32, Vec<Arc<[u8]>>>,
    /// The same of changes that may take their time.
    pub(crate) patient: BTreeSet<u32>,
    pub(crate) recent: Recent,
    /// When a state last changed.
    pub(crate) installed: Instant,
    /// When a member was last learned of that was not known before.
    pub(crate) grown: Instant,
    pub(crate) routes: Option<Routes>,
    pub(crate) routes_stale: bool,
    pub(crate) clock: RunningClock,
    /// When all links send their heartbeats.
    pub(crate) beat: Instant,
    /// The earliest timer, or a moment before it.
    pub(crate) due: Option<Instant>,
    pub(crate) signed_states: Signed,
    /// The latest own state known elsewhere that we did not sign.
    pub(crate) outranked: Option<Stamp>,
    /// Until then at most it is waited for.
    pub(crate) quiet_until: Option<Instant>,
    /// The latest of them that is here.
    pub(crate) former: Option<Arc<Replica>>,
    events: VecDeque<Event>,
    changed: BTreeSet<(StoreId, PeerId)>,
    pub(crate) inbox: usize,
    pub(crate) counters: Counters,
    pub(crate) undecodable: AtomicU64,
    served: PeerId,
}

impl Gossip {
    /// Starts with nothing but this node. Own entries that outlived a restart are best put before the first link comes
    /// up, because others replace those of the run before by the first state that they see of this one.
    #[must_use]
    pub fn new(identity: Arc<Identity>, incarnation: Incarnation, now: Instant) -> Self {
        Self::sharing(identity, incarnation, now, Arc::default())
    }

    /// As [`Gossip::new`], for one of many nodes in one process.
    #[must_use]
    pub fn sharing(identity: Arc<Identity>, incarnation: Incarnation, now: Instant, pool: Arc<Pool>) -> Self {
        let id = identity.peer_id();
        let mut gossip = Self {
            id,
            pool,
            members: Members::new(id),
            unsigned: BTreeSet::new(),
            unsigned_size: 0,
            urgent: false,
            sign_at: None,
            signed: None,
            links: BTreeMap::new(),
            places: Mask::default(),
            wants: BTreeMap::new(),
            pulls: BTreeMap::new(),
            asked: 0,
            stirred: false,
            flushes: rest_in_hand(now),
            queued: 0,
            draft_frame: Vec::new(),
            fresh: BTreeMap::new(),
            patient: BTreeSet::new(),
            recent: Recent::default(),
            installed: now,
            grown: now,
            routes: None,
            routes_stale: false,
            clock: RunningClock::new(now),
            beat: now,
            due: None,
            signed_states: Signed::default(),
            outranked: None,
            quiet_until: None,
            former: None,
            events: VecDeque::new(),
            changed: BTreeSet::new(),
            inbox: 0,
            counters: Counters::default(),
            undecodable: AtomicU64::new(0),
            served: id,
            identity,
        };
        gossip.publish(empty_stamp(incarnation));
        gossip
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

    /// Takes a frame that came over the link to `from`.
    ///
    /// # Errors
    /// [`Misbehaved`] when the frame, or a part of it, was refused: log it; the counters have it, the link stays.
    pub fn receive(&mut self, now: Instant, from: PeerId, frame: &[u8]) -> Result<(), Misbehaved> {
        self.observe(now);
        if !self.hear(now, from, now) {
            self.counters.unexpected += 1;
            return Ok(());
        }
        self.counters.frames_received += 1;
        self.counters.bytes_received += frame.len() as u64;
        let outcome = frame::decode(frame, MAX_FRAME)
            .map_err(Misbehaved::from)
            .and_then(|decoded| self.dispatch(now, from, decoded));
        self.settle(now);
        outcome.inspect_err(|misbehaved| self.count(misbehaved))
    }

    fn dispatch(&mut self, now: Instant, from: PeerId, decoded: Frame) -> Result<(), Misbehaved> {
        match decoded {
            Frame::Hello(hello) => return self.on_hello(now, from, &hello),
            Frame::Heartbeat(heartbeat) => self.on_heartbeat(now, from, heartbeat),
            Frame::Walk(walk) => self.on_walk(from, walk),
            Frame::Announce(summaries) => self.on_announce(from, &summaries),
            Frame::Request(origins) => self.on_request(from, &origins),
            Frame::Changes(changes) => return self.on_changes(now, from, changes),
            Frame::States(parts) => return self.on_states(now, from, parts),
            Frame::Message(message) => return self.on_message(now, from, message),
            Frame::Since(bases) => self.on_since(from, &bases),
            Frame::Asked(changes) => return self.on_asked(now, from, changes),
        }
        Ok(())
    }

    fn on_hello(&mut self, now: Instant, from: PeerId, hello: &Hello) -> Result<(), Misbehaved> {
        if let Some(key) = self.members.public_key(from) {
            self.learn(now, from, key, hello.incarnation);
        }
        if let Some(link) = self.links.get_mut(&from) {
            link.greeted = true;
            self.stirred = true;
        }
        match &hello.echo {
            Some(manifest) => self.on_own_manifest(from, manifest),
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
        self.flush();
        if self.queued == 0 {
            return None;
        }
        let after = (Bound::Excluded(self.served), Bound::Unbounded);
        let waiting = |(to, link): (&PeerId, &Link)| (link.queue.len() > 0).then_some(*to);
        let to = self.links.range(after).find_map(waiting).or_else(|| self.links.iter().find_map(waiting))?;
        let (frame, reliable) = self.links.get_mut(&to)?.queue.pop()?;
        self.queued -= 1;
        self.served = to;
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += frame.len() as u64;
        Some(Transmit { to, frame, reliable })
    }

    /// Next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.flush();
        let event = self.events.pop_front();
        if matches!(event, Some(Event::Message { .. })) {
            self.inbox -= 1;
        }
        event.or_else(|| self.changed.pop_first().map(|(store, origin)| Event::Changed { store, origin }))
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn emit_changed(&mut self, stores: &[StoreId], origin: PeerId) {
        self.changed.extend(stores.iter().map(|store| (*store, origin)));
    }

    /// All members but this node.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.members.others().filter_map(|(_, known)| member(known, known.standing.as_ref()?))
    }

    /// A member other than this node.
    #[must_use]
    pub fn member(&self, peer: PeerId) -> Option<Member> {
        let known = self.members.get(self.members.find(peer)?)?;
        member(known, known.standing.as_ref()?)
    }

    /// Key of this node.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.identity.public_key()
    }

    /// Origins of which something is held, this node included.
    #[must_use]
    pub const fn origins(&self) -> usize {
        self.members.held()
    }

    /// Run and number of the latest state of an origin that is held.
    #[must_use]
    pub fn latest(&self, origin: PeerId) -> Option<(Incarnation, u64)> {
        let stamp = self.members.of(origin)?.stamp();
        Some((stamp.incarnation, stamp.sequence))
    }

    /// Root over all that is held of everyone: the same at two nodes when they hold the same.
    #[must_use]
    pub fn digest(&mut self) -> [u8; 16] {
        self.members.digest()
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let undecodable = self.undecodable.load(std::sync::atomic::Ordering::Relaxed);
        Counters { undecodable, ..self.counters }
    }

    pub(crate) fn own_replica(&self) -> &Replica {
        let own = self.members.get(SELF).and_then(|known| known.replica.as_ref());
        own.expect("the own state is published with the state machine and never removed")
    }

    /// Queues a frame for a link, if there is one.
    pub(crate) fn transmit(&mut self, to: PeerId, frame: &Frame) -> bool {
        let (frame, reliable) = (self.encode(frame), !matches!(frame, Frame::Heartbeat(_)));
        self.queue(to, |link| {
            link.load.add(frame.len());
            link.queue.push(frame, reliable)
        })
    }

    /// Queues a frame that everything else may overtake.
    pub(crate) fn transmit_bulk(&mut self, to: PeerId, frame: &Frame) -> bool {
        let frame = self.encode(frame);
        self.queue(to, |link| {
            link.load.add(frame.len());
            link.queue.push_bulk(frame)
        })
    }

    /// Frames wait by the thousand, so that each has the room that it needs and no more.
    fn encode(&mut self, frame: &Frame) -> Vec<u8> {
        let mut draft = std::mem::take(&mut self.draft_frame);
        draft.clear();
        draft = frame::encode_onto(draft, frame);
        let encoded = draft.as_slice().to_vec();
        if draft.capacity() <= USUAL_FRAME {
            self.draft_frame = draft;
        }
        encoded
    }

    fn queue(&mut self, to: PeerId, push: impl FnOnce(&mut Link) -> bool) -> bool {
        let Some(link) = self.links.get_mut(&to) else { return false };
        let queued = push(link);
        self.queued += usize::from(queued);
        self.counters.queue_full += u64::from(!queued);
        queued
    }

    /// Frames are gone with their link.
    pub(crate) const fn unqueue(&mut self, frames: usize) {
        self.queued -= frames;
    }

    /// Notes the time of a call and forgives everyone the silence that was our own standstill.
    pub(crate) fn observe(&mut self, now: Instant) {
        let stall = self.clock.observe(now, self.due);
        if stall > Duration::ZERO {
            self.links.values_mut().for_each(|link| link.forgive(stall));
            self.members.forgive(stall);
        }
    }

    /// Makes sure that the driver calls at `at`.
    pub(crate) fn arm(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Draws the conclusions of what just happened.
    pub(crate) fn settle(&mut self, now: Instant) {
        self.members.repair(now);
        let links = &self.links;
        let silent = |peer: PeerId| links.get(&peer).is_some_and(|link| !link.pulse.is_up());
        let events = self.members.update(now, silent);
        if !events.is_empty() {
            self.events.extend(events);
            self.members.timeout().into_iter().for_each(|at| self.arm(at));
        }
        self.members.reach.timeout().into_iter().for_each(|at| self.arm(at));
    }

    /// When neighbours may be told next; a moment that is over if it is now.
    pub(crate) fn rested(&self, now: Instant) -> Instant {
        self.flushes.max(rest_in_hand(now))
    }

    /// Tells and asks neighbours what the calls since the last time led to: what came together goes out together, and where
    /// something always comes, what came within [`FLUSH_PAUSE`].
    fn flush(&mut self) {
        let now = self.clock.observed();
        self.sign_due(now);
        if !self.stirred {
            return;
        }
        let rested = self.rested(now);
        if rested > now {
            return self.arm(rested);
        }
        self.stirred = false;
        self.flushes = rested + FLUSH_PAUSE;
        self.tell_links(now);
        self.ask_links(now);
    }
}

/// From when on neighbours that were told at the last moment are told several times at once again.
fn rest_in_hand(now: Instant) -> Instant {
    now.checked_sub(FLUSHES_IN_HAND * FLUSH_PAUSE).unwrap_or(now)
}

fn member(known: &Known, standing: &Standing) -> Option<Member> {
    Some(Member {
        id: known.id,
        public_key: known.public_key()?,
        incarnation: standing.incarnation,
        state: standing.state,
        since: standing.since,
    })
}
