//! The address ring over simulated gossip.

use std::time::Duration;

use meshwork_simulator::World;
use meshwork_simulator::world::Wiring;

const SECOND: Duration = Duration::from_secs(1);

fn sharing(count: usize) -> World {
    let mut mesh = World::asleep(1, Wiring::from_first(count), count);
    mesh.share_addresses(24);
    (0..count).for_each(|node| mesh.restart(node));
    mesh.run(10 * SECOND);
    mesh
}

#[test]
fn everyone_hands_out_addresses_of_its_own() {
    let mut mesh = sharing(5);
    for (node, pod) in (0..5).flat_map(|node| (0..4).map(move |pod| (node, pod))) {
        mesh.lease(node, pod, 5 * SECOND);
    }
    let agreed = mesh.run_until(60 * SECOND, |mesh| mesh.granted() >= 20 && mesh.agrees_on_space().is_ok());
    assert!(agreed.is_some(), "{} granted, {:?}", mesh.granted(), mesh.agrees_on_space());
}

#[test]
fn a_parted_mesh_goes_on_handing_out_and_no_address_twice() {
    let mut mesh = sharing(4);
    (0..4).for_each(|node| mesh.lease(node, 0, 5 * SECOND));
    mesh.run(20 * SECOND);
    mesh.partition(|node| u8::from(node < 2));
    for (node, pod) in (0..4).flat_map(|node| (1..4).map(move |pod| (node, pod))) {
        mesh.lease(node, pod, 5 * SECOND);
    }
    mesh.run(40 * SECOND);
    mesh.heal();
    assert_eq!((mesh.granted(), mesh.shares_soundly()), (16, Ok(())));
    let agreed = mesh.run_until(60 * SECOND, |mesh| mesh.agrees().is_ok() && mesh.agrees_on_space().is_ok());
    assert!(agreed.is_some(), "{:?}", mesh.agrees_on_space());
}

/// What the reference is good for: here an address is held twice, and it says so.
#[test]
fn a_giver_that_forgot_its_gifts_is_found_out() {
    let mut mesh = sharing(2);
    (0..20).for_each(|pod| mesh.lease(1, pod, 5 * SECOND));
    mesh.run(10 * SECOND);
    assert!(mesh.granted() >= 20);
    mesh.partition(|node| u8::from(node == 0));
    mesh.crash(0);
    mesh.roll_back(0);
    mesh.restart(0);
    mesh.run(20 * SECOND);
    for pod in 0..200 {
        mesh.lease(0, pod, 5 * SECOND);
        mesh.run(SECOND / 10);
    }
    mesh.run(10 * SECOND);
    assert!(mesh.shares_soundly().is_err());
}
