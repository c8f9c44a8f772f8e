//! Meshwork under a foreign driver and between foreign plugins: `cnitool`, `portmap`, `bandwidth` and `ptp`.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

#[path = "foreign/go.rs"]
mod go;
#[path = "cnitool/programs.rs"]
mod programs;
#[path = "cnitool/runtime.rs"]
mod runtime;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use meshwork_api::model::Leases;
use meshwork_lab::{Host, Lab, Look, Namespace, Ping, eventually};
use serde_json::json;

use runtime::Runtime;

const MARKER: &[u8] = b"out-of-overlay";
const SOON: Duration = Duration::from_secs(20);

#[test]
fn every_version_is_added_checked_and_deleted() {
    let lab = Lab::build("ctversions").unwrap().hosts(1).up().unwrap();
    let (host, runtime) = (lab.host(1), Runtime::new(lab.host(1), "runtime"));
    let netns = namespace(host, "pod");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        runtime.network("mesh", version, &[runtime.mesh()]);
        let result = runtime.call("add", "mesh", &netns).result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][1]["sandbox"], netns.to_str().unwrap());
        assert_eq!(result["ips"][0]["version"].as_str(), version.starts_with('0').then_some("4"));
        if version != "0.3.1" {
            runtime.call("check", "mesh", &netns).done();
            in_pod(&netns, &["ip", "address", "flush", "dev", "eth0", "scope", "global"]);
            runtime.call("check", "mesh", &netns).fails_with("not as it was made");
        }
        runtime.call("del", "mesh", &netns).done();
        runtime.call("del", "mesh", &netns).done();
        assert_eq!(leases(host), [] as [String; 0], "{version}");
    }
}

#[test]
fn chained_with_portmap_and_bandwidth_a_pods_port_is_reached_through_its_host() {
    let lab = Lab::build("ctchain").unwrap().hosts(2).up().unwrap();
    let (host, runtime) = (lab.host(1), Runtime::new(lab.host(1), "runtime"));
    let portmap = json!({ "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } });
    let bandwidth = json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } });
    runtime.network("chain", "1.0.0", &[runtime.mesh(), portmap, bandwidth]);
    let wishes = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }],
        "bandwidth": { "ingressRate": 80_000_000, "ingressBurst": 8_000_000, "egressRate": 80_000_000, "egressBurst": 8_000_000 },
    });
    let netns = namespace(host, "web");
    let call = |verb| runtime.call_with(verb, "chain", &netns, "eth0", &wishes);
    let result = call("add").result();
    let link = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!((&result["ips"][0]["interface"], &result["interfaces"][1]["name"]), (&json!(1), &json!("eth0")));
    call("check").done();
    let limits = host.exec(["tc", "qdisc", "show", "dev", &link]).unwrap();
    assert!(limits.contains("tbf") && limits.contains("rate 80Mbit"), "{limits}");

    let web = host.pod_namespace("web").unwrap();
    let server = ["socat", "TCP-LISTEN:80,reuseaddr,fork", "EXEC:echo reached"];
    let _server = web.spawn(server, &host.directory().join("web.log")).unwrap();
    let address = format!("TCP:{}:8080,connect-timeout=2", host.underlay()[0]);
    eventually(SOON, "the pod's port through the host's", || {
        let said = lab.host(2).exec(["socat", "-u", &address, "-"]);
        Ok(match said {
            Ok(said) if said.contains("reached") => Look::Done(()),
            other => Look::Missing(format!("{other:?}")),
        })
    })
    .unwrap();
    call("del").done();
    assert!(lab.host(2).exec(["socat", "-u", &address, "-"]).is_err(), "the port goes with the pod");
    assert_eq!(leases(host), [] as [String; 0]);
}

