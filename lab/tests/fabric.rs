//! The lab itself, before any daemon runs in it: what the other stories rely on.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use meshwork_lab::topology::LabName;
use meshwork_lab::{Error, Lab, Namespace, Ping, remains};

const MARKER: &[u8] = b"in-clear-sight";
const LAST_MARKER: &[u8] = b"the-last-word";

fn answers(from: &Namespace, to: IpAddr) -> bool {
    Ping::to(to).run(from).is_ok_and(|answers| answers.received == 1)
}

#[test]
fn hosts_reach_each_other_in_both_families_until_they_are_cut() {
    let lab = Lab::build("fabriccut").unwrap().hosts(3).without_daemons().unwrap();
    let reaches = |from: u16, to: u16| lab.host(to).underlay().map(|to| answers(lab.host(from).namespace(), to));

    assert_eq!(reaches(1, 2), [true, true]);
    lab.cut(2, 1).unwrap();
    assert_eq!(reaches(1, 2), [false, false]);
    assert_eq!(reaches(2, 1), [false, false]);
    assert_eq!(reaches(1, 3), [true, true], "a cut concerns one pair only");
    lab.heal().unwrap();
    assert_eq!(reaches(1, 2), [true, true]);
}

#[test]
fn a_partition_parts_groups_and_nothing_within_them() {
    let lab = Lab::build("fabricparts").unwrap().hosts(4).without_daemons().unwrap();
    let reaches = |from: u16, to: u16| lab.host(to).underlay().map(|to| answers(lab.host(from).namespace(), to));

    lab.partition(&[&[1, 2], &[3]]).unwrap();
    assert_eq!((reaches(1, 2), reaches(2, 1)), ([true, true], [true, true]), "one group");
    assert_eq!((reaches(1, 3), reaches(3, 2)), ([false, false], [false, false]), "different groups");
    assert_eq!((reaches(4, 1), reaches(4, 3)), ([true, true], [true, true]), "a host of no group");
    lab.heal().unwrap();
    assert_eq!((reaches(1, 3), reaches(3, 2)), ([true, true], [true, true]));
}

#[test]
fn a_one_way_cut_lets_questions_arrive_and_drops_what_goes_the_other_way() {
    let lab = Lab::build("fabricway").unwrap().hosts(2).without_daemons().unwrap();
    lab.cut_one_way(2, 1).unwrap();
    let [question, answer] = ["dst host 198.18.0.10", "src host 198.18.0.10"];
    let seen_from = |host: u16, filter: &str| {
        let seen = lab.host(host).directory().join("seen");
        let line = ["tcpdump", "-n", "-l", "-Z", "root", "-i", "eth0", "icmp and", filter];
        let mut tcpdump = lab.host(host).namespace().spawn(line, &seen).unwrap();
        tcpdump.wait_for("listening on", Duration::from_secs(10)).unwrap();
        tcpdump
    };
    let (mut asked, answered) = (seen_from(2, question), seen_from(1, answer));
    assert!(!answers(lab.host(1).namespace(), lab.host(2).underlay()[0]));
    asked.wait_for("echo request", Duration::from_secs(10)).unwrap();
    assert!(!answered.printed().contains("echo reply"), "{}", answered.printed());

    lab.heal().unwrap();
    assert!(answers(lab.host(1).namespace(), lab.host(2).underlay()[0]));
}

#[test]
fn a_capture_sees_what_crosses_the_fabric_and_nothing_else() {
    let lab = Lab::build("fabriccapture").unwrap().hosts(3).without_daemons().unwrap();
    let capture = lab.capture("all", "").unwrap();
    let to = lab.host(2).underlay();
    for address in to {
        assert_eq!(Ping::to(address).marked(MARKER).run(lab.host(1).namespace()).unwrap().received, 1);
    }
    // Sent last: when it is in the file, so is everything before it.
    Ping::to(to[0]).marked(LAST_MARKER).run(lab.host(1).namespace()).unwrap();
    capture.wait_for(LAST_MARKER, Duration::from_secs(5)).unwrap();
    let packets = capture.stop().unwrap();

    let marked = |family: fn(&IpAddr) -> bool| {
        let of_family = |ip: IpAddr| family(&ip) && to.contains(&ip);
        packets.iter().filter(|packet| packet.contains(MARKER) && packet.has_address(of_family)).count()
    };
    // Request and answer, each coming and going.
    assert_eq!((marked(IpAddr::is_ipv4), marked(IpAddr::is_ipv6)), (4, 4));
    assert!(!packets.iter().any(|packet| packet.contains(b"never-sent")));
    assert!(!packets.iter().any(|packet| packet.has_address(|ip| lab.host(3).underlay().contains(&ip))));
}

#[test]
fn a_lab_that_goes_out_of_scope_leaves_nothing() {
    let name = LabName::new("fabricend").unwrap();
    let lab = Lab::build("fabricend").unwrap().hosts(2).without_daemons().unwrap();
    let namespace = lab.host(1).namespace().path();
    let straggler = lab.host(1).namespace().spawn(["sleep", "600"], &lab.host(1).log()).unwrap();
    assert!(namespace.exists() && remains::labs().unwrap().contains(&name));
    drop(lab);
    assert!(!namespace.exists() && !name.directory().exists());
    assert!(!remains::labs().unwrap().contains(&name));
    drop(straggler);
}

#[test]
fn what_an_interrupted_lab_left_is_taken_away_before_the_next_of_its_name() {
    let build = || Lab::build("fabricagain").unwrap().hosts(1).without_daemons();
    let first = build().unwrap();
    let mut straggler = first.host(1).namespace().spawn(["sleep", "600"], &first.host(1).log()).unwrap();
    let left = first.host(1).directory().join("left");
    fs::write(&left, "").unwrap();
    first.leave_running();

    let second = build().unwrap();
    straggler.wait_for_end(Duration::from_secs(5)).unwrap();
    assert!(!left.exists());
    assert!(second.host(1).namespace().path().exists());
}

#[test]
fn labs_side_by_side_do_not_meet() {
    let one = Lab::build("fabricone").unwrap().hosts(1).without_daemons().unwrap();
    let two = Lab::build("fabrictwo").unwrap().hosts(2).without_daemons().unwrap();
    assert!(!answers(one.host(1).namespace(), two.host(2).underlay()[0]));
    drop(one);
    assert!(answers(two.host(1).namespace(), two.host(2).underlay()[0]));
    assert!(matches!(Lab::open("fabricone"), Err(Error::NoSuchLab(_))));
}
