//! Hosts behind address translators. Witness is `tcpdump` on the fabric, which sees the outer ports.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use meshwork_lab::{Host, Lab, Nat, took};

const DEADLINE: Duration = Duration::from_secs(5);
const PORT: u16 = 7000;

#[test]
fn a_port_restricted_translator_keeps_one_port_and_lets_in_who_was_written_to() {
    let lab = lab("natport", Nat::PortRestricted);
    let (inside, [one, other]) = sockets(&lab);
    let seen = outer_ports(&lab, &inside);
    assert_eq!(seen, [PORT].into(), "one inner port, one outer port");
    lets_in_only_who_was_written_to(&lab, &inside, &one, &other);
}

#[test]
fn a_symmetric_translator_takes_a_new_port_for_everybody() {
    let lab = lab("natsymmetric", Nat::Symmetric);
    let (inside, _others) = sockets(&lab);
    let seen = outer_ports(&lab, &inside);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(!seen.contains(&PORT), "{seen:?}");
}

#[test]
fn a_host_behind_a_translator_joins_the_mesh() {
    for (name, kind) in [("natmesh", Nat::PortRestricted), ("natmeshsym", Nat::Symmetric)] {
        let lab = Lab::build(name).unwrap().hosts(3).nat(3, kind).up().unwrap();
        took(&format!("mesh of 3 with one behind a {kind:?} translator formed"), lab.formed_in());
        let pods: Vec<_> = lab.hosts().iter().map(|host| host.pod("pod").unwrap()).collect();
        for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
            for &address in pods[to].addresses() {
                assert_eq!(pods[from].ping(address).unwrap().received, 1, "{kind:?}: h{} to h{}", from + 1, to + 1);
            }
        }
    }
}

fn lab(name: &str, kind: Nat) -> Lab {
    let lab = Lab::build(name).unwrap().hosts(3).nat(3, kind).without_daemons().unwrap();
    let addresses = lab.host(3).exec(["ip", "-4", "-o", "address", "show", "eth0"]).unwrap();
    assert!(addresses.contains("192.168.1.2/24"), "{addresses}");
    lab
}

/// A socket behind the translator, and one at each of the other hosts.
fn sockets(lab: &Lab) -> (UdpSocket, [UdpSocket; 2]) {
    (socket(lab.host(3)), [socket(lab.host(1)), socket(lab.host(2))])
}

fn socket(host: &Host) -> UdpSocket {
    let socket = host.namespace().run(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Ports of the translator that others see when one socket behind it writes to both.
fn outer_ports(lab: &Lab, inside: &UdpSocket) -> BTreeSet<u16> {
    let capture = lab.capture("ports", "udp").unwrap();
    let to = [1, 2].map(|number| at(lab.host(number), PORT));
    inside.send_to(b"first-of-two", to[0]).unwrap();
    inside.send_to(b"second-of-two", to[1]).unwrap();
    for marker in [&b"first-of-two"[..], b"second-of-two"] {
        capture.wait_for(marker, DEADLINE).unwrap();
    }
    let outer = lab.host(3).underlay()[0];
    let packets = capture.stop().unwrap();
    let from_outer = packets.iter().filter(|packet| packet.has_address(|address| address == outer));
    from_outer.filter_map(|packet| packet.ip?.udp_ports).map(|(source, _)| source).collect()
}

fn lets_in_only_who_was_written_to(lab: &Lab, inside: &UdpSocket, one: &UdpSocket, other: &UdpSocket) {
    let outer = at(lab.host(3), PORT);
    let mut buffer = [0; 64];
    one.send_to(b"answer", outer).unwrap();
    assert_eq!(inside.recv_from(&mut buffer).unwrap(), (6, at(lab.host(1), PORT)));

    // The same host from another port, and with it everybody who was never written to. One path keeps order: what came
    // first would be read first.
    let stranger = lab.host(2).namespace().run(|| UdpSocket::bind("0.0.0.0:7001")).unwrap().unwrap();
    stranger.send_to(b"uninvited", outer).unwrap();
    other.send_to(b"invited", outer).unwrap();
    assert_eq!(inside.recv_from(&mut buffer).unwrap(), (7, at(lab.host(2), PORT)), "a stranger came in");
}

fn at(host: &Host, port: u16) -> SocketAddr {
    let address: IpAddr = host.underlay()[0];
    SocketAddr::new(address, port)
}
