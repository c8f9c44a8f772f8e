//! A state directory that was copied: the process that started later ends, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::process::Command;
use std::time::{Duration, Instant};

use meshwork_api::model::{ConnectionState, Connections, Status};
use meshwork_lab::topology::HostNumber;
use meshwork_lab::{Host, Lab, Look, Pod, eventually, took};

const DEADLINE: Duration = Duration::from_secs(20);

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

fn the_copy_ends_and_the_original_stays(lab: &Lab) {
    let (seed, original, copy) = (lab.host(1), lab.host(2), lab.host(3));
    let pods: Vec<Pod> = [seed, original].map(begin_with_a_pod).into();
    wait_for("pods that talk", || answers(&pods[0], &pods[1]));
    let links = [established(seed), established(original)];
    assert_eq!(links.each_ref().map(Vec::len), [1, 1]);

    let copied = Command::new("cp").arg("-a").args([original.state(), copy.state()]).status().unwrap();
    assert!(copied.success());
    let started = Instant::now();
    copy.start().unwrap();
    let status = copy.wait_for_exit(DEADLINE).unwrap();
    took("copy noticed and ended", started.elapsed());
    assert_eq!(status.code(), Some(4), "{}", copy.log_tail());
    let address = format!("identity in use at {}:6783", original.number().address4());
    assert!(copy.log_tail().contains(&address), "{}", copy.log_tail());
    assert!(!copy.socket().exists());

    assert!(answers(&pods[0], &pods[1]) && answers(&pods[1], &pods[0]));
    for (host, before) in [seed, original].into_iter().zip(links) {
        let after = established(host);
        let same = |(one, other): (&(String, f64), &(String, f64))| one.0 == other.0 && one.1 <= other.1;
        assert!(after.len() == before.len() && before.iter().zip(&after).all(same), "{before:?} {after:?}");
        assert!(host.get::<Status>("/v1/status").unwrap().ready);
    }
    // The copy's kernel is as it was found.
    assert!(!copy.exec(["ip", "link"]).unwrap().contains("meshwork0"));
    assert_eq!(copy.exec(["ip", "route", "show", "table", "all", "proto", "83"]).unwrap().trim(), "");
    assert!(!copy.exec(["nft", "list", "tables"]).unwrap().contains("meshwork"));
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
