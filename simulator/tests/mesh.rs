//! What a mesh promises, one promise per test.

use std::time::Duration;

use meshwork_gossip::{Event, MemberState};
use meshwork_simulator::World;
use meshwork_simulator::content::Notes;
use meshwork_wire::record::{Links, Store};
use meshwork_wire::{Incarnation, PeerId};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn settled(mut mesh: World) -> World {
    mesh.run(5 * SECOND);
    assert_eq!(mesh.agrees(), Ok(()));
    mesh
}

fn value_at(mesh: &World, node: usize, origin: usize, key: u32) -> Option<String> {
    mesh.gossip(node).get::<Notes>(mesh.id(origin), &key)
}

#[test]
fn three_nodes_see_each_other_and_what_they_say() {
    let mut mesh = World::full_mesh(1, 3);
    mesh.put(0, 1, "one");
    let mut mesh = settled(mesh);
    assert_eq!(value_at(&mesh, 2, 0, 1).as_deref(), Some("one"));
    mesh.put(1, 1, "two");
    mesh.remove(0, 1);
    mesh.run(50 * MS);
    assert_eq!(value_at(&mesh, 0, 1, 1).as_deref(), Some("two"));
    assert_eq!(value_at(&mesh, 2, 0, 1), None);
    let synced =
        |node: usize| mesh.events(node).iter().filter(|(_, event)| matches!(event, Event::Synced { .. })).count();
    assert_eq!([synced(0), synced(1), synced(2)], [2, 2, 2]);
}

#[test]
fn an_equal_value_is_not_published_again() {
    let mut mesh = settled(World::full_mesh(1, 2));
    mesh.put(0, 1, "one");
    mesh.run(SECOND);
    let before = mesh.events(1).len();
    mesh.put(0, 1, "one");
    mesh.run(SECOND);
    assert_eq!(mesh.events(1).len(), before);
}

#[test]
fn a_change_crosses_a_chain_and_is_sent_once_per_link() {
    let mut mesh = settled(World::chain(1, 6));
    let deltas = |mesh: &World| mesh.living().iter().map(|&node| mesh.gossip(node).counters().deltas).sum::<u64>();
    let before = deltas(&mesh);
    mesh.put(0, 1, "one");
    mesh.run(30 * MS);
    assert_eq!(value_at(&mesh, 5, 0, 1).as_deref(), Some("one"));
    assert_eq!(deltas(&mesh) - before, 5);
}

#[test]
fn in_a_full_mesh_only_the_origin_sends_a_change() {
    let mut mesh = settled(World::full_mesh(1, 10));
    let sent = |mesh: &World, from: usize| (from..10).map(|node| mesh.gossip(node).counters().frames_sent).sum::<u64>();
    let before = (sent(&mesh, 0), sent(&mesh, 1));
    mesh.put(0, 1, "one");
    mesh.run(20 * MS);
    // Heartbeats of these 20 ms may come on top, all at once at most.
    assert!(sent(&mesh, 0) - before.0 >= 9 && sent(&mesh, 1) - before.1 <= 81);
    assert_eq!(value_at(&mesh, 9, 0, 1).as_deref(), Some("one"));
}

#[test]
fn thirty_nodes_agree_on_a_killed_one_within_five_seconds() {
    let mut mesh = settled(World::full_mesh(7, 30));
    mesh.conditions.loss = 1000;
    mesh.crash(29);
    let took = mesh.run_until(10 * SECOND, |mesh| (0..29).all(|node| mesh.sees(node, 29, MemberState::Suspect)));
    assert!(took.is_some_and(|took| took <= 5 * SECOND), "{took:?}");
    mesh.run(2 * SECOND);
    assert_eq!(mesh.agrees(), Ok(()));
}

#[test]
fn a_killed_node_is_suspect_then_dead_and_keeps_its_entries() {
    let mut mesh = World::full_mesh(3, 3);
    mesh.put(2, 1, "kept");
    let mut mesh = settled(mesh);
    mesh.crash(2);
    let took = mesh.run_until(10 * SECOND, |mesh| (0..2).all(|node| mesh.sees(node, 2, MemberState::Suspect)));
    assert!(took.is_some_and(|took| took <= 5 * SECOND), "{took:?}");
    mesh.run(29 * SECOND);
    assert!(mesh.sees(0, 2, MemberState::Suspect));
    mesh.run(2 * SECOND);
    assert!((0..2).all(|node| mesh.sees(node, 2, MemberState::Dead)));
    assert_eq!(value_at(&mesh, 0, 2, 1).as_deref(), Some("kept"));
}

