//! Links under conditions: each is as bad as was asked for, as tools that are not ours measure it, and good again after.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::Duration;

use meshwork_lab::{Host, Iperf, Lab, Link, Ping, Rate, Throughput};

#[test]
fn a_lossy_link_loses_its_share_each_way_and_single_packets_at_that() {
    let lab = lab("linkloss", 3);
    lab.link(2, &Link::default().loss(20.0)).unwrap();
    let received = answered(&lab, 1, 2, 400);
    // 0.8 of 0.8 of 400 is 256; six standard deviations are 58.
    assert!((198..=314).contains(&received), "{received} of 400");
    assert_eq!(answered(&lab, 1, 3, 100), 100, "another link");
    let link = lab.host(1).exec(["ip", "-d", "link", "show", "eth0"]).unwrap();
    assert!(link.contains("gso_max_segs 1 "), "{link}");

    lab.link(2, &Link::default()).unwrap();
    assert_eq!(answered(&lab, 1, 2, 100), 100);
    let rules = lab.fabric().namespace().exec(["nft", "list", "chain", "inet", "meshlab", "conditions"]).unwrap();
    assert!(!rules.contains("drop"), "{rules}");
}

#[test]
fn a_link_with_a_rate_lets_no_more_pass() {
    let lab = lab("linkrate", 2);
    lab.link(2, &Link::default().rate(Rate::megabits(50))).unwrap();
    for (from, to) in [(1, 2), (2, 1)] {
        let megabits = sent(&lab, from, to).bits_per_second / 1e6;
        assert!((30.0..=52.0).contains(&megabits), "{megabits} Mbit/s from h{from}");
    }
    lab.link(2, &Link::default()).unwrap();
    let megabits = sent(&lab, 1, 2).bits_per_second / 1e6;
    assert!(megabits > 200.0, "{megabits} Mbit/s");
}

#[test]
fn a_narrow_link_answers_with_icmp_and_a_black_hole_does_not() {
    let lab = lab("linkmtu", 2);
    assert_eq!(unfragmented(lab.host(1), 1500), Answer::Arrived);

    lab.link(2, &Link::default().mtu(1400)).unwrap();
    assert_eq!(unfragmented(lab.host(1), 1400), Answer::Arrived);
    assert_eq!(unfragmented(lab.host(1), 1401), Answer::TooBig(1400));
    let links = lab.host(2).exec(["ip", "link", "show", "eth0"]).unwrap();
    assert!(links.contains("mtu 1400"), "{links}");

    lab.link(2, &Link::default().black_hole(1400)).unwrap();
    lab.host(1).exec(["ip", "route", "flush", "cache"]).unwrap();
    assert_eq!(unfragmented(lab.host(1), 1400), Answer::Arrived);
    assert_eq!(unfragmented(lab.host(1), 1401), Answer::Nothing);
    let links = lab.host(2).exec(["ip", "link", "show", "eth0"]).unwrap();
    assert!(links.contains("mtu 1500"), "{links}");
}

#[test]
fn a_long_link_takes_its_time_and_still_carries_much() {
    let lab = Lab::build("linkdelay").unwrap().hosts(3);
    let lab = lab.link(2, Link::default().delay(Duration::from_millis(10))).without_daemons().unwrap();
    for address in lab.host(2).underlay() {
        let milliseconds = round_trip(lab.host(1), address);
        assert!((20.0..24.0).contains(&milliseconds), "{milliseconds} ms to {address}");
    }
    assert!(round_trip(lab.host(1), lab.host(3).underlay()[0]) < 5.0, "another link");
    let megabits = sent(&lab, 1, 2).bits_per_second / 1e6;
    assert!(megabits > 200.0, "{megabits} Mbit/s");

    lab.cut(1, 2).unwrap();
    assert_eq!(answered(&lab, 1, 2, 1), 0, "a cut holds with a wire in the link");
    lab.heal().unwrap();

    lab.link(2, &Link::default().delay(Duration::from_millis(2))).unwrap();
    let milliseconds = round_trip(lab.host(1), lab.host(2).underlay()[0]);
    assert!((4.0..8.0).contains(&milliseconds), "changed while it stands: {milliseconds} ms");
    lab.link(2, &Link::default()).unwrap();
    for address in lab.host(2).underlay() {
        assert!(round_trip(lab.host(1), address) < 2.0, "taken out again");
    }
    let links = lab.fabric().namespace().exec(["ip", "-o", "link"]).unwrap();
    assert!(!links.contains("tun") && !links.contains("t2:") && !links.contains("v2@"), "{links}");
}

