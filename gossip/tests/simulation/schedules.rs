//! Random schedules: whatever happens, once it is over all nodes agree and nobody has lost what is its own.

use std::time::Duration;

use crate::random::{Random, schedules, seed};
use crate::simulator::Simulator;

/// Schedules of the full run.
const FULL: u64 = 400;

fn disturb(mesh: &mut Simulator) {
    let count = mesh.nodes.len() as u64;
    let (one, other) = (mesh.random.below(count) as usize, mesh.random.below(count) as usize);
    match mesh.random.below(10) {
        0..=3 => {
            let (key, value) = (mesh.random.below(8) as u32, mesh.random.next().to_string());
            mesh.put(one, key, &value);
        }
        4 => {
            let key = mesh.random.below(8) as u32;
            mesh.remove(one, key);
        }
        5 | 6 if one != other => mesh.cut(one, other),
        7 => mesh.heal(),
        8 if mesh.nodes[one].gossip.is_some() => mesh.crash(one),
        8 => mesh.restart(one),
        _ if mesh.nodes[one].gossip.is_some() => {
            let pause = Duration::from_millis(mesh.random.below(15_000));
            mesh.pause(one, pause);
        }
        _ => {}
    }
}

fn run(seed: u64, count: usize, steps: u64) {
    let mut mesh =
        if seed.is_multiple_of(4) { Simulator::chain(seed, count) } else { Simulator::full_mesh(seed, count) };
    mesh.latency = Duration::from_millis(1 + mesh.random.below(80));
    mesh.loss = mesh.random.below(30);
    for _ in 0..steps {
        disturb(&mut mesh);
        let time = mesh.random.pick(&[1, 10, 100, 1000, 5000]);
        mesh.run(Duration::from_millis(time));
    }
    mesh.heal();
    for node in 0..count {
        if mesh.nodes[node].gossip.is_none() {
            mesh.restart(node);
        }
    }
    mesh.loss = 0;
    mesh.run(Duration::from_secs(30));
    mesh.agrees().unwrap_or_else(|difference| panic!("MESHWORK_SEED={seed} with {count} nodes: {difference}"));
}

#[test]
fn small_meshes_agree_after_any_schedule() {
    let seed = seed();
    let mut random = Random::new(seed);
    run(seed, 3, 40);
    for schedule in 1..schedules(FULL) {
        run(random.next(), if schedule % 2 == 0 { 3 } else { 5 }, 40);
    }
}

#[test]
fn a_mesh_of_thirty_agrees_after_any_schedule() {
    let seed = seed();
    let mut random = Random::new(seed);
    for _ in 0..schedules(FULL).div_ceil(FULL / 10) {
        run(random.next() | 1, 30, 40);
    }
}
