//! Clocks that misbehave: the wall clock jumps, or the whole daemon sleeps. Links, leases and paths do not notice the
//! first; of the second, nothing is left a second after it ends.
//!
//! The wall clock is libfaketime's, which leaves the monotonic one alone; the daemon's log shows that it believes it.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::model::{Connections, Leases, Paths, PeerState, Peers};
use meshwork_lab::{Builder, Host, Lab, Look, Ping, Pod, Running, eventually, figure, took_within};
use meshwork_sys::process::Signal;

const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than a member may be silent before its peers give it up.
const SLEEP: Duration = Duration::from_secs(20);
const BAR: Duration = Duration::from_secs(1);

#[test]
fn a_wall_clock_that_jumps_by_a_year_changes_no_link_lease_or_path() {
    let clock = Clock::new("bljump");
    let lab = clock.of(2, Lab::build("bljump").unwrap().hosts(2)).up().unwrap();
    let (other, node) = (lab.host(1), lab.host(2));
    let pods = [other.pod("one").unwrap(), node.pod("two").unwrap()];
    let before = [Standing::of(other), Standing::of(node)];
    let mut traffic = Traffic::between(&pods, other, 200);

    for days in [400, -400, 0] {
        clock.jump(days);
        shows_in_the_log(node, days);
        before.iter().zip(lab.hosts()).for_each(|(before, host)| before.still_holds(host));
    }
    traffic.loses_nothing();
    before.iter().zip(lab.hosts()).for_each(|(before, host)| before.still_holds(host));
    let next = node.pod("next").unwrap();
    assert_eq!(pods[0].ping(next.ipv4().unwrap()).unwrap().received, 1, "addresses are given as before");
}

#[test]
fn a_daemon_that_slept_under_traffic_is_back_within_a_second_as_the_same_run() {
    let lab = Lab::build("blsleep").unwrap().hosts(2).up().unwrap();
    let (other, node) = (lab.host(1), lab.host(2));
    let pods = [other.pod("one").unwrap(), node.pod("two").unwrap()];
    let (run, held) = (incarnation(node), leases(node));
    let asleep = Instant::now();
    node.pause().unwrap();
    let _traffic = Traffic::between(&pods, other, 2000);
    eventually(SLEEP, "a peer that misses the sleeper", || {
        let peers: Peers = other.get("/v1/peers")?;
        let missed = peers.peers.iter().any(|peer| peer.state != PeerState::Alive);
        Ok(if missed { Look::Done(()) } else { Look::Missing(format!("{peers:?}")) })
    })
    .unwrap();
    thread::sleep(SLEEP.saturating_sub(asleep.elapsed()));

    node.resume().unwrap();
    let awake = Instant::now();
    let answers = |from: &Pod, to: &Pod| Ping::to(to.ipv4().unwrap()).run(from.namespace()).unwrap().received == 1;
    eventually(DEADLINE, "pods that reach each other", || {
        let reached = answers(&pods[0], &pods[1]) && answers(&pods[1], &pods[0]);
        Ok(if reached { Look::Done(()) } else { Look::Missing("an answer".into()) })
    })
    .unwrap();
    let took = awake.elapsed();
    took_within("pods reach each other after a sleep of 20 s", took, BAR);
    assert!(took < BAR, "it took {took:?}");
    lab.wait_until_ready(DEADLINE).unwrap();
    assert_eq!((incarnation(node), leases(node)), (run, held), "the same run with the same leases");
}

/// A wall clock for daemons, in a file that libfaketime reads at every look.
struct Clock {
    file: PathBuf,
    library: String,
}

impl Clock {
    fn new(name: &str) -> Self {
        let file = std::env::temp_dir().join(format!("meshlab-{name}.clock"));
        let shown = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = String::from_utf8(shown.expect("`make setup` installs faketime").stdout).unwrap();
        let clock = Self { file, library: library.trim().to_owned() };
        clock.jump(0);
        clock
    }