#[test]
fn a_restart_is_seen_with_the_first_link_and_no_entry_is_missing_meanwhile() {
    let mut mesh = World::full_mesh(3, 5);
    mesh.put(4, 1, "kept");
    let mut mesh = settled(mesh);
    mesh.crash(4);
    mesh.run(2 * SECOND);
    mesh.restart(4);
    mesh.put(4, 2, "new");
    let linked = |mesh: &World| mesh.gossip(4).own::<Links>().count() > 0;
    assert!(mesh.run_until(2 * SECOND, linked).is_some());
    let new = |mesh: &World| {
        (0..4).all(|node| mesh.member(node, 4).is_some_and(|member| member.incarnation == Incarnation(2)))
    };
    let took = mesh.run_until(5 * SECOND, new);
    assert!(took.is_some_and(|took| took <= SECOND), "{took:?}");
    mesh.run(SECOND);
    let restarts =
        mesh.events_about(0, 4, Duration::ZERO).into_iter().filter(|event| matches!(event, Event::Restarted { .. }));
    assert_eq!(restarts.count(), 1);
    assert_eq!(mesh.agrees(), Ok(()));
    assert_eq!(value_at(&mesh, 0, 4, 1).as_deref(), Some("kept"));
}

#[test]
fn a_pause_below_three_seconds_is_not_noticed_on_either_side() {
    for pause in [2000, 2900] {
        let mut mesh = settled(World::full_mesh(5, 5));
        let begun = mesh.elapsed();
        mesh.pause(2, pause * MS);
        mesh.run(10 * SECOND);
        for node in [0, 1, 3, 4] {
            assert!(mesh.events_about(node, 2, begun).is_empty());
            assert!(mesh.events_about(2, node, begun).is_empty());
        }
    }
}

#[test]
fn a_long_pause_makes_unreachable_kills_nobody_and_ends_at_once() {
    let mut mesh = settled(World::full_mesh(5, 5));
    let begun = mesh.elapsed();
    mesh.pause(2, 8 * SECOND);
    mesh.run(6 * SECOND);
    assert!([0, 1, 3, 4].iter().all(|&node| mesh.sees(node, 2, MemberState::Suspect)));
    mesh.run(2 * SECOND);
    let back = mesh.run_until(5 * SECOND, |mesh| mesh.agrees().is_ok());
    assert!(back.is_some_and(|took| took <= SECOND), "{back:?}");
    assert!(
        [0, 1, 3, 4].iter().all(|&node| mesh.events_about(2, node, begun).is_empty()),
        "it blamed its own pause on others"
    );
    assert_eq!(mesh.member(0, 2).map(|member| member.incarnation), Some(Incarnation(1)));
}

#[test]
fn one_cut_link_makes_nobody_unreachable() {
    let mut mesh = settled(World::full_mesh(5, 3));
    let begun = mesh.elapsed();
    mesh.cut(0, 1);
    mesh.run(20 * SECOND);
    assert!(mesh.events_about(0, 1, begun).is_empty());
    assert!(mesh.gossip(2).get::<Links>(mesh.id(0), &mesh.id(1)).is_none());
    mesh.put(0, 1, "around");
    mesh.run(100 * MS);
    assert_eq!(value_at(&mesh, 1, 0, 1).as_deref(), Some("around"));
}

#[test]
fn both_halves_of_a_partition_go_on_and_merge() {
    let mut mesh = settled(World::full_mesh(5, 5));
    for (one, other) in [(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)] {
        mesh.cut(one, other);
    }
    mesh.run(6 * SECOND);
    assert!(mesh.sees(0, 4, MemberState::Suspect) && mesh.sees(4, 0, MemberState::Suspect));
    assert!(mesh.sees(0, 2, MemberState::Alive) && mesh.sees(3, 4, MemberState::Alive));
    mesh.put(0, 1, "left");
    mesh.put(4, 1, "right");
    mesh.run(40 * SECOND);
    assert!(mesh.sees(0, 4, MemberState::Dead));
    mesh.heal();
    let took = mesh.run_until(10 * SECOND, |mesh| mesh.agrees().is_ok());
    assert!(took.is_some_and(|took| took <= 2 * SECOND), "{took:?}");
}

struct Odd;

impl Store for Odd {
    const ID: meshwork_wire::record::StoreId = Notes::ID;
    const NAME: &'static str = "odd";
    type Key = u32;
    type Value = (u64, [u8; 16]);
}

#[test]
fn entries_that_a_build_cannot_read_are_carried_and_skipped() {
    let mut mesh = World::chain(1, 3);
    mesh.put(0, 1, "unknown to the one between");
    let mesh = settled(mesh);
    assert_eq!(mesh.gossip(1).entries::<Odd>().count(), 0);
    assert_eq!(mesh.gossip(1).counters().undecodable, 1);
    assert_eq!(value_at(&mesh, 2, 0, 1).as_deref(), Some("unknown to the one between"));
}

