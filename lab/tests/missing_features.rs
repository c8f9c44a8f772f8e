//! Hosts that lack something: each lack is named with exit code 3 before anything is made, or done without as documented.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::ffi::OsString;
use std::time::Instant;

use meshwork_lab::{Host, Lab, figure, took};

const MISSING: i32 = 3;

#[test]
fn a_host_without_nft_is_told_so() {
    let lab = Lab::build("blnonft").unwrap().hosts(1).without_daemons().unwrap();
    refused(lab.host(1), &["env", "PATH=/nonexistent"], &["nft", "install"]);
}

#[test]
fn a_host_without_the_tun_device_is_told_so() {
    let lab = Lab::build("blnotun").unwrap().hosts(1).without_daemons().unwrap();
    let hide = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$@\"", "sh"];
    refused(lab.host(1), &hide, &["/dev/net/tun", "load the `tun` module"]);
}

#[test]
fn a_daemon_without_the_right_to_raw_sockets_is_told_so() {
    let lab = Lab::build("blnoraw").unwrap().hosts(1).without_daemons().unwrap();
    refused(lab.host(1), &["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"], &["CAP_NET_RAW"]);
}

/// The underlay is IPv4 alone; the overlay's own devices speak IPv6 all the same.
#[test]
fn a_host_with_ipv6_switched_off_is_part_of_the_mesh_with_both_families() {
    let mut lab = Lab::build("blnoipv6").unwrap().hosts(2).without_daemons().unwrap();
    for interfaces in ["all", "default", "lo", "eth0"] {
        lab.host(2).namespace().sysctl(&format!("net.ipv6.conf.{interfaces}.disable_ipv6"), "1").unwrap();
    }
    lab.start().unwrap();
    let pods = [lab.host(1).pod("one").unwrap(), lab.host(2).pod("two").unwrap()];
    for (from, to) in [(0, 1), (1, 0)] {
        let addresses = pods[to].addresses();
        assert!(addresses.iter().all(|&address| pods[from].ping(address).unwrap().received == 1), "{addresses:?}");
    }
    figure("4 of 4 requests answered in both families over an IPv4 underlay");
}

/// The daemon, started by `wrapper`, ends with 3 and every one of `words`, and leaves nothing behind.
fn refused(host: &Host, wrapper: &[&str], words: &[&str]) {
    let limit = ["timeout", "-s", "KILL", "10"];
    let line = limit.iter().chain(wrapper).map(OsString::from).chain(host.daemon_line());
    let started = Instant::now();
    let output = host.namespace().output(line).unwrap();
    took(&format!("daemon refused for want of {}", words[0]), started.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(MISSING), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in: {said}");
    }
    assert!(!host.socket().exists(), "a socket is left");
    let links = host.exec(["ip", "-o", "link"]).unwrap();
    assert!(!links.contains("meshwork"), "{links}");
}
