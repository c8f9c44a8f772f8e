//! The figures that a large mesh has to reach, and how they are measured.

use std::time::Duration;

use meshwork_wire::record::Store;

use crate::content::Notes;
use crate::graph::Graph;
use crate::random::Random;
use crate::world::{Wiring, World};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// How exactly a moment is found.
const GRAIN: Duration = Duration::from_millis(50);

/// Within it nodes are gone through one after the other, and a link comes about by so much later at most.
const TURN: Duration = Duration::from_millis(50);

/// Time over which idle traffic is measured.
const WINDOW: Duration = Duration::from_secs(60);

/// Time in which the traffic of what was before ends.
const QUIET: Duration = Duration::from_secs(10);

/// Figures that are compared between meshes of several sizes.
pub const IDLE: &str = "idle, sent by a node on average";
/// See [`IDLE`].
pub const MEMORY: &str = "memory for each known peer";

/// One figure beside its bar.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What is measured.
    pub what: &'static str,
    /// In `unit`; nothing if it did not come to be.
    pub value: Option<f64>,
    /// Least value that misses.
    pub bar: f64,
    /// Of both.
    pub unit: &'static str,
}

impl Figure {
    fn time(what: &'static str, value: Option<Duration>, bar: Duration) -> Self {
        Self { what, value: value.map(|time| time.as_secs_f64()), bar: bar.as_secs_f64(), unit: "s" }
    }

    /// Bytes for each known peer.
    #[must_use]
    pub const fn memory(value: f64) -> Self {
        Self { what: MEMORY, value: Some(value), bar: 2048.0, unit: "B" }
    }

    /// What has no bar.
    const fn fact(what: &'static str, value: f64, unit: &'static str) -> Self {
        Self { what, value: Some(value), bar: f64::INFINITY, unit }
    }

    /// Whether the bar is met.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.value.is_some_and(|value| value < self.bar)
    }
}

/// Mean links of a node, by the number of nodes (`PROTOCOL` 3).
#[must_use]
pub const fn degree(count: usize) -> usize {
    if count > 2000 { 10 } else { 8 }
}

/// How much of the course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Without partition and losses, which take most of the time.
    Calm,
    /// Without partition.
    Losses,
    /// All of it.
    Whole,
}

/// A mesh on its way through the bars.
pub struct Course {
    /// The mesh.
    pub world: World,
    figures: Vec<Figure>,
    report: fn(&Figure),
}

impl Course {
    /// Nodes that all start at once, 50 ms apart, on links that lose 1 %. Where links are `given`, nobody chooses any: they
    /// are a random graph of the degree to which the choice comes.
    #[must_use]
    pub fn new(seed: u64, count: usize, given: bool, report: fn(&Figure)) -> Self {
        let graph = || Graph::regular(&mut Random::new(seed), count, degree(count));
        let wiring = if given { Wiring::Fixed(graph()) } else { Wiring::from_first(count) };
        let mut world = World::asleep(seed, wiring, count);
        world.remembers = false;
        world.conditions.latency = Duration::from_millis(50);
        world.conditions.loss = 100;
        world.make_realistic();
        world.take_turns(TURN);
        Self { world, figures: Vec::new(), report }
    }

    fn note(&mut self, figure: Figure) {
        (self.report)(&figure);
        self.figures.push(figure);
    }

    /// Runs the calm part of the course.
    pub fn run(&mut self) -> &[Figure] {
        self.cold_start();
        self.settle();
        self.one_change();
        self.idle();
        &self.figures
    }

    /// Runs what is to follow on it.
    pub fn go_on(&mut self, extent: Extent) -> &[Figure] {
        if extent == Extent::Whole {
            self.partition();
        }
        if extent != Extent::Calm {
            self.losses();
        }
        &self.figures
    }

    /// From nothing to one view.
    pub fn cold_start(&mut self) {
        (0..self.world.count()).for_each(|node| self.world.restart(node));
        let mut said = self.world.said_by_all();
        let took = self.until(|course| course.world.is_one(&mut said));
        self.note(Figure::time("cold start to one view", took, Duration::from_secs(15)));
        let sent = (0..self.world.count()).map(|node| self.world.sent(node)).sum::<u64>();
        self.note(Figure::fact("cold start, sent by a node", sent as f64 / self.world.count() as f64 / 1e6, "MB"));
    }

