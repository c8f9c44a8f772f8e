//! A state directory that was copied: the process that started later ends, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::process::Command;
use std::time::{Duration, Instant};

use meshwork_api::event::{Event, Events, Happening};
use meshwork_api::model::{ConnectionState, Connections, Status};
use meshwork_lab::topology::HostNumber;
use meshwork_lab::{Host, Lab, Look, Pod, eventually, took};

const DEADLINE: Duration = Duration::from_secs(20);

/// Three seconds after a heartbeat was due a link is down; a busy machine takes another to show it.
const SILENCE: Duration = Duration::from_secs(5);

#[test]
fn a_copy_of_a_node_that_lives_is_refused_by_the_mesh() {
    let lab = Lab::build("lkclone").unwrap().hosts(3).without_daemons().unwrap();
    the_copy_ends_and_the_original_stays(&lab);
}

#[test]
fn a_copy_that_dials_its_original_ends_although_it_meets_nobody_else() {
    let original = HostNumber::new(2).unwrap().address4().to_string();
    let lab = Lab::build("lktwin").unwrap().hosts(3).begins(3, &["--peer", &original]).without_daemons().unwrap();
    the_copy_ends_and_the_original_stays(&lab);
}

/// Gossip forgives so long a silence, and so must whoever is asked to take a copy in.
#[test]
fn a_copy_that_starts_while_its_original_stands_still_ends_and_the_original_stays() {
    for (name, still) in [("lkstill1", 1), ("lkstill2", 2)] {
        let lab = Lab::build(name).unwrap().hosts(3).without_daemons().unwrap();
        let (pods, links) = begin(&lab);
        let (original, copy) = (lab.host(2), lab.host(3));
        copy_state(original, copy);
        original.pause().unwrap();
        copy.start().unwrap();
        let started = Instant::now();
        // The pause is what is told.
        std::thread::sleep(Duration::from_secs(still));
        original.resume().unwrap();
        ends_as_a_copy(copy, original, started);
        stays(&lab, &pods, links);
    }
}

/// Silent for longer than anybody waits, it loses its place for as long as it is away, and no longer.
#[test]
fn a_copy_that_was_taken_in_ends_when_its_original_is_back() {
    let lab = Lab::build("lkaway").unwrap().hosts(3).without_daemons().unwrap();
    let (pods, _) = begin(&lab);
    let (original, copy) = (lab.host(2), lab.host(3));
    let before = original.daemon_id();
    copy_state(original, copy);
    original.pause().unwrap();
    copy.start().unwrap();
    let address = copy.number().address4().to_string();
    wait_for("a copy that is taken in", || established(lab.host(1)).iter().any(|(at, _)| at.contains(&address)));
    wait_for("a copy that hands out addresses", || copy.get::<Status>("/v1/status").is_ok_and(|status| status.ready));
    original.resume().unwrap();
    ends_as_a_copy(copy, original, Instant::now());

    let both = || answers(&pods[0], &pods[1]) && answers(&pods[1], &pods[0]);
    wait_for("an original with its pods", both);
    let whole = |host: &Host| host.get::<Status>("/v1/status").is_ok_and(|status| status.ready && status.healthy);
    wait_for("nodes that are whole", || whole(lab.host(1)) && whole(original));
    assert_eq!(original.daemon_id(), before, "the same process");
    let next = original.pod("next").unwrap();
    wait_for("a pod that comes later", || answers(&pods[0], &next) && answers(&next, &pods[1]));
    // What it went on with is on disk.
    original.restart().unwrap();
    wait_for("an original that was started again", || whole(original) && both() && answers(&pods[0], &next));
}

/// Nobody resets the links of a process that was killed elsewhere; they are silent, and that is waited for.
#[test]
fn a_node_whose_state_moved_after_a_kill_is_taken_in_once_its_former_link_is_silent() {
    let lab = Lab::build("lkmoved").unwrap().hosts(3).without_daemons().unwrap();
    let (_pods, _) = begin(&lab);
    let (original, next) = (lab.host(2), lab.host(3));
    original.kill().unwrap();
    copy_state(original, next);
    let killed = Instant::now();
    next.start().unwrap();
    let address = next.number().address4().to_string();
    wait_for("a node that moved", || established(lab.host(1)).iter().any(|(at, _)| at.contains(&address)));
    took("node that moved taken in", killed.elapsed());
    assert!(killed.elapsed() < SILENCE, "it took {:?}", killed.elapsed());
}

