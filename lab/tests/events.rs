//! What happens is told, with its reason, to those who ask and to those who watch. Witnesses are `curl` and the lines that
//! it got; what happens is done with `ip`, `nft` and signals.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::Duration;

use meshwork_api::model::Peers;
use meshwork_lab::{Host, Lab, Look, Running, eventually, figure};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);

/// `curl` on a stream, and what it printed so far.
struct Stream {
    curl: Running,
    name: &'static str,
}

impl Stream {
    fn of(host: &Host, name: &'static str) -> Self {
        let (socket, log) = (host.socket(), host.directory().join(format!("{name}.lines")));
        let url = format!("http://meshd/v1/{name}?watch");
        let line = ["curl", "-sN", "--unix-socket", socket.to_str().unwrap(), &url];
        Self { curl: host.namespace().spawn(line, &log).unwrap(), name }
    }

    /// Whole lines alone: the last one may still be on its way.
    fn lines(&self) -> Vec<Value> {
        let printed = self.curl.printed();
        let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for a line behind the first `after` ones; answers it and how many lines there were up to it.
    fn wait_for(&self, after: usize, what: &str, is_it: impl Fn(&Value) -> bool) -> (Value, usize) {
        eventually(DEADLINE, &format!("{what} in {}", self.name), || {
            let lines = self.lines();
            let found = lines.iter().enumerate().skip(after).find(|(_, line)| is_it(line));
            Ok(match found {
                Some((place, line)) => Look::Done((line.clone(), place + 1)),
                None => Look::Missing(format!("{:#?}", lines.get(after..).unwrap_or_default())),
            })
        })
        .unwrap()
    }

    fn kind(&self, after: usize, kind: &str, subject: &str) -> (Value, usize) {
        let what = format!("{kind} of {subject}");
        let (line, place) =
            self.wait_for(after, &what, |line| line["kind"] == kind && line["subject"].to_string().contains(subject));
        assert!(!line["reason"].as_str().unwrap().is_empty(), "it says why: {line}");
        (line, place)
    }
}

#[test]
fn what_happens_to_a_node_is_told_as_it_happens() {
    let lab = Lab::build("evwatch").unwrap().hosts(2).up().unwrap();
    let host = lab.host(1);
    let events = Stream::of(host, "events");
    it_tells_how_the_mesh_came_to_be(host, &events);
    let first = host.pod("first").unwrap();
    let pods = Stream::of(host, "pods");
    pods_come_and_go(host, &events, &pods, first);
    others_change_the_kernel(host, &events);
    the_host_gets_another_address(host, &events);
    secrets_are_read_again(host, &events);
    operators_change_targets_and_seals(host, &events);
    a_peer_goes_and_comes_back(&lab, &events);
    numbers_have_no_gaps_and_people_see_the_same(host, &events);
    watchers_do_not_hold_the_end(host, events);
}

fn it_tells_how_the_mesh_came_to_be(host: &Host, events: &Stream) {
    let peers: Peers = host.get("/v1/peers").unwrap();
    let other = peers.peers[1].id.short();
    let (started, _) = events.kind(0, "started", "h1");
    assert_eq!(started["sequence"], 0, "what is kept comes first");
    for (kind, subject) in [
        ("ring_ready", ""),
        ("member_alive", other.as_str()),
        ("link_up", &other),
        ("path_up", "h2"),
        ("ready", "h1"),
        ("healthy", "h1"),
    ] {
        events.kind(0, kind, subject);
    }
    let (path, _) = events.kind(0, "path_up", "h2");
    assert!(path["path"] == "direct" && path["endpoint"].is_string(), "{path}");
    let (own, _) = events.kind(0, "lease_granted", "h1");
    assert_eq!(own["addresses"].as_array().unwrap().len(), 2, "the node's own: {own}");
}

fn pods_come_and_go(host: &Host, events: &Stream, pods: &Stream, first: meshwork_lab::Pod) {
    let (present, place) = pods.wait_for(0, "the pod that exists", |line| line["change"] == "added");
    assert_eq!(present["lease"]["sandbox"], first.sandbox().id);
    let (_, place) = pods.wait_for(place, "the end of what exists", |line| line["change"] == "synced");

    let second = host.pod("second").unwrap();
    let id = second.sandbox().id.clone();
    let is = |change: &'static str| {
        let id = id.clone();
        move |line: &Value| line["change"] == change && line["lease"]["sandbox"] == id.as_str()
    };
    let (_, place) = pods.wait_for(place, "the second pod", is("added"));
    let routed = |line: &Value| is("changed")(line) && line["lease"]["routed"] == true;
    let (_, place) = pods.wait_for(place, "its route", routed);
    let (granted, after) = events.kind(0, "lease_granted", "second");
    assert_eq!(granted["sandbox"], id.as_str());
    let (_, after) = events.kind(after, "pod_routed", "second");
    second.detach().unwrap();
    pods.wait_for(place, "its end", is("removed"));
    let (_, after) = events.kind(after, "pod_removed", "second");
    events.kind(after, "lease_released", "second");
}

fn others_change_the_kernel(host: &Host, events: &Stream) {
    let after = events.lines().len();
    host.exec(["nft", "delete", "table", "inet", "meshwork"]).unwrap();
    let (repaired, after) = events.kind(after, "kernel_repaired", "inet meshwork");
    assert!(repaired["objects"].is_array(), "{repaired}");
    host.exec(["ip", "route", "delete", "unreachable", "10.32.0.0/12", "metric", "4294967295"]).unwrap();
    events.kind(after, "kernel_repaired", "route to 10.32.0.0/12");
}

