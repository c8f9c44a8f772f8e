//! A daemon that is killed comes back with its identity, its leases and its paths, soon.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::{Duration, Instant};

use meshwork_api::model::{Ipam, Leases, Status};
use meshwork_lab::{Lab, Look, Pod, eventually, took_within};

const BAR: Duration = Duration::from_secs(3);
/// The kernel tells of a device that goes.
const NOTICED: Duration = Duration::from_secs(1);

#[test]
fn a_killed_daemon_is_back_with_its_pods_within_three_seconds() {
    let lab = Lab::build("restart").unwrap().hosts(3).up().unwrap();
    let pods: Vec<Pod> = lab.hosts().iter().map(|host| host.pod("pod").unwrap()).collect();
    let killed = lab.host(2);
    let before: Status = killed.get("/v1/status").unwrap();
    let leases = |lab: &Lab| lab.host(2).get::<Leases>("/v1/pods").unwrap().leases;
    let held = leases(&lab);

    killed.kill().unwrap();
    let started = Instant::now();
    killed.start().unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
    eventually(Duration::from_secs(20), "pods of the killed host reachable", || {
        let (own, others) = (&pods[1], [&pods[0], &pods[2]]);
        let silent = others.iter().any(|other| !answers(other, own) || !answers(own, other));
        Ok(if silent { Look::Missing("an answer".into()) } else { Look::Done(()) })
    })
    .unwrap();
    let took = started.elapsed();
    took_within("killed daemon back with its pods", took, BAR);

    let after: Status = killed.get("/v1/status").unwrap();
    assert_eq!((after.peer.id, after.overlay), (before.peer.id, before.overlay), "the same node");
    assert_eq!(leases(&lab), held, "the same leases");
    assert!(took < BAR, "it took {took:?}");
}

/// It dials nobody: its peers notice by what it answers to the links of its former self, long before they fall silent.
#[test]
fn a_killed_daemon_that_knows_no_peer_to_dial_is_back_as_soon() {
    let lab = Lab::build("restartfirst").unwrap().hosts(3).up().unwrap();
    lab.host(1).kill().unwrap();
    let started = Instant::now();
    lab.host(1).start().unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
    let took = started.elapsed();
    took_within("killed daemon that dials nobody back", took, BAR);
    assert!(took < BAR, "it took {took:?}");
}

#[test]
fn an_orderly_stop_ends_with_zero_and_leaves_pods_and_addresses() {
    let lab = Lab::build("stop").unwrap().hosts(2).up().unwrap();
    let pod = lab.host(1).pod("first").unwrap();
    assert!(lab.host(1).stop().unwrap().success());
    assert!(!lab.host(1).socket().exists(), "no socket without a daemon");
    lab.host(1).start().unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();

    let next = lab.host(1).pod("second").unwrap();
    assert!(
        next.addresses().iter().all(|address| !pod.addresses().contains(address)),
        "a held address is not given again"
    );
    assert!(answers(&pod, &next));
    let ipam: Ipam = lab.host(1).get("/v1/ipam").unwrap();
    assert_eq!(ipam.leases.iter().filter(|lease| lease.netns.contains("mwlab-stop-h1-")).count(), 2, "{ipam:?}");
}

#[test]
fn a_daemon_whose_device_is_deleted_ends_and_the_next_one_makes_it_anew() {
    let lab = Lab::build("deleted").unwrap().hosts(2).up().unwrap();
    let [one, other] = [1, 2].map(|number| lab.host(number).pod("pod").unwrap());
    assert!(answers(&one, &other), "it works before");
    let deleted = Instant::now();
    lab.host(1).exec(["ip", "link", "delete", "meshwork0"]).unwrap();
    let ended = lab.host(1).wait_for_exit(Duration::from_secs(10)).unwrap();
    took_within("deleted meshwork0 noticed, daemon ended", deleted.elapsed(), NOTICED);
    assert_eq!(ended.code(), Some(1));
    assert!(lab.host(1).log_tail().contains("start meshd again"), "{}", lab.host(1).log_tail());
    let started = Instant::now();
    lab.host(1).start().unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
    eventually(Duration::from_secs(20), "pods reachable again", || {
        Ok(if answers(&one, &other) { Look::Done(()) } else { Look::Missing("an answer".into()) })
    })
    .unwrap();
    took_within("next daemon made it anew, pods reach each other", started.elapsed(), BAR);
}

fn answers(from: &Pod, to: &Pod) -> bool {
    to.addresses().iter().all(|&address| from.ping(address).unwrap().received == 1)
}
