//! Nodes in one process: disks that keep what was committed, messages that get lost, gossip that lags, partitions and
//! crashes, under a virtual clock. A reference keeps who holds which address and fails on the first double.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part of the simulator")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use meshwork_identity::Identity;
use meshwork_ipam::{Change, Config, Decision, Effect, Holding, Init, Input, Ipam, LeaseRequest, Message, Snapshot};
use meshwork_wire::record::{PodKey, Ranges, RingPart};
use meshwork_wire::{Incarnation, PeerId};

/// Numbers that replay from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn percent(&mut self, share: u64) -> bool {
        self.next() % 100 < share
    }
}

/// A mistake seeded on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Effects are performed before the changes are on disk.
    AnswerBeforeDurable,
    /// The giver does not record what it gave.
    GiftNotRecorded,
}

/// Seconds without a gift that are rest: more than two of the longest pauses of those who ask.
const QUIET: u32 = 70;

/// Seconds within which a whole mesh that nobody asks anything has to be at rest.
const REST_WITHIN: u32 = 600;

fn range6() -> Ipv6Net {
    "fd4d:6573:6877::/48".parse().unwrap()
}

/// What one writer publishes, numbered so that the newer is known.
type Published = (u64, BTreeMap<Ipv4Net, RingPart>);

pub struct Node {
    identity: Arc<Identity>,
    init: Init,
    incarnation: u64,
    pub disk: Snapshot,
    pub ipam: Option<Ipam>,
    published: Published,
    replicas: BTreeMap<PeerId, Published>,
    /// Requests without an answer, with their deadlines.
    open: BTreeMap<u64, Instant>,
    partition: usize,
}

pub struct World {
    pub random: Random,
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub loss: u64,
    pub crashes: bool,
    /// Two rings on purpose: each hands out the same addresses.
    pub rings_apart: bool,
    bug: Option<Bug>,
    range: Ipv4Net,
    in_flight: Vec<(usize, usize, Message)>,
    tokens: u64,
    /// Who was told that it holds an address.
    holders: BTreeMap<IpAddr, (usize, PodKey)>,
    pub granted: u64,
    pub refused: BTreeMap<&'static str, u64>,
    pub gifts: u64,
}

impl World {
    pub fn new(seed: u64, range: &str, inits: &[Init], bug: Option<Bug>) -> Self {
        let nodes = inits.iter().enumerate().map(|(index, init)| Node {
            identity: Arc::new(Identity::from_seed([index as u8 + 1; 32])),
            init: *init,
            incarnation: 0,
            disk: Snapshot::default(),
            ipam: None,
            published: Published::default(),
            replicas: BTreeMap::new(),
            open: BTreeMap::new(),
            partition: 0,
        });
        let mut world = Self {
            random: Random(seed),
            now: Instant::now(),
            nodes: nodes.collect(),
            loss: 0,
            crashes: false,
            rings_apart: false,
            bug,
            range: range.parse().unwrap(),
            in_flight: Vec::new(),
            tokens: 0,
            holders: BTreeMap::new(),
            granted: 0,
            refused: BTreeMap::new(),
            gifts: 0,
        };
        (0..world.nodes.len()).for_each(|node| world.start(node));
        world
    }

    pub fn id(&self, node: usize) -> PeerId {
        self.nodes[node].identity.peer_id()
    }

    pub fn start(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.incarnation += 1;
        let config = Config {
            identity: this.identity.clone(),
            incarnation: Incarnation(this.incarnation),
            range4: self.range,
            range6: range6(),
            init: this.init,
        };
        this.ipam = Some(Ipam::restore(config, this.disk.clone(), self.now).unwrap());
        this.published = (this.incarnation << 32, BTreeMap::new());
        self.input(node, Input::Started);
        self.meet();
    }

    pub fn crash(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        this.ipam = None;
        this.replicas.clear();
        this.open.clear();
        self.in_flight.retain(|(from, to, _)| *from != node && *to != node);
    }

    pub fn partition(&mut self, node: usize, side: usize) {
        self.nodes[node].partition = side;
    }

    pub fn linked(&self, one: usize, other: usize) -> bool {
        let (a, b) = (&self.nodes[one], &self.nodes[other]);
        a.ipam.is_some() && b.ipam.is_some() && a.partition == b.partition
    }

