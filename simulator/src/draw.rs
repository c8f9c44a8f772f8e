//! What befalls a mesh, as pictures: a start, a partition, its end, and losses.

use std::time::Duration;

use crate::bars::Course;
use crate::plot::{Chart, Curve, charts, mesh};
use crate::world::World;

/// Between two points of a curve.
const GRAIN: Duration = Duration::from_millis(100);

/// A course with what was seen on the way.
struct Record {
    course: Course,
    known: Vec<(f64, f64)>,
    alive: Vec<(f64, f64)>,
    least: Vec<(f64, f64)>,
    marks: Vec<(f64, String)>,
}

/// Convergence and traffic over time, and the mesh itself: two pictures.
#[must_use]
pub fn draw(seed: u64, count: usize) -> (String, String) {
    let (known, alive, least, marks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut record = Record { course: Course::new(seed, count, false, |_| ()), known, alive, least, marks };
    (0..count).for_each(|node| record.course.world.restart(node));
    record.pass("all start", 10);
    record.course.world.partition(|node| u8::from(node < count / 2));
    record.pass("parted in halves", 15);
    record.course.world.heal();
    record.pass("healed", 15);
    (0..count / 10).for_each(|node| record.course.world.crash(node * 10));
    record.pass("a tenth ends", 15);
    let world = &record.course.world;
    let picture = mesh(count, world.links(), |node| world.is_running(node));
    (record.charts(), picture)
}

impl Record {
    fn pass(&mut self, what: &str, seconds: u64) {
        self.marks.push((self.course.world.elapsed().as_secs_f64(), what.to_owned()));
        let end = self.course.world.now() + Duration::from_secs(seconds);
        while self.course.world.now() < end {
            self.course.world.run(GRAIN);
            self.look();
        }
    }

    fn look(&mut self) {
        let world = &self.course.world;
        let (at, living) = (world.elapsed().as_secs_f64(), world.living());
        let all = world.count() as f64;
        let share = |of: fn(&World, usize) -> usize| {
            let shares = living.iter().map(|&node| of(world, node) as f64 / all * 100.0);
            shares.clone().sum::<f64>() / living.len() as f64
        };
        let alive = |world: &World, node: usize| world.sees_alive(node) + 1;
        let least = living.iter().map(|&node| alive(world, node)).min().unwrap_or_default();
        self.known.push((at, share(|world, node| world.gossip(node).origins())));
        self.alive.push((at, share(|world, node| world.sees_alive(node) + 1)));
        self.least.push((at, least as f64 / all * 100.0));
    }

    fn charts(self) -> String {
        let count = self.course.world.count() as f64;
        let rate = |(place, bytes): (usize, &u64)| (place as f64 / 10.0, *bytes as f64 * 10.0 / count / 1024.0);
        let traffic = self.course.world.traffic().iter().enumerate().map(rate).collect();
        let curve = |name: &str, points| Curve { name: name.to_owned(), points };
        let seen = vec![
            curve("members known", self.known),
            curve("seen alive, mean", self.alive),
            curve("seen alive, least", self.least),
        ];
        let sent = vec![curve("KB/s sent by a node", traffic)];
        charts(&[
            Chart { title: format!("{count} nodes: percent"), across: "s", curves: seen, marks: self.marks.clone() },
            Chart { title: "Traffic, with all headers".to_owned(), across: "s", curves: sent, marks: self.marks },
        ])
    }
}
