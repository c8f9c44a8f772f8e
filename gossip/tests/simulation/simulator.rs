//! Many nodes in one process under a virtual clock: links with latency, loss, cuts and redials; nodes that pause, crash
//! and restart. Everything follows from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_gossip::{Event, Gossip, Member, MemberState, Transmit};
use meshwork_identity::Identity;
use meshwork_wire::record::{Links, Store, StoreId};
use meshwork_wire::{Incarnation, PeerId};

use crate::random::Random;

/// A store of the tests.
pub(crate) struct Notes;

impl Store for Notes {
    const ID: StoreId = StoreId(900);
    const NAME: &'static str = "notes";
    type Key = u32;
    type Value = String;
}

/// All notes, and all links, that a node knows.
type View = (BTreeSet<(PeerId, u32, String)>, BTreeSet<(PeerId, PeerId)>);

/// How often a node dials the neighbours to which it has no link.
const REDIAL: Duration = Duration::from_millis(500);

/// One host.
pub(crate) struct Node {
    id: PeerId,
    /// When it wants to be called.
    due: Option<Instant>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) gossip: Option<Gossip>,
    pub(crate) incarnation: u64,
    pub(crate) events: Vec<(Duration, Event)>,
    /// What the node wants published, and puts again after a restart.
    pub(crate) notes: BTreeMap<u32, String>,
    paused_until: Option<Instant>,
    backlog: VecDeque<Packet>,
}

#[derive(Clone)]
struct Packet {
    from: usize,
    to: usize,
    connection: u64,
    reliable: bool,
    frame: Vec<u8>,
}

