//! What the host had before stays the host's. The witness is `ip`.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::Duration;

use meshwork_api::model::Status;
use meshwork_lab::{Host, Lab, Look, eventually};

#[test]
fn a_route_that_comes_into_the_range_later_is_reported_and_never_replaced() {
    let lab = Lab::build("latecomer").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    // Same destination and metric as the route of a pod that is still to come.
    let next = "10.32.0.1".parse::<std::net::Ipv4Addr>().unwrap();
    let first = host.pod("first").unwrap().ipv4().unwrap();
    assert_ne!(first, next, "the node has the first address");
    let wanted = "10.32.0.3/32";
    host.exec(["ip", "route", "add", wanted, "dev", "eth0", "scope", "link"]).unwrap();
    eventually(Duration::from_secs(20), "the overlap in status", || {
        let reasons = status(host).reasons;
        let told = reasons.iter().any(|reason| reason.contains(wanted) && reason.contains("eth0"));
        Ok(if told { Look::Done(()) } else { Look::Missing(format!("{reasons:?}")) })
    })
    .unwrap();

    assert!(host.pod("second").is_err(), "its address is somebody else's here");
    let route = host.exec(["ip", "route", "show", wanted]).unwrap();
    assert!(route.contains("dev eth0") && !route.contains("dev mw"), "{route}");
    host.exec(["ip", "route", "delete", wanted]).unwrap();
    host.pod("third").unwrap();
    eventually(Duration::from_secs(20), "health", || {
        let status = status(host);
        Ok(if status.healthy { Look::Done(()) } else { Look::Missing(format!("{:?}", status.reasons)) })
    })
    .unwrap();
}

fn status(host: &Host) -> Status {
    host.get("/v1/status").unwrap()
}
