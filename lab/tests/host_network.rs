//! What the host had before stays the host's. The witness is `ip`.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::{Duration, Instant};

use meshwork_api::model::{Ipam, Status};
use meshwork_lab::{Host, Lab, Look, eventually, took};

#[test]
fn a_route_that_comes_into_the_range_later_is_reported_and_never_replaced() {
    let lab = Lab::build("latecomer").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    // Same destination and metric as the route of a pod that is still to come.
    let next = "10.32.0.1".parse::<std::net::Ipv4Addr>().unwrap();
    let first = host.pod("first").unwrap().ipv4().unwrap();
    assert_ne!(first, next, "the node has the first address");
    let wanted = "10.32.0.3/32";
    let added = Instant::now();
    host.exec(["ip", "route", "add", wanted, "dev", "eth0", "scope", "link"]).unwrap();
    eventually(Duration::from_secs(20), "the overlap in status", || {
        let reasons = status(host).reasons;
        let told = reasons.iter().any(|reason| reason.contains(wanted) && reason.contains("eth0"));
        Ok(if told { Look::Done(()) } else { Look::Missing(format!("{reasons:?}")) })
    })
    .unwrap();

    took("route of others in the range named in status", added.elapsed());
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

#[test]
fn a_route_in_the_place_of_a_peers_keeps_nothing_else_away() {
    let lab = Lab::build("taken").unwrap().hosts(3).up().unwrap();
    let host = lab.host(1);
    let pods = [2, 3].map(|number| lab.host(number).pod("pod").unwrap());
    let own = lab.host(2).get::<Ipam>("/v1/ipam").unwrap().peers[0].parts[0].to_string();
    host.exec(["ip", "route", "replace", &own, "dev", "eth0", "scope", "link"]).unwrap();
    eventually(Duration::from_secs(20), "the refusal in status", || {
        let Status { reasons, ready, .. } = status(host);
        let told = ready && reasons.iter().any(|reason| reason.starts_with("kernel:") && reason.contains(&own));
        Ok(if told { Look::Done(()) } else { Look::Missing(format!("{reasons:?}")) })
    })
    .unwrap();

    let other = lab.host(3).get::<Ipam>("/v1/ipam").unwrap().peers[0].parts[0].to_string();
    assert!(host.exec(["ip", "route", "show", &other]).unwrap().contains(" nhid "), "the other peer's route stands");
    let new = host.pod("new").unwrap();
    assert_eq!(new.ping(pods[1].ipv4().unwrap()).unwrap().received, 1, "and is used");
    assert_eq!(new.ping(pods[0].ipv6().unwrap()).unwrap().received, 1, "and so does that of the other family");
    let gone = Instant::now();
    host.exec(["ip", "route", "delete", &own, "dev", "eth0"]).unwrap();
    eventually(Duration::from_secs(20), "our route in its place", || {
        let (route, Status { healthy, reasons, .. }) = (host.exec(["ip", "route", "show", &own])?, status(host));
        let back = route.contains(" nhid ") && healthy;
        Ok(if back { Look::Done(()) } else { Look::Missing(format!("{route}{reasons:?}")) })
    })
    .unwrap();
    took("route of others gone, ours back in its place", gone.elapsed());
    assert_eq!(new.ping(pods[0].ipv4().unwrap()).unwrap().received, 1);
}

#[test]
fn a_node_with_a_range_across_that_of_others_stays_out_and_says_what_to_change() {
    const NARROWER: &str = "10.32.0.0/16,fd4d:6573:6877::/48";
    let lab = Lab::build("otherrange").unwrap().hosts(3).without_daemons().unwrap();
    for host in [1, 3].map(|number| lab.host(number)) {
        host.start().unwrap();
        eventually(Duration::from_secs(20), &format!("{} to be ready", host.number()), || {
            let ready = host.get::<Status>("/v1/status").is_ok_and(|status| status.ready);
            Ok(if ready { Look::Done(()) } else { Look::Missing(host.log_tail()) })
        })
        .unwrap();
    }
    let odd = lab.host(2);
    let started = Instant::now();
    odd.start_with(&["--ipam-range", NARROWER]).unwrap();
    let tells = |host: &Host, words: [&str; 3]| {
        eventually(Duration::from_secs(20), &format!("the other range in status of {}", host.number()), || {
            let Ok(Status { reasons, healthy, .. }) = host.get("/v1/status") else {
                return Ok(Look::Missing(host.log_tail()));
            };
            let told = reasons.iter().any(|reason| words.iter().all(|word| reason.contains(word)));
            Ok(if told && !healthy { Look::Done(()) } else { Look::Missing(format!("{reasons:?}")) })
        })
        .unwrap();
    };
    tells(odd, ["10.32.0.0/16", "10.32.0.0/12", "--ipam-range"]);
    tells(lab.host(1), ["10.32.0.0/16", "10.32.0.0/12", "--ipam-range"]);
    took("both sides named the other range, 0 addresses of the ring taken,", started.elapsed());
    assert_eq!(odd.get::<Ipam>("/v1/ipam").unwrap().summary.owned, 0);

    odd.kill().unwrap();
    odd.start().unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
    odd.pod("pod").unwrap();
}

#[test]
fn another_mtu_and_another_name_of_the_underlay_are_followed() {
    let lab = Lab::build("otherlink").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("old").unwrap(), lab.host(2).pod("other").unwrap()];
    host.exec(["ip", "link", "set", "eth0", "name", "uplink0"]).unwrap();
    host.exec(["ip", "link", "set", "uplink0", "mtu", "1450"]).unwrap();
    eventually(Duration::from_secs(20), "devices of the new MTU", || {
        let device = host.exec(["ip", "-o", "link", "show", "meshwork0"])?;
        let told = status(host).mtu;
        Ok(if told == 1350 && device.contains("mtu 1350") { Look::Done(()) } else { Look::Missing(device) })
    })
    .unwrap();

    let new = host.pod("new").unwrap();
    assert!(new.exec(["ip", "-o", "link", "show", "eth0"]).unwrap().contains("mtu 1350"));
    let to = pods[1].ipv4().unwrap().to_string();
    // 28 bytes of headers: 1,400 fit no more, and the kernel says so; 1,350 do.
    let whole = |size: &str| pods[0].exec(["ping", "-c", "3", "-W", "2", "-M", "do", "-s", size, to.as_str()]);
    let refused = whole("1372").unwrap_err().to_string();
    assert!(refused.contains("mtu = 1350") || refused.contains("mtu=1350"), "{refused}");
    whole("1322").unwrap();
    lab.wait_until_ready(Duration::from_secs(20)).unwrap();
}

fn status(host: &Host) -> Status {
    host.get("/v1/status").unwrap()
}
