//! Nodes, time and what befalls them.
//!
//! Time passes from one scheduled moment to the next, and costs nothing in between: what a step costs depends on the
//! nodes that it touches and not on how many there are. Two runs of one seed are the same run.

mod addresses;
mod attack;
mod driver;
mod links;
mod node;
mod turns;
mod uplink;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_gossip::{Event, Gossip, Pool};
use meshwork_wire::PeerId;
use meshwork_wire::record::StoreId;

use crate::content::Notes;
use crate::graph::Graph;
use crate::random::Random;
use crate::wire::{Conditions, Packet};
use addresses::{Allocator, Space};
use driver::{Call, Driver, Ending};
use node::Node;
use turns::Turn;

/// How often a node dials the neighbours to which it has no link.
const REDIAL: Duration = Duration::from_millis(500);

/// How long a node that learns of a later run of its own looks for the process that did it.
const LOOK_FOR_COPY: Duration = Duration::from_secs(2);

/// How often a driver tells of a link's round trip.
const MEASURE: Duration = Duration::from_secs(10);

/// Who has a link to whom.
#[derive(Debug, Clone)]
pub enum Wiring {
    /// Nodes keep links to their neighbours in a graph.
    Fixed(Graph),
    /// Nodes choose their links as daemons do, each from the addresses that its operator named.
    Chosen(Vec<Vec<usize>>),
}

impl Wiring {
    /// Chosen links in a mesh that all join through the first node, which names nobody.
    #[must_use]
    pub fn from_first(count: usize) -> Self {
        Self::Chosen((0..count).map(|node| if node == 0 { Vec::new() } else { vec![0] }).collect())
    }
}

/// The world.
pub struct World {
    /// Draws everything that is left to chance.
    pub random: Random,
    /// How all links behave.
    pub conditions: Conditions,
    /// Whether nodes remember their events: fine for small meshes.
    pub remembers: bool,
    /// Whether nodes that learn that their disk was rolled back begin anew above what they lost, as daemons do.
    pub recovers: bool,
    /// Addresses that nodes hand out.
    space: Option<Space>,
    /// A node is hostile, or published two states under one number: honest nodes pass on what others refuse.
    disturbed: bool,
    start: Instant,
    now: Instant,
    nodes: Vec<Node>,
    ids: Vec<PeerId>,
    index: HashMap<PeerId, usize>,
    wiring: Wiring,
    /// States that are equal are held once.
    pool: Arc<Pool>,
    schedule: BinaryHeap<Reverse<Moment>>,
    scheduled: u64,
    connections: u64,
    /// Ways that are blocked.
    cuts: BTreeSet<(usize, usize)>,
    /// Nodes of different sides do not reach each other.
    sides: Option<Vec<u8>>,
    /// Changes of one store of one origin, by the moment at which each node saw the first.
    watched: Option<Watch>,
    traffic: Vec<u64>,
    /// Length of turns, where time passes in turns.
    turns: Option<Duration>,
    /// Whose it is.
    turn: Option<Turn>,
}

struct Watch {
    store: StoreId,
    origin: PeerId,
    seen: BTreeMap<usize, Instant>,
}

/// Something that is to happen.
struct Moment {
    at: Instant,
    order: u64,
    what: What,
}

