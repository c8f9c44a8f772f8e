//! A pod that poses as a router: its host keeps its own routes and addresses. The witness is `ip`.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::Duration;

use meshwork_lab::{Host, Lab, Look, Namespace, eventually, figure};

/// Sends a router advertisement (RFC 4861, section 4.2) of high preference with a prefix to all nodes on `eth0`'s link, or
/// on that of the interface named.
const ADVERTISE: &str = "
import socket, struct, sys
name = sys.argv[1]
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
index = socket.if_nametoindex(name)
advertisement = struct.pack('!BBHBBHII', 134, 0, 0, 64, 0x08, 1800, 0, 0)
prefix = struct.pack('!BBBBIII', 3, 4, 64, 0xc0, 86400, 14400, 0) + socket.inet_pton(socket.AF_INET6, '2001:db8:bad::')
sender.sendto(advertisement + prefix, ('ff02::1', 0, 0, index))
";

#[test]
fn a_pods_router_advertisement_moves_nothing_on_its_host() {
    let lab = Lab::build("rogue").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let pod = host.pod("rogue").unwrap();
    pod.exec(["ip", "address", "add", "fe80::66/64", "dev", "eth0", "nodad"]).unwrap();
    let blocked = wrong_sources(host);
    eventually(Duration::from_secs(10), "the advertisement to be dropped and counted", || {
        advertise(pod.namespace(), "eth0");
        Ok(if wrong_sources(host) > blocked { Look::Done(()) } else { Look::Missing("a count".into()) })
    })
    .unwrap();
    assert_eq!(learned(host), "", "routes and addresses from the pod");
    let dropped = wrong_sources(host) - blocked;
    figure(format_args!("{dropped} packets of the pod dropped, 0 routes and 0 addresses taken from it"));

    // Without the firewall the host itself does not listen, either.
    host.exec(["nft", "flush", "ruleset"]).unwrap();
    advertise(pod.namespace(), "eth0");
    // The twin: the same advertisement from the network is taken, so that one from the pod would have been seen. It is
    // sent later, so by then the pod's would have had its effect.
    eventually(Duration::from_secs(10), "the network's advertisement to be taken", || {
        advertise(lab.fabric().namespace(), "h1");
        Ok(if learned(host).contains("dev eth0") { Look::Done(()) } else { Look::Missing(learned(host)) })
    })
    .unwrap();
    assert!(!learned(host).contains("dev mw"), "{}", learned(host));
}

fn advertise(namespace: &Namespace, interface: &str) {
    namespace.exec(["python3", "-c", ADVERTISE, interface]).unwrap();
}

/// What the host took from router advertisements.
fn learned(host: &Host) -> String {
    let routes = host.exec(["ip", "-6", "route", "show", "proto", "ra"]).unwrap();
    let addresses = host.exec(["ip", "-6", "-o", "address", "show", "dynamic"]).unwrap();
    routes + &addresses
}

fn wrong_sources(host: &Host) -> u64 {
    let listed = host.exec(["nft", "list", "counter", "inet", "meshwork", "pod_wrong_source"]).unwrap();
    let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|number| number.parse().ok()).unwrap()
}
