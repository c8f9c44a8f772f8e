//! What the choice of links promises, one promise per test.

use std::collections::BTreeSet;
use std::time::Duration;

use meshwork_gossip::limits::{MOST_LINKS, NEAR_LINKS};

use crate::graph::{components, diameter, largest_part};
use crate::world::{DETECTION, World};
use meshwork_simulator::Random;
use meshwork_simulator::random::{schedules, seed};

const SECOND: Duration = Duration::from_secs(1);

/// Schedules of the full run.
const FULL: u64 = 10;

const ALL_GROWTHS: [Growth; 3] = [Growth::Chain, Growth::Seed, Growth::Halves];

/// Ways in which a mesh comes to be.
#[derive(Debug, Clone, Copy)]
enum Growth {
    /// Everyone begins from the one before.
    Chain,
    /// Everyone begins from the first.
    Seed,
    /// Two meshes, one of whose nodes learns of the other.
    Halves,
}

/// Nodes that join by and by: a tenth more each half second, all at once at the beginning.
fn grown(seed: u64, count: usize, growth: Growth) -> World {
    let mut world = World::new(seed);
    let half = count / 2;
    for node in 0..count {
        let target = match growth {
            Growth::Chain => node.checked_sub(1),
            Growth::Seed => (node > 0).then_some(0),
            Growth::Halves => (node != 0 && node != half).then_some(if node < half { 0 } else { half }),
        };
        world.join(target);
        if node % (node / 10 + 1).max(16) == 0 {
            world.run(SECOND / 2);
        }
    }
    world.run(30 * SECOND);
    if let Growth::Halves = growth {
        world.name(half, 0);
        world.run(30 * SECOND);
    }
    world
}

fn settled(mut world: World) -> World {
    for _ in 0..30 {
        let before = world.changes;
        world.run(30 * SECOND);
        if world.changes == before {
            return world;
        }
    }
    panic!("links still change after 15 minutes");
}

#[track_caller]
fn is_well_mixed(world: &mut World, count: usize, what: &str) {
    let (graph, living, degrees) = (world.graph(), world.living(), world.degrees());
    let mean = degrees.iter().sum::<usize>() as f64 / degrees.len() as f64;
    let (least, most) = (degrees.iter().min().expect("nodes"), degrees.iter().max().expect("nodes"));
    let steps = diameter(&graph, &living).expect("one part");
    println!("{count} nodes, {what}: degree {least} to {most}, mean {mean:.2}; diameter {steps}");
    assert!(*least >= 7, "{what}: a node has {least} links");
    assert!((7.5..=11.5).contains(&mean), "{what}: {mean} links in the mean");
    let log = (living.len() as f64).log2();
    assert!(steps as f64 <= (log / 2.0).ceil() + 1.0, "{what}: diameter {steps}");
    for percent in [10, 20, 30] {
        let mut order = living.clone();
        for place in 0..order.len() {
            let other = place + world.random.below((order.len() - place) as u64) as usize;
            order.swap(place, other);
        }
        let gone: BTreeSet<usize> = order.into_iter().take(living.len() * percent / 100).collect();
        let part = largest_part(&graph, &living, &gone);
        println!("  without {percent} %: {:.2} % of the rest in one part", part * 100.0);
        assert!(part >= 0.99, "{what}: {part}");
    }
}

fn is_mixed(seed: u64, count: usize, growth: Growth) {
    let mut world = settled(grown(seed, count, growth));
    // Those that everyone began from.
    let crowded = world.degrees().into_iter().filter(|degree| *degree > MOST_LINKS).count();
    assert!(crowded <= 2, "{growth:?}: {crowded} nodes have more than {MOST_LINKS} links");
    is_well_mixed(&mut world, count, &format!("{growth:?}"));
}

#[test]
fn a_hundred_nodes_are_well_mixed_however_they_joined() {
    let mut random = Random::new(seed());
    for growth in ALL_GROWTHS {
        is_mixed(random.draw(), 100, growth);
    }
}

/// In a short run one of the ways in which it may have come to be, and no mesh of thousands.
#[test]
fn thousands_of_nodes_are_well_mixed_however_they_joined() {
    let mut random = Random::new(seed());
    let long = schedules(FULL) >= FULL;
    let sizes: &[usize] = if long { &[1000, 5000] } else { &[600] };
    let growths = if long { &ALL_GROWTHS[..] } else { &[random.pick(&ALL_GROWTHS)][..] };
    for &count in sizes {
        growths.iter().for_each(|growth| is_mixed(random.draw(), count, *growth));
    }
}