#[test]
fn messages_find_their_way_over_several_links() {
    let mut mesh = settled(World::chain(1, 6));
    let (from, target) = (mesh.id(0), mesh.id(5));
    mesh.on(0, |gossip, now| gossip.send(now, target, 7, b"hello".to_vec()));
    mesh.run(100 * MS);
    let expected = Event::Message { from, topic: 7, payload: b"hello".to_vec() };
    assert!(mesh.events(5).iter().any(|(_, event)| *event == expected));
    mesh.on(0, |gossip, now| gossip.send(now, PeerId([9; 16]), 7, Vec::new()));
    assert_eq!(mesh.gossip(0).counters().no_route, 1);
}

#[test]
fn messages_end_at_the_hop_limit() {
    let mut mesh = settled(World::chain(1, 11));
    let target = mesh.id(10);
    mesh.on(0, |gossip, now| gossip.send(now, target, 7, Vec::new()));
    mesh.run(SECOND);
    assert!(!mesh.events(10).iter().any(|(_, event)| matches!(event, Event::Message { .. })));
    assert_eq!((0..11).map(|node| mesh.gossip(node).counters().no_route).sum::<u64>(), 1);
}

#[test]
fn a_rolled_back_node_learns_it_from_its_own_signature_and_goes_on_above() {
    let mut mesh = settled(World::full_mesh(3, 3));
    mesh.put(2, 1, "late");
    mesh.run(SECOND);
    mesh.crash(2);
    mesh.roll_back(2);
    mesh.restart(2);
    mesh.run(2 * SECOND);
    let outranked = Event::Outranked { incarnation: Incarnation(1) };
    let place = |wanted: &Event| mesh.events(2).iter().rposition(|(_, event)| event == wanted);
    let (told, recovered) = (place(&outranked), place(&Event::Recovered { incarnation: Incarnation(1) }));
    assert!(told.is_some() && told < recovered, "{told:?} {recovered:?}");
    assert!(recovered < place(&Event::Synced { peer: mesh.id(0) }).max(place(&Event::Synced { peer: mesh.id(1) })));
    let former: Vec<String> = mesh.gossip(2).former::<Notes>().map(|(_, note)| note).collect();
    assert_eq!(former, ["late"]);
    mesh.on(2, |gossip, now| gossip.advance(now, Incarnation(2)));
    mesh.run(2 * SECOND);
    assert_eq!(mesh.agrees(), Ok(()));
}

/// It has signed more than the run before by then, so that numbers alone would not tell.
#[test]
fn a_rolled_back_node_that_went_on_alone_learns_of_what_it_lost_before_it_takes_its_place() {
    let mut mesh = settled(World::full_mesh(3, 3));
    mesh.put(2, 1, "late");
    mesh.run(SECOND);
    let (_, said) = mesh.state(0, 2).expect("what it said");
    mesh.crash(2);
    mesh.roll_back(2);
    mesh.partition(|node| u8::from(node == 2));
    mesh.restart(2);
    for key in 10..30 {
        mesh.put(2, key, "alone");
        mesh.run(SECOND);
    }
    let alone = mesh.gossip(2).latest(mesh.id(2)).expect("its own state").1;
    assert!(alone > said, "{alone} is more than {said}");
    mesh.heal();
    mesh.run(10 * SECOND);
    let former: Vec<String> = mesh.gossip(2).former::<Notes>().map(|(_, note)| note).collect();
    assert_eq!(former, ["late"]);
    assert!(mesh.gossip(0).entries::<Notes>().all(|(_, key, _)| key == 1), "it told nobody its own state");
    mesh.on(2, |gossip, now| gossip.advance(now, Incarnation(2)));
    mesh.run(2 * SECOND);
    assert_eq!(mesh.agrees(), Ok(()));
    assert_eq!(mesh.gossip(0).entries::<Notes>().filter(|(origin, ..)| *origin == mesh.id(2)).count(), 20);
}

#[test]
fn a_full_map_travels_in_several_frames() {
    let mut mesh = World::full_mesh(3, 2);
    for key in 0..55 {
        mesh.put(0, key, &"x".repeat(1000));
    }
    let mesh = settled(mesh);
    assert_eq!(mesh.gossip(1).entries::<Notes>().count(), 55);
}

#[test]
fn what_a_slow_node_had_to_send_does_not_outlive_its_slowness() {
    let mut mesh = settled(World::full_mesh(1, 12));
    mesh.slow_down(0, Some(300));
    mesh.run(30 * SECOND);
    mesh.slow_down(0, None);
    mesh.run(10 * SECOND);
    assert_eq!(mesh.agrees(), Ok(()));
    mesh.crash(1);
    let took = mesh.run_until(10 * SECOND, |mesh| (2..12).all(|node| mesh.sees(node, 1, MemberState::Suspect)));
    assert!(took.is_some_and(|took| took <= 5 * SECOND), "{took:?}");
}