#[test]
fn frames_overtake_each_other_and_arrive_twice() {
    let lab = lab("linkorder", 2);
    lab.link(2, &Link::default().reorder(20.0)).unwrap();
    let sequence = sequence(&lab);
    assert!(sequence.len() >= 200, "nothing is lost");
    assert!(!sequence.is_sorted(), "{sequence:?}");

    lab.link(2, &Link::default().duplicate(20.0)).unwrap();
    let mut sequence = self::sequence(&lab);
    let arrived = sequence.len();
    sequence.sort_unstable();
    sequence.dedup();
    assert!(sequence.len() >= 200);
    assert!((230..=320).contains(&arrived), "{arrived} answers to 200 requests");
}

#[test]
fn a_mesh_forms_over_a_bad_link_and_its_pods_talk() {
    let bad = Link::default().delay(Duration::from_millis(20)).loss(3.0).reorder(5.0).duplicate(2.0);
    let lab = Lab::build("linkmesh").unwrap().hosts(3).link(3, bad.rate(Rate::megabits(20))).up().unwrap();
    let pods = [1, 3].map(|number| lab.host(number).pod("pod").unwrap());
    for (from, to) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        for &address in to.addresses() {
            let answers = Ping::to(address).count(50).run(from.namespace()).unwrap();
            // 0.97 of 0.97 of 50 is 47.
            assert!(answers.received >= 38, "{answers:?}");
            assert!(answers.average_us.unwrap() >= 40_000.0, "{answers:?}");
        }
    }
}

fn lab(name: &str, hosts: u16) -> Lab {
    Lab::build(name).unwrap().hosts(hosts).without_daemons().unwrap()
}

fn answered(lab: &Lab, from: u16, to: u16, count: u32) -> u32 {
    let ping = Ping::to(lab.host(to).underlay()[0]).count(count).every(Duration::from_millis(2));
    ping.run(lab.host(from).namespace()).unwrap().received
}

fn round_trip(from: &Host, to: std::net::IpAddr) -> f64 {
    let ping = || Ping::to(to).count(20).every(Duration::from_millis(10)).run(from.namespace()).unwrap();
    // The first one finds the neighbours.
    ping();
    ping().average_us.unwrap() / 1000.0
}

fn sent(lab: &Lab, from: u16, to: u16) -> Throughput {
    let _server = Iperf::serve(lab.host(to).namespace(), &lab.host(to).directory().join("iperf3.log")).unwrap();
    Iperf::send(lab.host(from).namespace(), lab.host(to).underlay()[0], 2).unwrap()
}

#[derive(Debug, PartialEq)]
enum Answer {
    Arrived,
    TooBig(u32),
    Nothing,
}

/// What becomes of an echo request of `bytes` that must not be fragmented, on its way to `h2`.
fn unfragmented(from: &Host, bytes: u32) -> Answer {
    let payload = (bytes - 28).to_string();
    let line = ["ping", "-n", "-M", "do", "-c", "1", "-W", "1", "-s", &payload, "198.18.0.10"];
    let output = from.namespace().output(line).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mtu = said.split("mtu = ").nth(1).or_else(|| said.split("mtu=").nth(1));
    match mtu.and_then(|rest| rest.split(|symbol: char| !symbol.is_ascii_digit()).next()) {
        Some(mtu) => Answer::TooBig(mtu.parse().unwrap()),
        None if output.status.success() => Answer::Arrived,
        None => Answer::Nothing,
    }
}

/// The numbers of 200 requests, up to five on their way at once, in the order in which answers came. `ping` asks on until
/// it has 200 answers, so some more may come.
fn sequence(lab: &Lab) -> Vec<u32> {
    let line = ["ping", "-n", "-c", "200", "-i", "0.002", "-l", "5", "-w", "4", "198.18.0.10"];
    let printed = lab.host(1).exec(line).unwrap();
    printed.lines().filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok()).collect()
}
