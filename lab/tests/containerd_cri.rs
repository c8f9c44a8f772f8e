//! containerd runs pods on the mesh for a kubelet: sandboxes come and go over CRI, and whether the node has a network is
//! what containerd finds in its folder of CNI lists.
//!
//! Everything of it is real but the kubelet, whose calls are made here one by one, and the image, which only waits.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

#[path = "foreign/go.rs"]
mod go;
#[path = "containerd_cri/groups.rs"]
mod groups;
#[path = "containerd_cri/kubelet.rs"]
mod kubelet;
#[path = "containerd_cri/programs.rs"]
mod programs;
#[path = "containerd_cri/runtime.rs"]
mod runtime;

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use meshwork_api::model::{Lease, Leases};
use meshwork_lab::{Host, Lab, Look, Pod, eventually};

use kubelet::Kubelet;
use runtime::Containerd;

/// A restarted daemon waits up to 5 s for what peers know before it leases; and a loaded machine.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_pod_of_a_kubelet_reaches_a_pod_of_another_host_and_leaves_nothing() {
    let lab = Lab::build("cripod").unwrap().hosts(2).up().unwrap();
    let (host, far) = (lab.host(1), lab.host(2).pod("far").unwrap());
    let before = left(host);
    let containerd = Containerd::start(host);
    let kubelet = networked(&containerd);

    let sandbox = kubelet.run("box");
    let [lease] = leases(host).try_into().unwrap();
    assert_eq!([&lease.sandbox, &lease.pod.namespace, &lease.pod.name], [&sandbox, "lab", "box"]);
    let addresses = kubelet.addresses(&sandbox);
    assert_eq!(addresses, lease.addresses, "the pod's status tells what was leased");
    assert!(matches!(addresses[..], [IpAddr::V4(_), IpAddr::V6(_)]), "{addresses:?}");
    reach_each_other(&kubelet, &sandbox, &addresses, &far);

    kubelet.stop(&sandbox);
    assert_eq!((kubelet.state(&sandbox), leases(host)), ("SANDBOX_NOTREADY".into(), Vec::new()));
    assert!(far.ping(addresses[0]).unwrap().received == 0, "nobody answers for it");
    kubelet.stop(&sandbox);
    kubelet.remove(&sandbox);
    assert_eq!((kubelet.sandboxes(), containerd.groups().inner()), (Vec::new(), Vec::new()));
    drop(containerd);
    assert_eq!(left(host), before);
}

#[test]
fn a_node_has_a_network_as_soon_as_it_has_our_list() {
    let lab = Lab::build("crinetwork").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let containerd = Containerd::start(host);
    let kubelet = Kubelet::of(&containerd);
    let (ready, reason) = kubelet.network();
    assert!(!ready && reason.contains("cni plugin not initialized"), "{reason}");
    let refusal = kubelet.try_run("early").unwrap_err();
    assert!(refusal.contains("cni"), "{refusal}");
    containerd.configure();
    wait_for_network(&kubelet);
    kubelet.run("late");
    let names: Vec<_> = leases(host).into_iter().map(|lease| lease.pod.name).collect();
    assert_eq!(names, ["late"]);
}

#[test]
fn what_fails_while_the_daemon_is_away_works_when_the_kubelet_tries_again() {
    let lab = Lab::build("criagain").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let containerd = Containerd::start(host);
    let kubelet = networked(&containerd);
    host.stop().unwrap();
    let refusal = kubelet.try_run("box").unwrap_err();
    assert!(refusal.contains("meshd is not reachable"), "{refusal}");
    host.start().unwrap();
    let sandbox = eventually(SOON, "a sandbox", || Ok(look(kubelet.try_again("box")))).unwrap();

    host.stop().unwrap();
    let refusal = kubelet.try_stop(&sandbox).unwrap_err();
    assert!(refusal.contains("meshd is not reachable"), "{refusal}");
    host.start().unwrap();
    eventually(SOON, "the sandbox's end", || Ok(look(kubelet.try_stop(&sandbox)))).unwrap();
    assert_eq!(leases(host), []);
}

/// A kubelet whose node has a network.
fn networked<'a>(containerd: &'a Containerd<'a>) -> Kubelet<'a> {
    containerd.configure();
    let kubelet = Kubelet::of(containerd);
    wait_for_network(&kubelet);
    kubelet
}

fn wait_for_network(kubelet: &Kubelet<'_>) {
    eventually(SOON, "the condition NetworkReady", || {
        let (ready, reason) = kubelet.network();
        Ok(if ready { Look::Done(()) } else { Look::Missing(reason) })
    })
    .unwrap();
}

/// A program in the pod's own container asks, and the pod of the other host asks back.
fn reach_each_other(kubelet: &Kubelet<'_>, sandbox: &str, addresses: &[IpAddr], far: &Pod) {
    let container = kubelet.start_container(sandbox);
    for address in far.addresses() {
        let answer = kubelet.exec(&container, &["ping", "-n", "-c1", "-w5", &address.to_string()]);
        assert_eq!(answer["exitCode"], 0, "{address}: {answer}");
    }
    for &address in addresses {
        assert_eq!(far.ping(address).unwrap().received, 1, "{address}");
    }
}

fn look<T>(tried: Result<T, String>) -> Look<T> {
    tried.map_or_else(Look::Missing, Look::Done)
}

fn leases(host: &Host) -> Vec<Lease> {
    host.get::<Leases>("/v1/pods").unwrap().leases
}

/// Links, routes of ours, and mounts outside of containerd that name this lab.
fn left(host: &Host) -> [String; 3] {
    let links = host.exec(["ip", "-o", "link", "show"]).unwrap();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)).collect::<Vec<_>>().join(" ");
    let routes = host.exec(["ip", "route", "show", "table", "all", "proto", "83"]).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let folder = host.directory().display().to_string();
    [names, routes, mounts.lines().filter(|line| line.contains(&folder)).collect()]
}
