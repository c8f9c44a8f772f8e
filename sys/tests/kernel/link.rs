use std::collections::BTreeSet;
use std::thread;

use meshwork_sys::netlink::{Link, Netlink, Traffic, Veth};

use crate::sandbox::Sandbox;

#[test]
fn a_pair_joins_two_namespaces() {
    let (mut host, pod) = (Sandbox::new(), Sandbox::new());
    let veth = Veth {
        mtu: Some(1400),
        mac: Some([2, 0, 0, 0, 0, 1]),
        peer_netns: Some(&pod.netns),
        peer_mtu: Some(1300),
        peer_mac: Some([2, 0, 0, 0, 0, 2]),
        ..Veth::new("mesh0", "eth0")
    };
    host.netlink.create_veth(&veth).unwrap();
    assert!(host.netlink.create_veth(&veth).unwrap_err().is_exists());

    let here = host.ip_one("link show mesh0");
    assert_eq!((&here["mtu"], &here["address"]), (&1400.into(), &"02:00:00:00:00:01".into()));
    assert_eq!(here["linkinfo"]["info_kind"], "veth");
    let there = pod.ip_one("link show eth0");
    assert_eq!((&there["mtu"], &there["address"]), (&1300.into(), &"02:00:00:00:00:02".into()));

    let link = host.netlink.link("mesh0").unwrap().unwrap();
    let expected = Link {
        index: here["ifindex"].as_u64().unwrap() as u32,
        name: "mesh0".into(),
        kind: Some("veth".into()),
        up: false,
        running: false,
        mtu: 1400,
        mac: Some([2, 0, 0, 0, 0, 1]),
        parent: Some(there["ifindex"].as_u64().unwrap() as u32),
        queue_length: 1000,
        vxlan: None,
        traffic: Traffic::default(),
    };
    assert_eq!(link, expected);
    assert!(host.netlink.links().unwrap().contains(&expected));
}

#[test]
fn a_pair_is_up_once_both_ends_are() {
    let mut sandbox = Sandbox::new();
    sandbox.netlink.create_veth(&Veth::new("left", "right")).unwrap();
    let left = sandbox.up("left");
    let state = |sandbox: &mut Sandbox| {
        let link = sandbox.netlink.link("left").unwrap().unwrap();
        (link.up, link.running)
    };
    assert_eq!(state(&mut sandbox), (true, false));
    sandbox.up("right");
    assert_eq!(state(&mut sandbox), (true, true));
    sandbox.netlink.set_down(left).unwrap();
    assert_eq!(state(&mut sandbox), (false, false));
}

#[test]
fn a_link_takes_all_its_settings() {
    let (mut sandbox, left) = Sandbox::with_veth();
    sandbox.netlink.set_mtu(left, 1380).unwrap();
    sandbox.netlink.set_offload_limits(left, 61_000, 44).unwrap();
    sandbox.netlink.set_queue_length(left, 500).unwrap();
    sandbox.netlink.set_address_generation_none(left).unwrap();
    sandbox.netlink.rename(left, "renamed").unwrap();
    let link = sandbox.ip_one("link show renamed");
    assert_eq!(link["mtu"], 1380);
    assert_eq!(link["gso_max_size"], 61_000);
    assert_eq!(link["gso_max_segs"], 44);
    assert_eq!(link["txqlen"], 500);
    assert_eq!(link["inet6_addr_gen_mode"], "none");
    let link = sandbox.netlink.link("renamed").unwrap().unwrap();
    assert_eq!((link.mtu, link.queue_length), (1380, 500));
}

#[test]
fn a_tun_takes_offload_limits() {
    let mut sandbox = Sandbox::new();
    sandbox.run("ip tuntap add dev tun0 mode tun");
    let tun = sandbox.index("tun0");
    sandbox.netlink.set_offload_limits(tun, 61_000, 44).unwrap();
    let link = sandbox.ip_one("link show tun0");
    assert_eq!((&link["gso_max_size"], &link["gso_max_segs"]), (&61_000.into(), &44.into()));
    let link = sandbox.netlink.link("tun0").unwrap().unwrap();
    assert_eq!((link.kind.as_deref(), link.mac), (Some("tun"), None));
}

#[test]
fn without_address_generation_a_link_comes_up_with_no_address() {
    let mut sandbox = Sandbox::new();
    sandbox.netlink.create_veth(&Veth::new("left", "right")).unwrap();
    let left = sandbox.index("left");
    sandbox.netlink.set_address_generation_none(left).unwrap();
    sandbox.up("left");
    sandbox.up("right");
    assert_eq!(sandbox.netlink.addresses(left).unwrap(), []);
    assert_eq!(sandbox.ip_one("address show dev left")["addr_info"], serde_json::json!([]));
}

#[test]
fn a_link_moves_to_another_namespace() {
    let (mut here, there) = (Sandbox::new(), Sandbox::new());
    here.netlink.create_veth(&Veth::new("left", "right")).unwrap();
    let right = here.index("right");
    here.netlink.move_to(right, &there.netns).unwrap();
    assert_eq!(here.netlink.link("right").unwrap(), None);
    assert_eq!(there.ip_one("link show right")["ifname"], "right");
}

#[test]
fn deleting_takes_the_peer_along_and_may_be_repeated() {
    let mut sandbox = Sandbox::new();
    sandbox.netlink.create_veth(&Veth::new("left", "right")).unwrap();
    sandbox.netlink.delete_link("left").unwrap();
    sandbox.netlink.delete_link("left").unwrap();
    assert_eq!(sandbox.netlink.link("right").unwrap(), None);
    assert_eq!(sandbox.ip("link show").len(), 1);
}

#[test]
fn a_change_to_a_link_that_is_gone_is_not_found() {
    let mut sandbox = Sandbox::new();
    assert!(sandbox.netlink.set_up(4711).unwrap_err().is_not_found());
}

#[test]
fn a_refusal_carries_the_kernels_sentence() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let refusal = sandbox.netlink.set_mtu(left, 10).unwrap_err().to_string();
    assert!(refusal.contains("mtu less than device minimum"), "{refusal}");
    assert!(refusal.contains(&format!("set the MTU of interface {left} to 10")), "{refusal}");
}

#[test]
fn hundreds_of_links_are_listed_whole() {
    let mut sandbox = Sandbox::new();
    for number in 0..150 {
        sandbox.netlink.create_veth(&Veth::new(&format!("l{number}"), &format!("r{number}"))).unwrap();
    }
    let links = sandbox.netlink.links().unwrap();
    assert_eq!(links.len(), 301);
    assert_eq!(sandbox.ip("link show").len(), 301);
}

#[test]
fn listings_are_whole_while_others_change_links() {
    let mut sandbox = Sandbox::new();
    for number in 0..60 {
        sandbox.netlink.create_veth(&Veth::new(&format!("l{number}"), &format!("r{number}"))).unwrap();
    }
    let mut others = Netlink::connect_in(&sandbox.netns).unwrap();
    thread::scope(|scope| {
        let changes = scope.spawn(move || {
            for _ in 0..40 {
                others.create_veth(&Veth::new("comes", "goes")).unwrap();
                others.delete_link("comes").unwrap();
            }
        });
        while !changes.is_finished() {
            let mut names: Vec<_> = sandbox.netlink.links().unwrap().into_iter().map(|link| link.name).collect();
            names.retain(|name| name.starts_with(['l', 'r']) && name != "lo");
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!((names.len(), distinct.len()), (120, 120));
        }
    });
}
