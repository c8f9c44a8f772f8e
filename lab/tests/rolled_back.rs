//! A state directory that was restored from an older copy: the node catches up with what others know of it before it
//! hands out an address, so that no address is held by two pods.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use meshwork_api::model::Status;
use meshwork_lab::{Lab, Look, Pod, eventually, figure, took};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn a_node_with_a_restored_disk_gives_no_address_that_a_living_pod_holds() {
    let lab = Lab::build("lkback").unwrap().hosts(2).up().unwrap();
    let (other, node) = (lab.host(1).pod("other").unwrap(), lab.host(2));
    let mut pods = lose_pods(&lab);
    node.start().unwrap();
    catch_up(&lab);
    pods.push(node.pod("fresh").unwrap());
    all_live(&pods, &other);
}

#[test]
fn a_node_with_a_restored_disk_spares_living_pods_although_nobody_tells_it_of_them() {
    let lab = Lab::build("lkalone").unwrap().hosts(2).up().unwrap();
    let (other, node) = (lab.host(1).pod("other").unwrap(), lab.host(2));
    let mut pods = lose_pods(&lab);
    lab.cut(1, 2).unwrap();
    node.start().unwrap();
    wait_for("a node that goes on alone", || node.get::<Status>("/v1/status").is_ok_and(|status| status.ready));
    pods.push(node.pod("fresh").unwrap());
    lab.heal().unwrap();
    catch_up(&lab);
    all_live(&pods, &other);
}

/// Makes a pod that a copy of the state knows and two that it does not, and restores the copy under the dead daemon.
fn lose_pods(lab: &Lab) -> Vec<Pod> {
    let node = lab.host(2);
    let kept = node.pod("kept").unwrap();
    assert!(node.stop().unwrap().success());
    let backup = node.directory().join("backup");
    copy(&node.state(), &backup);
    node.start().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    let lost = ["lost", "lost-too"].map(|name| node.pod(name).unwrap());
    wait_for("the pods that the copy does not know", || lost.iter().all(|pod| answers(&kept, pod)));
    node.kill().unwrap();
    fs::remove_dir_all(node.state()).unwrap();
    copy(&backup, &node.state());
    [kept].into_iter().chain(lost).collect()
}

/// The daemon learns of its later state and ends; the next one goes on with it.
fn catch_up(lab: &Lab) {
    let (node, started) = (lab.host(2), Instant::now());
    assert_eq!(node.wait_for_exit(DEADLINE).unwrap().code(), Some(1), "{}", node.log_tail());
    assert!(node.log_tail().contains("start meshd again"), "{}", node.log_tail());
    node.start().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    took("node caught up, and ready again with the next daemon,", started.elapsed());
    let status: Status = node.get("/v1/status").unwrap();
    assert!(status.healthy, "{:?}", status.reasons);
}

fn all_live(pods: &[Pod], other: &Pod) {
    let addresses: Vec<_> = pods.iter().flat_map(Pod::addresses).collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "{addresses:?}");
    figure(format_args!("0 of {} addresses held twice", addresses.len()));
    wait_for("every pod of the node", || pods.iter().all(|pod| answers(other, pod) && answers(pod, other)));
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn answers(from: &Pod, to: &Pod) -> bool {
    to.addresses().iter().all(|&address| from.ping(address).unwrap().received == 1)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(DEADLINE, what, || Ok(if holds() { Look::Done(()) } else { Look::Missing("it".into()) })).unwrap();
}