#[test]
fn ptp_links_the_addresses_that_the_mesh_leases() {
    let lab = Lab::build("ctptp").unwrap().hosts(2).up().unwrap();
    let (host, runtime) = (lab.host(1), Runtime::new(lab.host(1), "runtime"));
    let ipam = json!({ "type": "mesh-cni", "socket": host.socket() });
    runtime.network("ptp", "1.0.0", &[json!({ "type": "ptp", "mtu": 1400, "ipam": ipam })]);
    let netns = namespace(host, "ptp");
    let result = runtime.call("add", "ptp", &netns).result();
    let address: IpAddr = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap();
    let lease = &host.get::<Leases>("/v1/pods").unwrap().leases[0];
    assert!(lease.address_only && lease.addresses.contains(&address), "{lease:?}");
    let links = host.exec(["ip", "-o", "link"]).unwrap();
    assert!(!links.contains(": mw"), "no link of ours: {links}");

    let other = lab.host(2).pod("other").unwrap();
    for there in other.addresses() {
        eventually(SOON, "the pod of ptp reaches a pod of another host", || {
            let said = in_pod(&netns, &["ping", "-c1", "-W1", &there.to_string()]);
            Ok(if said.contains(" 1 received") { Look::Done(()) } else { Look::Missing(said) })
        })
        .unwrap();
    }
    assert_eq!(other.ping(address).unwrap().received, 1, "and is reached by it");
    pretend(lab.fabric().namespace(), address, host);
    runtime.call("check", "ptp", &netns).done();
    runtime.call("del", "ptp", &netns).done();
    assert_eq!(leases(host), [] as [String; 0]);
    assert_eq!(Ping::to(address).run(other.namespace()).unwrap().received, 0);
}

#[test]
fn garbage_is_what_the_runtime_forgot_and_nothing_of_anyone_else() {
    let lab = Lab::build("ctgarbage").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let (forgetful, neighbour) = (Runtime::new(host, "forgetful"), Runtime::new(host, "neighbour"));
    forgetful.network("mesh", "1.1.0", &[forgetful.mesh()]);
    neighbour.network("other", "1.1.0", &[neighbour.mesh()]);
    let [lost, kept, by_hand] = ["lost", "kept", "hand"].map(|name| namespace(host, name));
    forgetful.call("add", "mesh", &lost).result();
    neighbour.call("add", "other", &kept).result();
    host.meshctl(&["attach", by_hand.to_str().unwrap()]).unwrap();
    assert_eq!(leases(host).len(), 3);

    // The same network, by a runtime that has lost its memory.
    let reborn = Runtime::new(host, "reborn");
    reborn.network("mesh", "1.1.0", &[reborn.mesh()]);
    reborn.call("gc", "mesh", &lost).done();
    let mut left = [&kept, &by_hand].map(|netns| netns.to_str().unwrap().to_owned());
    left.sort();
    assert_eq!(leases(host), left);
    assert!(!in_pod(&lost, &["ip", "-o", "link"]).contains("eth0"), "the link goes with the lease");
    let addresses = in_pod(&kept, &["ip", "-o", "address", "show", "dev", "eth0"]);
    assert!(addresses.contains("10."), "{addresses}");
    assert!(!host.get::<meshwork_api::model::Status>("/v1/status").unwrap().overlay.is_empty());
}

#[test]
fn status_follows_the_daemon() {
    let lab = Lab::build("ctstatus").unwrap().hosts(1).up().unwrap();
    let (host, runtime) = (lab.host(1), Runtime::new(lab.host(1), "runtime"));
    runtime.network("mesh", "1.1.0", &[runtime.mesh()]);
    let status = || runtime.call("status", "mesh", Path::new("/run/netns/none"));
    status().done();
    host.stop().unwrap();
    status().fails_with("meshd is not reachable");
    host.start().unwrap();
    lab.wait_until_ready(SOON).unwrap();
    status().done();
}

