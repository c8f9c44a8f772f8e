//! A runtime that crashed sends no DEL: what it left is freed once its sandboxes are gone, and nothing else is.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use meshwork_api::event::{Event, Events, Happening};
use meshwork_api::model::Leases;
use meshwork_lab::{Host, Lab, Look, Pod, eventually, took};

/// Three looks, five seconds apart, and a loaded machine.
const FREED: Duration = Duration::from_secs(40);

#[test]
fn leases_of_sandboxes_that_are_gone_are_freed_and_living_ones_stay() {
    let lab = Lab::build("gone").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let [gone, cut, living] = ["gone", "cut", "living"].map(|name| host.pod(name).unwrap());
    let by_hand = make_namespace(host, "hand");
    host.meshctl(&["attach", &by_hand]).unwrap();

    remove_namespace(&gone);
    ip(&["netns", "delete", by_hand.rsplit('/').next().unwrap()]);
    // Its file is gone, but something keeps the namespace and the link alive: a pod that this node cannot see.
    let kept = cut.namespace().spawn(["sleep", "300"], &host.directory().join("sleep.log")).unwrap();
    remove_namespace(&cut);
    let gone_at = Instant::now();

    let mut expected = [&cut, &living].map(|pod| pod.sandbox().id.clone());
    expected.sort();
    wait_for(host, &expected);
    took("2 leases of sandboxes that are gone freed, 2 of others kept,", gone_at.elapsed());
    let log = fs::read_to_string(host.log()).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("freed a lease")).collect();
    assert!(told.len() == 2 && told.iter().all(|line| line.contains("namespace and its link are gone")), "{told:?}");
    let events: Events = host.get("/v1/events").unwrap();
    let released = |event: &&Event| matches!(event.happening, Happening::LeaseReleased(_));
    let reasons: Vec<&str> = events.events.iter().filter(released).map(|event| event.reason.as_str()).collect();
    assert!(
        reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("namespace and its link are gone")),
        "{reasons:?}"
    );
    assert!(
        living.ping(host.get::<meshwork_api::model::Status>("/v1/status").unwrap().overlay[0]).unwrap().received == 1
    );

    drop(kept);
    wait_for(host, &[living.sandbox().id.clone()]);
}

#[test]
fn what_went_while_the_daemon_was_down_is_freed_when_it_is_back() {
    let lab = Lab::build("gonedown").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let [gone, replaced, living] = ["gone", "replaced", "living"].map(|name| host.pod(name).unwrap());
    host.kill().unwrap();
    remove_namespace(&gone);
    remove_namespace(&replaced);
    ip(&["netns", "add", replaced.namespace().name()]);
    let started = Instant::now();
    host.start().unwrap();
    lab.wait_until_ready(FREED).unwrap();
    wait_for(host, &[living.sandbox().id.clone()]);
    took("2 leases of sandboxes that went meanwhile freed by the next daemon", started.elapsed());
    assert!(fs::read_to_string(host.log()).unwrap().contains("another network namespace has its path"));
}

fn wait_for(host: &Host, expected: &[String]) {
    eventually(FREED, "only leases of living sandboxes", || {
        let held: Leases = host.get("/v1/pods")?;
        let mut held: Vec<String> = held.leases.into_iter().map(|lease| lease.sandbox).collect();
        held.sort();
        Ok(if held == expected { Look::Done(()) } else { Look::Missing(format!("{held:?}, not {expected:?}")) })
    })
    .unwrap();
}

fn make_namespace(host: &Host, name: &str) -> String {
    let path = host.sandbox(name).netns.to_str().unwrap().to_owned();
    ip(&["netns", "add", path.rsplit('/').next().unwrap()]);
    path
}

fn remove_namespace(pod: &Pod) {
    ip(&["netns", "delete", pod.namespace().name()]);
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}