/// The world.
pub(crate) struct Simulator {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) latency: Duration,
    /// Share of unreliable frames that are lost, in percent.
    pub(crate) loss: u64,
    start: Instant,
    pub(crate) nodes: Vec<Node>,
    neighbours: BTreeSet<(usize, usize)>,
    cuts: BTreeSet<(usize, usize)>,
    /// The connection that each end uses towards the other.
    open: BTreeMap<(usize, usize), u64>,
    connections: u64,
    flying: BTreeMap<(Instant, u64), Packet>,
    held: BTreeMap<(usize, usize), VecDeque<Packet>>,
    packets: u64,
    next_dial: Instant,
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl Simulator {
    /// Nodes that all want links to each other.
    pub(crate) fn full_mesh(seed: u64, count: usize) -> Self {
        let all = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        Self::new(seed, count, all.collect())
    }

    /// Nodes of which each wants a link to the next.
    pub(crate) fn chain(seed: u64, count: usize) -> Self {
        Self::new(seed, count, (1..count).map(|node| (node - 1, node)).collect())
    }

    fn new(seed: u64, count: usize, neighbours: BTreeSet<(usize, usize)>) -> Self {
        let now = Instant::now();
        let mut simulator = Self {
            now,
            random: Random::new(seed),
            latency: Duration::from_millis(5),
            loss: 0,
            start: now,
            nodes: (0..count).map(Node::new).collect(),
            neighbours,
            cuts: BTreeSet::new(),
            open: BTreeMap::new(),
            connections: 0,
            flying: BTreeMap::new(),
            held: BTreeMap::new(),
            packets: 0,
            next_dial: now,
        };
        (0..count).for_each(|node| simulator.restart(node));
        simulator
    }

    pub(crate) fn id(&self, node: usize) -> PeerId {
        self.nodes[node].id
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(crate) fn gossip(&self, node: usize) -> &Gossip {
        self.nodes[node].gossip.as_ref().expect("the node runs")
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].gossip.is_some()).collect()
    }

    /// Calls into a running node and carries away what it has to say.
    pub(crate) fn on<T>(&mut self, node: usize, call: impl FnOnce(&mut Gossip, Instant) -> T) -> T {
        let now = self.now;
        let answer = call(self.nodes[node].gossip.as_mut().expect("the node runs"), now);
        self.drain(node);
        answer
    }

    pub(crate) fn put(&mut self, node: usize, key: u32, value: &str) {
        self.nodes[node].notes.insert(key, value.to_owned());
        if self.nodes[node].gossip.is_some() {
            self.on(node, |gossip, now| gossip.put::<Notes>(now, &key, &value.to_owned())).expect("it fits");
        }
    }

    pub(crate) fn remove(&mut self, node: usize, key: u32) {
        self.nodes[node].notes.remove(&key);
        if self.nodes[node].gossip.is_some() {
            self.on(node, |gossip, now| gossip.remove::<Notes>(now, &key));
        }
    }

    pub(crate) fn crash(&mut self, node: usize) {
        self.nodes[node].gossip = None;
        self.nodes[node].due = None;
        self.nodes[node].backlog.clear();
        self.nodes[node].paused_until = None;
        self.open.retain(|(near, _), _| *near != node);
    }

    /// Starts a node that is not running, under the next incarnation, with the notes that it has on disk.
    pub(crate) fn restart(&mut self, node: usize) {
        let now = self.now;
        let state = &mut self.nodes[node];
        state.incarnation += 1;
        let mut gossip = Gossip::new(state.identity.clone(), Incarnation(state.incarnation), now);
        for (key, value) in &state.notes {
            gossip.put::<Notes>(now, key, value).expect("it fitted before");
        }
        state.due = gossip.poll_timeout();
        state.gossip = Some(gossip);
    }

    /// Stops a node for a while; what arrives waits for it.
    pub(crate) fn pause(&mut self, node: usize, time: Duration) {
        self.nodes[node].paused_until = Some(self.now + time);
    }

    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        self.cuts.insert(pair(one, other));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        for (_, packets) in std::mem::take(&mut self.held) {
            packets.into_iter().for_each(|packet| self.fly(packet));
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next_moment().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    /// Runs until the condition holds; answers how long that took, or nothing after `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while self.now < begun + limit {
            if condition(self) {
                return Some(self.now - begun);
            }
            self.run(Duration::from_millis(10));
        }
        None
    }

    fn next_moment(&self) -> Option<Instant> {
        let flying = self.flying.keys().next().map(|(at, _)| *at);
        let node = |node: &Node| node.paused_until.or(node.due);
        self.nodes.iter().filter_map(node).chain(flying).chain([self.next_dial]).min()
    }

    fn step(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let packet = entry.remove();
            self.arrive(packet);
        }
        for node in 0..self.nodes.len() {
            self.wake(node);
            if self.nodes[node].paused_until.is_none() && self.nodes[node].due.is_some_and(|at| at <= self.now) {
                self.on(node, |gossip, now| gossip.handle_timeout(now));
            }
        }
        if self.next_dial <= self.now {
            self.next_dial = self.now + REDIAL;
            self.dial();
        }
    }

    /// The harder order: overdue timers before what waited.
    fn wake(&mut self, node: usize) {
        if self.nodes[node].paused_until.is_some_and(|until| until <= self.now) {
            self.nodes[node].paused_until = None;
            self.on(node, |gossip, now| gossip.handle_timeout(now));
            for packet in std::mem::take(&mut self.nodes[node].backlog) {
                self.deliver(packet);
            }
        }
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].gossip.is_some() && self.nodes[node].paused_until.is_none()
    }

    fn dial(&mut self) {
        for (one, other) in self.neighbours.clone() {
            let whole = self.open.get(&(one, other)).is_some_and(|near| self.open.get(&(other, one)) == Some(near));
            if whole || self.cuts.contains(&(one, other)) || !self.runs(one) || !self.runs(other) {
                continue;
            }
            self.connections += 1;
            for (near, far) in [(one, other), (other, one)] {
                self.open.insert((near, far), self.connections);
                self.held.remove(&(near, far));
            }
            for (near, far) in [(one, other), (other, one)] {
                let (peer, key) = (self.id(far), self.nodes[far].identity.public_key());
                self.on(near, |gossip, now| gossip.link_up(now, peer, key));
            }
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let way = (packet.from, packet.to);
        let cut = self.cuts.contains(&pair(packet.from, packet.to));
        if packet.reliable && (cut || self.held.get(&way).is_some_and(|held| !held.is_empty())) {
            self.held.entry(way).or_default().push_back(packet);
        } else if !cut && self.nodes[packet.to].paused_until.is_some() {
            self.nodes[packet.to].backlog.push_back(packet);
        } else if !cut {
            self.deliver(packet);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        let from = self.id(packet.from);
        if self.open.get(&(packet.to, packet.from)) == Some(&packet.connection) {
            self.on(packet.to, |gossip, now| gossip.receive(now, from, &packet.frame)).expect("honest nodes behave");
        }
    }

    fn drain(&mut self, node: usize) {
        let elapsed = self.elapsed();
        while let Some(transmit) = self.nodes[node].gossip.as_mut().and_then(Gossip::poll_transmit) {
            self.send(node, transmit);
        }
        while let Some(event) = self.nodes[node].gossip.as_mut().and_then(Gossip::poll_event) {
            if let Event::LinkSilent { peer } = event {
                let far = (0..self.nodes.len()).find(|&far| self.id(far) == peer).expect("a node of this world");
                self.open.remove(&(node, far));
                self.on(node, |gossip, now| gossip.link_down(now, peer));
            }
            self.nodes[node].events.push((elapsed, event));
        }
        self.nodes[node].due = self.nodes[node].gossip.as_ref().and_then(Gossip::poll_timeout);
    }

    fn send(&mut self, from: usize, Transmit { to, frame, reliable }: Transmit) {
        let to = (0..self.nodes.len()).find(|&node| self.id(node) == to).expect("a node of this world");
        let Some(&connection) = self.open.get(&(from, to)) else { return };
        if reliable || self.random.below(100) >= self.loss {
            self.fly(Packet { from, to, connection, reliable, frame });
        }
    }

    /// Datagrams may overtake each other and the stream; the stream keeps its order.
    fn fly(&mut self, packet: Packet) {
        self.packets += 1;
        let jitter = if packet.reliable { 0 } else { self.random.below(3000) };
        let at = self.now + self.latency + Duration::from_micros(jitter);
        self.flying.insert((at, self.packets), packet);
    }

    pub(crate) fn member(&self, node: usize, of: usize) -> Option<Member> {
        self.gossip(node).members().find(|member| member.id == self.id(of))
    }

    pub(crate) fn sees(&self, node: usize, of: usize, state: MemberState) -> bool {
        self.member(node, of).is_some_and(|member| member.state == state)
    }

    /// Events of a node about another one since a moment.
    pub(crate) fn events_about(&self, node: usize, of: usize, since: Duration) -> Vec<&Event> {
        let id = self.id(of);
        let about = |event: &&Event| match event {
            Event::Member { peer, .. } | Event::Restarted { peer, .. } => *peer == id,
            _ => false,
        };
        self.nodes[node].events.iter().filter(|(at, _)| *at >= since).map(|(_, event)| event).filter(about).collect()
    }

    /// Whether all running nodes hold the same, and everyone's own notes are all there.
    pub(crate) fn agrees(&self) -> Result<(), String> {
        let living = self.living();
        for &node in &living {
            let own: BTreeMap<u32, String> = self.gossip(node).own::<Notes>().collect();
            if own != self.nodes[node].notes {
                return Err(format!("node {node} lost own entries"));
            }
            if self.view(node) != self.view(living[0]) {
                return Err(format!(
                    "nodes {node} and {} differ:\n{:?}\n{:?}",
                    living[0],
                    self.view(node),
                    self.view(living[0])
                ));
            }
            if let Some(of) = living.iter().find(|&&of| of != node && !self.sees(node, of, MemberState::Alive)) {
                return Err(format!("node {node} does not see {of} alive"));
            }
        }
        Ok(())
    }

    fn view(&self, node: usize) -> View {
        let gossip = self.gossip(node);
        let links = gossip.entries::<Links>().map(|(origin, key, _)| (origin, key));
        (gossip.entries::<Notes>().collect(), links.collect())
    }
}

impl Node {
    fn new(number: usize) -> Self {
        let mut seed = [0; 32];
        seed[0] = u8::try_from(number).expect("fewer than 256 nodes");
        let identity = Arc::new(Identity::from_seed(seed));
        Self {
            id: identity.peer_id(),
            due: None,
            identity,
            gossip: None,
            incarnation: 0,
            events: Vec::new(),
            notes: BTreeMap::new(),
            paused_until: None,
            backlog: VecDeque::new(),
        }
    }
}
