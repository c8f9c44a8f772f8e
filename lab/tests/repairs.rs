//! What others break on a host is put back within a second, and what is theirs stays. `ip`, `nft`, `bridge` and `ping` are
//! the witnesses; each repair is measured from the start of the program that breaks something.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::time::{Duration, Instant};

use meshwork_api::model::{PathKind, Status};
use meshwork_lab::{Host, Lab, Look, Ping, Pod, eventually, switching, took_within};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);
const BAR: Duration = Duration::from_secs(1);
const OFF: &[&str] = &["--encryption", "off"];

/// Looks at a part of what stands.
type Witness = fn(&Host) -> String;

#[test]
fn what_others_break_is_put_back_within_a_second_and_theirs_is_left() {
    let lab = Lab::build("repairs").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("own").unwrap(), lab.host(2).pod("other").unwrap()];
    switching::wait_for(host, lab.host(2), &pods[1], PathKind::Vxlan).unwrap();
    switching::wait_for(lab.host(2), host, &pods[0], PathKind::Vxlan).unwrap();

    // It takes the rules of others along, so they come later.
    put_back(host, "flushed firewall", "nft flush ruleset", rules, "table inet meshwork");
    let theirs = make_foreign_objects(host);
    firewall_rules_are_put_back(host, &pods[0]);
    routes_are_put_back(host, &pods);
    devices_are_put_back(host, &pods);
    what_pods_need_is_put_back(host, &pods);
    assert_eq!(foreign_objects(host), theirs);
    lab.wait_until_ready(DEADLINE).unwrap();
}

#[test]
fn another_name_and_mtu_of_the_underlay_are_told_and_followed_within_a_second() {
    let lab = Lab::build("repairlink").unwrap().hosts(2).flags(1, OFF).flags(2, OFF).up().unwrap();
    let host = lab.host(1);
    let pods = [host.pod("own").unwrap(), lab.host(2).pod("other").unwrap()];
    let theirs = make_foreign_objects(host);
    another_name_of_the_underlay_is_told(host, &pods);
    another_mtu_of_the_underlay_is_followed(host);
    assert_eq!(foreign_objects(host), theirs);
    lab.wait_until_ready(DEADLINE).unwrap();
}

fn firewall_rules_are_put_back(host: &Host, pod: &Pod) {
    let listed = host.exec(["nft", "-a", "list", "chain", "inet", "meshwork", "guard"]).unwrap();
    let rule = listed.lines().rfind(|line| line.contains("drop # handle")).unwrap();
    let handle = rule.rsplit(' ').next().unwrap();
    let delete = format!("nft delete rule inet meshwork guard handle {handle}");
    put_back(host, "deleted firewall rule", &delete, rules, "table inet meshwork");

    let (address, link) = (pod.ipv4().unwrap(), link_of(host, pod));
    let delete = format!("nft delete element inet meshwork pods4 {{ \"{link}\" . {address} }}");
    put_back(host, "deleted source of a pod", &delete, rules, "table inet meshwork");
}

fn routes_are_put_back(host: &Host, pods: &[Pod; 2]) {
    let listed = routes(host);
    let to_peer = listed.lines().find(|route| route.contains(" nhid ")).unwrap();
    let prefix = to_peer.split(' ').next().unwrap();
    put_back(host, "deleted route to a peer", &format!("ip route delete {prefix}"), routes, "route to");

    let pod = pods[0].ipv4().unwrap();
    put_back(host, "deleted route to a pod", &format!("ip route delete {pod}"), routes, &format!("route to {pod}"));

    let nexthops = nexthops(host);
    let nexthop = nexthops.lines().find(|nexthop| nexthop.contains("dev meshwork-vx")).unwrap();
    let id = nexthop.split(' ').nth(1).unwrap();
    put_back(host, "deleted nexthop", &format!("ip nexthop delete id {id}"), self::nexthops, &format!("nexthop {id}"));
    assert!(reaches(pods));
}

fn devices_are_put_back(host: &Host, pods: &[Pod; 2]) {
    let own = host.get::<Status>("/v1/status").unwrap().overlay[0];
    let delete = format!("ip address delete {own}/32 dev meshwork0");
    put_back(host, "deleted address of meshwork0", &delete, addresses, &format!("address {own}"));
    put_back(host, "wrong MTU of meshwork0", "ip link set meshwork0 mtu 1300", devices, "MTU of meshwork0");
    put_back(host, "wrong MTU of meshwork-vx", "ip link set meshwork-vx mtu 1300", devices, "MTU of meshwork-vx");
    put_back(host, "downed meshwork-vx", "ip link set meshwork-vx down", devices, "link meshwork-vx");
    put_back(host, "deleted meshwork-vx", "ip link delete meshwork-vx", everything, "link meshwork-vx");
    assert!(reaches(pods), "over the new device");

    let broken = Instant::now();
    run(host, "ip link delete meshwork-vx");
    eventually(DEADLINE, "pods that reach each other", || {
        Ok(if reaches(pods) { Look::Done(()) } else { Look::Missing("an answer".into()) })
    })
    .unwrap();
    took_within("deleted meshwork-vx, pods reach each other again", broken.elapsed(), BAR);
}

