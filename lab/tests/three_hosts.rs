//! The main job: three hosts become one mesh by themselves, and their pods talk, encrypted.
//! Witnesses are `ping`, `ip`, `nft` and `tcpdump`.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::net::IpAddr;
use std::time::Duration;

use meshwork_api::model::{Connections, Ipam, IpamState, Paths, Peers, Status};
use meshwork_lab::pcap::Packet;
use meshwork_lab::topology::is_overlay;
use meshwork_lab::{Host, Lab, Look, Ping, Pod, eventually};

const POD_MARKER: &[u8] = b"said-by-a-pod";
const HOST_MARKER: &[u8] = b"said-in-clear";

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn three_hosts_become_one_mesh_whose_pods_talk_encrypted() {
    let lab = Lab::build("threehosts").unwrap().hosts(3).up().unwrap();
    let pods: Vec<Pod> = lab.hosts().iter().flat_map(|host| ["a", "b"].map(|name| host.pod(name).unwrap())).collect();

    addresses_differ(&pods);
    lab.hosts().iter().for_each(tells_of_a_whole_mesh);
    lab.hosts().iter().for_each(kernel_objects_stand);
    pods.iter().for_each(|from| reaches_all(from, &pods));
    only_sealed_bytes_cross(&lab, &pods);
}

fn addresses_differ(pods: &[Pod]) {
    let mut addresses: Vec<IpAddr> = pods.iter().flat_map(|pod| pod.addresses().to_vec()).collect();
    assert_eq!(addresses.len(), pods.len() * 2, "one address per family: {addresses:?}");
    assert!(addresses.iter().all(|&address| is_overlay(address)), "{addresses:?}");
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), pods.len() * 2, "no address twice: {addresses:?}");
}

fn tells_of_a_whole_mesh(host: &Host) {
    let status = eventually(DEADLINE, &format!("{} to be well", host.number()), || {
        let status: Status = host.get("/v1/status")?;
        Ok(if status.ready && status.healthy { Look::Done(status) } else { Look::Missing(format!("{status:?}")) })
    });
    let status = status.unwrap();
    assert_eq!((status.encryption.as_str(), status.clear_blocked_packets), ("required", 0));
    assert_eq!(status.overlay.len(), 2, "the node's own addresses: {status:?}");

    let peers: Peers = host.get("/v1/peers").unwrap();
    let mut names: Vec<_> = peers.peers.iter().map(|peer| peer.nickname.clone()).collect();
    assert_eq!(names.first(), Some(&host.number().to_string()), "itself first");
    names.sort_unstable();
    assert_eq!(names, ["h1", "h2", "h3"]);

    let connections: Connections = host.get("/v1/connections").unwrap();
    assert!(connections.connections.len() >= 2, "{connections:?}");
    let paths: Paths = host.get("/v1/paths").unwrap();
    assert!(paths.paths.iter().all(|path| path.encrypted && path.up && path.mtu == 1400), "{paths:?}");

    let ipam: Ipam = host.get("/v1/ipam").unwrap();
    assert_eq!(ipam.summary.state, IpamState::Ready);
    assert!(ipam.summary.owned > 0, "{ipam:?}");
    let shares: f64 = ipam.peers.iter().map(|peer| peer.share).sum();
    assert!((shares - 1.0).abs() < 1e-6, "the whole range is owned: {ipam:?}");

    for verb in ["status", "peers", "connections", "paths", "ipam"] {
        let printed = host.meshctl(&[verb]).unwrap();
        assert!(!printed.trim().is_empty(), "{verb}");
        let json = host.meshctl(&[verb, "-o", "json"]).unwrap();
        assert!(json.trim_start().starts_with('{'), "{verb}: {json}");
    }
}

fn kernel_objects_stand(host: &Host) {
    assert!(host.exec(["ip", "link", "show", "meshwork0"]).unwrap().contains("mtu"));
    let routes = host.exec(["ip", "route", "show", "table", "all"]).unwrap();
    assert!(routes.lines().any(|route| route.starts_with("unreachable 10.32.0.0/12")), "{routes}");
    let routes = host.exec(["ip", "-6", "route", "show", "table", "all"]).unwrap();
    assert!(routes.lines().any(|route| route.starts_with("unreachable fd4d:6573:6877::/48")), "{routes}");
    let guard = host.exec(["nft", "list", "table", "inet", "meshwork"]).unwrap();
    assert!(guard.contains("postrouting"), "{guard}");
    assert!(host.exec(["ip", "link", "show", "meshwork-vx"]).is_err(), "no clear path where encryption is required");
}

fn reaches_all(from: &Pod, pods: &[Pod]) {
    for to in pods.iter().filter(|to| to.sandbox() != from.sandbox()) {
        for &address in to.addresses() {
            let answers = from.ping(address).unwrap();
            assert_eq!(answers.received, 1, "{} to {address}", from.sandbox().id);
        }
    }
}

fn only_sealed_bytes_cross(lab: &Lab, pods: &[Pod]) {
    let capture = lab.capture("sealed", "").unwrap();
    let (from, to) = (&pods[0], &pods[5]);
    for &address in to.addresses() {
        let answers = Ping::to(address).count(20).marked(POD_MARKER).run(from.namespace()).unwrap();
        assert_eq!(answers.received, 20, "{address}");
    }
    Ping::to(lab.host(2).underlay()[0]).marked(HOST_MARKER).run(lab.host(1).namespace()).unwrap();
    capture.wait_for(HOST_MARKER, Duration::from_secs(10)).unwrap();
    let packets = capture.stop().unwrap();

    let clear = |packet: &&Packet| packet.contains(POD_MARKER) || packet.has_address(is_overlay);
    assert_eq!(packets.iter().find(clear), None, "a pod's packet crossed in clear");
    let sealed = |packet: &&Packet| packet.ip.and_then(|ip| ip.udp_ports).is_some_and(|ports| ports.1 == 6783);
    assert!(packets.iter().filter(sealed).count() >= 40, "its sealed form crossed");
}
