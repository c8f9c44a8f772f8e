//! Clear text travels exactly where both sides allow it, by kernel VXLAN, and only while that works. `tcpdump` sees what
//! is on the wire, `ping` what arrives, `nft` on the fabric breaks what is to break.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::{Duration, Instant};

use meshwork_api::model::{Path, PathKind, Paths, PeerState, Peers, Status};
use meshwork_lab::pcap::{Packet, contains};
use meshwork_lab::switching;
use meshwork_lab::{Host, Lab, Look, Ping, Pod, eventually, figure, took, took_within};

const DEADLINE: Duration = Duration::from_secs(20);
const MARKER: &[u8] = b"said-by-a-pod";
const HOST_MARKER: &[u8] = b"said-by-a-host";
const OFF: &[&str] = &["--encryption", "off"];
const CLEAR_PORT: u16 = 6784;
const BAR: Duration = Duration::from_secs(2);

#[test]
fn pods_of_nodes_that_both_allow_it_talk_in_clear_and_all_others_sealed() {
    let lab = Lab::build("clearoff").unwrap().hosts(3).flags(1, OFF).flags(2, OFF).up().unwrap();
    let pods: Vec<Pod> = lab.hosts().iter().map(|host| host.pod("pod").unwrap()).collect();
    wait_for_kind(lab.host(1), "h2", PathKind::Vxlan);
    wait_for_kind(lab.host(2), "h1", PathKind::Vxlan);
    for host in [lab.host(1), lab.host(2)] {
        assert_eq!(path(host, "h3").kind, PathKind::Direct, "h3 requires encryption");
    }
    assert!(lab.host(3).exec(["ip", "link", "show", "meshwork-vx"]).is_err(), "no such device where it is not allowed");

    assert!(seen_in_clear(&lab, &pods[0], &pods[1]), "both allow it");
    assert!(!seen_in_clear(&lab, &pods[0], &pods[2]), "the stricter side wins");
    assert!(!seen_in_clear(&lab, &pods[2], &pods[1]), "from either end");
}

#[test]
fn trust_concerns_the_addresses_in_the_trusted_subnets_alone() {
    let trusting = |subnet: &'static str| ["--encryption", "trusted", "--trusted-subnet", subnet];
    let lab = Lab::build("cleartrust")
        .unwrap()
        .hosts(3)
        // h1 and h2 trust each other's IPv6 addresses, h3 trusts everybody and is trusted by nobody but h1 by IPv4.
        .flags(1, &trusting("fd00:6c61:62::/48,198.18.0.14/32"))
        .flags(2, &trusting("fd00:6c61:62::/48"))
        .flags(3, &trusting("198.18.0.10/32"))
        .up()
        .unwrap();
    let pods: Vec<Pod> = lab.hosts().iter().map(|host| host.pod("pod").unwrap()).collect();
    wait_for_kind(lab.host(1), "h2", PathKind::Vxlan);
    wait_for_kind(lab.host(2), "h1", PathKind::Vxlan);
    let endpoint = path(lab.host(1), "h2").endpoint.unwrap();
    assert!(endpoint.is_ipv6() && endpoint.port() == CLEAR_PORT, "{endpoint}");
    assert_eq!(path(lab.host(1), "h3").kind, PathKind::Direct);
    assert_eq!(path(lab.host(2), "h3").kind, PathKind::Direct);
    assert!(seen_in_clear(&lab, &pods[0], &pods[1]), "over the IPv6 underlay");
    assert!(!seen_in_clear(&lab, &pods[0], &pods[2]));
}

#[test]
fn a_clear_path_that_breaks_is_left_within_two_seconds_and_taken_again_when_it_works() {
    let lab = Lab::build("clearbreak").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    for (host, other) in [(1, "h2"), (2, "h1")] {
        wait_for_kind(lab.host(host), other, PathKind::Vxlan);
    }
    let fabric = lab.fabric().namespace();
    let broken = Instant::now();
    fabric
        .exec([
            "nft",
            "add table inet breaks; add chain inet breaks f { type filter hook forward priority 0; }; \
                       add rule inet breaks f udp dport 6784 counter drop",
        ])
        .unwrap();
    for (host, other) in [(1, "h2"), (2, "h1")] {
        wait_for_kind(lab.host(host), other, PathKind::Direct);
        took_within(&format!("broken clear path to {other} left"), broken.elapsed(), BAR);
        assert!(path(lab.host(host), other).reason.contains("clear path"), "it says why");
    }
    assert_eq!(answers(&pods[0], &pods[1]), [20, 20], "sealed, meanwhile");
    let mended = Instant::now();
    fabric.exec(["nft", "delete table inet breaks"]).unwrap();
    wait_for_kind(lab.host(1), "h2", PathKind::Vxlan);
    wait_for_kind(lab.host(2), "h1", PathKind::Vxlan);
    took("mended clear path taken again by both", mended.elapsed());
    assert_eq!(answers(&pods[0], &pods[1]), [20, 20]);
}

