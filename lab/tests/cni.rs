//! What a container runtime relies on: repeats change nothing, and a failed attachment leaves nothing.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::process::Output;

use meshwork_api::model::Leases;
use meshwork_lab::cni::Sandbox;
use meshwork_lab::{Host, Lab, figure, remains};
use serde_json::Value;

#[test]
fn attaching_and_detaching_twice_is_attaching_and_detaching_once() {
    let lab = Lab::build("cnitwice").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let pod = host.pod("pod").unwrap();

    let again = host.cni().add(pod.sandbox()).unwrap();
    assert_eq!(again, pod.addresses(), "the same sandbox has the same addresses");
    assert_eq!((leases(host), links(host)), (1, 1));
    let inside = pod.exec(["ip", "-o", "address", "show", "dev", "eth0"]).unwrap();
    for address in pod.addresses() {
        assert!(inside.contains(&address.to_string()), "{address} in {inside}");
    }
    assert!(pod.exec(["ip", "link", "show", "dev", "eth0"]).unwrap().contains("mtu 1400"), "the underlay's less 100");
    let routes = pod.exec(["ip", "route"]).unwrap();
    assert!(routes.contains("default via"), "{routes}");

    host.cni().delete(pod.sandbox()).unwrap();
    host.cni().delete(pod.sandbox()).unwrap();
    assert_eq!((leases(host), links(host)), (0, 0));
    assert!(pod.exec(["ip", "link", "show", "eth0"]).is_err(), "the pod's end is gone as well");
}

#[test]
fn detaching_what_is_not_there_succeeds() {
    let lab = Lab::build("cninone").unwrap().hosts(1).up().unwrap();
    lab.host(1).cni().delete(&lab.host(1).sandbox("never")).unwrap();
}

#[test]
fn an_attachment_that_fails_half_way_leaks_nothing() {
    let lab = Lab::build("cnihalf").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);

    let absent = Sandbox { netns: "/run/netns/mwlab-cnihalf-absent".into(), ..host.sandbox("absent") };
    refusal(&host.cni().call("ADD", &absent).unwrap());
    assert_eq!((leases(host), links(host)), (0, 0), "a namespace that does not exist");

    // The name that the pod's end is to get is taken: the step after the lease fails.
    let taken = host.pod("taken").unwrap();
    host.cni().delete(taken.sandbox()).unwrap();
    taken.exec(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other"]).unwrap();
    refusal(&host.cni().call("ADD", taken.sandbox()).unwrap());
    assert_eq!((leases(host), links(host)), (0, 0), "an interface that is in the way");
    assert!(taken.exec(["ip", "link", "show", "eth0"]).unwrap().contains("eth0"), "which is left alone");
    figure("2 attachments failed half-way, 0 leases and 0 links left");
}

#[test]
fn without_a_daemon_the_runtime_is_told_to_try_again() {
    let lab = Lab::build("cnidown").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    host.stop().unwrap();
    let error = host.pod("early").unwrap_err().to_string();
    assert!(error.contains("meshd"), "{error}");
    assert!(!remains::labs().unwrap().is_empty() && host.pod_names().unwrap().is_empty());
    host.start().unwrap();
    lab.wait_until_ready(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!((leases(host), links(host)), (0, 0));
}

#[test]
fn the_plugin_tells_its_versions() {
    let lab = Lab::build("cniversion").unwrap().hosts(1).without_daemons().unwrap();
    let output = lab.host(1).cni().call("VERSION", &lab.host(1).sandbox("any")).unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let versions = answer["supportedVersions"].as_array().unwrap();
    assert!(
        output.status.success()
            && ["0.3.1", "0.4.0", "1.0.0", "1.1.0"].iter().all(|version| versions.contains(&(*version).into()))
    );
}

/// A CNI error object with a code, on standard output, and nothing else.
fn refusal(output: &Output) -> Value {
    assert!(!output.status.success(), "{output:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert!(answer["code"].as_u64().is_some_and(|code| code > 0) && answer["msg"].is_string(), "{answer}");
    answer
}

/// Leases that pods hold; the node's own is none of them.
fn leases(host: &Host) -> usize {
    let leases: Leases = host.get("/v1/pods").unwrap();
    leases.leases.len()
}

/// Host ends of pod links.
fn links(host: &Host) -> usize {
    let links = host.exec(["ip", "-o", "link", "show", "type", "veth"]).unwrap();
    links.lines().filter(|link| link.split_whitespace().nth(1).is_some_and(|name| name.starts_with("mw"))).count()
}