    /// Tells every node whom it can reach.
    pub fn meet(&mut self) {
        let keys: BTreeMap<_, _> =
            self.nodes.iter().map(|node| (node.identity.peer_id(), node.identity.public_key())).collect();
        for node in 0..self.nodes.len() {
            let others = (0..self.nodes.len()).filter(|other| *other != node && self.linked(node, *other));
            let alive: BTreeSet<PeerId> = others.map(|other| self.id(other)).collect();
            let ranges = alive.iter().map(|peer| (*peer, Ranges { v4: self.range, v6: range6() })).collect();
            let keys = keys.clone();
            self.input(node, Input::Peers { alive, free_hints: BTreeMap::new(), keys, ranges });
        }
    }

    pub fn lease(&mut self, node: usize, sandbox: &str, patience: Duration) -> u64 {
        self.tokens += 1;
        let (token, deadline) = (self.tokens, self.now + patience);
        if self.nodes[node].ipam.is_some() {
            self.nodes[node].open.insert(token, deadline);
            let request =
                LeaseRequest { sandbox: sandbox.to_owned(), interface: "eth0".to_owned(), ..Default::default() };
            self.input(node, Input::Lease { token, request, deadline });
        }
        token
    }

    pub fn release(&mut self, node: usize, sandbox: &str) {
        self.tokens += 1;
        let token = self.tokens;
        if self.nodes[node].ipam.is_some() {
            self.nodes[node].open.insert(token, self.now);
        }
        self.input(node, Input::Release { token, sandbox: sandbox.to_owned(), interface: None });
    }

    /// Hands an input in and does all that is due at once after it.
    pub fn input(&mut self, node: usize, input: Input) {
        let mut next = Some(input);
        for _ in 0..10_000 {
            let (Some(input), Some(ipam)) = (next.take(), self.nodes[node].ipam.as_mut()) else { return };
            let random = &mut self.random;
            let decision =
                ipam.decide(self.now, &mut |bytes| bytes.iter_mut().for_each(|b| *b = random.next() as u8), input);
            self.carry_out(node, decision);
            let timeout = self.nodes[node].ipam.as_ref().and_then(Ipam::poll_timeout);
            next = timeout.filter(|timeout| *timeout <= self.now).map(|_| Input::Tick);
        }
        panic!("node {node} never comes to rest");
    }

    fn carry_out(&mut self, node: usize, decision: Decision) {
        let dies = self.crashes && !decision.changes.is_empty() && self.random.percent(4);
        let survives_commit = self.random.percent(50);
        let fails = self.crashes && !decision.changes.is_empty() && self.random.percent(2);
        let early = self.bug == Some(Bug::AnswerBeforeDurable);
        if fails && !early {
            let effects = self.nodes[node].ipam.as_mut().unwrap().abandon(&decision, "no space");
            return effects.into_iter().for_each(|effect| self.perform(node, effect));
        }
        if early {
            decision.effects.iter().for_each(|effect| self.perform(node, effect.clone()));
        }
        if dies && !survives_commit {
            return self.crash(node);
        }
        self.commit(node, &decision.changes);
        if dies {
            let some = self.random.below(decision.effects.len() + 1);
            if !early {
                decision.effects.into_iter().take(some).for_each(|effect| self.perform(node, effect));
            }
            return self.crash(node);
        }
        self.nodes[node].ipam.as_mut().unwrap().apply(&decision.changes);
        if !early {
            decision.effects.into_iter().for_each(|effect| self.perform(node, effect));
        }
    }