#[test]
fn a_killed_daemon_and_its_successor_do_not_disturb_what_travels_in_clear() {
    let lab = Lab::build("clearkill").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    for (host, other) in [(1, "h2"), (2, "h1")] {
        wait_for_kind(lab.host(host), other, PathKind::Vxlan);
    }
    let to = pods[1].ipv4().unwrap();
    let pinging = std::thread::scope(|scope| {
        let pings = scope.spawn(|| Ping::to(to).count(600).every(Duration::from_millis(10)).run(pods[0].namespace()));
        lab.host(1).kill().unwrap();
        lab.host(1).start().unwrap();
        lab.wait_until_ready(DEADLINE).unwrap();
        wait_for_kind(lab.host(1), "h2", PathKind::Vxlan);
        pings.join().unwrap().unwrap()
    });
    assert_eq!(pinging.received, 600, "nothing is lost");
    figure("0 of 600 requests in clear lost over a kill and a start");
}

#[test]
fn moving_between_clear_and_sealed_loses_nothing() {
    let lab = Lab::build("clearmove").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    for (host, other) in [(1, "h2"), (2, "h1")] {
        wait_for_kind(lab.host(host), other, PathKind::Vxlan);
    }
    // A rate that a debug build carries sealed on a loaded machine, too; `make bench` has the full one.
    let hosts = (lab.host(1), lab.host(2));
    let (datagrams, moves) = switching::under_traffic(hosts, (&pods[0], &pods[1]), 1000, 5).unwrap();
    assert!(moves >= 10 && datagrams.sent >= 4000, "{moves} moves, {datagrams:?}");
    figure(format_args!("{} of {} datagrams lost over {moves} moves", datagrams.lost, datagrams.sent));
    assert_eq!(datagrams.lost, 0, "{moves} moves, {datagrams:?}");
}

/// The mesh gives the peer up after half a minute; what both kernels carry has nothing to do with that.
#[test]
fn a_daemon_that_stays_away_does_not_end_what_travels_in_clear() {
    let lab = Lab::build("cleardead").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    for (host, other) in [(1, "h2"), (2, "h1")] {
        wait_for_kind(lab.host(host), other, PathKind::Vxlan);
    }
    lab.host(2).kill().unwrap();
    eventually(Duration::from_secs(60), "h2 to be given up", || {
        let peers = lab.host(1).get::<Peers>("/v1/peers")?.peers;
        let dead = peers.iter().any(|peer| peer.nickname == "h2" && peer.state == PeerState::Dead);
        assert_eq!(pods[0].ping(pods[1].ipv4()?)?.received, 1, "meanwhile");
        Ok(if dead { Look::Done(()) } else { Look::Missing(format!("{peers:?}")) })
    })
    .unwrap();
    assert_eq!(answers(&pods[0], &pods[1]), [20, 20]);
    assert_eq!(path(lab.host(1), "h2").kind, PathKind::Vxlan);
    figure("20 of 20 echoes answered in either family while the daemon behind them is dead");
}

/// What the run before left is kept as far as this one may allow it, although nobody is there to say what they allow.
#[test]
fn a_restart_with_fewer_trusted_subnets_leaves_no_peer_in_clear_that_is_in_none() {
    let lab = Lab::build("clearless").unwrap().hosts(2).environment(1, "MESHD_ENCRYPTION", "off").flags(2, OFF);
    let lab = lab.up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    for (host, other) in [(1, "h2"), (2, "h1")] {
        wait_for_kind(lab.host(host), other, PathKind::Vxlan);
    }
    lab.host(1).kill().unwrap();
    lab.host(2).kill().unwrap();
    let started = Instant::now();
    lab.host(1).start_with(&["--encryption", "trusted", "--trusted-subnet", "203.0.113.0/24"]).unwrap();
    let to = pods[1].ipv4().unwrap().to_string();
    eventually(DEADLINE, "the sealed path", || {
        let route = lab.host(1).exec(["ip", "route", "get", to.as_str()])?;
        let pairs = lab.host(1).exec(["nft", "list", "set", "inet", "meshwork", "clear4"])?;
        let closed = route.contains("dev meshwork0") && !pairs.contains("elements");
        Ok(if closed { Look::Done(()) } else { Look::Missing(format!("{route}{pairs}")) })
    })
    .unwrap();
    took("peer outside of the trusted subnets sealed after the start", started.elapsed());
}

#[test]
fn withdrawn_permission_takes_the_path_and_the_device_away() {
    // A flag outranks the environment.
    let lab = Lab::build("clearback").unwrap().hosts(2).environment(1, "MESHD_ENCRYPTION", "off").flags(2, OFF);
    let lab = lab.up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    wait_for_kind(lab.host(2), "h1", PathKind::Vxlan);
    lab.host(1).kill().unwrap();
    lab.host(1).start_with(&["--encryption", "required"]).unwrap();
    wait_for_kind(lab.host(2), "h1", PathKind::Direct);
    lab.wait_until_ready(DEADLINE).unwrap();
    assert!(lab.host(1).exec(["ip", "link", "show", "meshwork-vx"]).is_err(), "the device of the run before");
    assert!(!seen_in_clear(&lab, &pods[0], &pods[1]));
    assert_eq!(answers(&pods[1], &pods[0]), [20, 20]);
    assert_eq!(lab.host(1).get::<Status>("/v1/status").unwrap().encryption, "required");
}