fn what_pods_need_is_put_back(host: &Host, pods: &[Pod; 2]) {
    let (link, address) = (link_of(host, &pods[0]), pods[0].ipv4().unwrap());
    let downed = format!("ip link set {link} down");
    put_back(host, "downed link of a pod", &downed, everything, &format!("link {link}"));
    let forgotten = format!("ip neighbour delete {address} dev {link}");
    put_back(host, "neighbour that is a pod", &forgotten, everything, &format!("neighbour {address}"));
    let gateway = format!("ip address delete fe80::1/64 dev {link}");
    put_back(host, "pod's IPv6 gateway", &gateway, everything, &format!("gateway on {link}"));
    put_back(host, "pods' IPv4 gateway", "ip address delete 169.254.1.1/32 dev lo", everything, "address 169.254.1.1");
    put_back(host, "forwarding", "sysctl -qw net.ipv4.ip_forward=0", settings, "settings of this host");
    let filter = |name: &str| format!("sysctl -qw net.ipv4.conf.{name}.rp_filter=1");
    for device in ["meshwork0", "meshwork-vx", &link] {
        put_back(host, &format!("settings of {device}"), &filter(device), settings, &format!("settings of {device}"));
    }
    assert!(reaches(pods));
}

/// A route of somebody else's across the overlay is told with the interface that it has, so the new name is told, too.
fn another_name_of_the_underlay_is_told(host: &Host, pods: &[Pod; 2]) {
    const ACROSS: &str = "10.47.255.254/32";
    run(host, &format!("ip route add {ACROSS} dev eth0 scope link"));
    let told = |name: &str| {
        eventually(DEADLINE, &format!("{name} in status"), || {
            let reasons = host.get::<Status>("/v1/status")?.reasons;
            let told = reasons.iter().any(|reason| reason.contains(ACROSS) && reason.contains(name));
            Ok(if told { Look::Done(()) } else { Look::Missing(format!("{reasons:?}")) })
        })
        .unwrap();
    };
    told("eth0");
    for (from, to) in [("eth0", "uplink0"), ("uplink0", "eth0")] {
        let renamed = Instant::now();
        run(host, &format!("ip link set {from} name {to}"));
        told(to);
        took_within(&format!("underlay renamed to {to}, told"), renamed.elapsed(), BAR);
        assert!(reaches(pods), "under its new name");
    }
    run(host, &format!("ip route delete {ACROSS}"));
}

fn another_mtu_of_the_underlay_is_followed(host: &Host) {
    for (underlay, overlay) in [(1450, 1350), (1500, 1400)] {
        let changed = Instant::now();
        run(host, &format!("ip link set eth0 mtu {underlay}"));
        eventually(DEADLINE, "devices of the new MTU", || {
            let devices = devices(host);
            // A living pod keeps the MTU that it was given.
            let mut shared = devices.lines().filter(|device| device.starts_with("meshwork"));
            let follow = shared.all(|device| device.contains(&format!(" mtu {overlay} ")));
            let told = host.get::<Status>("/v1/status")?.mtu == overlay;
            Ok(if follow && told { Look::Done(()) } else { Look::Missing(devices) })
        })
        .unwrap();
        took_within(&format!("underlay's MTU {underlay}, overlay follows"), changed.elapsed(), BAR);
    }
}

/// Damages the host by a command and measures how long it takes until `witness` sees what it saw before. Then everything
/// else is as before, too, and the daemon says that it put `object` back.
fn put_back(host: &Host, what: &str, damage: &str, witness: Witness, object: &str) {
    let (part, whole, told) = (witness(host), everything(host), repairs(host).len());
    let broken = Instant::now();
    run(host, damage);
    stands_again(host, witness, &part);
    took_within(&format!("{what} put back"), broken.elapsed(), BAR);
    stands_again(host, everything, &whole);
    eventually(DEADLINE, &format!("a word on the {what}"), || {
        let repairs = repairs(host).split_off(told);
        let named = repairs.iter().any(|objects| objects.contains(object));
        Ok(if named { Look::Done(()) } else { Look::Missing(format!("{object} in {repairs:?}")) })
    })
    .unwrap();
}