    fn commit(&mut self, node: usize, changes: &[Change]) {
        let gift = |change: &Change| match change {
            Change::PutPart { held, .. } => matches!(held.holding, Holding::Given { acknowledged: false, .. }),
            _ => false,
        };
        let gives = changes.iter().any(gift);
        self.gifts += u64::from(gives);
        // Released as asked for, even if the node dies before it can say so.
        for change in changes {
            if let Change::DropLease(name) = change {
                self.holders.retain(|_, holder| *holder != (node, name.clone()));
            }
        }
        if !(gives && self.bug == Some(Bug::GiftNotRecorded)) {
            self.nodes[node].disk.apply(changes);
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let to = (0..self.nodes.len()).find(|other| self.id(*other) == to).unwrap();
                if self.linked(node, to) {
                    self.in_flight.push((node, to, message));
                }
            }
            Effect::Publish { upserts, withdrawals } => {
                let published = &mut self.nodes[node].published;
                published.0 += 1;
                withdrawals.iter().for_each(|prefix| drop(published.1.remove(prefix)));
                published.1.extend(upserts);
            }
            Effect::Granted { token, lease } => {
                self.end(node, token);
                self.granted += 1;
                for address in &lease.pod.addresses {
                    let holder = (node, lease.name.clone());
                    let before = self.holders.insert(*address, holder.clone());
                    let sound = self.rings_apart || before.as_ref().is_none_or(|before| *before == holder);
                    assert!(sound, "{address}: {before:?}, {holder:?}");
                }
            }
            Effect::Released { token, leases } => {
                self.end(node, token);
                for address in leases.iter().flat_map(|lease| &lease.pod.addresses) {
                    self.holders.remove(address);
                }
            }
            Effect::Refused { token, error } => {
                self.end(node, token);
                *self.refused.entry(error.code()).or_default() += 1;
            }
            _ => {}
        }
    }

    fn end(&mut self, node: usize, token: u64) {
        assert!(self.nodes[node].open.remove(&token).is_some(), "request {token} was answered twice");
    }

    /// Delivers a message chosen at random, or loses it, or delivers it twice.
    pub fn deliver(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let chosen = self.random.below(self.in_flight.len());
        let (from, to, message) = self.in_flight.swap_remove(chosen);
        if !self.linked(from, to) || self.random.percent(self.loss) {
            return;
        }
        if self.random.percent(self.loss / 2) {
            self.in_flight.push((from, to, message.clone()));
        }
        let from = self.id(from);
        self.input(to, Input::Message { from, message });
    }

    /// Gossip from one node to another: everything the first has, of itself and of others.
    pub fn sync(&mut self, from: usize, to: usize) {
        if from == to || !self.linked(from, to) {
            return;
        }
        let mut news = self.nodes[from].replicas.clone();
        news.insert(self.id(from), self.nodes[from].published.clone());
        for (origin, published) in news {
            // It may die of what it hears: whoever is down hears nothing, and asks for it again later.
            if !self.linked(from, to) {
                return;
            }
            let known = self.nodes[to].replicas.get(&origin).map_or(0, |(number, _)| *number);
            if origin != self.id(to) && published.0 > known {
                self.nodes[to].replicas.insert(origin, published.clone());
                let parts = published.1.into_iter().collect();
                self.input(to, Input::RingEntries { origin, parts });
            }
        }
        let from = self.id(from);
        self.input(to, Input::PeerSynced(from));
    }

    /// Lets time pass, and everyone do what is due.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in 0..self.nodes.len() {
            let timeout = self.nodes[node].ipam.as_ref().and_then(Ipam::poll_timeout);
            if timeout.is_some_and(|timeout| timeout <= self.now) {
                self.input(node, Input::Tick);
            }
            let late = self.nodes[node].open.values().filter(|deadline| **deadline < self.now).count();
            assert_eq!(late, 0, "node {node} did not end a request at its deadline");
        }
    }

    /// Heals everything, and lets the mesh come to rest.
    pub fn settle(&mut self) {
        (self.loss, self.crashes) = (0, false);
        for node in 0..self.nodes.len() {
            self.partition(node, 0);
            if self.nodes[node].ipam.is_none() {
                self.start(node);
            }
        }
        self.meet();
        let mut quiet = 0;
        for _ in 0..REST_WITHIN {
            let gifts = self.gifts;
            self.exchange();
            self.pass(Duration::from_secs(1));
            quiet = if self.gifts == gifts { quiet + 1 } else { 0 };
            if quiet == QUIET {
                return;
            }
        }
        panic!("space is handed around without end");
    }

    /// Delivers all messages and gossip once around.
    pub fn exchange(&mut self) {
        let count = self.nodes.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            self.sync(from, to);
        }
        while !self.in_flight.is_empty() {
            self.deliver();
        }
    }

    /// No space lost, none owned twice, nothing waited for; and what is on disk is what pods hold.
    pub fn check_at_rest(&self) {
        let mut owners: BTreeMap<u32, usize> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            assert!(node.open.is_empty(), "node {index} left requests open");
            let ipam = node.ipam.as_ref().unwrap();
            for prefix in ipam.parts_of(self.id(index)) {
                for address in prefix.network().to_bits()..=prefix.broadcast().to_bits() {
                    assert_eq!(owners.insert(address, index), None, "{prefix} is owned twice");
                }
            }
            assert!(ipam.leases().eq(node.disk.leases.values()));
            assert_eq!(ipam.ownership(), self.nodes[0].ipam.as_ref().unwrap().ownership());
        }
        if self.granted > 0 {
            assert_eq!(owners.len() as u64, 1 << (32 - self.range.prefix_len()), "space was lost");
        }
        for (address, (node, name)) in &self.holders {
            let lease = self.nodes[*node].disk.leases.get(name);
            assert!(lease.is_some_and(|lease| lease.pod.addresses.contains(address)), "{address} was forgotten");
        }
    }
}
