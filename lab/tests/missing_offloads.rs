//! A host whose kernel or device lacks an offload is slower and otherwise like any other. A library before the C library
//! refuses what is to be missing; `tcpdump` sees what the other hosts have and this one has not.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use meshwork_lab::{Iperf, Lab, Look, Ping, Pod, eventually, figure};

const DEADLINE: Duration = Duration::from_secs(20);
/// More than a datagram on the wire may have: only whole stretches are longer, which a device is to cut.
const STRETCHES: &str = "udp port 6783 and greater 2000";

#[test]
fn without_segmentation_of_udp_each_datagram_is_sent_alone() {
    for (lab, feature) in [("nogso", "segmentation"), ("nogsoold", "segmentation-unknown")] {
        let (lab, pods) = mesh_without(lab, feature);
        let capture = lab.capture("stretches", STRETCHES).unwrap();
        carries_bulk_both_ways(&pods);
        let stretches = || -> BTreeSet<IpAddr> {
            let packets = capture.packets().unwrap();
            packets.iter().filter_map(|packet| packet.ip).map(|ip| ip.source).collect()
        };
        // What this host sent came before what the other one sends in stretches.
        eventually(DEADLINE, "stretches of the other host", || {
            let seen = lab.host(1).underlay().iter().any(|address| stretches().contains(address));
            Ok(if seen { Look::Done(()) } else { Look::Missing(format!("{:?}", stretches())) })
        })
        .unwrap();
        assert!(lab.host(2).underlay().iter().all(|address| !stretches().contains(address)), "{feature}");
    }
}

#[test]
fn without_coalescing_of_udp_each_datagram_is_received_alone() {
    let (lab, pods) = mesh_without("nogro", "coalescing");
    carries_bulk_both_ways(&pods);
    assert!(log(&lab).contains("does not coalesce UDP"), "{}", log(&lab));
}

#[test]
fn without_segmentation_of_udp_on_the_tun_pods_send_datagrams_all_the_same() {
    let (lab, pods) = mesh_without("nouso", "tun-segmentation");
    carries_bulk_both_ways(&pods);
    assert!(log(&lab).contains("no UDP segmentation on TUN"), "{}", log(&lab));
}

/// Two hosts, of which the second lacks `feature`, with a pod each.
fn mesh_without(name: &str, feature: &str) -> (Lab, [Pod; 2]) {
    let library = library(name);
    let lab = Lab::build(name).unwrap().hosts(2);
    let lab = lab.environment(2, "LD_PRELOAD", library.to_str().unwrap()).environment(2, "REFUSED_FEATURE", feature);
    let lab = lab.up().unwrap();
    let pods = [lab.host(1).pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    (lab, pods)
}

/// Builds the library that refuses.
fn library(name: &str) -> PathBuf {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refuse.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// Streams, datagrams in stretches, and echoes; from the second pod first, in another family each way.
fn carries_bulk_both_ways(pods: &[Pod; 2]) {
    let [first, second] = pods;
    for (from, to, address) in [(second, first, first.ipv4().unwrap()), (first, second, second.ipv6().unwrap())] {
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.iperf3", to.namespace().name()));
        let _server = Iperf::serve(to.namespace(), &log).unwrap();
        let stream = Iperf::send(from.namespace(), address, 1).unwrap();
        assert!(stream.bytes > 1e6, "{address}");
        assert_eq!(datagrams_of_a_stretch(from, to, address), 30, "{address}");
        assert_eq!(Ping::to(address).count(20).run(from.namespace()).unwrap().received, 20, "{address}");
        let (place, megabits) = (to.namespace().name(), stream.bits_per_second / 1e6);
        figure(format_args!("to {place} {megabits:.0} Mbit/s, 30 of 30 datagrams, 20 of 20 echoes"));
        fs::remove_file(&log).unwrap();
    }
}

/// Thirty datagrams that the sender's kernel gets as one: how many came, each of its own length.
fn datagrams_of_a_stretch(from: &Pod, to: &Pod, address: IpAddr) -> usize {
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.datagrams", to.namespace().name()));
    let mut receiver = to.namespace().spawn(["python3", "-c", RECEIVE], &log).unwrap();
    receiver.wait_for("listening", DEADLINE).unwrap();
    from.exec(["python3", "-c", SEND, &address.to_string()]).unwrap();
    receiver.wait_for("thirty", DEADLINE).unwrap();
    let came = receiver.printed().lines().filter(|line| *line == "1000").count();
    fs::remove_file(&log).unwrap();
    came
}

const RECEIVE: &str = "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 4000))
print('listening', flush=True)
for _ in range(30):
    print(len(s.recv(65535)), flush=True)
print('thirty', flush=True)
";

const SEND: &str = "
import socket, sys
to = sys.argv[1]
s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
s.sendto(bytes(30000), (to, 4000))
";

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.host(2).log()).unwrap()
}