fn the_host_gets_another_address(host: &Host, events: &Stream) {
    let after = events.lines().len();
    host.exec(["ip", "address", "add", "198.19.7.7/32", "dev", "eth0"]).unwrap();
    let (changed, _) = events.kind(after, "underlay_changed", "host");
    assert!(changed["addresses"].to_string().contains("198.19.7.7"), "{changed}");
}

fn secrets_are_read_again(host: &Host, events: &Stream) {
    let hang_up = || host.exec(["kill", "-HUP", &host.daemon_id().unwrap().to_string()]).unwrap();
    let after = events.lines().len();
    hang_up();
    let (_, after) = events.kind(after, "secrets_reread", "");
    let secret = std::fs::read(host.secret()).unwrap();
    std::fs::write(host.secret(), "no secret").unwrap();
    hang_up();
    events.kind(after, "secrets_refused", "");
    std::fs::write(host.secret(), secret).unwrap();
}

fn operators_change_targets_and_seals(host: &Host, events: &Stream) {
    let after = events.lines().len();
    // Nobody is there (RFC 5737), and an operator may say so twice.
    for verb in ["connect", "connect", "forget"] {
        host.meshctl(&[verb, "192.0.2.9"]).unwrap();
    }
    let (added, place) = events.kind(after, "target_added", "192.0.2.9:6783");
    assert_eq!(added["target"], "192.0.2.9:6783");
    let (forgotten, _) = events.kind(place, "target_forgotten", "192.0.2.9:6783");
    assert_eq!(forgotten["target"], "192.0.2.9:6783");
    let lines = events.lines();
    assert_eq!(lines[after..].iter().filter(|line| line["kind"] == "target_added").count(), 1, "{lines:#?}");

    host.meshctl(&["seal", "h2"]).unwrap();
    let (_, place) = events.kind(after, "sealed", "h2");
    host.meshctl(&["unseal", "h2"]).unwrap();
    events.kind(place, "unsealed", "h2");
}

fn a_peer_goes_and_comes_back(lab: &Lab, events: &Stream) {
    let after = events.lines().len();
    // Silence is told from the absence of traffic by traffic alone.
    let away = lab.host(2).get::<Peers>("/v1/peers").unwrap().peers[0].overlay[0].to_string();
    let host = lab.host(1);
    let pinging = host.namespace().spawn(["ping", "-i", "0.2", &away], &host.directory().join("ping")).unwrap();
    lab.host(2).stop().unwrap();
    let (down, _) = events.kind(after, "link_down", "h2");
    assert!(down["address"].is_string() && down["direction"].is_string(), "{down}");
    events.kind(after, "member_suspect", "h2");
    events.kind(after, "path_down", "h2");
    events.kind(after, "dial_failed", "");
    events.kind(after, "unhealthy", "h1");
    let dials = |lines: &[Value]| lines.iter().skip(after).filter(|line| line["kind"] == "dial_failed").count();
    let told = dials(&events.lines());
    drop(pinging);
    lab.host(2).start().unwrap();
    events.kind(after, "member_restarted", "h2");
    let (_, back) = events.kind(after, "path_up", "h2");
    events.kind(back.min(after), "healthy", "h1");
    assert!(told <= 8, "once for each target and reason, not for each attempt: {told}");
}

fn numbers_have_no_gaps_and_people_see_the_same(host: &Host, events: &Stream) {
    let lines = events.lines();
    assert!(lines.iter().enumerate().all(|(place, line)| line["sequence"] == place), "{lines:#?}");
    let json = host.meshctl(&["events", "-o", "json"]).unwrap();
    let printed: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(printed.get(..lines.len()), Some(&lines[..]));
    let table = host.meshctl(&["events"]).unwrap();
    assert!(table.starts_with("UP ") && table.contains("member_restarted") && table.contains("h2"), "{table}");
}

fn watchers_do_not_hold_the_end(host: &Host, mut events: Stream) {
    assert!(host.stop().unwrap().success());
    assert!(!std::fs::read_to_string(host.log()).unwrap().contains("left without an answer"));
    assert!(events.curl.wait_for_end(DEADLINE).unwrap().success(), "the stream ended as streams do");
}

#[test]
fn meshctl_follows_events_until_the_daemon_ends() {
    let lab = Lab::build("evfollow").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let mut watching =
        host.namespace().spawn(host.meshctl_line(&["events", "--watch"]), &host.directory().join("watch")).unwrap();
    watching.wait_for("healthy", DEADLINE).unwrap();
    let _pod = host.pod("web").unwrap();
    watching.wait_for("pod_routed", DEADLINE).unwrap();
    host.stop().unwrap();
    assert!(watching.wait_for_end(DEADLINE).unwrap().success());
}

#[test]
fn watchers_are_few_and_their_places_are_free_again() {
    let lab = Lab::build("evslots").unwrap().hosts(1).up().unwrap();
    let host = lab.host(1);
    let printed = host.exec(["python3", "-c", CROWD, host.socket().to_str().unwrap()]).unwrap();
    assert_eq!(printed, "32 watch, then 503, then 200\n");
    figure(printed.trim());
}

/// Opens streams until one is refused, hangs up, and asks until one is accepted again.
const CROWD: &str = "
import socket, sys, time
def watch():
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(10)
    stream.connect(sys.argv[1])
    stream.sendall(b'GET /v1/events?watch HTTP/1.1\\r\\nHost: meshd\\r\\n\\r\\n')
    return stream, stream.recv(12).split()[1].decode()
streams = []
while True:
    stream, status = watch()
    if status != '200':
        break
    streams.append(stream)
count = len(streams)
for stream in streams:
    stream.close()
deadline = time.monotonic() + 10
again = watch()[1]
while again != '200' and time.monotonic() < deadline:
    time.sleep(0.01)
    again = watch()[1]
print(f'{count} watch, then {status}, then {again}')
";
