//! Random schedules: whatever happens, nothing false is ever believed, and once it is over all nodes agree and nobody
//! has lost what is its own. A schedule is data, so one that fails is made smaller while it still fails.

mod trial;

use std::fmt;

use crate::hostile::{MISDEEDS, Misdeed};
use crate::random::Random;
use trial::Trial;

/// Runs of a failing schedule in search of a smaller one.
const ATTEMPTS: usize = 500;

/// Milliseconds in which others learn what a node gave and leased, before its disk is taken back.
const TOLD: u64 = 20_000;

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
    /// A process ends and begins again with the disk that it had a run before, and without what it was told to say.
    RollBack(usize),
    /// All that ended begin again at once.
    RestartAll,
    /// A process stands still for so many milliseconds.
    Pause(usize, u64),
    /// A node sends so many bytes a second at most, or as fast as it likes.
    Slow(usize, Option<u64>),
    /// A pod of a node needs an address, for so many milliseconds at most.
    Lease(usize, u32, u64),
    /// A pod of a node needs none any more.
    Release(usize, u32),
    /// Milliseconds pass.
    Wait(u64),
}

/// Who has links to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Everyone to everyone.
    Full,
    /// Each to the next.
    Chain,
    /// Nodes choose, and begin from the first.
    Chosen,
}

/// What a mesh is like and what befalls it.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Decides what the wire does.
    pub seed: u64,
    /// How many nodes.
    pub count: usize,
    /// Who has links to whom.
    pub shape: Shape,
    /// Nodes that run from the beginning, the first ones.
    pub awake: usize,
    /// Length of the prefix from which nodes hand out addresses, if they do.
    pub range: Option<u8>,
    /// Nodes that are hostile, the last ones.
    pub hostile: usize,
    /// What they do.
    pub misdeeds: Vec<Misdeed>,
    /// In order.
    pub steps: Vec<Step>,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, count, shape, awake, range, hostile, misdeeds, steps } = self;
        write!(f, "{count} nodes, {shape:?}, {awake} from the beginning, wire {seed}")?;
        if let Some(range) = range {
            write!(f, ", addresses of a /{range}")?;
        }
        if *hostile > 0 {
            write!(f, ", {hostile} of them hostile: {misdeeds:?}")?;
        }
        write!(f, ": {steps:?}")
    }
}

impl Schedule {
    /// The schedule of a seed.
    #[must_use]
    pub fn draw(seed: u64, count: usize, length: usize) -> Self {
        let mut random = Random::new(seed);
        let shape = random.pick(&[Shape::Full, Shape::Chain, Shape::Chosen, Shape::Chosen]);
        let awake = if random.below(4) == 0 { 1 + random.index(count) } else { count };
        let most = if shape == Shape::Chain { 1 } else { 2 };
        let hostile = if random.below(3) == 0 { (1 + random.index(most)).min(count.saturating_sub(2)) } else { 0 };
        let misdeeds = (0..1 + random.below(4)).map(|_| random.pick(&MISDEEDS)).collect();
        let range = (random.below(3) == 0).then(|| random.pick(&[26, 24, 20]));
        let forgets = range.is_some() && hostile == 0 && random.below(2) == 0;
        let any = |random: &mut Random| match range {
            Some(_) if forgets => forgetful(random, count),
            Some(_) => lasting(random, count),
            None => step(random, count),
        };
        let before = |step: Step| (forgets && matches!(step, Step::RollBack(_))).then_some(Step::Wait(TOLD));
        let steps = (0..length).flat_map(|_| {
            let step = any(&mut random);
            [before(step), Some(step), Some(pass(&mut random))].into_iter().flatten().collect::<Vec<_>>()
        });
        let steps = steps.collect();
        Self { seed, count, shape, awake, range, hostile, misdeeds, steps }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Says what did not hold.
    pub fn run(&self) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let mut trial = Trial::new(self, &mut random);
        self.steps.iter().try_for_each(|step| trial.suffer(*step))?;
        trial.mend();
        trial.agree()?;
        if self.misdeeds.iter().any(|misdeed| misdeed.hides_losses()) && self.hostile > 0 {
            return Ok(());
        }
        trial.lose(random.index(self.count))
    }

    /// A part of this schedule that `fails` as well, from which nothing can be taken away any more.
    #[must_use]
    pub fn shrunk(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        let peaceful = Self { hostile: 0, ..self.clone() };
        if fails(&peaceful) {
            self = peaceful;
        }
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
    match random.below(17) {
        0..=4 => Step::Put(one, key, random.draw()),
        5 => Step::Remove(one, key),
        6 | 7 if one != other => Step::Cut(one, other),
        8 if one != other => Step::CutWay(one, other),
        9 => Step::Part(one),
        10 | 11 => Step::Heal,
        12 => Step::Crash(one),
        13 => Step::Restart(one),
        16 => Step::RollBack(one),
        14 if random.below(2) == 0 => Step::RestartAll,
        14 => Step::Slow(one, random.pick(&[None, Some(20_000), Some(100_000)])),
        _ => Step::Pause(one, random.below(15_000)),
    }
}

/// A step that takes nothing from a disk, and mostly one about addresses.
fn lasting(random: &mut Random, count: usize) -> Step {
    let (node, pod) = (random.index(count), u32::try_from(random.below(8)).unwrap_or_default());
    match random.below(4) {
        0 | 1 => Step::Lease(node, pod, random.below(8000)),
        2 => Step::Release(node, pod),
        _ => match step(random, count) {
            Step::RollBack(node) => Step::Crash(node),
            step => step,
        },
    }
}

/// A step that takes no way from one node to another, and may take a disk back: what that gave away is known to others, and
/// they have to be there to say so. The first node seeds the ring, and would seed another one from an empty disk.
fn forgetful(random: &mut Random, count: usize) -> Step {
    let (node, pod) = (random.index(count), u32::try_from(random.below(8)).unwrap_or_default());
    match random.below(8) {
        0..=3 => Step::Lease(node, pod, random.below(8000)),
        4 | 5 => Step::Release(node, pod),
        6 => Step::Put(node, pod, random.draw()),
        _ if node > 0 => Step::RollBack(node),
        _ => Step::Remove(node, pod),
    }
}

fn pass(random: &mut Random) -> Step {
    Step::Wait(random.pick(&[1, 10, 100, 100, 1000, 5000]))
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
