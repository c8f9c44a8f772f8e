use meshwork_sys::netlink::{InterfaceAddress, Scope};
use serde_json::Value;

use crate::sandbox::Sandbox;

fn address(net: &str, scope: Scope, nodad: bool) -> InterfaceAddress {
    InterfaceAddress { net: net.parse().unwrap(), scope, nodad }
}

fn witnessed(sandbox: &Sandbox, device: &str, address: &str) -> Option<Value> {
    let link = sandbox.ip_one(&format!("address show dev {device}"));
    link["addr_info"].as_array().unwrap().iter().find(|entry| entry["local"] == address).cloned()
}

#[test]
fn addresses_of_both_families_come_and_go_and_every_step_may_be_repeated() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let wanted = [address("10.32.0.1/12", Scope::Global, false), address("fd00:32::1/48", Scope::Global, true)];
    for address in wanted.iter().chain(&wanted) {
        sandbox.netlink.add_address(left, address).unwrap();
    }
    let listed = sandbox.netlink.addresses(left).unwrap();
    assert!(wanted.iter().all(|address| listed.contains(address)), "{listed:?}");
    assert_eq!(witnessed(&sandbox, "left", "10.32.0.1").unwrap()["prefixlen"], 12);
    let v6 = witnessed(&sandbox, "left", "fd00:32::1").unwrap();
    assert_eq!((&v6["prefixlen"], &v6["nodad"]), (&48.into(), &true.into()));
    for address in wanted.iter().chain(&wanted) {
        sandbox.netlink.delete_address(left, address.net).unwrap();
    }
    assert!(witnessed(&sandbox, "left", "10.32.0.1").is_none());
    assert!(witnessed(&sandbox, "left", "fd00:32::1").is_none());
}

#[test]
fn scopes_are_kept() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let loopback = sandbox.index("lo");
    let gateway = address("169.254.1.1/32", Scope::Host, false);
    let gateway6 = address("fe80::1/64", Scope::Link, true);
    sandbox.netlink.add_address(loopback, &gateway).unwrap();
    sandbox.netlink.add_address(left, &gateway6).unwrap();
    assert_eq!(witnessed(&sandbox, "lo", "169.254.1.1").unwrap()["scope"], "host");
    assert_eq!(witnessed(&sandbox, "left", "fe80::1").unwrap()["scope"], "link");
    assert!(sandbox.netlink.addresses(loopback).unwrap().contains(&gateway));
    assert!(sandbox.netlink.addresses(left).unwrap().contains(&gateway6));
}

#[test]
fn only_the_addresses_of_the_interface_are_listed() {
    let (mut sandbox, _) = Sandbox::with_veth();
    let loopback = sandbox.index("lo");
    let nets: Vec<_> = sandbox.netlink.addresses(loopback).unwrap().iter().map(|a| a.net.to_string()).collect();
    assert_eq!(nets, ["127.0.0.1/8", "::1/128"]);
}

#[test]
fn an_address_of_an_interface_that_is_gone_is_deleted_already() {
    let mut sandbox = Sandbox::new();
    sandbox.netlink.delete_address(4711, "10.0.0.1/32".parse().unwrap()).unwrap();
    sandbox.netlink.delete_address(4711, "fd00::1/128".parse().unwrap()).unwrap();
}

#[test]
fn a_permanent_neighbour_is_set_changed_and_deleted() {
    let (mut sandbox, left) = Sandbox::with_veth();
    for neighbour in ["10.1.0.9", "fd01::9"] {
        for mac in [[2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 8]] {
            sandbox.netlink.replace_neighbour(left, neighbour.parse().unwrap(), mac).unwrap();
        }
        let entry = sandbox.ip_one(&format!("neighbour show {neighbour} dev left"));
        assert_eq!(entry["lladdr"], "02:00:00:00:00:08");
        assert_eq!(entry["state"][0], "PERMANENT");
        for _ in 0..2 {
            sandbox.netlink.delete_neighbour(left, neighbour.parse().unwrap()).unwrap();
        }
        let left_over = sandbox.ip(&format!("neighbour show {neighbour} dev left nud permanent"));
        assert!(left_over.is_empty(), "{left_over:?}");
    }
}
