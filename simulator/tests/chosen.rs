//! Meshes whose nodes choose their links, as daemons do: each knows one address to begin from.

use std::time::Duration;

use meshwork_gossip::MemberState;
use meshwork_gossip::limits::{MOST_ALONE, MOST_LINKS, MOST_NAMED};
use meshwork_simulator::World;
use meshwork_simulator::world::Wiring;

const SECOND: Duration = Duration::from_secs(1);

fn degrees(mesh: &World) -> Vec<usize> {
    let mut degrees = vec![0; mesh.count()];
    mesh.links().for_each(|(near, _)| degrees[near] += 1);
    degrees
}

fn agree(mesh: &mut World, limit: Duration) -> Duration {
    let took = mesh.run_until(limit, |mesh| mesh.agrees().is_ok());
    took.unwrap_or_else(|| panic!("{:?} after {limit:?}", mesh.agrees()))
}

/// All see all, and hold what was said: links of a crowd are still chosen anew for a while.
fn is_one(mesh: &mut World, limit: Duration) {
    let mut said = mesh.said_by_all();
    assert!(mesh.run_until(limit, |mesh| mesh.is_one(&mut said)).is_some(), "{:?} after {limit:?}", mesh.agrees());
}

#[test]
fn a_small_mesh_becomes_a_full_one() {
    let mut mesh = World::chosen(1, 8);
    agree(&mut mesh, 5 * SECOND);
    mesh.run(5 * SECOND);
    assert_eq!(degrees(&mesh), [7; 8]);
}

#[test]
fn a_crowd_that_joins_through_one_node_comes_to_rest_on_a_few_links_each() {
    let mut mesh = World::chosen(2, 80);
    is_one(&mut mesh, 5 * SECOND);
    mesh.run(120 * SECOND);
    agree(&mut mesh, 5 * SECOND);
    let degrees = degrees(&mesh);
    assert!(degrees.iter().all(|degree| (6..=MOST_LINKS).contains(degree)) || degrees[0] > MOST_LINKS, "{degrees:?}");
    assert!(degrees.iter().all(|degree| *degree <= MOST_LINKS + MOST_NAMED + MOST_ALONE), "{degrees:?}");
    assert!(degrees[1..].iter().sum::<usize>() <= 79 * 11, "{degrees:?}");
}

#[test]
fn halves_of_a_chosen_mesh_find_each_other_again() {
    let mut mesh = World::chosen(3, 40);
    agree(&mut mesh, 15 * SECOND);
    mesh.partition(|node| u8::from(node < 20));
    mesh.run(60 * SECOND);
    assert!(mesh.sees(0, 30, MemberState::Dead));
    mesh.heal();
    agree(&mut mesh, 20 * SECOND);
}

#[test]
fn nobody_needs_the_node_that_it_began_from() {
    let mut mesh = World::chosen(4, 40);
    agree(&mut mesh, 15 * SECOND);
    mesh.crash(0);
    mesh.run(5 * SECOND);
    assert!((1..40).all(|node| mesh.sees(node, 0, MemberState::Suspect)));
    agree(&mut mesh, 15 * SECOND);
}

#[test]
fn who_names_several_finds_the_one_that_lives() {
    let mut mesh = World::asleep(5, Wiring::Chosen(vec![vec![], vec![0], vec![0, 1]]), 3);
    [1, 2].into_iter().for_each(|node| mesh.restart(node));
    agree(&mut mesh, 2 * SECOND);
}
