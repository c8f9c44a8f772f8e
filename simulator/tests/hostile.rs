//! What one or two members can do that misbehave: slow themselves, and lie about themselves.

use std::time::Duration;

use meshwork_gossip::MemberState;
use meshwork_simulator::World;
use meshwork_simulator::content::Notes;
use meshwork_simulator::graph::Graph;
use meshwork_simulator::hostile::{MISDEEDS, Misdeed};
use meshwork_simulator::world::Wiring;

const SECOND: Duration = Duration::from_secs(1);

/// A mesh whose last two nodes are hostile.
fn beset(seed: u64, wiring: Wiring, count: usize, misdeeds: &[Misdeed]) -> World {
    let mut mesh = World::asleep(seed, wiring, count);
    (count - 2..count).for_each(|node| mesh.corrupt(node, misdeeds));
    (0..count).for_each(|node| mesh.restart(node));
    mesh
}

fn hold(mesh: &World) {
    for node in mesh.honest() {
        assert_eq!(mesh.keeps_its_own(node).and(mesh.bears(node)), Ok(()));
    }
}

/// Honest nodes hear of changes at honest nodes, and see each other alive all along.
fn goes_on(mesh: &mut World, what: &str) {
    let agreed = mesh.run_until(30 * SECOND, |mesh| mesh.agrees().is_ok());
    assert!(agreed.is_some(), "{what}: {:?}", mesh.agrees());
    for round in 0..10 {
        mesh.put(round % 3, 1, &round.to_string());
        for _ in 0..30 {
            mesh.run(SECOND / 10);
            hold(mesh);
            let honest = mesh.honest();
            let alive = |near: usize| honest.iter().all(|&far| near == far || mesh.sees(near, far, MemberState::Alive));
            assert!(honest.iter().all(|&near| alive(near)), "{what}, round {round}");
        }
    }
    let agreed = mesh.run_until(15 * SECOND, |mesh| mesh.agrees().is_ok());
    assert!(agreed.is_some(), "{what}: {:?}", mesh.agrees());
}

#[test]
fn no_misdeed_keeps_honest_nodes_of_a_full_mesh_from_each_other() {
    for misdeed in MISDEEDS {
        goes_on(&mut beset(1, Wiring::Fixed(Graph::full(6)), 6, &[misdeed]), &format!("{misdeed:?}"));
    }
}

#[test]
fn no_misdeed_keeps_honest_nodes_that_choose_their_links_from_each_other() {
    for misdeed in MISDEEDS {
        goes_on(&mut beset(2, Wiring::from_first(18), 18, &[misdeed]), &format!("{misdeed:?}"));
    }
}

#[test]
fn all_misdeeds_together_do_not_either() {
    goes_on(&mut beset(3, Wiring::from_first(10), 10, &MISDEEDS), "all");
}

#[test]
fn nothing_that_a_hostile_member_says_of_another_is_believed() {
    let mut mesh = beset(4, Wiring::Fixed(Graph::full(5)), 5, &[Misdeed::Alter, Misdeed::Forge, Misdeed::Replay]);
    mesh.put(0, 1, "true");
    mesh.run(60 * SECOND);
    for node in [1, 2] {
        let notes: Vec<(u32, String)> = mesh.gossip(node).entries_of::<Notes>(mesh.id(0)).collect();
        assert_eq!(notes, [(1, "true".to_owned())]);
    }
    let refused: u64 = (0..3).map(|node| mesh.gossip(node).counters().forged).sum();
    assert!(refused > 100, "{refused}");
}

#[test]
fn invented_members_come_slowly_and_are_dead() {
    let mut mesh = beset(5, Wiring::from_first(6), 6, &[Misdeed::Invent]);
    mesh.run(60 * SECOND);
    for node in mesh.honest() {
        let burden = mesh.gossip(node).burden();
        assert!(burden.held > 50, "{burden:?}");
        assert_eq!(mesh.gossip(node).members().filter(|member| member.state == MemberState::Alive).count(), 5);
    }
    hold(&mesh);
}
