//! Kernel objects in a namespace of their own, with `ip` and `nft` as witnesses. Needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshwork_router::kernel::desired::Overlay;
use meshwork_router::kernel::driver::KernelDriver;
use meshwork_router::kernel::{TUN_NAME, purge, underlay};
use meshwork_sys::netlink::{Netlink, Veth, firewall_generation};
use meshwork_sys::netns::{self, NetNs};
use meshwork_sys::tun::{Tun, TunOptions};
use meshwork_wire::PeerId;

const POD_LINK: &str = "mw0123456789a";

/// A namespace that goes with the test.
struct Sandbox {
    name: String,
    netns: NetNs,
}

impl Sandbox {
    fn new(test: &str) -> Self {
        let name = format!("mwt-router-{test}-{}", std::process::id());
        let netns = netns::create(&name).expect("a namespace; this test needs root");
        Self { name, netns }
    }

    /// Runs a test's body inside.
    fn run(&self, body: impl FnOnce() + Send) {
        self.netns.run(body).expect("entered");
    }

    fn see(&self, program: &str, arguments: &[&str]) -> String {
        let arguments = ["netns", "exec", self.name.as_str(), program].into_iter().chain(arguments.iter().copied());
        let output = Command::new("ip").args(arguments).output().expect("ip runs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn everything(&self) -> String {
        [
            self.see("ip", &["-o", "link"]),
            self.see("ip", &["-o", "addr", "show", "dev", "lo"]),
            self.see("ip", &["route", "show", "proto", "83"]),
            self.see("ip", &["-6", "route", "show", "proto", "83"]),
            self.see("ip", &["nexthop"]),
            self.see("nft", &["list", "ruleset"]),
        ]
        .concat()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        netns::remove(&self.name).expect("removed");
    }
}

fn overlay() -> Arc<Overlay> {
    let peer_prefixes = ["10.40.0.0/13", "fd4d:6573:6877:2::/112"];
    let pod = vec!["10.32.0.2".parse().expect("an address"), "fd4d:6573:6877:1::2".parse().expect("an address")];
    Arc::new(Overlay {
        range4: "10.32.0.0/12".parse().expect("a prefix"),
        range6: "fd4d:6573:6877::/48".parse().expect("a prefix"),
        own4: "10.32.0.1".parse().ok(),
        own6: "fd4d:6573:6877:1::1".parse().ok(),
        local: BTreeSet::from(["10.32.0.0/13".parse().expect("a prefix")]),
        peers: BTreeMap::from([(
            PeerId([1; 16]),
            peer_prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect(),
        )]),
        pods: BTreeMap::from([(POD_LINK.to_owned(), pod)]),
        unlinked: BTreeSet::from(["10.32.0.7".parse().expect("an address")]),
        unmasqueraded: BTreeSet::from(["10.32.0.2".parse().expect("an address")]),
        exposed: false,
        mtu: 1400,
        clear: None,
    })
}

/// The TUN, a pod's link and the driver with the overlay applied.
fn set_up() -> (Tun, KernelDriver) {
    let mut netlink = Netlink::connect().expect("netlink");
    underlay::prepare(&mut netlink).expect("prepared");
    let tun = Tun::open(TUN_NAME, TunOptions { persistent: true, ..TunOptions::default() }).expect("a TUN");
    underlay::prepare_tun(&mut netlink).expect("prepared");
    netlink.create_veth(&Veth::new(POD_LINK, "pod")).expect("a link");
    let driver = KernelDriver::start(Netlink::connect().expect("netlink")).expect("a thread");
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(driver.route_pod(POD_LINK.to_owned(), overlay()))
        .expect("routed");
    (tun, driver)
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn ip_and_nft_see_what_the_mesh_asked_for() {
    let sandbox = Sandbox::new("asked");
    sandbox.run(|| {
        let (_tun, driver) = set_up();
        let routes = sandbox.see("ip", &["route", "show", "proto", "83"]);
        for route in [
            "10.32.0.0/12 dev meshwork0 scope link src 10.32.0.1",
            "unreachable 10.32.0.0/12 metric 4294967295",
            "unreachable 10.32.0.0/13",
            "10.32.0.2 dev mw0123456789a scope link src 10.32.0.1",
        ] {
            assert!(routes.contains(route), "{route} is missing of:\n{routes}");
        }
        assert!(routes.lines().any(|line| line.starts_with("10.40.0.0/13 nhid")), "{routes}");
        let nexthops = sandbox.see("ip", &["nexthop"]);
        assert_eq!(nexthops.matches("dev meshwork0").count(), 2, "{nexthops}");
        let table = sandbox.see("nft", &["list", "table", "inet", "meshwork"]);
        assert!(table.contains("\"mw0123456789a\" . 10.32.0.2"), "{table}");
        assert!(table.contains("ip saddr @unlinked4 fib saddr . iif oif missing"), "{table}");
        assert!(table.contains("elements = { 10.32.0.7 }"), "{table}");
        assert!(table.contains("ip saddr != @unmasqueraded4"), "{table}");
        let neighbours = sandbox.see("ip", &["neigh", "show", "dev", POD_LINK]);
        assert_eq!(neighbours.matches("PERMANENT").count(), 2, "{neighbours}");
        driver.stop();
    });
}

/// Our own transaction fills the kernel's queue of notices; that is no reason to make another.
#[test]
fn a_node_full_of_pods_leaves_its_firewall_alone() {
    let sandbox = Sandbox::new("full");
    sandbox.run(|| {
        let (_tun, driver) = set_up();
        let mut full = Overlay::clone(&overlay());
        for number in 0..2000u16 {
            let [high, low] = number.to_be_bytes();
            let six = format!("fd4d:6573:6877:1::{number:x}").parse().expect("an address");
            full.pods.insert(format!("mw{number:011x}"), vec![[10, 32, 1 + high, low].into(), six]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(driver.put(Arc::new(full.clone()))).expect("in place");
        full.pods.pop_last();
        runtime.block_on(driver.put(Arc::new(full))).expect("in place");
        let generation = firewall_generation().expect("a generation");
        // The table was touched by nobody else: no look may find otherwise, with or without notices.
        let look = || sandbox.see("nft", &["list", "table", "inet", "meshwork"]);
        let before = look();
        sandbox.see("nft", &["add", "table", "inet", "theirs"]);
        sandbox.see("ip", &["link", "set", "lo", "mtu", "60000"]);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(firewall_generation().expect("a generation"), generation + 1, "theirs alone");
        assert_eq!((look(), driver.health().repairs), (before, 0));
        driver.stop();
    });
}

#[test]
fn pods_that_come_and_go_together_do_not_disturb_each_other() {
    let sandbox = Sandbox::new("crowd");
    sandbox.run(|| {
        let (_tun, driver) = set_up();
        let name = |number: u8| format!("mw{number:011x}");
        let mut crowd = Overlay::clone(&overlay());
        for number in 10..20 {
            Netlink::connect()
                .and_then(|mut netlink| netlink.create_veth(&Veth::new(&name(number), &format!("pod{number}"))))
                .expect("a link");
            crowd.pods.insert(name(number), vec![[10, 32, 1, number].into()]);
        }
        let crowd = Arc::new(crowd);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let come = |number| driver.route_pod(name(number), Arc::clone(&crowd));
            let first: Vec<_> = (10..15).map(come).collect();
            for routed in first {
                routed.await.expect("routed");
            }
            let second: Vec<_> = (15..21).map(come).collect();
            for number in 10..15 {
                driver.remove_link(name(number)).await.expect("removed");
            }
            for (number, routed) in (15..).zip(second) {
                assert_eq!(routed.await.is_ok(), number < 20, "{number}: one link was never made");
            }
        });
        let routes = sandbox.see("ip", &["route", "show", "proto", "83"]);
        let routed = |number: u8| routes.contains(&format!("10.32.1.{number} dev {}", name(number)));
        assert!((15..20).all(routed) && !(10..15).any(routed), "{routes}");
        assert!(driver.health().in_place, "{:?}", driver.health());
        driver.stop();
    });
}

#[test]
fn whatever_is_damaged_stands_again() {
    let sandbox = Sandbox::new("mended");
    sandbox.run(|| {
        let (_tun, driver) = set_up();
        driver.apply(overlay());
        let stands = || sandbox.see("ip", &["nexthop"]) + &rules(&sandbox) + &routes(&sandbox);
        let whole = stands();
        let nexthop = whole.split_whitespace().nth(1).expect("the id of a nexthop object").to_owned();
        let damages: [(&str, &[&str]); 7] = [
            ("ip", &["route", "del", "10.40.0.0/13"]),
            ("ip", &["route", "add", "10.50.0.0/16", "dev", POD_LINK, "proto", "83"]),
            ("ip", &["nexthop", "del", "id", &nexthop]),
            ("ip", &["address", "flush", "dev", TUN_NAME]),
            ("nft", &["flush", "ruleset"]),
            ("nft", &["flush", "table", "inet", "meshwork"]),
            ("nft", &["flush", "chain", "inet", "meshwork", "guard"]),
        ];
        let mut slowest = Duration::ZERO;
        for (program, arguments) in damages {
            let (repairs, damaged) = (driver.health().repairs, Instant::now());
            sandbox.see(program, arguments);
            eventually("the repair to be counted", || driver.health().repairs > repairs);
            eventually("everything to stand again", || stands() == whole);
            slowest = slowest.max(damaged.elapsed());
        }
        let slowest = slowest.as_secs_f64();
        println!(
            "figure: {} kinds of damage put back by the driver alone, the slowest in {slowest:.2} s (bar 1 s)",
            damages.len()
        );
        driver.stop();
    });
}

#[test]
fn a_state_that_stands_is_left_alone_whatever_others_do_beside_it() {
    let sandbox = Sandbox::new("others");
    sandbox.run(|| {
        let (_tun, driver) = set_up();
        let before = firewall_generation().expect("a generation");
        for number in 0..20 {
            sandbox.see("nft", &["add", "table", "inet", &format!("other{number}")]);
            sandbox.see("ip", &["route", "add", &format!("192.0.2.{number}"), "dev", POD_LINK]);
        }
        // The last change is a damage: by the time it is mended, all before it were looked at.
        sandbox.see("nft", &["flush", "chain", "inet", "meshwork", "guard"]);
        eventually("the guard to stand again", || rules(&sandbox).contains("clear_blocked"));
        eventually("the repair to be counted", || driver.health().repairs == 1);
        assert_eq!(firewall_generation().expect("a generation"), before + 22, "twenty, the damage and one repair");
        driver.stop();
    });
}

fn rules(sandbox: &Sandbox) -> String {
    let listed = sandbox.see("nft", &["list", "ruleset"]);
    // Counts go on while others look.
    listed.lines().filter(|line| !line.trim_start().starts_with("packets")).collect::<Vec<_>>().join("\n")
}

fn routes(sandbox: &Sandbox) -> String {
    let all = [&["-4", "route", "show", "table", "all"][..], &["-6", "route", "show", "table", "all"]];
    all.map(|arguments| sandbox.see("ip", arguments)).concat()
}

#[test]
fn purge_leaves_nothing_of_ours_and_everything_of_others() {
    let sandbox = Sandbox::new("purge");
    sandbox.run(|| {
        sandbox.see("ip", &["link", "add", "other0", "type", "veth", "peer", "name", "other1"]);
        sandbox.see("ip", &["link", "set", "other0", "up"]);
        sandbox.see("ip", &["route", "add", "192.0.2.0/24", "dev", "other0"]);
        sandbox.see("nft", &["add table inet other"]);
        let before = sandbox.everything();
        let (tun, driver) = set_up();
        assert!(sandbox.everything().contains(TUN_NAME), "there is something to purge");
        driver.stop();
        drop(tun);
        purge::purge(&mut Netlink::connect().expect("netlink")).expect("purged");
        assert_eq!(sandbox.everything(), before);
        assert!(sandbox.see("ip", &["route"]).contains("192.0.2.0/24"));
        purge::purge(&mut Netlink::connect().expect("netlink")).expect("a second time, with nothing to do");
    });
}
