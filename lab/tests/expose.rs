//! The host reaches every pod, and others reach the host at its overlay addresses exactly while it is exposed. `curl` and
//! `ping` are the witnesses, in both families; each refusal has a twin that passes.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use meshwork_api::model::{PathKind, Paths, Status};
use meshwork_lab::{Host, Lab, Look, Namespace, Ping, Pod, Running, eventually, figure};

const DEADLINE: Duration = Duration::from_secs(20);
const OFF: &[&str] = &["--encryption", "off"];

#[test]
fn a_host_is_reached_over_sealed_paths_while_it_is_exposed() {
    expose_and_hide(&Lab::build("evexpose").unwrap().hosts(2).up().unwrap());
}

#[test]
fn a_host_is_reached_over_clear_paths_while_it_is_exposed() {
    let lab = Lab::build("evexposeclear").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    eventually(DEADLINE, "clear paths", || {
        let kinds: Result<Vec<_>, _> = lab.hosts().iter().map(|host| host.get::<Paths>("/v1/paths")).collect();
        let clear = kinds?.iter().all(|paths| paths.paths.iter().all(|path| path.kind == PathKind::Vxlan));
        Ok(if clear { Look::Done(()) } else { Look::Missing("VXLAN".to_owned()) })
    })
    .unwrap();
    expose_and_hide(&lab);
}

fn expose_and_hide(lab: &Lab) {
    let [here, there] = [1, 2].map(|number| lab.host(number));
    let pods = [here.pod("local").unwrap(), there.pod("remote").unwrap()];
    let _servers = [here.namespace(), pods[0].namespace(), pods[1].namespace()].map(|place| serve(here, place));
    let own: Vec<IpAddr> = status(here).overlay;
    assert!(own.len() == 2 && !status(here).exposed, "hidden at first");
    let others = [pods[0].namespace(), pods[1].namespace(), there.namespace()];

    host_reaches_pods(here, &pods);
    everybody_is_refused(&others, &own);
    pods_reach_their_host_by_its_underlay(here, &pods[0]);

    let printed = here.meshctl(&["expose"]).unwrap();
    assert_eq!(printed, format!("{} {}\n", own[0], own[1]), "as scripts around `weave expose` read it");
    assert!(status(here).exposed);
    everybody_is_answered(&others, &own);

    here.kill().unwrap();
    here.start().unwrap();
    lab.wait_until_ready(DEADLINE).unwrap();
    assert!(status(here).exposed, "it stays so over a restart");
    everybody_is_answered(&others, &own);

    let hidden = here.meshctl(&["hide", "-o", "json"]).unwrap();
    assert!(hidden.contains("\"exposed\": false") && hidden.contains(&own[0].to_string()), "{hidden}");
    everybody_is_refused(&others, &own);
    host_reaches_pods(here, &pods);

    here.exec(["nft", "delete", "table", "inet", "meshwork"]).unwrap();
    eventually(DEADLINE, "the refusal to be put back", || {
        let refused = own.iter().all(|address| !fetches(others[0], *address, None));
        Ok(if refused { Look::Done(()) } else { Look::Missing("a refusal".to_owned()) })
    })
    .unwrap();
    everybody_is_refused(&others, &own);
    let events = here.meshctl(&["events"]).unwrap();
    assert!(events.contains(" hidden ") && events.contains("hide"), "{events}");
}

/// A web server in both families.
fn serve(host: &Host, place: &Namespace) -> Running {
    let log = host.directory().join(format!("{}.web", place.name()));
    let line = ["python3", "-u", "-m", "http.server", "8080", "--bind", "::"];
    let mut server = place.spawn(line, &log).unwrap();
    server.wait_for("Serving HTTP", DEADLINE).unwrap();
    server
}

/// Whether the server at `to` answers at once; `from` is the source address where it matters.
fn fetches(place: &Namespace, to: IpAddr, from: Option<IpAddr>) -> bool {
    let url = match to {
        IpAddr::V4(to) => format!("http://{to}:8080/"),
        IpAddr::V6(to) => format!("http://[{to}]:8080/"),
    };
    let mut line = ["curl", "-s", "-o", "/dev/null", "--max-time", "5", &url].map(str::to_owned).to_vec();
    if let Some(from) = from {
        line.extend(["--interface".to_owned(), from.to_string()]);
    }
    let code = place.output(&line).unwrap().status.code();
    assert!(matches!(code, Some(0 | 7)), "answered or refused, and never left waiting: {code:?} from {}", place.name());
    code == Some(0)
}

fn pings(place: &Namespace, to: IpAddr) -> bool {
    Ping::to(to).run(place).unwrap().received == 1
}

/// With the node's own address as the source, and with another one of the host, which is masqueraded.
fn host_reaches_pods(host: &Host, pods: &[Pod]) {
    for address in pods.iter().flat_map(Pod::addresses) {
        assert!(pings(host.namespace(), *address) && fetches(host.namespace(), *address, None), "{address}");
        let masqueraded = host.underlay().into_iter().find(|own| own.is_ipv4() == address.is_ipv4());
        assert!(fetches(host.namespace(), *address, masqueraded), "{address} from {masqueraded:?}");
    }
}

fn everybody_is_refused(others: &[&Namespace], own: &[IpAddr]) {
    let (mut slowest, all) = (Duration::ZERO, others.len() * own.len());
    for other in others {
        for address in own {
            let asked = Instant::now();
            assert!(!fetches(other, *address, None), "{} reaches the hidden {address}", other.name());
            slowest = slowest.max(asked.elapsed());
            assert!(pings(other, *address), "a fault can be looked for: {} pings {address}", other.name());
        }
    }
    figure(format_args!(
        "{all} of {all} requests refused, {all} of {all} pings answered, the slowest refusal in {slowest:.2?}"
    ));
}

fn everybody_is_answered(others: &[&Namespace], own: &[IpAddr]) {
    for other in others {
        for address in own {
            assert!(fetches(other, *address, None), "{} does not reach the exposed {address}", other.name());
        }
    }
}

fn pods_reach_their_host_by_its_underlay(host: &Host, pod: &Pod) {
    for address in host.underlay() {
        assert!(fetches(pod.namespace(), address, None), "{address}");
    }
}

fn status(host: &Host) -> Status {
    host.get("/v1/status").unwrap()
}
