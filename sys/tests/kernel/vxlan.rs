use std::net::IpAddr;

use meshwork_sys::netlink::{Family, Forwarding, Neighbour, Vxlan};

use crate::sandbox::Sandbox;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn vxlan(underlay: Family) -> Vxlan {
    Vxlan { vni: 6783, port: 6784, underlay, learning: false }
}

#[test]
fn a_device_of_each_family_stands_beside_the_other_and_tells_its_settings() {
    let mut sandbox = Sandbox::new();
    for (name, underlay) in [("vx4", Family::V4), ("vx6", Family::V6)] {
        sandbox.netlink.create_vxlan(name, &vxlan(underlay), MAC, 1400).unwrap();
        let seen = &sandbox.ip_one(&format!("link show {name}"))["linkinfo"]["info_data"];
        assert_eq!((&seen["id"], &seen["port"], &seen["learning"]), (&6783.into(), &6784.into(), &false.into()));
        let link = sandbox.netlink.link(name).unwrap().unwrap();
        assert_eq!((link.vxlan, link.mac, link.mtu), (Some(vxlan(underlay)), Some(MAC), 1400));
    }
    let taken = sandbox.netlink.create_vxlan("vx4b", &vxlan(Family::V4), MAC, 1400).unwrap_err();
    assert!(taken.is_exists(), "{taken}");
}

#[test]
fn forwarding_entries_are_set_moved_listed_and_deleted() {
    let mut sandbox = Sandbox::new();
    for (name, family, remotes) in
        [("vx4", Family::V4, ["192.0.2.1", "192.0.2.2"]), ("vx6", Family::V6, ["2001:db8::1", "2001:db8::2"])]
    {
        sandbox.netlink.create_vxlan(name, &vxlan(family), MAC, 1400).unwrap();
        let index = sandbox.up(name);
        let [first, moved] =
            remotes.map(|remote| Forwarding { mac: [2, 0, 0, 0, 0, 9], remote: remote.parse().unwrap() });
        for forwarding in [first, first, moved] {
            sandbox.netlink.replace_forwarding(index, &forwarding).unwrap();
            assert_eq!(sandbox.netlink.forwardings(index).unwrap(), [forwarding]);
        }
        let seen = sandbox.run(&format!("bridge fdb show dev {name}"));
        assert!(seen.contains(remotes[1]) && seen.contains("02:00:00:00:00:09"), "{seen}");
        for _ in 0..2 {
            sandbox.netlink.delete_forwarding(index, &moved).unwrap();
        }
        assert_eq!(sandbox.netlink.forwardings(index).unwrap(), []);
    }
}

#[test]
fn permanent_neighbours_of_one_interface_are_listed() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let wanted =
        ["10.1.0.9", "fd01::9"].map(|address| Neighbour { address: address.parse::<IpAddr>().unwrap(), mac: MAC });
    for neighbour in wanted {
        sandbox.netlink.replace_neighbour(left, neighbour.address, neighbour.mac).unwrap();
    }
    let right = sandbox.index("right");
    sandbox.netlink.replace_neighbour(right, "10.1.0.8".parse().unwrap(), MAC).unwrap();
    assert_eq!(sandbox.netlink.neighbours(left).unwrap(), wanted);
}
