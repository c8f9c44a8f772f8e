//! Random schedules, a fresh seed in every run: `MESHWORK_SEED` replays one, `MESHWORK_SCHEDULES=2000` runs all.

use meshwork_simulator::Random;
use meshwork_simulator::random::{schedules, seed};
use meshwork_simulator::schedule::Schedule;

/// Schedules of small meshes in the full run.
const SMALL: u64 = 100_000;

/// Schedules of meshes of thirty in the full run.
const LARGE: u64 = 400;

fn run(salt: u64, full: u64, schedule: impl Fn(&mut Random) -> Schedule) {
    let mut random = Random::new(seed() ^ salt);
    for _ in 0..schedules(full) {
        schedule(&mut random).check().unwrap_or_else(|failure| panic!("{failure}"));
    }
}

fn small(random: &mut Random) -> Schedule {
    let count = 2 + random.index(5);
    Schedule::draw(random.draw(), count, 12)
}

#[test]
fn small_meshes_hold_and_agree_after_any_schedule() {
    run(0, SMALL / 2, small);
}

/// The same once more, so that two cores share the work.
#[test]
fn other_small_meshes_hold_and_agree_after_any_schedule() {
    run(1, SMALL / 2, small);
}

#[test]
fn a_mesh_of_thirty_agrees_after_any_schedule() {
    run(2, LARGE, |random| Schedule::draw(random.draw(), 30, 40));
}
