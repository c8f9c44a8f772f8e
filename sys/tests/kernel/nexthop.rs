use std::slice::from_ref;

use meshwork_sys::netlink::{Family, Nexthop, Route, RouteFilter, RouteMtu};

use crate::sandbox::Sandbox;

const OURS: u8 = 152;
const OUR_ROUTES: RouteFilter = RouteFilter { protocol: Some(OURS) };

fn nexthop(id: u32, family: Family) -> Nexthop {
    Nexthop { id, family, output: None, gateway: None, onlink: false, protocol: OURS }
}

fn route(destination: &str, nexthop: u32) -> Route {
    Route { nexthop: Some(nexthop), protocol: OURS, ..Route::new(destination.parse().unwrap()) }
}

#[test]
fn an_object_is_set_listed_and_deleted_and_every_step_may_be_repeated() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let plain = Nexthop { output: Some(left), ..nexthop(100, Family::V4) };
    let gateway = Some("fd99::1".parse().unwrap());
    let onlink = Nexthop { output: Some(left), gateway, onlink: true, ..nexthop(101, Family::V6) };
    let drop = nexthop(102, Family::V4);
    let wanted = [plain, onlink, drop];
    for nexthop in wanted.iter().chain(&wanted) {
        sandbox.netlink.replace_nexthop(nexthop).unwrap();
    }
    assert_eq!(sandbox.netlink.nexthops().unwrap(), wanted);
    let seen = sandbox.ip_one("nexthop show id 101");
    assert_eq!((&seen["dev"], &seen["gateway"]), (&"left".into(), &"fd99::1".into()));
    assert_eq!((&seen["flags"][0], &seen["protocol"]), (&"onlink".into(), &OURS.to_string().into()));
    assert_eq!(sandbox.ip_one("nexthop show id 102")["blackhole"], serde_json::Value::Null);
    for nexthop in wanted.iter().chain(&wanted) {
        sandbox.netlink.delete_nexthop(nexthop.id).unwrap();
    }
    assert_eq!(sandbox.netlink.nexthops().unwrap(), []);
}

#[test]
fn replacing_an_object_moves_its_routes() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let right = sandbox.index("right");
    for (family, destination) in [(Family::V4, "10.32.0.0/12"), (Family::V6, "fd00:32::/48")] {
        let via = |output| Nexthop { output: Some(output), ..nexthop(100, family) };
        let wanted = Route { mtu: Some(RouteMtu { bytes: 1390, locked: true }), ..route(destination, 100) };
        sandbox.netlink.replace_nexthop(&via(left)).unwrap();
        sandbox.netlink.replace_route(&wanted).unwrap();
        sandbox.netlink.replace_route(&wanted).unwrap();
        let show = format!("{} route show exact {destination}", if family == Family::V4 { "-4" } else { "-6" });
        let before = sandbox.ip_one(&show);
        assert_eq!((&before["nhid"], &before["dev"]), (&100.into(), &"left".into()));
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), from_ref(&wanted));

        sandbox.netlink.replace_nexthop(&via(right)).unwrap();
        assert_eq!(sandbox.ip_one(&show)["dev"], "right");
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), from_ref(&wanted));

        sandbox.netlink.delete_route(&wanted).unwrap();
        sandbox.netlink.delete_route(&wanted).unwrap();
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), []);
        sandbox.netlink.delete_nexthop(100).unwrap();
    }
}

#[test]
fn a_route_changes_between_object_and_plain_in_place() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for (family, destination) in [(Family::V4, "10.32.0.0/12"), (Family::V6, "fd00:32::/48")] {
        sandbox.netlink.replace_nexthop(&Nexthop { output: Some(left), ..nexthop(100, family) }).unwrap();
        let by_object = route(destination, 100);
        let plain = Route { nexthop: None, output: Some(left), ..by_object.clone() };
        for wanted in [&by_object, &plain, &by_object, &plain] {
            sandbox.netlink.replace_route(wanted).unwrap();
            assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), from_ref(wanted));
        }
        sandbox.netlink.delete_route(&plain).unwrap();
        sandbox.netlink.delete_nexthop(100).unwrap();
    }
}

#[test]
fn deleting_an_object_deletes_its_routes_and_they_may_be_deleted_again() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for (family, destination) in [(Family::V4, "10.32.0.0/12"), (Family::V6, "fd00:32::/48")] {
        sandbox.netlink.replace_nexthop(&Nexthop { output: Some(left), ..nexthop(100, family) }).unwrap();
        sandbox.netlink.replace_route(&route(destination, 100)).unwrap();
        sandbox.netlink.delete_nexthop(100).unwrap();
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), []);
        sandbox.netlink.delete_route(&route(destination, 100)).unwrap();
    }
}

#[test]
fn objects_and_routes_go_with_their_interface_and_may_be_deleted_again() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for (id, family, destination) in [(100, Family::V4, "10.32.0.0/12"), (101, Family::V6, "fd00:32::/48")] {
        sandbox.netlink.replace_nexthop(&Nexthop { output: Some(left), ..nexthop(id, family) }).unwrap();
        sandbox.netlink.replace_route(&route(destination, id)).unwrap();
    }
    sandbox.netlink.delete_link("left").unwrap();
    assert_eq!(sandbox.netlink.nexthops().unwrap(), []);
    assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), []);
    for (id, destination) in [(100, "10.32.0.0/12"), (101, "fd00:32::/48")] {
        sandbox.netlink.delete_route(&Route { output: Some(left), nexthop: None, ..route(destination, id) }).unwrap();
        sandbox.netlink.delete_nexthop(id).unwrap();
        sandbox.netlink.delete_neighbour(left, destination.split('/').next().unwrap().parse().unwrap()).unwrap();
    }
}

#[test]
fn a_route_by_an_object_that_is_absent_is_refused_with_the_reason() {
    let (mut sandbox, _) = Sandbox::with_veth();
    let refusal = sandbox.netlink.replace_route(&route("10.32.0.0/12", 4711)).unwrap_err().to_string();
    assert!(refusal.contains("Nexthop id does not exist"), "{refusal}");
}

#[test]
fn an_object_on_an_interface_that_is_down_is_refused_with_advice() {
    let (mut sandbox, left) = Sandbox::with_veth();
    sandbox.netlink.set_down(left).unwrap();
    let wanted = Nexthop { output: Some(left), ..nexthop(100, Family::V4) };
    let refusal = sandbox.netlink.replace_nexthop(&wanted).unwrap_err().to_string();
    assert!(refusal.contains("the interface is down or has no carrier"), "{refusal}");
}

#[test]
fn groups_are_left_out_of_the_listing() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let single = Nexthop { output: Some(left), ..nexthop(100, Family::V4) };
    sandbox.netlink.replace_nexthop(&single).unwrap();
    sandbox.run("ip nexthop add id 200 group 100");
    assert_eq!(sandbox.netlink.nexthops().unwrap(), [single]);
}
