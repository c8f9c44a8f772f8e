//! Many choosers of links under a virtual clock. Gossip is taken as instant within a connected part; dials, refusals and
//! redirects are as in the daemon. Everything follows from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use meshwork_gossip::limits::{MOST_REFERRED, ROOMY};
use meshwork_gossip::neighbours::{Caller, Known, Neighbours, Occupancy, Own, OwnLink, View, Welcome};
use meshwork_simulator::Random;
use meshwork_wire::PeerId;

use crate::graph::{Graph, components};

/// A round of the world.
pub(crate) const ROUND: Duration = Duration::from_millis(100);

/// How long the mesh takes to see that somebody is gone.
pub(crate) const DETECTION: Duration = Duration::from_secs(4);

/// Between two dials of a node that has nobody.
const LONELY: Duration = Duration::from_secs(1);

struct Node {
    id: PeerId,
    chooser: Neighbours,
    alive: bool,
    /// Whom the operator named.
    target: Option<usize>,
    /// What a redirect named, or the target again.
    tries: Vec<usize>,
    insists: bool,
    dial_at: Instant,
    /// When the others have noticed that it is gone.
    buried_at: Option<Instant>,
    links: BTreeMap<usize, Link>,
    /// Its part of the mesh and its links as it last saw them.
    seen: (u64, Vec<usize>),
}

/// The part of each node, and what is known there.
struct Told {
    parts: Vec<usize>,
    views: BTreeMap<usize, (u64, View)>,
}

