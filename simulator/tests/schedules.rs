//! Random schedules: whatever happens, once it is over all nodes agree and nobody has lost what is its own.

use std::time::Duration;

use meshwork_simulator::World;
use meshwork_simulator::random::{Random, schedules, seed};

/// Schedules of the full run.
const FULL: u64 = 400;

fn disturb(mesh: &mut World) {
    let count = mesh.count() as u64;
    let (one, other) = (mesh.random.below(count) as usize, mesh.random.below(count) as usize);
    match mesh.random.below(10) {
        0..=3 => {
            let (key, value) = (mesh.random.below(8) as u32, mesh.random.draw().to_string());
            mesh.put(one, key, &value);
        }
        4 => {
            let key = mesh.random.below(8) as u32;
            mesh.remove(one, key);
        }
        5 | 6 if one != other => mesh.cut(one, other),
        7 => mesh.heal(),
        8 if mesh.is_running(one) => mesh.crash(one),
        8 => mesh.restart(one),
        _ if mesh.is_running(one) => {
            let pause = Duration::from_millis(mesh.random.below(15_000));
            mesh.pause(one, pause);
        }
        _ => {}
    }
}

fn run(seed: u64, count: usize, steps: u64) {
    let mut mesh = if seed.is_multiple_of(4) { World::chain(seed, count) } else { World::full_mesh(seed, count) };
    mesh.conditions.latency = Duration::from_millis(1 + mesh.random.below(80));
    mesh.conditions.loss = mesh.random.below(3000) as u32;
    for _ in 0..steps {
        disturb(&mut mesh);
        let time = mesh.random.pick(&[1, 10, 100, 1000, 5000]);
        mesh.run(Duration::from_millis(time));
    }
    mesh.heal();
    for node in 0..count {
        if !mesh.is_running(node) {
            mesh.restart(node);
        }
    }
    mesh.conditions.loss = 0;
    mesh.run(Duration::from_secs(30));
    mesh.agrees().unwrap_or_else(|difference| panic!("MESHWORK_SEED={seed} with {count} nodes: {difference}"));
}

#[test]
fn small_meshes_agree_after_any_schedule() {
    let seed = seed();
    let mut random = Random::new(seed);
    run(seed, 3, 40);
    for schedule in 1..schedules(FULL) {
        run(random.draw(), if schedule % 2 == 0 { 3 } else { 5 }, 40);
    }
}

#[test]
fn a_mesh_of_thirty_agrees_after_any_schedule() {
    let seed = seed();
    let mut random = Random::new(seed);
    for _ in 0..schedules(FULL).div_ceil(FULL / 10) {
        run(random.draw() | 1, 30, 40);
    }
}
