//! Random schedules: whatever happens, nothing false is ever believed, and once it is over all nodes agree and nobody
//! has lost what is its own. A schedule is data, so one that fails is made smaller while it still fails.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use meshwork_gossip::MemberState;

use crate::graph::Graph;
use crate::random::Random;
use crate::world::{Wiring, World};

/// Longest time in which a mesh that is left alone agrees: the longest silence after which a link is given up, a redial,
/// what anti-entropy takes, and what a slow node still had to send.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time in which everyone knows that a node is gone, besides what word of it takes on its way (`PROTOCOL` 6).
const UNREACHABLE: Duration = Duration::from_secs(5);

/// Links that word crosses at most in a mesh that is no chain.
const FAR: usize = 4;

/// Nodes up to which every node is looked at after every step.
const SMALL: usize = 8;

/// Runs of a failing schedule in search of a smaller one.
const ATTEMPTS: usize = 500;

/// Something that befalls a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A node publishes a note.
    Put(usize, u32, u64),
    /// A node withdraws a note.
    Remove(usize, u32),
    /// Two nodes do not reach each other.
    Cut(usize, usize),
    /// The first does not reach the second.
    CutWay(usize, usize),
    /// The first of so many nodes are parted from the others.
    Part(usize),
    /// All ways are open again.
    Heal,
    /// A process ends.
    Crash(usize),
    /// A process that ended begins again.
    Restart(usize),
    /// All that ended begin again at once.
    RestartAll,
    /// A process stands still for so many milliseconds.
    Pause(usize, u64),
    /// A node sends so many bytes a second at most, or as fast as it likes.
    Slow(usize, Option<u64>),
    /// Milliseconds pass.
    Wait(u64),
}

/// What a mesh is like and what befalls it.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Decides what the wire does.
    pub seed: u64,
    /// How many nodes.
    pub count: usize,
    /// A chain instead of a full mesh.
    pub chain: bool,
    /// In order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = if self.chain { "chain" } else { "full mesh" };
        write!(f, "{} nodes, {shape}, wire {}: {:?}", self.count, self.seed, self.steps)
    }
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn draw(seed: u64, count: usize, length: usize) -> Self {
        let mut random = Random::new(seed);
        let chain = random.below(4) == 0;
        let steps = (0..length).flat_map(|_| [step(&mut random, count), pass(&mut random)]).collect();
        Self { seed, count, chain, steps }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Says what did not hold.
    pub fn run(&self) -> Result<(), String> {
        let graph = if self.chain { Graph::chain(self.count) } else { Graph::full(self.count) };
        let mut random = Random::new(self.seed);
        let latency = Duration::from_millis(1 + random.below(80));
        let world = World::new(random.draw(), Wiring::Fixed(graph), self.count);
        let links = u32::try_from(if self.chain { self.count } else { FAR }).unwrap_or(u32::MAX);
        let mut trial = Trial { world, held: BTreeMap::new(), crossing: Duration::ZERO };
        trial.world.conditions.latency = latency;
        trial.crossing = (latency + trial.world.conditions.jitter) * links;
        trial.world.conditions.loss = u32::try_from(random.below(3000)).unwrap_or_default();
        trial.world.conditions.duplicates = u32::try_from(random.below(1000)).unwrap_or_default();
        self.steps.iter().try_for_each(|step| trial.suffer(*step))?;
        trial.mend();
        trial.agree()?;
        trial.lose(random.index(self.count))
    }

    /// A part of this schedule that `fails` as well, from which nothing can be taken away any more.
    #[must_use]
    pub fn shrunk(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        let (mut chunk, mut attempts) = (self.steps.len() / 2, 0);
        while chunk > 0 {
            let mut start = 0;
            while start < self.steps.len() && attempts < ATTEMPTS {
                attempts += 1;
                let mut less = self.clone();
                less.steps.drain(start..(start + chunk).min(self.steps.len()));
                if fails(&less) {
                    self = less;
                } else {
                    start += chunk;
                }
            }
            chunk /= 2;
        }
        self
    }

    /// Runs it and reports a failure as small as can be.
    ///
    /// # Errors
    /// The failure, and what leads to it.
    pub fn check(self) -> Result<(), String> {
        let Err(failure) = self.run() else { return Ok(()) };
        let seed = self.seed;
        let smallest = self.shrunk(|schedule| schedule.run().is_err());
        let now = smallest.run().err().unwrap_or(failure);
        Err(format!("schedule {seed}: {now}\nit takes {smallest}"))
    }
}

