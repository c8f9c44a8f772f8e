//! Links come and go: a cut pair is apart, everybody else is not, and a healed pair finds together by itself.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::time::{Duration, Instant};

use meshwork_api::model::{Connection, ConnectionState, Connections, Paths, Peers, Status};
use meshwork_lab::{Host, Lab, Look, Pod, eventually, took, took_within};

/// QUIC notices after 10 s, and dialling again begins at once.
const DEADLINE: Duration = Duration::from_secs(30);
const BAR: Duration = Duration::from_secs(5);

#[test]
fn a_cut_pair_is_apart_until_it_is_healed() {
    let lab = Lab::build("partition").unwrap().hosts(3).up().unwrap();
    let pods: Vec<Pod> = lab.hosts().iter().map(|host| host.pod("pod").unwrap()).collect();
    assert!(answers(&pods[0], &pods[1]));

    let cut = Instant::now();
    lab.cut(1, 2).unwrap();
    assert!(answers(&pods[0], &pods[2]) && answers(&pods[2], &pods[1]), "the third host reaches both");
    let [one, two] = [lab.host(1), lab.host(2)];
    wait_for("both ends to give the path up", || !path_is_up(one, "h2") && !path_is_up(two, "h1"));
    took_within("path across the cut given up by both ends", cut.elapsed(), BAR);
    assert!(!answers(&pods[0], &pods[1]));

    wait_for("both ends to give the link up", || link_age(one, "h2").is_none() && link_age(two, "h1").is_none());
    took("link across the cut given up by both ends", cut.elapsed());
    assert!(link_age(one, "h3").is_some() && link_age(two, "h3").is_some(), "the other links stand");
    for host in [one, two] {
        let log = || fs::read_to_string(host.log()).unwrap();
        wait_for("a word on the lost link", || log().contains("control link lost"));
    }

    let healed = Instant::now();
    lab.heal().unwrap();
    wait_for("the healed pair", || answers(&pods[0], &pods[1]) && answers(&pods[1], &pods[0]));
    took("healed pair's pods reach each other", healed.elapsed());
    wait_for("a link anew", || link_age(one, "h2").is_some() && link_age(two, "h1").is_some());
    let age = link_age(one, "h2").unwrap();
    assert!(age < cut.elapsed().as_secs_f64(), "the link is {age} s old and outlived the cut");
    lab.wait_until_ready(DEADLINE).unwrap();
}

#[test]
fn a_node_that_knows_nobody_joins_when_it_is_told_an_address() {
    let lab = Lab::build("connect").unwrap().hosts(2).begins(2, &["--ipam-init", "join"]).without_daemons().unwrap();
    let (mesh, alone) = (lab.host(1), lab.host(2));
    let target = mesh.underlay()[0].to_string();
    mesh.start().unwrap();
    alone.start().unwrap();
    wait_for("a daemon that listens", || alone.get::<Status>("/v1/status").is_ok());
    assert!(!alone.get::<Status>("/v1/status").unwrap().ready, "there is no ring to take addresses from");

    alone.meshctl(&["connect", &target]).unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    assert_eq!((members(mesh), members(alone)), (2, 2));
    assert_eq!(alone.get::<Status>("/v1/status").unwrap().targets.len(), 1);

    alone.meshctl(&["forget", &target]).unwrap();
    assert!(alone.get::<Status>("/v1/status").unwrap().targets.is_empty());
}

/// Age in seconds of the established link to a host.
fn link_age(host: &Host, to: &str) -> Option<f64> {
    let connections = host.get::<Connections>("/v1/connections").unwrap().connections;
    let of_host =
        |connection: &&Connection| connection.nickname == to && connection.state == ConnectionState::Established;
    connections.iter().find(of_host).map(|connection| connection.age_s)
}

fn path_is_up(host: &Host, to: &str) -> bool {
    let paths = host.get::<Paths>("/v1/paths").unwrap().paths;
    paths.iter().any(|path| path.nickname == to && path.up)
}

fn members(host: &Host) -> usize {
    host.get::<Peers>("/v1/peers").unwrap().peers.len()
}

fn answers(from: &Pod, to: &Pod) -> bool {
    to.addresses().iter().all(|&address| from.ping(address).unwrap().received == 1)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(DEADLINE, what, || Ok(if holds() { Look::Done(()) } else { Look::Missing("it".into()) })).unwrap();
}