fn the_copy_ends_and_the_original_stays(lab: &Lab) {
    let (pods, links) = begin(lab);
    let (original, copy) = (lab.host(2), lab.host(3));
    copy_state(original, copy);
    let started = Instant::now();
    copy.start().unwrap();
    ends_as_a_copy(copy, original, started);
    stays(lab, &pods, links);
    wait_for("an event that tells of the copy", || [lab.host(1), original].iter().any(|host| tells_of(host, copy)));
}

fn tells_of(host: &Host, copy: &Host) -> bool {
    let events: Events = host.get("/v1/events").unwrap();
    let copies = |event: &Event| match event.happening {
        Happening::CopyRefused { address, .. } => address.ip() == copy.number().address4(),
        _ => false,
    };
    events.events.iter().any(|event| copies(event) && event.reason.contains("began earlier"))
}

type LinkAges = [Vec<(String, f64)>; 2];

/// A seed and the node that is to be copied, each with a pod; their links.
fn begin(lab: &Lab) -> (Vec<Pod>, LinkAges) {
    let (seed, original) = (lab.host(1), lab.host(2));
    let pods: Vec<Pod> = [seed, original].map(begin_with_a_pod).into();
    wait_for("pods that talk", || answers(&pods[0], &pods[1]));
    let links = [established(seed), established(original)];
    assert_eq!(links.each_ref().map(Vec::len), [1, 1]);
    (pods, links)
}

fn copy_state(original: &Host, copy: &Host) {
    let copied = Command::new("cp").arg("-a").args([original.state(), copy.state()]).status().unwrap();
    assert!(copied.success());
}

fn ends_as_a_copy(copy: &Host, original: &Host, since: Instant) {
    let status = copy.wait_for_exit(DEADLINE).unwrap();
    took("copy noticed and ended", since.elapsed());
    assert_eq!(status.code(), Some(4), "{}", copy.log_tail());
    let address = format!("identity in use at {}:6783", original.number().address4());
    assert!(copy.log_tail().contains(&address), "{}", copy.log_tail());
    assert!(!copy.socket().exists());
    // Its kernel is as it was found.
    assert!(!copy.exec(["ip", "link"]).unwrap().contains("meshwork0"));
    assert_eq!(copy.exec(["ip", "route", "show", "table", "all", "proto", "83"]).unwrap().trim(), "");
    assert!(!copy.exec(["nft", "list", "tables"]).unwrap().contains("meshwork"));
}

/// Links and pods are those that there were.
fn stays(lab: &Lab, pods: &[Pod], links: LinkAges) {
    assert!(answers(&pods[0], &pods[1]) && answers(&pods[1], &pods[0]));
    for (host, before) in [lab.host(1), lab.host(2)].into_iter().zip(links) {
        let after = established(host);
        let same = |(one, other): (&(String, f64), &(String, f64))| one.0 == other.0 && one.1 <= other.1;
        assert!(after.len() == before.len() && before.iter().zip(&after).all(same), "{before:?} {after:?}");
        assert!(host.get::<Status>("/v1/status").unwrap().ready);
    }
}

fn begin_with_a_pod(host: &Host) -> Pod {
    host.start().unwrap();
    wait_for("a daemon that is ready", || host.get::<Status>("/v1/status").is_ok_and(|status| status.ready));
    host.pod("pod").unwrap()
}

/// Addresses and ages of the links that a host has.
fn established(host: &Host) -> Vec<(String, f64)> {
    let connections: Connections = host.get("/v1/connections").unwrap();
    let up = connections.connections.into_iter().filter(|link| link.state == ConnectionState::Established);
    up.map(|link| (link.address, link.age_s)).collect()
}

fn answers(from: &Pod, to: &Pod) -> bool {
    to.addresses().iter().all(|&address| from.ping(address).unwrap().received == 1)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(DEADLINE, what, || Ok(if holds() { Look::Done(()) } else { Look::Missing("it".into()) })).unwrap();
}
