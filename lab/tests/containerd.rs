//! containerd runs a container on the mesh: it calls the plugin by a list such as ours, when a container begins and ends.
//!
//! `ctr run --cni` knows one folder for lists and one for plugins. So it works in a mount namespace in which `/etc`, `/opt`
//! and `/run` are its own, and in a process namespace, so that everything it started ends with it. The container has no
//! control group and needs no registry: it sees this machine's programs, read-only.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::path::Path;
use std::process::Output;

use meshwork_api::model::Leases;
use meshwork_lab::{Host, Lab, Programs};
use serde_json::json;

/// Makes the private folders, runs containerd in them, and a container with the script `$WORDS`.
const RUN: &str = r#"set -e
mount -t tmpfs tmpfs /opt
mkdir -p /opt/lab /opt/cni/bin
mount --bind "$LAB" /opt/lab
mount -t tmpfs tmpfs /run
mkdir -p "$LAB"
mount --move /opt/lab "$LAB"
mkdir "$LAB/image"
mount --bind / "$LAB/image"
mount -t tmpfs tmpfs /etc
mkdir -p /etc/cni/net.d
cp "$LAB/10-meshwork.conflist" /etc/cni/net.d
cp "$PLUGIN" /opt/cni/bin
containerd --config "$LAB/containerd.toml" >"$LAB/containerd.log" 2>&1 &
patience=100
until ctr --address "$LAB/containerd.sock" version >/dev/null 2>&1; do
    patience=$((patience - 1))
    [ $patience -gt 0 ] || { cat "$LAB/containerd.log" >&2; exit 1; }
    sleep 0.1
done
ctr --address "$LAB/containerd.sock" run --cgroup "" --cni --rm --read-only --rootfs "$LAB/image" box /bin/sh -c "$WORDS"
"#;

#[test]
fn a_container_of_containerd_reaches_a_pod_of_another_host_and_leaves_nothing() {
    let lab = Lab::build("kicontainerd").unwrap().hosts(2).up().unwrap();
    let (host, far) = (lab.host(1), lab.host(2).pod("far").unwrap());
    let before = left(host);
    let [v4, v6] = [far.ipv4().unwrap(), far.ipv6().unwrap()];
    let output =
        run(host, &format!("set -e; ip -o address show eth0; ping -c1 -w5 {v4}; ping -c1 -w5 {v6}; echo reached"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("reached"), "{printed}");
    assert!(printed.contains("eth0    inet 10."), "the link was there from the beginning: {printed}");
    assert_eq!(left(host), before);
    assert_eq!(host.get::<Leases>("/v1/pods").unwrap().leases, []);
}

/// Runs a container in the host's network namespace, with a script.
fn run(host: &Host, words: &str) -> Output {
    let folder = host.directory();
    let plugin = json!({ "type": "mesh-cni", "socket": host.socket() });
    let list = json!({ "cniVersion": "1.0.0", "name": "meshwork", "plugins": [plugin] });
    fs::write(folder.join("10-meshwork.conflist"), list.to_string()).unwrap();
    fs::write(folder.join("containerd.toml"), configuration(&folder)).unwrap();
    let mut command = host.namespace().command("unshare").unwrap();
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", RUN]);
    command.env("LAB", &folder).env("PLUGIN", Programs::find().unwrap().mesh_cni).env("WORDS", words);
    command.output().unwrap()
}

/// Everything below the lab's folder, and nothing that serves Kubernetes.
fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "version = 2\nroot = \"{folder}/containerd\"\nstate = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{folder}/containerd.sock\"\n"
    )
}

/// Links, and routes of ours.
fn left(host: &Host) -> [String; 2] {
    let links = host.exec(["ip", "-o", "link", "show"]).unwrap();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)).collect::<Vec<_>>().join(" ");
    [names, host.exec(["ip", "route", "show", "table", "all", "proto", "83"]).unwrap()]
}