enum What {
    Arrival(Box<Packet>),
    /// The transport of the first acknowledged to the second, on a connection.
    Acknowledged(usize, usize, u64),
    Timer(usize),
    Start(usize),
    Wake(usize),
    /// A node and how often it was started before.
    Dial(usize, u64),
    Measure(usize, u64),
    Connect(usize, usize),
    /// An uplink can send again.
    Free(usize, u64),
    /// A call comes to the door.
    Knock(Box<Call>),
    /// A call is given up.
    Unanswered(Box<Call>),
    /// A hostile node does what it should not.
    Misdeed(usize),
    /// A node goes on above a run that its disk does not know.
    Renew(usize, u64, u64),
    /// The first closed a connection to the second.
    Closed(usize, usize, u64, Ending),
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl World {
    /// Nodes that all want links to each other.
    #[must_use]
    pub fn full_mesh(seed: u64, count: usize) -> Self {
        Self::new(seed, Wiring::Fixed(Graph::full(count)), count)
    }

    /// Nodes of which each wants a link to the next.
    #[must_use]
    pub fn chain(seed: u64, count: usize) -> Self {
        Self::new(seed, Wiring::Fixed(Graph::chain(count)), count)
    }

    /// Nodes that choose their links, and all join through the first.
    #[must_use]
    pub fn chosen(seed: u64, count: usize) -> Self {
        Self::new(seed, Wiring::from_first(count), count)
    }

    /// Nodes that all start at once.
    #[must_use]
    pub fn new(seed: u64, wiring: Wiring, count: usize) -> Self {
        let mut world = Self::asleep(seed, wiring, count);
        (0..count).for_each(|node| world.restart(node));
        world
    }

    /// Nodes that have not been started.
    #[must_use]
    pub fn asleep(seed: u64, wiring: Wiring, count: usize) -> Self {
        let now = Instant::now();
        let nodes: Vec<Node> = (0..count).map(|number| Node::new(number, count)).collect();
        Self {
            random: Random::new(seed),
            conditions: Conditions::default(),
            remembers: true,
            recovers: false,
            space: None,
            disturbed: false,
            start: now,
            now,
            index: nodes.iter().enumerate().map(|(number, node)| (node.id, number)).collect(),
            ids: nodes.iter().map(|node| node.id).collect(),
            nodes,
            wiring,
            pool: Arc::new(Pool::shared()),
            schedule: BinaryHeap::new(),
            scheduled: 0,
            connections: 0,
            cuts: BTreeSet::new(),
            sides: None,
            watched: None,
            traffic: Vec::new(),
            turns: None,
            turn: None,
        }
    }

    fn at(&mut self, at: Instant, what: What) {
        self.scheduled += 1;
        let here = self.belongs_here(at, &what);
        let moment = Moment { at, order: self.scheduled, what };
        if here {
            self.keep(moment);
        } else {
            self.schedule.push(Reverse(moment));
        }
    }

    /// Since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The moment that it is.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Bytes on the wire so far, for each tenth of a second.
    #[must_use]
    pub fn traffic(&self) -> &[u64] {
        &self.traffic
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        match self.turns {
            Some(length) => self.run_in_turns(length, end),
            None => while self.next().is_some_and(|next| next <= end) && self.step() {},
        }
        self.now = end;
    }

    /// When something is to happen next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.schedule.peek().map(|next| next.0.at)
    }

    /// Does what is next. Answers whether there was anything.
    pub fn step(&mut self) -> bool {
        let Some(Reverse(Moment { at, what, .. })) = self.schedule.pop() else { return false };
        self.now = self.now.max(at);
        self.befall(what);
        true
    }

    fn befall(&mut self, what: What) {
        match what {
            What::Arrival(packet) => self.arrive(*packet),
            What::Acknowledged(by, node, connection) => self.acknowledged(by, node, connection),
            What::Timer(node) => self.timer(node),
            What::Start(node) => self.restart(node),
            What::Wake(node) => self.wake(node),
            What::Dial(node, start) => self.dial(node, start),
            What::Measure(node, start) => self.measure(node, start),
            What::Connect(one, other) => self.connect(one, other),
            What::Free(node, turn) => self.free(node, turn),
            What::Knock(call) => self.knock(*call),
            What::Unanswered(call) => self.unanswered(&call),
            What::Misdeed(node) => self.misdeed(node),
            What::Renew(node, start, incarnation) => self.renew(node, start, incarnation),
            What::Closed(by, node, connection, ending) => self.closed(by, node, connection, ending),
        }
    }

    /// Runs until the condition holds; answers how long that took, or nothing after `limit`.
    pub fn run_until(&mut self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while self.now < begun + limit {
            if condition(self) {
                return Some(self.now - begun);
            }
            self.run(Duration::from_millis(10));
        }
        None
    }

    /// Starts a node some time from now.
    pub fn start_after(&mut self, node: usize, time: Duration) {
        self.at(self.now + time, What::Start(node));
    }

    /// Notes when each node hears of changes to a store of one origin.
    pub fn watch(&mut self, store: StoreId, origin: usize) {
        let origin = self.nodes[origin].id;
        self.watched = Some(Watch { store, origin, seen: BTreeMap::new() });
    }