#[derive(Clone, Copy)]
struct Link {
    dialled: bool,
    named: bool,
    alone: bool,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) random: Random,
    nodes: Vec<Node>,
    number: BTreeMap<PeerId, usize>,
    /// Who sits where: links within a place are fast.
    pub(crate) places: u64,
    cut: BTreeSet<(usize, usize)>,
    /// Sides of a partition.
    side: Vec<u8>,
    /// What gossip tells, until a link or a member changes.
    told: Option<Rc<Told>>,
    pub(crate) changes: u64,
    pub(crate) dials: u64,
    pub(crate) redirects: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: Instant::now(),
            random: Random::new(seed),
            nodes: Vec::new(),
            number: BTreeMap::new(),
            places: 1,
            cut: BTreeSet::new(),
            side: Vec::new(),
            told: None,
            changes: 0,
            dials: 0,
            redirects: 0,
        }
    }

    /// A node that begins from `target`.
    pub(crate) fn join(&mut self, target: Option<usize>) -> usize {
        let (high, low) = (self.random.draw(), self.random.draw());
        let id = PeerId((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
        self.number.insert(id, self.nodes.len());
        self.nodes.push(Node {
            id,
            chooser: Neighbours::new(id, self.now),
            alive: true,
            target,
            tries: target.into_iter().collect(),
            insists: false,
            dial_at: self.now,
            buried_at: None,
            links: BTreeMap::new(),
            seen: (0, Vec::new()),
        });
        self.side.push(0);
        self.told = None;
        self.nodes.len() - 1
    }

    /// An operator names another target.
    pub(crate) fn name(&mut self, node: usize, target: usize) {
        self.nodes[node].target = Some(target);
        self.dial(node, target);
    }

    /// It is gone without a word.
    pub(crate) fn crash(&mut self, node: usize) {
        self.told = None;
        self.nodes[node].alive = false;
        self.nodes[node].links.clear();
        self.nodes[node].buried_at = Some(self.now + DETECTION);
    }

    /// It starts again and knows nobody but its target.
    pub(crate) fn restart(&mut self, node: usize) {
        let now = self.now;
        for other in 0..self.nodes.len() {
            self.unlink(node, other);
        }
        let node = &mut self.nodes[node];
        (node.alive, node.buried_at, node.dial_at, node.insists) = (true, None, now, false);
        node.chooser = Neighbours::new(node.id, now);
        node.tries = node.target.into_iter().collect();
        node.seen = (0, Vec::new());
    }

    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        self.cut.insert((one.min(other), one.max(other)));
    }

    /// Parts the mesh: links across are gone, and none come about.
    pub(crate) fn part(&mut self, side: impl Fn(usize) -> u8) {
        self.side = (0..self.nodes.len()).map(side).collect();
        for one in 0..self.nodes.len() {
            for other in 0..one {
                if self.side[one] != self.side[other] {
                    self.unlink(one, other);
                }
            }
        }
    }

    fn unlink(&mut self, one: usize, other: usize) {
        self.told = None;
        self.nodes[one].links.remove(&other);
        self.nodes[other].links.remove(&one);
    }

    fn passes(&self, one: usize, other: usize) -> bool {
        self.side[one] == self.side[other] && !self.cut.contains(&(one.min(other), one.max(other)))
    }

    pub(crate) fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].alive).collect()
    }

    pub(crate) fn degrees(&self) -> Vec<usize> {
        let graph = self.graph();
        self.living().into_iter().map(|node| graph[node].len()).collect()
    }

    /// Links whose both ends live.
    pub(crate) fn graph(&self) -> Graph {
        let living = |(node, state): (usize, &Node)| {
            let links = state.links.keys().copied().filter(|&other| self.nodes[other].alive);
            if self.nodes[node].alive { links.collect() } else { BTreeSet::new() }
        };
        self.nodes.iter().enumerate().map(living).collect()
    }

    pub(crate) fn whole(&self) -> bool {
        let of = components(&self.graph());
        self.living().windows(2).all(|pair| of[pair[0]] == of[pair[1]])
    }

    pub(crate) fn place(&self, node: usize) -> u64 {
        node as u64 % self.places
    }

    fn trip(&self, one: usize, other: usize) -> Duration {
        let apart = self.place(one).abs_diff(self.place(other));
        Duration::from_millis(if apart == 0 { 1 } else { 20 + 10 * apart })
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.round(end);
        }
    }

    /// Runs until it holds; answers how long that took.
    pub(crate) fn run_until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while self.now < begun + limit {
            if condition(self) {
                return Some(self.now - begun);
            }
            self.round(self.now + ROUND);
        }
        None
    }

    /// The next round in which something is due.
    fn round(&mut self, end: Instant) {
        let next = self.nodes.iter().filter(|node| node.alive).filter_map(|node| self.due(node)).min();
        self.now = next.map_or(end, |next| next.max(self.now + ROUND).min(end));
        self.bury();
        let told = self.told();
        for node in self.living() {
            if !self.nodes[node].links.is_empty() {
                let (version, view) = &told.views[&told.parts[node]];
                self.choose(node, *version, view);
            }
            self.call(node);
        }
    }

    fn due(&self, node: &Node) -> Option<Instant> {
        if self.told.is_none() || node.links.is_empty() {
            return Some(self.now);
        }
        let missing = |peer: &PeerId| !node.links.contains_key(&self.number[peer]);
        let dials = node.chooser.chosen().filter(|(peer, _)| missing(peer)).map(|(_, at)| at);
        dials.chain([node.chooser.poll_timeout()]).min()
    }

    fn told(&mut self) -> Rc<Told> {
        if let Some(told) = &self.told {
            return Rc::clone(told);
        }
        let parts = components(&self.claimed());
        let told = Rc::new(Told { views: self.views(&parts), parts });
        self.told = Some(Rc::clone(&told));
        told
    }

    fn bury(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].buried_at.is_some_and(|at| at <= self.now) {
                self.nodes[node].buried_at = None;
                (0..self.nodes.len()).for_each(|other| self.unlink(node, other));
            }
        }
    }

    /// Links as their living ends claim them, also to those whose end nobody has noticed.
    fn claimed(&self) -> Graph {
        self.nodes.iter().map(|node| node.links.keys().copied().collect()).collect()
    }

    /// What each part knows: everyone who ever was in the mesh, and of its own members how many links they have.
    fn views(&self, parts: &[usize]) -> BTreeMap<usize, (u64, View)> {
        let mut views = BTreeMap::new();
        for part in self.living().into_iter().map(|node| parts[node]).collect::<BTreeSet<_>>() {
            let known = |(node, state): (usize, &Node)| {
                let reachable = parts[node] == part;
                let joined = reachable || state.seen.0 != 0;
                joined.then_some((state.id, Known { reachable, degree: state.links.len() }))
            };
            let members: BTreeMap<PeerId, Known> = self.nodes.iter().enumerate().filter_map(known).collect();
            let mixed =
                members.iter().filter(|(_, known)| known.reachable).fold(members.len() as u64, |sum, (id, _)| {
                    sum.wrapping_mul(31).wrapping_add(u64::from_be_bytes(id.0[..8].try_into().expect("8 bytes")))
                });
            views.insert(part, (mixed | 1, View::new(members)));
        }
        views
    }

    fn choose(&mut self, node: usize, version: u64, view: &View) {
        let links: Vec<usize> = self.nodes[node].links.keys().copied().collect();
        let seen = (version, links);
        let (now, random) = (self.now, &mut self.random);
        let state = &mut self.nodes[node];
        if state.seen != seen {
            state.seen = seen;
            let count = state.links.len();
            state.chooser.changed(now, &mut || random.draw(), count, true);
        }
        if now < state.chooser.poll_timeout() {
            return;
        }
        let own = self.own(node);
        let (state, random) = (&mut self.nodes[node], &mut self.random);
        state.chooser.review(now, &mut || random.draw(), view, &own);
        if let Some(peer) = state.chooser.give_up(now, &mut || random.draw(), &own) {
            let other = self.number[&peer];
            self.unlink(node, other);
            self.changes += 1;
        }
    }

    fn own(&self, node: usize) -> Own {
        let state = &self.nodes[node];
        let named = |other: usize| state.target == Some(other) || self.nodes[other].target == Some(node);
        let links = state
            .links
            .iter()
            .map(|(&other, link)| (self.nodes[other].id, OwnLink { dialled: link.dialled, kept: named(other) }));
        let mut trips = BTreeMap::new();
        for &near in state.links.keys() {
            let trip = self.trip(node, near);
            for &far in self.nodes[near].links.keys().filter(|&&far| far != node) {
                let detour = trip + self.trip(near, far);
                let known = trips.entry(self.nodes[far].id).or_insert(detour);
                *known = detour.min(*known);
            }
        }
        trips.extend(state.links.keys().map(|&near| (self.nodes[near].id, self.trip(node, near))));
        Own { links: links.collect(), trips }
    }

    /// Dials what is due.
    fn call(&mut self, node: usize) {
        let state = &self.nodes[node];
        let due = state.chooser.chosen().filter(|(_, at)| *at <= self.now).map(|(peer, _)| self.number[&peer]);
        let mut due: Vec<usize> = due.filter(|other| !state.links.contains_key(other)).collect();
        if state.links.is_empty() && state.dial_at <= self.now {
            self.nodes[node].dial_at = self.now + LONELY;
            due.extend(std::mem::take(&mut self.nodes[node].tries));
            let target = self.nodes[node].target;
            self.nodes[node].tries.extend(target);
        }
        due.into_iter().for_each(|other| self.dial(node, other));
    }

    fn dial(&mut self, node: usize, other: usize) {
        if node == other || self.nodes[node].links.contains_key(&other) {
            return;
        }
        self.dials += 1;
        if !self.nodes[other].alive || !self.passes(node, other) {
            return;
        }
        let caller = Caller {
            named: self.nodes[node].target == Some(other),
            alone: self.nodes[node].links.is_empty(),
            insists: self.nodes[node].insists,
        };
        let asked = self.nodes[other].target == Some(node);
        match self.occupancy(other).admits(caller).or(asked.then_some(Welcome::Room)) {
            Some(welcome) => {
                let alone = welcome == Welcome::Alone;
                let link = |dialled| Link { dialled, named: caller.named, alone };
                self.nodes[node].links.insert(other, link(true));
                self.nodes[other].links.insert(node, link(false));
                self.nodes[node].insists = false;
                self.told = None;
                self.changes += 1;
            }
            None => self.redirect(node, other),
        }
    }

    fn occupancy(&self, node: usize) -> Occupancy {
        let state = &self.nodes[node];
        let foreign = || state.links.iter().filter(|(other, _)| state.target != Some(**other)).map(|(_, link)| link);
        Occupancy {
            links: foreign().count(),
            named: foreign().filter(|link| link.named && !link.dialled).count(),
            alone: foreign().filter(|link| link.alone && !link.dialled).count(),
        }
    }

    fn redirect(&mut self, node: usize, by: usize) {
        self.redirects += 1;
        let roomy: Vec<usize> =
            self.living().into_iter().filter(|&other| self.nodes[other].links.len() < ROOMY && other != node).collect();
        let named: Vec<usize> = (0..MOST_REFERRED.min(roomy.len())).map(|_| self.random.pick(&roomy)).collect();
        let (now, random, peer) = (self.now, &mut self.random, self.nodes[by].id);
        let state = &mut self.nodes[node];
        let count = state.links.len();
        state.chooser.refused(now, &mut || random.draw(), peer, count);
        if state.links.is_empty() {
            state.tries = named;
            state.dial_at = now;
            state.insists = true;
        }
    }
}
