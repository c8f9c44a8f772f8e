use std::slice::from_ref;

use meshwork_sys::netlink::{Route, RouteFilter, RouteKind, RouteMtu, Scope};

use crate::sandbox::Sandbox;

/// A protocol number that nobody has registered.
const OURS: u8 = 152;

const OUR_ROUTES: RouteFilter = RouteFilter { protocol: Some(OURS) };

fn route(destination: &str) -> Route {
    Route { protocol: OURS, ..Route::new(destination.parse().unwrap()) }
}

/// Sets the route twice, finds exactly it in our listing, and hands out what `ip` says.
fn set(sandbox: &mut Sandbox, route: &Route) -> serde_json::Value {
    sandbox.netlink.replace_route(route).unwrap();
    sandbox.netlink.replace_route(route).unwrap();
    let listed = sandbox.netlink.routes(OUR_ROUTES).unwrap();
    assert_eq!(listed, [route.clone().canonical()]);
    let family = if route.destination.addr().is_ipv4() { "-4" } else { "-6" };
    sandbox.ip_one(&format!("{family} route show exact {}", route.destination))
}

fn delete(sandbox: &mut Sandbox, route: &Route) {
    sandbox.netlink.delete_route(route).unwrap();
    sandbox.netlink.delete_route(route).unwrap();
    assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), []);
}

#[test]
fn a_plain_route_goes_to_its_interface() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for destination in ["10.32.0.7/32", "fd00:32::7/128"] {
        let wanted = Route { output: Some(left), scope: Scope::Link, ..route(destination) };
        let seen = set(&mut sandbox, &wanted);
        assert_eq!(seen["dev"], "left");
        assert_eq!(seen["protocol"], OURS.to_string());
        delete(&mut sandbox, &wanted);
    }
}

#[test]
fn a_route_has_gateway_source_metric_and_locked_mtu() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for (destination, gateway, source) in
        [("10.32.0.0/12", "10.1.0.2", "10.1.0.1"), ("fd00:32::/48", "fd01::2", "fd01::1")]
    {
        let wanted = Route {
            output: Some(left),
            gateway: Some(gateway.parse().unwrap()),
            source: Some(source.parse().unwrap()),
            metric: 77,
            mtu: Some(RouteMtu { bytes: 1390, locked: true }),
            ..route(destination)
        };
        let seen = set(&mut sandbox, &wanted);
        assert_eq!(seen["gateway"], gateway);
        assert_eq!(seen["prefsrc"], source);
        assert_eq!(seen["metric"], 77);
        assert_eq!(seen["metrics"][0]["mtu"], 1390);
        // The JSON form does not tell of the lock.
        let family = if gateway.contains('.') { "-4" } else { "-6" };
        assert!(sandbox.run(&format!("ip {family} route show exact {destination}")).contains("mtu lock 1390"));
        delete(&mut sandbox, &wanted);
    }
}

#[test]
fn an_unlocked_mtu_is_told_from_a_locked_one() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let with =
        |locked| Route { output: Some(left), mtu: Some(RouteMtu { bytes: 1400, locked }), ..route("10.32.0.0/12") };
    set(&mut sandbox, &with(false));
    set(&mut sandbox, &with(true));
    set(&mut sandbox, &Route { mtu: None, ..with(true) });
}

#[test]
fn a_gateway_off_the_link_needs_onlink() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for (destination, gateway) in [("0.0.0.0/0", "169.254.1.1"), ("::/0", "fd99::1")] {
        let off_link = Route { output: Some(left), gateway: Some(gateway.parse().unwrap()), ..route(destination) };
        assert!(sandbox.netlink.replace_route(&off_link).is_err());
        let wanted = Route { onlink: true, ..off_link };
        let seen = set(&mut sandbox, &wanted);
        assert_eq!(seen["dst"], "default");
        assert_eq!(seen["flags"][0], "onlink");
        delete(&mut sandbox, &wanted);
    }
}