    /// When each node heard, since the watch began, in order of time.
    #[must_use]
    pub fn heard(&self, since: Instant) -> Vec<Duration> {
        let seen = self.watched.iter().flat_map(|watch| watch.seen.values());
        let mut times: Vec<Duration> = seen.map(|at| at.saturating_duration_since(since)).collect();
        times.sort_unstable();
        times
    }

    /// Calls into a running node and carries away what it has to say.
    pub fn on<T>(&mut self, node: usize, call: impl FnOnce(&mut Gossip, Instant) -> T) -> T {
        let now = self.now;
        let answer = call(self.nodes[node].gossip.as_mut().expect("the node runs"), now);
        self.drain(node);
        answer
    }

    fn drain(&mut self, node: usize) {
        while let Some(transmit) = self.nodes[node].gossip.as_mut().and_then(Gossip::poll_transmit) {
            self.send(node, transmit);
        }
        while let Some(event) = self.nodes[node].gossip.as_mut().and_then(Gossip::poll_event) {
            self.happened(node, event);
        }
        self.drive(node);
        if self.nodes[node].allocator.is_some() {
            self.allocate(node);
            while let Some(transmit) = self.nodes[node].gossip.as_mut().and_then(Gossip::poll_transmit) {
                self.send(node, transmit);
            }
        }
        self.rearm(node);
    }

    /// Has a node called when something of it is due.
    fn rearm(&mut self, node: usize) {
        let state = &self.nodes[node];
        let due = state.gossip.as_ref().and_then(Gossip::poll_timeout);
        let driver = state.driver.as_ref().map(Driver::due);
        let allocator = state.allocator.as_ref().and_then(Allocator::due);
        self.arm(node, due.into_iter().chain(driver).chain(allocator).min());
    }

    fn happened(&mut self, node: usize, event: Event) {
        self.heed(node, &event);
        self.note_for_allocator(node, &event);
        match &event {
            Event::Recovered { incarnation } if self.recovers => {
                let what = What::Renew(node, self.nodes[node].starts, incarnation.0);
                self.at(self.now + LOOK_FOR_COPY, what);
            }
            Event::LinkSilent { peer } => self.lose_link(node, self.index[peer], Ending::Lost),
            Event::Member { peer, state, .. } => {
                if let Some(far) = self.index.get(peer) {
                    self.nodes[node].note(*far, *state);
                }
            }
            Event::Changed { store, origin } => {
                let now = self.now;
                if let Some(watch) =
                    self.watched.as_mut().filter(|watch| watch.origin == *origin && watch.store == *store)
                {
                    watch.seen.entry(node).or_insert(now);
                }
            }
            _ => {}
        }
        if self.remembers {
            let elapsed = self.elapsed();
            self.nodes[node].events.push((elapsed, event));
        }
    }

    fn arm(&mut self, node: usize, due: Option<Instant>) {
        let state = &mut self.nodes[node];
        state.due = due;
        if let Some(due) = due.filter(|due| state.armed.is_none_or(|armed| *due < armed)) {
            state.armed = Some(due);
            self.at(due, What::Timer(node));
        }
    }

    fn timer(&mut self, node: usize) {
        if self.nodes[node].armed.is_none_or(|armed| armed > self.now) {
            return;
        }
        self.nodes[node].armed = None;
        let due = self.nodes[node].due;
        if !self.runs(node) {
            return;
        }
        let gossip = self.nodes[node].gossip.as_ref().and_then(Gossip::poll_timeout);
        if gossip.is_some_and(|due| due <= self.now) {
            self.hear_links(node);
            self.on(node, |gossip, now| gossip.handle_timeout(now));
        } else if due.is_some_and(|due| due <= self.now) {
            self.drain(node);
        } else {
            self.arm(node, due);
        }
    }

    /// Publishes a note, or has it published when the node starts.
    pub fn put(&mut self, node: usize, key: u32, value: &str) {
        self.nodes[node].notes.insert(key, value.to_owned());
        if self.nodes[node].gossip.is_some() {
            self.on(node, |gossip, now| gossip.put::<Notes>(now, &key, &value.to_owned())).expect("it fits");
        }
    }

    /// Withdraws a note.
    pub fn remove(&mut self, node: usize, key: u32) {
        self.nodes[node].notes.remove(&key);
        if self.nodes[node].gossip.is_some() {
            self.on(node, |gossip, now| gossip.remove::<Notes>(now, &key));
        }
    }
}
