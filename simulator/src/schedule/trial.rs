//! A schedule as it is carried out, and what has to hold all along.

use std::collections::BTreeMap;
use std::time::Duration;

use meshwork_gossip::MemberState;

use super::{Schedule, Shape, Step};
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

/// A run of a schedule.
pub(super) struct Trial {
    world: World,
    /// The latest state of an origin that a run of a node held.
    held: BTreeMap<(usize, u64, usize), (u64, u64)>,
    /// What a change takes from one end of the mesh to the other.
    crossing: Duration,
}

impl Trial {
    pub(super) fn new(schedule: &Schedule, random: &mut Random) -> Self {
        let Schedule { count, shape, hostile, .. } = *schedule;
        let latency = Duration::from_millis(1 + random.below(80));
        let wiring = match shape {
            Shape::Full => Wiring::Fixed(Graph::full(count)),
            Shape::Chain => Wiring::Fixed(Graph::chain(count)),
            Shape::Chosen => Wiring::from_first(count),
        };
        let mut world = World::asleep(random.draw(), wiring, count);
        world.remembers = false;
        world.recovers = true;
        world.conditions.latency = latency;
        world.conditions.jitter = random.pick(&[Duration::ZERO, Duration::from_millis(3), 4 * latency]);
        world.conditions.loss = u32::try_from(random.below(3000)).unwrap_or_default();
        world.conditions.duplicates = u32::try_from(random.below(1000)).unwrap_or_default();
        (count - hostile..count).for_each(|node| world.corrupt(node, &schedule.misdeeds));
        schedule.range.into_iter().for_each(|prefix| world.share_addresses(prefix));
        (0..schedule.awake).for_each(|node| world.restart(node));
        let links = u32::try_from(if shape == Shape::Chain { count } else { FAR }).unwrap_or(u32::MAX);
        let crossing = (latency + world.conditions.jitter) * links;
        Self { world, held: BTreeMap::new(), crossing }
    }

    pub(super) fn suffer(&mut self, step: Step) -> Result<(), String> {
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
            // What a hostile node says that is old says nothing of who lives.
            Step::RollBack(node) if !world.is_honest(node) => {}
            Step::Lease(node, pod, patience) => world.lease(node, pod, Duration::from_millis(patience)),
            Step::Release(node, pod) => world.release(node, pod),
            Step::RollBack(node) => {
                world.crash(node);
                world.roll_back(node);
                world.restart(node);
            }
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
        self.world.shares_soundly()?;
        let honest: Vec<usize> = (0..self.world.count()).filter(|&node| self.world.is_honest(node)).collect();
        for node in self.world.honest() {
            self.world.keeps_its_own(node)?;
            self.world.bears(node)?;
            for &origin in &honest {
                self.believes(node, origin)?;
            }
        }
        Ok(())
    }

    fn believes(&mut self, node: usize, origin: usize) -> Result<(), String> {
        let Some(state) = self.world.state(node, origin) else { return Ok(()) };
        if self.world.said(origin).is_none_or(|said| state > said) {
            return Err(format!("node {node} believes of {origin} what it never said"));
        }
        let before = self.held.insert((node, self.world.starts(node), origin), state);
        if before.is_some_and(|before| before > state) {
            return Err(format!("node {node} went back to an earlier state of {origin}"));
        }
        Ok(())
    }

    pub(super) fn mend(&mut self) {
        self.world.heal();
        self.world.conditions.loss = 0;
        for node in 0..self.world.count() {
            self.world.slow_down(node, None);
            self.world.restart(node);
            self.world.pause(node, Duration::ZERO);
        }
    }

    pub(super) fn agree(&mut self) -> Result<(), String> {
        let end = self.world.now() + PATIENCE;
        loop {
            self.wait(Duration::from_millis(500))?;
            match self.world.agrees().and_then(|()| self.agrees_on_space()) {
                Err(difference) if self.world.now() >= end => return Err(difference),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    /// What hostile nodes see of the space is theirs.
    fn agrees_on_space(&self) -> Result<(), String> {
        if self.world.honest().len() < self.world.living().len() { Ok(()) } else { self.world.agrees_on_space() }
    }

    /// One that ends is not seen alive by anyone for long.
    pub(super) fn lose(&mut self, lost: usize) -> Result<(), String> {
        self.world.crash(lost);
        self.wait(UNREACHABLE + self.crossing)?;
        let living = self.world.honest();
        let deceived = living.into_iter().find(|&node| self.world.sees(node, lost, MemberState::Alive));
        deceived.map_or(Ok(()), |node| Err(format!("node {node} still sees {lost} alive, which has ended")))
    }
}