#[test]
fn meshes_around_the_bound_keep_their_links_while_nodes_come_and_go() {
    for count in 11..=15 {
        let mut world = settled(grown(count as u64, count, Growth::Seed));
        let degrees = world.degrees();
        let least = if count <= 13 { count - 1 } else { 8 };
        assert!(degrees.iter().all(|degree| *degree >= least), "{count} nodes: {degrees:?}");
        let before = world.changes;
        for _ in 0..5 {
            world.crash(count - 1);
            world.run(10 * SECOND);
            world.restart(count - 1);
            world.run(10 * SECOND);
        }
        // The one that comes and goes makes its links anew, and each of its neighbours one in its place.
        let most = 5 * 2 * (count as u64 + 2);
        assert!(world.changes - before <= most, "{count} nodes: {} changes", world.changes - before);
        let mut world = settled(world);
        let quiet = world.changes;
        world.run(600 * SECOND);
        assert_eq!(world.changes, quiet, "{count} nodes");
    }
}

#[test]
fn a_mesh_is_whole_and_full_again_soon_after_a_third_of_it_was_lost() {
    let mut world = settled(grown(seed(), 300, Growth::Seed));
    for node in 1..100 {
        world.crash(node * 3);
    }
    world.run(DETECTION);
    let took = world.run_until(10 * SECOND, |world| world.whole() && world.degrees().iter().all(|degree| *degree >= 7));
    println!("100 of 300 lost: whole with seven links each {took:?} after it was noticed");
    assert!(took.is_some_and(|took| took <= SECOND), "{took:?}");
    let most = settled(world).degrees().into_iter().filter(|degree| *degree > MOST_LINKS).count();
    assert!(most <= 1, "{most}");
}

#[test]
fn fifty_of_a_hundred_that_restart_together_are_no_storm() {
    let mut world = settled(grown(seed(), 100, Growth::Seed));
    let (dials, restarted) = (world.dials, 50..100);
    restarted.clone().for_each(|node| world.crash(node));
    world.run(SECOND);
    restarted.for_each(|node| world.restart(node));
    let took = world.run_until(60 * SECOND, |world| world.whole() && world.degrees().iter().all(|degree| *degree >= 8));
    println!("50 of 100 restarted: {} dials, {} redirects, whole after {took:?}", world.dials - dials, world.redirects);
    assert!(took.is_some_and(|took| took <= 5 * SECOND), "{took:?}");
    assert!(world.dials - dials < 50 * 40, "{} dials", world.dials - dials);
}

#[test]
fn parts_of_a_mesh_find_each_other_again() {
    let mut world = settled(grown(seed(), 200, Growth::Chain));
    world.part(|node| (node % 2) as u8);
    world.run(60 * SECOND);
    let parts: BTreeSet<usize> = components(&world.graph()).into_iter().collect();
    assert_eq!(parts.len(), 2);
    world.part(|_| 0);
    let took = world.run_until(30 * SECOND, World::whole);
    println!("two halves of 100 find each other {took:?} after they can");
    assert!(took.is_some_and(|took| took <= SECOND), "{took:?}");
    is_well_mixed(&mut settled(world), 200, "parted and healed");
}

#[test]
fn pairs_that_cannot_reach_each_other_find_others() {
    let mut world = World::new(seed());
    let first = world.join(None);
    (1..60).for_each(|_| {
        world.join(Some(first));
    });
    for one in 1..60 {
        for other in (one + 1..60).filter(|other| (one + other) % 3 == 0) {
            world.cut(one, other);
        }
    }
    world.run(60 * SECOND);
    assert!(world.whole() && world.degrees().iter().all(|degree| *degree >= 7), "{:?}", world.degrees());
}

#[test]
fn most_nodes_find_near_ones_over_their_neighbours() {
    let mut world = grown(seed(), 120, Growth::Chain);
    world.places = 6;
    world.run(900 * SECOND);
    let graph = world.graph();
    let near = |node: usize| graph[node].iter().filter(|other| world.place(**other) == world.place(node)).count();
    let lacking = world.living().into_iter().filter(|node| near(*node) < NEAR_LINKS).count();
    println!("6 places of 20 nodes: {lacking} nodes have fewer than two links within their place");
    assert!(lacking <= 30, "{lacking}");
    is_well_mixed(&mut settled(world), 120, "6 places");
}

#[test]
fn newcomers_that_know_only_one_full_node_get_in() {
    let mut world = settled(grown(seed(), 40, Growth::Seed));
    let full = world.graph()[0].len();
    assert!(full >= MOST_LINKS, "{full}");
    let redirects = world.redirects;
    let newcomers: Vec<usize> = (0..5).map(|_| world.join(Some(0))).collect();
    let took = world.run_until(5 * SECOND, World::whole);
    assert!(took.is_some() && world.redirects > redirects);
    world.run(5 * SECOND);
    let graph = world.graph();
    assert!(newcomers.iter().all(|node| graph[*node].len() >= 8));
}
