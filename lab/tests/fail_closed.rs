//! Never silently clear: a killed daemon and a flushed firewall still let no overlay packet out unsealed.
//! `tcpdump` is the witness, and sees a clear packet of the hosts in the same capture.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::{Duration, Instant};

use meshwork_lab::topology::is_overlay;
use meshwork_lab::{Host, Lab, Ping, Pod, figure, took};

const POD_MARKER: &[u8] = b"must-stay-sealed";
const HOST_MARKER: &[u8] = b"said-in-clear";
const REQUESTS: u32 = 20;

#[test]
fn a_dead_daemon_and_a_flushed_firewall_let_nothing_out_in_clear() {
    let lab = Lab::build("failclosed").unwrap().hosts(2).up().unwrap();
    let (from, to) = (lab.host(1).pod("from").unwrap(), lab.host(2).pod("to").unwrap());
    assert_eq!(answered(&from, &to), [REQUESTS, REQUESTS], "before anything fails");

    let capture = lab.capture("failclosed", "").unwrap();
    lab.host(1).kill().unwrap();
    assert_eq!(answered(&from, &to), [0, 0], "without a daemon nobody seals");
    flush(lab.host(1));
    assert_eq!(answered(&from, &to), [0, 0], "without the guard the unreachable route holds");
    // The answering side, too: h2 still has a daemon, but no firewall, and then neither.
    flush(lab.host(2));
    answered(&to, &from);
    lab.host(2).kill().unwrap();
    answered(&to, &from);

    Ping::to(lab.host(2).underlay()[0]).marked(HOST_MARKER).run(lab.host(1).namespace()).unwrap();
    capture.wait_for(HOST_MARKER, Duration::from_secs(10)).unwrap();
    let packets = capture.stop().unwrap();
    let clear = packets.iter().find(|packet| packet.contains(POD_MARKER) || packet.has_address(is_overlay));
    assert_eq!(clear, None, "an overlay packet crossed in clear");
    figure(format_args!(
        "0 of {} captured packets in clear, of 4 times {REQUESTS} requests in each family",
        packets.len()
    ));
}

#[test]
fn the_same_pods_talk_again_once_the_daemon_is_back() {
    let lab = Lab::build("failback").unwrap().hosts(2).up().unwrap();
    let (from, to) = (lab.host(1).pod("from").unwrap(), lab.host(2).pod("to").unwrap());
    lab.host(1).kill().unwrap();
    flush(lab.host(1));
    let started = Instant::now();
    lab.host(1).start().unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
    took("next daemon adopts what stands and is ready", started.elapsed());
    assert_eq!(answered(&from, &to), [REQUESTS, REQUESTS]);
    assert!(lab.host(1).exec(["nft", "list", "table", "inet", "meshwork"]).is_ok(), "the guard stands again");
}

/// The twin of the first story: with everything removed that holds, the same capture shows the pod's packet. So its absence
/// there says something.
#[test]
fn without_guard_and_routes_the_capture_shows_the_packet() {
    let lab = Lab::build("failopen").unwrap().hosts(2).up().unwrap();
    let (from, to) = (lab.host(1).pod("from").unwrap(), lab.host(2).pod("to").unwrap());
    let capture = lab.capture("failopen", "").unwrap();
    lab.host(1).kill().unwrap();
    flush(lab.host(1));
    lab.host(1).exec(["ip", "link", "delete", "meshwork0"]).unwrap();
    lab.host(1).exec(["ip", "route", "flush", "protocol", "83"]).unwrap();
    answered(&from, &to);
    capture.wait_for(POD_MARKER, Duration::from_secs(10)).unwrap();
}

/// Answers to 20 marked requests in each family.
fn answered(from: &Pod, to: &Pod) -> [u32; 2] {
    let addresses = [to.ipv4().unwrap(), to.ipv6().unwrap()];
    addresses.map(|to| {
        let ping = Ping::to(to).count(REQUESTS).marked(POD_MARKER);
        ping.run(from.namespace()).unwrap().received
    })
}

fn flush(host: &Host) {
    host.exec(["nft", "flush", "ruleset"]).unwrap();
}
