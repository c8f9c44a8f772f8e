//! `meshd --purge` takes away all that is ours and nothing else. The witnesses are `ip` and `nft`.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::ffi::OsString;
use std::time::Duration;

use meshwork_api::model::PathKind;
use meshwork_lab::{Host, Lab, figure, switching};

const OFF: &[&str] = &["--encryption", "off"];

#[test]
fn a_purged_host_is_as_it_was_before_but_for_what_others_made() {
    let lab = Lab::build("purge").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).without_daemons().unwrap();
    let host = lab.host(1);
    for line in [
        "ip link add theirs type bridge",
        "ip address add 192.0.2.1/24 dev theirs",
        "ip link set theirs up",
        "ip nexthop add id 77 dev theirs",
        "ip route add 198.51.100.0/24 nhid 77",
        "nft add table inet theirs",
    ] {
        host.exec(line.split(' ')).unwrap();
    }
    let before = everything(host);

    lab.hosts().iter().for_each(|host| host.start().unwrap());
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
    let pods = [host.pod("pod").unwrap(), lab.host(2).pod("pod").unwrap()];
    switching::wait_for(host, lab.host(2), &pods[1], PathKind::Vxlan).unwrap();
    let full = everything(host);
    for ours in ["meshwork0", "meshwork-vx", "meshwork-vx6", "table inet meshwork", "proto 83", "169.254.1.1", ": mw"] {
        assert!(full.contains(ours), "{ours:?} in {full}");
    }

    host.stop().unwrap();
    let line = || host.daemon_line().into_iter().chain([OsString::from("--purge")]);
    for _ in 0..2 {
        let purged = host.namespace().output(line()).unwrap();
        assert!(purged.status.success(), "{}", String::from_utf8_lossy(&purged.stderr));
        assert_eq!(everything(host), before, "a purge of nothing is fine, too");
    }
    let (all, left) = (full.lines().count(), before.lines().count());
    figure(format_args!("{} lines of kernel objects purged, {left} of others left", all - left));
}

/// Without what counts, and what the kernel itself keeps for every address.
fn everything(host: &Host) -> String {
    let see = |line: &str| host.exec(line.split(' ')).unwrap();
    let name = |link: &str| link.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let links: Vec<_> = see("ip -o link").lines().map(name).collect();
    let routes = see("ip route") + &see("ip -6 route");
    [links.join("\n"), see("ip -brief address"), routes, see("ip nexthop"), see("nft list ruleset")].join("\n")
}
