//! What befalls hosts: frozen, put on an old disk, on somebody else's disk, booted again.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::{Duration, Instant};

use meshwork_api::model::{Leases, Status};
use meshwork_lab::{Host, Lab, Link, Look, Nat, Ping, eventually, took};

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_snapshot_is_taken_from_a_running_daemon_and_put_back_later() {
    let lab = Lab::build("disk").unwrap().hosts(2).up().unwrap();
    let host = lab.host(2);
    host.pod("before").unwrap();
    let (id, old) = (peer_id(host), host.snapshot().unwrap());
    assert!(!stopped(host), "it goes on after the copy");
    host.pod("after").unwrap();
    assert!(host.restore(&old).is_err(), "a disk does not change under a daemon");

    host.kill().unwrap();
    host.restore(&old).unwrap();
    host.start().unwrap();
    wait_for_daemon(host);
    assert_eq!(peer_id(host), id);
    let sandboxes: Vec<_> =
        host.get::<Leases>("/v1/pods").unwrap().leases.into_iter().map(|lease| lease.sandbox).collect();
    assert_eq!(sandboxes, ["disk-h2-before"], "the lease made after the copy is forgotten");
}

#[test]
fn a_clone_says_that_it_is_the_host_it_was_copied_from() {
    let lab = Lab::build("clone").unwrap().hosts(2).up().unwrap();
    let id = peer_id(lab.host(1));
    assert_ne!(peer_id(lab.host(2)), id);
    let copied = lab.host(1).snapshot().unwrap();
    lab.host(2).kill().unwrap();
    // Only one of the two lives: what two of them do to a mesh is another story.
    lab.host(1).kill().unwrap();
    lab.host(2).restore(&copied).unwrap();
    lab.host(2).start().unwrap();
    wait_for_daemon(lab.host(2));
    assert_eq!(peer_id(lab.host(2)), id);
}

#[test]
fn a_paused_daemon_stands_still_until_it_is_resumed() {
    let lab = Lab::build("pause").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    host.pause().unwrap();
    eventually(DEADLINE, "a daemon that stands still", || {
        Ok(if stopped(host) { Look::Done(()) } else { Look::Missing("it runs".into()) })
    })
    .unwrap();
    host.snapshot().unwrap();
    assert!(stopped(host), "a snapshot does not wake it");
    host.resume().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
}

#[test]
fn a_host_that_boots_again_has_its_disk_and_nothing_else() {
    let lab = Lab::build("reboot").unwrap().hosts(3).nat(3, Nat::PortRestricted);
    let lab = lab.link(2, Link::default().delay(Duration::from_millis(5)).loss(0.01)).up().unwrap();
    for number in [2, 3] {
        let host = lab.host(number);
        let id = peer_id(host);
        host.pod("pod").unwrap();
        lab.reboot(number).unwrap();

        let links = host.exec(["ip", "-o", "link"]).unwrap();
        assert!(!links.contains("meshwork") && !links.contains(": mw"), "{links}");
        assert_eq!(host.exec(["nft", "list", "tables"]).unwrap(), "");
        assert!(host.exec(["ip", "route", "show", "table", "all", "proto", "83"]).unwrap().is_empty());
        assert!(host.pod_names().unwrap().is_empty() && !host.socket().exists());
        let gateway = Ping::to(lab.host(1).underlay()[0]).count(10).run(host.namespace()).unwrap();
        assert!(gateway.received >= 9, "its link is plugged in: {gateway:?}");
        let delayed = gateway.average_us.unwrap() > 10_000.0;
        assert_eq!(delayed, number == 2, "under the conditions it had: {gateway:?}");

        let started = Instant::now();
        host.start().unwrap();
        lab.wait_until_ready(DEADLINE).unwrap();
        took(&format!("h{number} part of the mesh again after its boot"), started.elapsed());
        assert_eq!(peer_id(host), id);
        let (again, other) = (host.pod("again").unwrap(), lab.host(1).pod(&format!("to-{number}")).unwrap());
        assert_eq!(again.ping(other.ipv4().unwrap()).unwrap().received, 1);
    }
}

fn peer_id(host: &Host) -> String {
    host.get::<Status>("/v1/status").unwrap().peer.id.to_string()
}

fn wait_for_daemon(host: &Host) {
    eventually(DEADLINE, "a daemon that answers", || {
        let answered = host.get::<Status>("/v1/status");
        Ok(answered.map_or_else(|error| Look::Missing(error.to_string()), |_| Look::Done(())))
    })
    .unwrap();
}

/// As `ps` tells it.
fn stopped(host: &Host) -> bool {
    let pid = host.daemon_id().unwrap().to_string();
    host.exec(["ps", "-o", "stat=", "-p", &pid]).unwrap().starts_with('T')
}
