//! One host: what it runs, what it has on disk and what others can see of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_gossip::{Event, Gossip, MemberState};
use meshwork_identity::Identity;
use meshwork_ipam::Snapshot;
use meshwork_wire::record::Peers;
use meshwork_wire::{Incarnation, PeerId};

use super::addresses::Allocator;
use super::driver::Driver;
use super::uplink::Uplink;
use super::{MEASURE, REDIAL, What, Wiring, World};
use crate::content::{self, Notes};
use crate::hostile::Hostile;
use crate::random::Random;
use crate::wire::{End, Packet};

/// One host.
pub(super) struct Node {
    pub(super) id: PeerId,
    pub(super) identity: Arc<Identity>,
    pub(super) gossip: Option<Gossip>,
    pub(super) incarnation: u64,
    /// How often it was started.
    pub(super) starts: u64,
    pub(super) events: Vec<(Duration, Event)>,
    /// What the node wants published, and puts again after a restart.
    pub(super) notes: BTreeMap<u32, String>,
    /// Publishes what a node of a real mesh does.
    pub(super) realistic: bool,
    /// The latest state of the runs that ended.
    pub(super) said: Option<(u64, u64)>,
    /// When it wants to be called.
    pub(super) due: Option<Instant>,
    /// The earliest scheduled call.
    pub(super) armed: Option<Instant>,
    pub(super) paused_until: Option<Instant>,
    pub(super) backlog: VecDeque<Packet>,
    pub(super) uplink: Uplink,
    /// What it does besides, if it is hostile.
    pub(super) hostile: Option<Hostile>,
    /// Hands out addresses, where nodes do that.
    pub(super) allocator: Option<Allocator>,
    /// What of that outlives the process.
    pub(super) disk: Snapshot,
    /// The same when the process began.
    earlier: Snapshot,
    /// Chooses its links, where nodes do that.
    pub(super) driver: Option<Driver>,
    /// Its ends of connections, by the other side.
    pub(super) ends: BTreeMap<usize, End>,
    pub(super) sent: u64,
    /// Members that it sees alive.
    alive: Vec<u64>,
    living: usize,
}

impl Node {
    pub(super) fn new(number: usize, count: usize) -> Self {
        let identity = Arc::new(Identity::from_seed(Random::new(number as u64).bytes()));
        Self {
            id: identity.peer_id(),
            identity,
            gossip: None,
            incarnation: 0,
            starts: 0,
            events: Vec::new(),
            notes: BTreeMap::new(),
            realistic: false,
            said: None,
            due: None,
            armed: None,
            paused_until: None,
            backlog: VecDeque::new(),
            uplink: Uplink::default(),
            hostile: None,
            allocator: None,
            disk: Snapshot::default(),
            earlier: Snapshot::default(),
            driver: None,
            ends: BTreeMap::new(),
            sent: 0,
            alive: vec![0; count.div_ceil(64)],
            living: 0,
        }
    }

    pub(super) fn note(&mut self, far: usize, state: MemberState) {
        let (word, bit) = (&mut self.alive[far / 64], 1 << (far % 64));
        let before = *word & bit != 0;
        let after = state == MemberState::Alive;
        *word = if after { *word | bit } else { *word & !bit };
        self.living = self.living + usize::from(after) - usize::from(before);
    }
}

impl World {
    /// Name of a node.
    #[must_use]
    pub fn id(&self, node: usize) -> PeerId {
        self.nodes[node].id
    }