/// Ways to say what a node allows; two nodes talk in clear where both say the same and it is not `required`.
const REQUIRED: &[&str] = &["--encryption", "required"];
const TRUSTED: &[&str] = &["--encryption", "trusted", "--trusted-subnet", "198.18.0.0/16,fd00:6c61:62::/48"];

/// One node after the other takes to another setting, while pods talk: what two nodes send each other is clear exactly
/// while both allow it, and pods always reach each other once the restarted node is ready.
#[test]
fn encryption_is_changed_on_a_living_mesh_node_by_node() {
    let lab = Lab::build("clearroll").unwrap().hosts(3);
    let lab = [1, 2, 3].into_iter().fold(lab, |lab, host| lab.environment(host, "MESHD_ENCRYPTION", "off"));
    let lab = lab.up().unwrap();
    let pods: Vec<Pod> = lab.hosts().iter().map(|host| host.pod("pod").unwrap()).collect();
    let mut settings = [OFF; 3];
    all_pairs_travel(&lab, &pods, settings);
    for (host, setting) in [(1, REQUIRED), (2, TRUSTED), (3, TRUSTED), (2, REQUIRED), (1, TRUSTED), (3, OFF)] {
        lab.host(host).stop().unwrap();
        lab.host(host).start_with(setting).unwrap();
        lab.wait_until_ready(DEADLINE).unwrap();
        settings[usize::from(host) - 1] = setting;
        all_pairs_travel(&lab, &pods, settings);
    }
}

/// Packets between any two nodes are readable on the fabric exactly where both allow it.
fn all_pairs_travel(lab: &Lab, pods: &[Pod], settings: [&[&str]; 3]) {
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        let [setting, same] = [one, other].map(|host: u16| settings[usize::from(host) - 1]);
        let clear = setting == same && setting != REQUIRED;
        let kind = if clear { PathKind::Vxlan } else { PathKind::Direct };
        for (host, to) in [(one, other), (other, one)] {
            wait_for_kind(lab.host(host), &format!("h{to}"), kind);
        }
        let (from, to) = (&pods[usize::from(one) - 1], &pods[usize::from(other) - 1]);
        assert_eq!(seen_in_clear(lab, from, to), clear, "h{one} to h{other} of {settings:?}");
    }
}

/// Whether the marked echoes of one pod to another cross the fabric readable; they arrive in any case.
fn seen_in_clear(lab: &Lab, from: &Pod, to: &Pod) -> bool {
    let capture = lab.capture("clear", "").unwrap();
    for &address in to.addresses() {
        let answers = Ping::to(address).count(5).marked(MARKER).run(from.namespace()).unwrap();
        assert_eq!(answers.received, 5, "{address}");
    }
    // Sent last: when it is in the file, so is everything before it.
    Ping::to(lab.host(2).underlay()[0]).marked(HOST_MARKER).run(lab.host(1).namespace()).unwrap();
    capture.wait_for(HOST_MARKER, DEADLINE).unwrap();
    let packets = capture.stop().unwrap();
    let port = |packet: &Packet| packet.ip.and_then(|ip| ip.udp_ports).map(|ports| ports.1);
    let readable: Vec<_> = packets.iter().filter(|packet| contains(&packet.bytes, MARKER)).collect();
    assert!(readable.iter().all(|packet| port(packet) == Some(CLEAR_PORT)), "clear text outside of the clear path");
    // Each echo crosses the fabric's two links there and back, in clear or not.
    let expected = if readable.is_empty() { 6783 } else { CLEAR_PORT };
    assert!(packets.iter().filter(|packet| port(packet) == Some(expected)).count() >= 40, "the echoes crossed");
    !readable.is_empty()
}

fn answers(from: &Pod, to: &Pod) -> [u32; 2] {
    [to.ipv4().unwrap(), to.ipv6().unwrap()].map(|to| Ping::to(to).count(20).run(from.namespace()).unwrap().received)
}

fn path(host: &Host, to: &str) -> Path {
    let paths: Paths = host.get("/v1/paths").unwrap();
    paths.paths.into_iter().find(|path| path.nickname == to).unwrap()
}

fn wait_for_kind(host: &Host, to: &str, kind: PathKind) {
    eventually(DEADLINE, &format!("path of {} to {to} by {kind:?}", host.number()), || {
        let path = path(host, to);
        let found = path.kind == kind && path.up && path.encrypted == (kind != PathKind::Vxlan);
        Ok(if found { Look::Done(()) } else { Look::Missing(format!("{path:?}")) })
    })
    .unwrap();
}