    /// Nodes give up what links they made on the way, one after the other.
    pub fn settle(&mut self) {
        let (begun, mut changed) = (self.world.now(), self.world.now());
        let (mut before, mut links) = (self.wiring(), 0);
        while self.world.now() < changed + QUIET * 2 && self.world.now() < begun + PATIENCE * 10 {
            self.world.run(Duration::from_secs(1));
            let now = self.wiring();
            if now != before {
                changed = self.world.now();
            }
            (before, links) = (now, now.1);
        }
        self.note(Figure::fact("links at rest after another", (changed - begun).as_secs_f64(), "s"));
        self.note(Figure::fact("links of a node", links as f64 / self.world.count() as f64, ""));
    }

    /// Links that ever came about, and ends of those that there are.
    fn wiring(&self) -> (u64, usize) {
        (self.world.connections(), self.world.links().count())
    }

    /// An entry changes at a node of a quiet mesh.
    pub fn one_change(&mut self) {
        let (count, origin) = (self.world.count(), self.world.random.index(self.world.count()));
        self.world.watch(Notes::ID, origin);
        let begun = self.world.now();
        self.world.put(origin, 1, "changed");
        self.until(|course| course.world.heard(begun).len() + 1 >= count);
        let heard = self.world.heard(begun);
        let most = heard.get((count * 99).div_ceil(100).saturating_sub(2)).copied();
        let all = heard.last().copied().filter(|_| heard.len() + 1 == count);
        self.note(Figure::time("a change at 99 % of all nodes", most, Duration::from_secs(1)));
        self.note(Figure::time("a change at every node", all, Duration::from_secs(3)));
    }

    /// What nodes send a second while nothing happens: on average, and the busiest.
    fn idle_rates(&mut self) -> (f64, f64) {
        let count = self.world.count();
        let before: Vec<u64> = (0..count).map(|node| self.world.sent(node)).collect();
        self.world.run(WINDOW);
        let rate = |node: usize| (self.world.sent(node) - before[node]) as f64 / WINDOW.as_secs_f64();
        let rates: Vec<f64> = (0..count).map(rate).collect();
        (rates.iter().sum::<f64>() / count as f64, rates.iter().fold(0.0, |a, b| f64::max(a, *b)))
    }

    /// Nothing happens.
    pub fn idle(&mut self) {
        self.world.run(QUIET);
        let (mean, most) = self.idle_rates();
        self.note(Figure { what: IDLE, value: Some(mean), bar: 2048.0, unit: "B/s" });
        self.note(Figure { what: "idle, sent by the busiest node", value: Some(most), bar: 2048.0, unit: "B/s" });
    }

    /// Two halves go on alone for a while, each with changes of its own.
    pub fn partition(&mut self) {
        let half = self.world.count() / 2;
        self.world.partition(|node| u8::from(node < half));
        self.world.run(Duration::from_secs(20));
        self.world.put(0, 2, "left");
        self.world.put(half, 2, "right");
        self.world.run(Duration::from_secs(20));
        let mut said = self.world.said_by_all();
        self.world.heal();
        let took = self.until(|course| course.world.is_one(&mut said));
        self.note(Figure::time("halves healed to one view", took, Duration::from_secs(5)));
    }

    /// A tenth of the nodes ends at once.
    pub fn losses(&mut self) {
        self.settle();
        let (count, lost) = (self.world.count(), self.world.count() / 10);
        for _ in 0..lost {
            let living = self.world.living();
            let node = self.world.random.pick(&living);
            self.world.crash(node);
        }
        let took = self.until(|course| {
            course.world.living().iter().all(|&node| course.world.sees_alive(node) + 1 == count - lost)
        });
        self.note(Figure::time("a tenth lost, known everywhere", took, Duration::from_secs(10)));
    }

    /// How long it takes until something holds.
    pub fn until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) -> Option<Duration> {
        let begun = self.world.now();
        while self.world.now() < begun + PATIENCE {
            self.world.run(GRAIN);
            if condition(self) {
                return Some(self.world.now() - begun);
            }
        }
        None
    }
}