fn step(random: &mut Random, count: usize) -> Step {
    let (one, other) = (random.index(count), random.index(count));
    let key = u32::try_from(random.below(8)).unwrap_or_default();
    match random.below(16) {
        0..=4 => Step::Put(one, key, random.draw()),
        5 => Step::Remove(one, key),
        6 | 7 if one != other => Step::Cut(one, other),
        8 if one != other => Step::CutWay(one, other),
        9 => Step::Part(one),
        10 | 11 => Step::Heal,
        12 => Step::Crash(one),
        13 => Step::Restart(one),
        14 if random.below(2) == 0 => Step::RestartAll,
        14 => Step::Slow(one, random.pick(&[None, Some(20_000), Some(100_000)])),
        _ => Step::Pause(one, random.below(15_000)),
    }
}

fn pass(random: &mut Random) -> Step {
    Step::Wait(random.pick(&[1, 10, 100, 100, 1000, 5000]))
}

/// A run of a schedule.
struct Trial {
    world: World,
    /// The latest state of an origin that a run of a node held.
    held: BTreeMap<(usize, u64, usize), (u64, u64)>,
    /// What a change takes from one end of the mesh to the other.
    crossing: Duration,
}

impl Trial {
    fn suffer(&mut self, step: Step) -> Result<(), String> {
        let world = &mut self.world;
        match step {
            Step::Put(node, key, value) => world.put(node, key, &value.to_string()),
            Step::Remove(node, key) => world.remove(node, key),
            Step::Cut(one, other) => world.cut(one, other),
            Step::CutWay(from, to) => world.cut_way(from, to),
            Step::Part(first) => world.partition(|node| u8::from(node < first)),
            Step::Heal => world.heal(),
            Step::Crash(node) => world.crash(node),
            Step::Restart(node) => world.restart(node),
            Step::RestartAll => (0..world.count()).for_each(|node| world.restart(node)),
            Step::Pause(node, time) if world.is_running(node) => world.pause(node, Duration::from_millis(time)),
            Step::Pause(..) => {}
            Step::Slow(node, speed) => world.slow_down(node, speed),
            Step::Wait(time) => return self.wait(Duration::from_millis(time)),
        }
        self.hold()
    }

    fn wait(&mut self, time: Duration) -> Result<(), String> {
        if self.world.count() > SMALL {
            self.world.run(time);
            return self.hold();
        }
        let end = self.world.now() + time;
        while self.world.next().is_some_and(|next| next <= end) {
            self.world.step();
            self.hold()?;
        }
        self.world.run(end - self.world.now());
        Ok(())
    }

    /// What has to hold at every moment: everyone keeps what is its own, believes of others only what they said, and
    /// never goes back to an earlier state.
    fn hold(&mut self) -> Result<(), String> {
        for node in self.world.living() {
            self.world.keeps_its_own(node)?;
            for origin in 0..self.world.count() {
                let Some(state) = self.world.state(node, origin) else { continue };
                if self.world.said(origin).is_none_or(|said| state > said) {
                    return Err(format!("node {node} believes of {origin} what it never said"));
                }
                let before = self.held.insert((node, self.world.starts(node), origin), state);
                if before.is_some_and(|before| before > state) {
                    return Err(format!("node {node} went back to an earlier state of {origin}"));
                }
            }
        }
        Ok(())
    }

    fn mend(&mut self) {
        self.world.heal();
        self.world.conditions.loss = 0;
        for node in 0..self.world.count() {
            self.world.slow_down(node, None);
            self.world.restart(node);
            self.world.pause(node, Duration::ZERO);
        }
    }

    fn agree(&mut self) -> Result<(), String> {
        let end = self.world.now() + PATIENCE;
        loop {
            self.wait(Duration::from_millis(500))?;
            match self.world.agrees() {
                Err(difference) if self.world.now() >= end => return Err(difference),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }
}

impl Trial {
    /// One that ends is not seen alive by anyone for long.
    fn lose(&mut self, lost: usize) -> Result<(), String> {
        self.world.crash(lost);
        self.wait(UNREACHABLE + self.crossing)?;
        let living = self.world.living();
        let deceived = living.into_iter().find(|&node| self.world.sees(node, lost, MemberState::Alive));
        deceived.map_or(Ok(()), |node| Err(format!("node {node} still sees {lost} alive, which has ended")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_schedule() {
        assert!(Schedule::draw(3, 4, 20) == Schedule::draw(3, 4, 20));
        assert!(Schedule::draw(3, 4, 20) != Schedule::draw(4, 4, 20));
    }

    #[test]
    fn a_failure_is_reported_without_what_has_no_part_in_it() {
        let fails = |schedule: &Schedule| {
            let place = |wanted: fn(&Step) -> bool| schedule.steps.iter().position(wanted);
            let crash = place(|step| matches!(step, Step::Crash(_)));
            crash.is_some() && crash < schedule.steps.iter().rposition(|step| *step == Step::Heal)
        };
        let schedule = (1..).map(|seed| Schedule::draw(seed, 5, 40)).find(fails).expect("some schedule does");
        let smallest = schedule.shrunk(fails);
        assert!(matches!(smallest.steps[..], [Step::Crash(_), Step::Heal]), "{smallest}");
    }
}