    fn of(&self, host: u16, builder: Builder) -> Builder {
        builder
            .environment(host, "LD_PRELOAD", &self.library)
            .environment(host, "FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap())
            .environment(host, "FAKETIME_NO_CACHE", "1")
            .environment(host, "FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// Puts it this many days ahead of the machine's.
    fn jump(&self, days: i32) {
        let whole = self.file.with_extension("new");
        fs::write(&whole, format!("{days:+}d\n")).unwrap();
        fs::rename(whole, &self.file).unwrap();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// The daemon writes something, and dates it as its clock says.
fn shows_in_the_log(host: &Host, days: i32) {
    let date = Command::new("date").args(["-u", "-d", &format!("{days:+} days"), "+%Y-"]).output().unwrap();
    let year = String::from_utf8(date.stdout).unwrap().trim().to_owned();
    let told = |log: &Path| fs::read_to_string(log).unwrap().lines().count();
    let before = told(&host.log());
    host.signal(Signal::Hangup).unwrap();
    eventually(DEADLINE, "a line with the date of the jump", || {
        let log = fs::read_to_string(host.log()).unwrap();
        let new: Vec<&str> = log.lines().skip(before).collect();
        let dated = new.iter().any(|line| line.starts_with(&year) && line.contains("secret"));
        Ok(if dated { Look::Done(()) } else { Look::Missing(format!("{year} in {new:?}")) })
    })
    .unwrap();
}

/// Links, leases and paths of a daemon at one moment.
struct Standing {
    taken: Instant,
    links: Connections,
    leases: Leases,
    paths: Paths,
}

impl Standing {
    fn of(host: &Host) -> Self {
        let [links, paths] = ["/v1/connections", "/v1/paths"];
        let taken = Instant::now();
        Self { taken, links: host.get(links).unwrap(), leases: leases(host), paths: host.get(paths).unwrap() }
    }

    /// The same links have grown older by the time that passed, and nothing else is new.
    fn still_holds(&self, host: &Host) {
        let passed = self.taken.elapsed().as_secs_f64();
        let now = Self::of(host);
        assert_eq!(now.leases, self.leases);
        assert_eq!(now.links.connections.len(), self.links.connections.len(), "{:?}", now.links);
        for (link, before) in now.links.connections.iter().zip(&self.links.connections) {
            assert_eq!((link.peer, link.state, link.direction), (before.peer, before.state, before.direction));
            let aged = link.age_s - before.age_s;
            assert!((aged - passed).abs() < 1.0, "{aged} s older after {passed} s: {link:?}");
        }
        let ends = |paths: &Paths| -> Vec<_> {
            paths.paths.iter().map(|path| (path.peer, path.up, path.kind, path.endpoint)).collect()
        };
        assert_eq!(ends(&now.paths), ends(&self.paths));
    }
}

/// Echo requests from the first pod to the second.
struct Traffic(Running);

impl Traffic {
    fn between(pods: &[Pod; 2], host: &Host, count: u32) -> Self {
        let ping = Ping::to(pods[1].ipv4().unwrap()).count(count).every(Duration::from_millis(10));
        Self(pods[0].namespace().spawn(ping.line(), &host.directory().join("traffic.log")).unwrap())
    }

    fn loses_nothing(&mut self) {
        self.0.wait_for_end(DEADLINE).unwrap();
        let printed = self.0.printed();
        let statistics = printed.lines().find(|line| line.contains(" 0% packet loss")).expect(&printed);
        figure(format_args!("3 jumps of the clock: {statistics}"));
    }
}

fn leases(host: &Host) -> Leases {
    host.get("/v1/pods").unwrap()
}

fn incarnation(host: &Host) -> u64 {
    let peers: Peers = host.get("/v1/peers").unwrap();
    peers.peers.iter().find(|peer| peer.is_self).unwrap().incarnation
}