#[test]
fn an_ipv4_route_may_have_an_ipv6_gateway() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let wanted = Route { output: Some(left), gateway: Some("fe80::1".parse().unwrap()), ..route("10.32.0.0/12") };
    assert_eq!(set(&mut sandbox, &wanted)["via"]["host"], "fe80::1");
    delete(&mut sandbox, &wanted);
}

#[test]
fn the_last_resort_is_unreachable() {
    let (mut sandbox, _) = Sandbox::with_veth();
    for destination in ["10.32.0.0/12", "fd00:32::/48"] {
        for (kind, name) in [(RouteKind::Unreachable, "unreachable"), (RouteKind::Blackhole, "blackhole")] {
            let wanted = Route { kind, metric: u32::MAX, ..route(destination) };
            let seen = set(&mut sandbox, &wanted);
            assert_eq!((&seen["type"], &seen["metric"]), (&name.into(), &u32::MAX.into()));
            delete(&mut sandbox, &wanted);
        }
    }
}

#[test]
fn the_last_resort_and_the_route_itself_stand_beside_each_other() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for destination in ["10.32.0.0/12", "fd00:32::/48"] {
        let last_resort = Route { kind: RouteKind::Unreachable, metric: u32::MAX, ..route(destination) };
        let itself = Route { output: Some(left), scope: Scope::Link, ..route(destination) };
        sandbox.netlink.replace_route(&last_resort).unwrap();
        sandbox.netlink.replace_route(&itself).unwrap();
        sandbox.netlink.replace_route(&last_resort).unwrap();
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap().len(), 2);
        // The scope does not tell routes apart.
        sandbox.netlink.delete_route(&Route { scope: Scope::Global, ..itself }).unwrap();
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), from_ref(&last_resort));
        delete(&mut sandbox, &last_resort);
    }
}

#[test]
fn a_route_that_leads_elsewhere_by_now_is_not_deleted() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let right = sandbox.index("right");
    for destination in ["10.32.0.7/32", "fd00:32::7/128"] {
        let former = Route { output: Some(left), scope: Scope::Link, ..route(destination) };
        let present = Route { output: Some(right), ..former.clone() };
        set(&mut sandbox, &former);
        set(&mut sandbox, &present);
        sandbox.netlink.delete_route(&former).unwrap();
        assert_eq!(sandbox.netlink.routes(OUR_ROUTES).unwrap(), [present.clone().canonical()]);
        delete(&mut sandbox, &present);
    }
}

#[test]
fn the_listing_without_filter_holds_the_kernels_own_routes_and_no_local_ones() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let routes = sandbox.netlink.routes(RouteFilter::default()).unwrap();
    let connected = routes.iter().find(|route| route.destination == "10.1.0.0/24".parse().unwrap()).unwrap();
    assert_eq!(connected.output, Some(left));
    assert_eq!((connected.scope, connected.protocol), (Scope::Link, libc::RTPROT_KERNEL));
    assert_eq!(connected.source, Some("10.1.0.1".parse().unwrap()));
    let ours = routes.iter().filter(|route| route.destination.addr().is_ipv4()).count();
    assert_eq!(ours, sandbox.ip("-4 route show table main").len());
    assert!(routes.iter().all(|route| route.destination != "10.1.0.1/32".parse().unwrap()));
}

#[test]
fn a_namespace_without_any_route_has_an_empty_listing() {
    let mut sandbox = Sandbox::new();
    let v4 = sandbox.netlink.routes(OUR_ROUTES).unwrap();
    assert_eq!(v4, []);
}

#[test]
fn thousands_of_routes_are_listed_whole() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for number in 0..3000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let wanted = Route { output: Some(left), scope: Scope::Link, ..route(&format!("10.40.{high}.{low}/32")) };
        sandbox.netlink.replace_route(&wanted).unwrap();
    }
    let routes = sandbox.netlink.routes(OUR_ROUTES).unwrap();
    assert_eq!(routes.len(), 3000);
    assert!(routes.windows(2).all(|pair| pair[0] < pair[1]));
}