fn stands_again(host: &Host, witness: Witness, before: &str) {
    eventually(DEADLINE, "everything to stand as before", || {
        let now = witness(host);
        Ok(if now == before { Look::Done(()) } else { Look::Missing(format!("{before}instead of\n{now}")) })
    })
    .unwrap();
}

/// Objects of each repair that the daemon tells of.
fn repairs(host: &Host) -> Vec<String> {
    let printed = host.meshctl(&["events", "-o", "json"]).unwrap();
    let events = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["kind"] == "kernel_repaired").map(|event| event["objects"].to_string()).collect()
}

fn everything(host: &Host) -> String {
    let ways = ["bridge fdb show dev meshwork-vx", "ip neighbour show dev meshwork-vx nud permanent"];
    let ways = ways.map(|line| sorted(&see(host, line))).concat();
    let pods = sorted(&see(host, "ip neighbour show nud permanent"));
    [rules(host), routes(host), nexthops(host), addresses(host), devices(host), settings(host), ways, pods].concat()
}

/// Without those of the underlay, which are the host's own.
fn settings(host: &Host) -> String {
    let all = see(
        host,
        "sysctl -a -r ^net.ipv[46].(ip_forward|conf.(all|lo|mw.*|meshwork.*).(forwarding|rp_filter|accept_ra))$",
    );
    sorted(&all)
}

/// Counts go on while others look.
fn rules(host: &Host) -> String {
    let listed = see(host, "nft list table inet meshwork");
    listed.lines().filter(|line| !line.trim_start().starts_with("packets")).flat_map(|line| [line, "\n"]).collect()
}

fn routes(host: &Host) -> String {
    ["-4", "-6"].map(|family| see(host, &format!("ip {family} route show table all proto 83"))).concat()
}

fn nexthops(host: &Host) -> String {
    see(host, "ip nexthop show proto 83")
}

fn addresses(host: &Host) -> String {
    let all = see(host, "ip -brief address");
    sorted(&all.lines().filter(|line| !line.starts_with("eth0")).flat_map(|line| [line, "\n"]).collect::<String>())
}

/// Without the indices: a device that was made anew has another.
fn devices(host: &Host) -> String {
    let links = see(host, "ip -o link show");
    let ours = links
        .lines()
        .filter_map(|link| link.split_once(": "))
        .filter(|(_, link)| ["meshwork", "mw"].iter().any(|ours| link.starts_with(ours)));
    sorted(&ours.flat_map(|(_, link)| [link, "\n"]).collect::<String>())
}

fn sorted(listed: &str) -> String {
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn make_foreign_objects(host: &Host) -> String {
    for line in [
        "nft add table inet foreign",
        "nft add chain inet foreign door { type filter hook input priority 0; }",
        "nft add rule inet foreign door tcp dport 4711 drop",
        "ip link add foreign0 type veth peer name foreign1",
        "ip link set foreign0 up",
        "ip link set foreign1 up",
        "ip route add 192.0.2.0/24 dev foreign0",
        "ip rule add from 192.0.2.0/24 lookup 77 priority 77",
        "ip nexthop add id 7 dev foreign0",
    ] {
        run(host, line);
    }
    foreign_objects(host)
}

fn foreign_objects(host: &Host) -> String {
    let lines = [
        "nft list table inet foreign",
        "ip -o link show foreign0",
        "ip route show 192.0.2.0/24",
        "ip rule show",
        "ip nexthop show id 7",
    ];
    lines.map(|line| run(host, line)).concat()
}

/// The host end of a pod's link.
fn link_of(host: &Host, pod: &Pod) -> String {
    let route = run(host, &format!("ip route show {}", pod.ipv4().unwrap()));
    route.split_whitespace().find(|word| word.starts_with("mw")).unwrap().to_owned()
}

fn reaches(pods: &[Pod; 2]) -> bool {
    let both = |from: &Pod, to: &Pod| {
        let answers = to.addresses().iter().map(|&to| Ping::to(to).run(from.namespace()).unwrap().received);
        answers.sum::<u32>() == 2
    };
    both(&pods[0], &pods[1]) && both(&pods[1], &pods[0])
}

fn run(host: &Host, line: &str) -> String {
    host.exec(line.split(' ')).unwrap()
}

/// What a command prints; nothing where it fails, as for an object that is not there.
fn see(host: &Host, line: &str) -> String {
    let output = host.namespace().output(line.split(' ')).unwrap();
    String::from_utf8(output.stdout).unwrap()
}