#[test]
fn a_second_interface_leaves_the_default_route_with_the_first() {
    let lab = Lab::build("ctsecond").unwrap().hosts(1).up().unwrap();
    let (host, runtime) = (lab.host(1), Runtime::new(lab.host(1), "runtime"));
    let addressed = json!({ "type": "mesh-cni", "socket": host.socket(), "capabilities": { "ips": true } });
    runtime.network("mesh", "1.0.0", &[addressed]);
    let netns = namespace(host, "multi");
    runtime.call("add", "mesh", &netns).result();
    let wishes = json!({ "ips": ["10.32.0.77"] });
    let second = runtime.call_with("add", "mesh", &netns, "net1", &wishes).result();
    assert_eq!(second["ips"][0]["address"], "10.32.0.77/32");
    let default = in_pod(&netns, &["ip", "route", "show", "default"]);
    assert!(default.contains("dev eth0") && default.lines().count() == 1, "{default}");
    assert!(in_pod(&netns, &["ip", "route", "show", "10.32.0.0/12"]).contains("dev net1"));
    for (interface, wishes) in [("net1", &wishes), ("eth0", &json!({}))] {
        runtime.call_with("check", "mesh", &netns, interface, wishes).done();
        runtime.call_with("del", "mesh", &netns, interface, wishes).done();
    }
    assert_eq!(leases(host), [] as [String; 0]);
}

#[test]
fn a_pod_keeps_its_source_out_of_the_overlay_where_the_network_says_so() {
    let lab = Lab::build("ctsource").unwrap().hosts(1).up().unwrap();
    let (host, runtime) = (lab.host(1), Runtime::new(lab.host(1), "runtime"));
    let outside = IpAddr::from(host.number().gateway4());
    for (network, masquerade) in [("taken", true), ("kept", false)] {
        runtime.network(
            network,
            "1.0.0",
            &[json!({ "type": "mesh-cni", "socket": host.socket(), "ipMasq": masquerade })],
        );
        let result = runtime.call("add", network, &namespace(host, network)).result();
        let own = result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned();
        let capture = lab.capture(network, "icmp").unwrap();
        Ping::to(outside).marked(MARKER).run(&host.pod_namespace(network).unwrap()).unwrap();
        capture.wait_for(MARKER, SOON).unwrap();
        let sources = capture.stop().unwrap().into_iter().filter(|packet| packet.contains(MARKER));
        let first = sources.filter_map(|packet| packet.ip).find(|ip| ip.destination == outside).unwrap();
        let expected = if masquerade { host.underlay()[0].to_string() } else { own };
        assert_eq!(first.source.to_string(), expected, "{network}");
    }
}

/// A packet from outside with a pod's source is stopped and counted, since the host routes that source elsewhere.
fn pretend(outside: &Namespace, address: IpAddr, host: &Host) {
    let [own, target] = [address, host.underlay()[0]].map(|address| address.to_string());
    let stopped = || host.exec(["nft", "list", "counter", "inet", "meshwork", "clear_blocked"]).unwrap();
    assert!(stopped().contains("packets 0"), "{}", stopped());
    outside.exec(["ip", "address", "add", &own, "dev", "lo"]).unwrap();
    outside.output(["ping", "-c1", "-W1", "-I", &own, &target]).unwrap();
    assert!(stopped().contains("packets 1"), "{}", stopped());
    outside.exec(["ip", "address", "delete", &own, "dev", "lo"]).unwrap();
}

/// A namespace of the host's lab that nothing is attached to; it goes with the lab.
fn namespace(host: &Host, name: &str) -> std::path::PathBuf {
    let netns = host.sandbox(name).netns;
    meshwork_sys::netns::create(netns.file_name().unwrap().to_str().unwrap()).unwrap();
    netns
}

/// What a program says inside a namespace, whatever it ends with.
fn in_pod(netns: &Path, line: &[&str]) -> String {
    let mut command = Command::new("ip");
    let output = command.args(["netns", "exec"]).arg(netns.file_name().unwrap()).args(line).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Paths of the namespaces that hold leases, in order.
fn leases(host: &Host) -> Vec<String> {
    let mut leases: Vec<_> =
        host.get::<Leases>("/v1/pods").unwrap().leases.into_iter().map(|lease| lease.netns).collect();
    leases.sort();
    leases
}
