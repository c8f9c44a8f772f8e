//! Random schedules of leases, releases, losses, partitions, crashes and restarts against the reference.
//!
//! `MESHWORK_SCHEDULES` sets how many (a tenth of the full count unless said), `MESHWORK_SEED` replays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails at that line")]

mod mesh;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh::{Bug, Random, World};
use meshwork_ipam::Init;

/// Schedules of a full run.
const FULL: u64 = 2000;

const STEPS: usize = 250;

fn schedules() -> u64 {
    std::env::var("MESHWORK_SCHEDULES").map_or(FULL / 10, |text| text.parse().expect("MESHWORK_SCHEDULES is a number"))
}

fn seed() -> u64 {
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("MESHWORK_SEED")
        .map_or_else(|_| fresh(), |text| text.parse().expect("MESHWORK_SEED is a number"));
    println!("MESHWORK_SEED={seed}");
    seed
}

fn run(seed: u64, bug: Option<Bug>) -> World {
    let mut random = Random(seed);
    let count = 3 + random.below(4);
    let first = if random.percent(50) { Init::Seed } else { Init::Auto { has_peers: false } };
    let other = if random.percent(50) { Init::Join } else { Init::Auto { has_peers: true } };
    let inits: Vec<Init> = (0..count).map(|node| if node == 0 { first } else { other }).collect();
    // Small ranges run empty, larger ones have room for gifts of all sizes.
    let range = ["10.9.0.0/26", "10.9.0.0/24", "10.9.0.0/20"][random.below(3)];
    let mut world = World::new(random.next(), range, &inits, bug);
    world.loss = random.next() % 40;
    world.crashes = random.percent(80);
    for _ in 0..STEPS {
        step(&mut world, &mut random, count);
    }
    world.settle();
    world.check_at_rest();
    world
}

fn step(world: &mut World, random: &mut Random, count: usize) {
    let (node, other) = (random.below(count), random.below(count));
    let sandbox = format!("{node}-{}", random.below(30));
    match random.below(100) {
        0..30 => {
            world.lease(node, &sandbox, Duration::from_millis(random.next() % 8000));
        }
        30..45 => world.release(node, &sandbox),
        45..70 => world.sync(node, other),
        70..88 => (0..4).for_each(|_| world.deliver()),
        88..90 => world.crash(node),
        90..94 => {
            let down = (0..count).find(|node| world.nodes[*node].ipam.is_none());
            down.into_iter().for_each(|node| world.start(node));
        }
        94..96 => {
            world.partition(node, random.below(2));
            world.meet();
        }
        _ => world.pass(Duration::from_millis(random.next() % 3000)),
    }
}

#[test]
fn no_address_is_held_twice_and_none_is_lost() {
    let seed = seed();
    let (mut granted, mut gifts) = (0, 0);
    for schedule in 0..schedules() {
        let world = catch_unwind(AssertUnwindSafe(|| run(seed.wrapping_add(schedule), None)));
        let world =
            world.unwrap_or_else(|_| panic!("schedule {schedule}: replay with MESHWORK_SEED={}", seed + schedule));
        granted += world.granted;
        gifts += world.gifts;
    }
    println!("{} schedules of {STEPS} steps, {granted} leases, {gifts} gifts", schedules());
    assert!(
        granted > schedules() && gifts > schedules() / 2,
        "the schedules did nothing: {granted} leases, {gifts} gifts"
    );
}

#[test]
fn seeded_bugs_are_found() {
    let seed = seed();
    for bug in [Bug::AnswerBeforeDurable, Bug::GiftNotRecorded] {
        let fails = |schedule: &u64| catch_unwind(|| run(seed.wrapping_add(*schedule), Some(bug))).is_err();
        assert!((0..FULL).any(|schedule| fails(&schedule)), "{bug:?} was not found");
    }
}
