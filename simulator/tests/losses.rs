//! Nodes that end while links are chosen anew: nothing of that hides a death.

use std::collections::BTreeSet;
use std::time::Duration;

use meshwork_gossip::MemberState;
use meshwork_simulator::World;

const SECOND: Duration = Duration::from_secs(1);

/// Within this everyone knows that a node is gone.
const KNOWN: Duration = Duration::from_secs(8);

/// A mesh that has just come together: its nodes still give up links that they made on the way.
fn crowd(seed: u64, count: usize) -> World {
    let mut mesh = World::chosen(seed, count);
    mesh.remembers = false;
    let mut said = mesh.said_by_all();
    let one = mesh.run_until(15 * SECOND, |mesh| mesh.is_one(&mut said));
    assert!(one.is_some(), "{:?}", mesh.agrees());
    mesh
}

fn sees_alive(mesh: &World, of: usize) -> Vec<usize> {
    let others = mesh.living().into_iter().filter(|&node| node != of);
    others.filter(|&node| mesh.sees(node, of, MemberState::Alive)).collect()
}

fn is_missed(mesh: &mut World, lost: &[usize], what: &str) {
    assert!(lost.iter().all(|&of| !sees_alive(mesh, of).is_empty()), "{what}: nobody saw them alive");
    lost.iter().for_each(|&of| mesh.crash(of));
    let missed = mesh.run_until(KNOWN, |mesh| lost.iter().all(|&of| sees_alive(mesh, of).is_empty()));
    let deceived: Vec<(usize, Vec<usize>)> = lost.iter().map(|&of| (of, sees_alive(mesh, of))).collect();
    assert!(missed.is_some(), "{what}: after {KNOWN:?} some see alive who ended: {deceived:?}");
    assert!(
        mesh.living()
            .iter()
            .all(|&node| mesh.living().iter().all(|&of| of == node || mesh.sees(node, of, MemberState::Alive))),
        "{what}: somebody misses who lives"
    );
}

/// The first link, as the end sees it that has given it up, that goes while both ends run.
fn given_up(mesh: &mut World) -> (usize, usize) {
    let mut before: BTreeSet<(usize, usize)> = mesh.links().collect();
    for _ in 0..12_000 {
        mesh.run(SECOND / 100);
        let now: BTreeSet<(usize, usize)> = mesh.links().collect();
        if let Some(gone) = before.difference(&now).find(|(near, far)| now.contains(&(*far, *near))) {
            return *gone;
        }
        before = now;
    }
    panic!("no link was given up in two minutes");
}

#[test]
fn a_death_after_a_link_was_given_up_is_noticed_in_time() {
    let mut mesh = crowd(1, 50);
    for round in 0..8 {
        let (near, far) = given_up(&mut mesh);
        let lost = if round % 2 == 0 { far } else { near };
        is_missed(&mut mesh, &[lost], &format!("round {round}, {near} gave up {far}, {lost} ended"));
        mesh.restart(lost);
        let whole = mesh.run_until(15 * SECOND, |mesh| mesh.agrees().is_ok());
        assert!(whole.is_some(), "round {round}: {:?}", mesh.agrees());
    }
}

#[test]
fn losses_while_links_are_chosen_anew_are_known_in_time() {
    let mut mesh = crowd(2, 80);
    for round in 0..4 {
        given_up(&mut mesh);
        let mut lost = mesh.living();
        while lost.len() > 8 {
            let place = mesh.random.index(lost.len());
            lost.swap_remove(place);
        }
        is_missed(&mut mesh, &lost, &format!("round {round}"));
    }
    assert_eq!(mesh.living().len(), 80 - 4 * 8);
    let whole = mesh.run_until(15 * SECOND, |mesh| mesh.agrees().is_ok());
    assert!(whole.is_some(), "{:?}", mesh.agrees());
}