    /// The node of this name.
    #[must_use]
    pub fn number(&self, id: PeerId) -> Option<usize> {
        self.index.get(&id).copied()
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// A running node's gossip.
    ///
    /// # Panics
    /// When the node does not run.
    #[must_use]
    pub fn gossip(&self, node: usize) -> &Gossip {
        self.nodes[node].gossip.as_ref().expect("the node runs")
    }

    /// Whether a node's process exists, paused or not.
    #[must_use]
    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].gossip.is_some()
    }

    /// Nodes whose process exists.
    #[must_use]
    pub fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.is_running(node)).collect()
    }

    /// What happened at a node, while the world remembers.
    #[must_use]
    pub fn events(&self, node: usize) -> &[(Duration, Event)] {
        &self.nodes[node].events
    }

    /// Run and number of the latest state of an origin that a running node has.
    #[must_use]
    pub fn state(&self, node: usize, origin: usize) -> Option<(u64, u64)> {
        let (run, number) = self.gossip(node).latest(self.id(origin))?;
        Some((run.0, number))
    }

    /// Run and number of the latest state that an origin ever published.
    #[must_use]
    pub fn said(&self, origin: usize) -> Option<(u64, u64)> {
        let living = self.is_running(origin).then(|| self.state(origin, origin)).flatten();
        living.max(self.nodes[origin].said)
    }

    /// How often a node was started.
    #[must_use]
    pub fn starts(&self, node: usize) -> u64 {
        self.nodes[node].starts
    }

    /// What a node was told to say.
    #[must_use]
    pub fn notes(&self, node: usize) -> &BTreeMap<u32, String> {
        &self.nodes[node].notes
    }

    /// Members that a node sees alive, itself not counted.
    #[must_use]
    pub fn sees_alive(&self, node: usize) -> usize {
        self.nodes[node].living
    }

    /// Whether all running nodes hold the same.
    #[must_use]
    pub fn holds_the_same(&mut self) -> bool {
        let mut digests = self.nodes.iter_mut().filter_map(|node| Some(node.gossip.as_mut()?.digest()));
        let Some(first) = digests.next() else { return true };
        digests.all(|digest| digest == first)
    }

    /// Bytes that a node has sent, with all headers.
    #[must_use]
    pub fn sent(&self, node: usize) -> u64 {
        self.nodes[node].sent
    }

    /// Has every node publish what nodes of real meshes do, from its next start on.
    pub fn make_realistic(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.realistic = true);
    }

    /// Ends a node's process at once.
    pub fn crash(&mut self, node: usize) {
        let said = self.said(node);
        let state = &mut self.nodes[node];
        state.said = said;
        state.gossip = None;
        state.due = None;
        state.backlog.clear();
        state.paused_until = None;
        state.uplink.stop();
        state.driver = None;
        state.allocator = None;
        state.alive.fill(0);
        state.living = 0;
        state.ends.clear();
    }

    /// Starts a node that is not running, under the next incarnation, with the notes that it has on disk.
    pub fn restart(&mut self, node: usize) {
        let (now, ranges) = (self.now, self.ranges());
        let state = &mut self.nodes[node];
        if state.gossip.is_some() {
            return;
        }
        state.incarnation = state.incarnation.saturating_add(1);
        state.starts += 1;
        state.earlier = state.disk.clone();
        let start = state.starts;
        let mut gossip =
            Gossip::sharing(state.identity.clone(), Incarnation(state.incarnation), now, Arc::clone(&self.pool));
        let number = u32::try_from(node).unwrap_or_default();
        if state.realistic {
            content::publish(&mut gossip, now, number).expect("it fits");
        }
        let chosen = matches!(self.wiring, Wiring::Chosen(_));
        if chosen || ranges.is_some() {
            let mut record = content::record(&mut Random::new(u64::from(number)), number);
            record.ranges = ranges.unwrap_or(record.ranges);
            gossip.put::<Peers>(now, &(), &record).expect("it fits");
        }
        if let Wiring::Chosen(seeds) = &self.wiring {
            state.driver = Some(Driver::new(state.id, now, &seeds[node]));
        }
        for (key, value) in &state.notes {
            gossip.put::<Notes>(now, key, value).expect("it fitted before");
        }
        state.gossip = Some(gossip);
        self.begin_allocator(node);
        self.drain(node);
        let phase = self.random.below(REDIAL.as_millis() as u64);
        self.at(now + Duration::from_millis(phase), What::Dial(node, start));
        self.at(now + MEASURE, What::Measure(node, start));
    }

    /// Takes a crashed node's disk back by one run, without its notes.
    pub fn roll_back(&mut self, node: usize) {
        self.disturbed = true;
        let state = &mut self.nodes[node];
        state.incarnation = state.incarnation.saturating_sub(1);
        state.notes.clear();
        state.disk = state.earlier.clone();
    }

    /// Starts a node's process again above a later run of its own, unless it was started meanwhile.
    pub(super) fn renew(&mut self, node: usize, start: u64, incarnation: u64) {
        if self.is_running(node) && self.nodes[node].starts == start && incarnation >= self.nodes[node].incarnation {
            self.crash(node);
            self.nodes[node].incarnation = incarnation;
            self.restart(node);
        }
    }

    /// Stops a node for a while; what arrives waits for it.
    pub fn pause(&mut self, node: usize, time: Duration) {
        let until = self.now + time;
        self.nodes[node].paused_until = Some(until);
        self.at(until, What::Wake(node));
    }

    /// The harder order: overdue timers before what waited.
    pub(super) fn wake(&mut self, node: usize) {
        if self.nodes[node].paused_until.is_some_and(|until| until <= self.now) {
            self.nodes[node].paused_until = None;
            self.hear_links(node);
            self.on(node, |gossip, now| gossip.handle_timeout(now));
            for packet in std::mem::take(&mut self.nodes[node].backlog) {
                self.deliver(packet);
            }
        }
    }

    pub(super) fn runs(&self, node: usize) -> bool {
        self.nodes[node].gossip.is_some() && self.nodes[node].paused_until.is_none()
    }
}
