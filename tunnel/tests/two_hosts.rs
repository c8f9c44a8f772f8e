//! Two tunnels in two network namespaces, joined by a veth, looked at with foreign tools. Needs root.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use meshwork_identity::{Identity, Secret, Secrets};
use meshwork_sys::netns::{self, NetNs};
use meshwork_sys::tun::{Tun, TunOptions};
use meshwork_sys::udp::UdpSocket;
use meshwork_tunnel::{ControlSink, Desired, PathState, Tunnel, TunnelConfig, TunnelPeer};
use meshwork_wire::Incarnation;

const MARK: &str = "MESHWORK-CLEAR-TEXT-MARK";

struct Silent;

impl ControlSink for Silent {
    fn datagram(&mut self, _bytes: &[u8], _from: SocketAddr, _to: Option<IpAddr>) {}
}

fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Two namespaces, removed when this is dropped, whatever happened.
struct Hosts {
    names: [String; 2],
    folder: PathBuf,
    children: Vec<Child>,
}

impl Hosts {
    fn new(test: &str) -> Self {
        let names = ["a", "b"].map(|side| format!("mwt-tunnel-{test}-{side}"));
        let folder = std::env::temp_dir().join(format!("mwt-tunnel-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let hosts = Self { names, folder, children: Vec::new() };
        for name in &hosts.names {
            netns::remove(name).unwrap();
            netns::create(name).unwrap();
        }
        let [a, b] = &hosts.names;
        run(&format!("ip link add under netns {a} type veth peer name under netns {b}"));
        for (number, name) in hosts.names.iter().enumerate() {
            let number = number + 1;
            run(&format!("ip -n {name} addr add 10.99.0.{number}/24 dev under"));
            run(&format!("ip -n {name} addr add fd99::{number}/64 dev under nodad"));
            run(&format!("ip -n {name} link set under up"));
        }
        hosts
    }

    fn start(&self, side: usize, listen: &str, peer_endpoint: &str, secret: u8) -> Tunnel {
        let namespace = NetNs::open(netns::path(&self.names[side])).unwrap();
        let listen: SocketAddr = listen.parse().unwrap();
        let (tun, socket) = namespace
            .run(|| (Tun::open("mwt-tun", TunOptions::default()).unwrap(), UdpSocket::bind(listen).unwrap()))
            .unwrap();
        let (name, number) = (&self.names[side], side + 1);
        run(&format!("ip -n {name} link set mwt-tun mtu 1400 gso_max_size 61000 gso_max_segs 44 up"));
        run(&format!("ip -n {name} addr add 10.40.0.{number}/24 dev mwt-tun"));
        run(&format!("ip -n {name} addr add fd40::{number}/64 dev mwt-tun nodad"));
        let identity = |side: usize| Identity::from_seed([side as u8 + 1; 32]);
        let config = TunnelConfig {
            identity: Arc::new(identity(side)),
            secrets: Secrets::new(vec![Secret::generate([secret; 32])]).unwrap(),
            incarnation: Incarnation(1),
            prefers_aes: true,
            inner_mtu: 1400,
        };
        let tunnel = Tunnel::start(config, tun, Arc::new(socket), Box::new(Silent)).unwrap();
        let owned = |side: usize| {
            ["10.40.0.", "fd40::"]
                .map(|start| format!("{start}{}", side + 1).parse::<IpAddr>().unwrap().into())
                .to_vec()
        };
        let other = identity(1 - side);
        let peer = TunnelPeer {
            id: other.peer_id(),
            noise_key: other.noise_public(),
            prefers_aes: true,
            incarnation: Incarnation(1),
            endpoints: vec![peer_endpoint.parse().unwrap()],
            prefixes: owned(1 - side),
            eager: false,
        };
        tunnel.configure(Desired { local: owned(side), peers: vec![peer] });
        tunnel
    }

    fn inside(&self, side: usize, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.names[side]))
    }

    fn spawn(&mut self, side: usize, command: &str) {
        let mut words = command.split(' ');
        let child = Command::new("ip")
            .args(["netns", "exec", &self.names[side]])
            .args(words.by_ref())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    /// Sends the mark to `address` until a capture on the underlay at `file` shows a packet to port 4444 or the
    /// tunnel's port.
    fn capture_mark(&mut self, file: &Path, address: &str, filter: &str) -> bool {
        let file_name = file.display();
        self.spawn(0, &format!("tcpdump -i under -U -w {file_name} {filter}"));
        wait_until("the capture runs", || fs::metadata(file).is_ok_and(|file| file.len() >= 24));
        let send = format!("sh -c 'echo {MARK} | socat -u - UDP:{address}:4444'");
        wait_until("a packet was captured", || {
            self.inside(0, &send);
            fs::metadata(file).unwrap().len() > 24
        });
        let bytes = fs::read(file).unwrap();
        bytes.windows(MARK.len()).any(|window| window == MARK.as_bytes())
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for child in &mut self.children {
            // The child is `ip netns exec`, which has become the program itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        for name in &self.names {
            let _ = netns::remove(name);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn exchange(test: &str, listen: [&str; 2], endpoints: [&str; 2]) {
    let mut hosts = Hosts::new(test);
    let tunnels = [0, 1].map(|side| hosts.start(side, listen[side], endpoints[side], 7));
    for address in ["10.40.0.2", "fd40::2"] {
        hosts.inside(0, &format!("ping -c 3 -i 0.2 -W 2 {address}"));
        hosts.inside(0, &format!("ping -c 2 -i 0.2 -W 2 -s 1352 {address}"));
    }
    hosts.spawn(1, "iperf3 -s");
    wait_until("iperf3 listens", || hosts.inside(1, "ss -Htln sport = 5201").contains("5201"));
    for address in ["10.40.0.2", "fd40::2"] {
        let report = hosts.inside(0, &format!("iperf3 -c {address} -t 2 -f m"));
        let received = report.lines().find(|line| line.ends_with("receiver")).unwrap().to_owned();
        println!("{test} {address}: {received}");
        let rate: Vec<&str> = received.split_whitespace().collect();
        let megabits: f64 = rate[rate.iter().position(|word| *word == "Mbits/sec").unwrap() - 1].parse().unwrap();
        assert!(megabits > 100.0, "{received}");
        hosts.inside(0, &format!("iperf3 -c {address} -t 1 -u -b 50M -l 100"));
    }
    let (sealed, clear) = (hosts.folder.join("sealed"), hosts.folder.join("clear"));
    assert!(!hosts.capture_mark(&sealed, "10.40.0.2", "udp port 6783"), "the underlay shows clear text");
    assert!(hosts.capture_mark(&clear, "10.99.0.2", "udp port 4444"), "the capture would show clear text");
    for tunnel in &tunnels {
        let path = &tunnel.paths()[0];
        assert_eq!(path.state, PathState::Established, "{path:?}");
        assert!(path.sent_packets > 0 && path.received_packets > 0, "{path:?}");
        let drops = tunnel.drops();
        for reason in ["bad_secret", "forged", "replay", "wrong_source", "wrong_destination"] {
            assert_eq!(drops[reason], 0, "{drops:?}");
        }
    }
    tunnels.into_iter().for_each(Tunnel::stop);
}

#[test]
fn pods_talk_over_an_ipv4_underlay_and_nothing_is_clear() {
    exchange("v4", ["0.0.0.0:6783"; 2], ["10.99.0.2:6783", "10.99.0.1:6783"]);
}

#[test]
fn pods_talk_over_an_ipv6_underlay_and_nothing_is_clear() {
    exchange("v6", ["[::]:6783"; 2], ["[fd99::2]:6783", "[fd99::1]:6783"]);
}

#[test]
fn a_node_with_another_secret_moves_no_packet() {
    let hosts = Hosts::new("secret");
    let first = hosts.start(0, "[::]:6783", "10.99.0.2:6783", 7);
    let second = hosts.start(1, "[::]:6783", "10.99.0.1:6783", 8);
    let ping = format!("ip netns exec {} ping -c 3 -i 0.2 -W 1 10.40.0.2", hosts.names[0]);
    assert!(!Command::new("sh").args(["-c", &ping]).output().unwrap().status.success());
    assert!(second.drops()["bad_secret"] > 0, "{:?}", second.drops());
    assert_eq!(first.paths()[0].state, PathState::Handshaking);
}

#[test]
fn a_deleted_device_is_a_failure_that_is_told() {
    let hosts = Hosts::new("deleted");
    let tunnel = hosts.start(0, "[::]:6783", "10.99.0.2:6783", 7);
    assert_eq!(tunnel.failure(), None);
    run(&format!("ip -n {} link del mwt-tun", hosts.names[0]));
    wait_until("the failure is known", || tunnel.failure().is_some());
    tunnel.stop();
}

#[test]
fn strangers_take_no_place_in_the_queue_of_handshakes() {
    const FLOOD: u64 = 5000;
    let hosts = Hosts::new("flood");
    let tunnel = hosts.start(0, "[::]:6783", "10.99.0.2:6783", 7);
    let stranger = NetNs::open(netns::path(&hosts.names[1])).unwrap();
    let stranger = stranger.run(|| std::net::UdpSocket::bind("10.99.0.2:0").unwrap()).unwrap();
    // The right length and beginning, the hint of our secret, and no MAC of it.
    let mut message = [0; 160];
    message[..4].copy_from_slice(&[1, 1, 1, 0]);
    message[8..12].copy_from_slice(&Secret::generate([7; 32]).key_id());
    let refused = |reason| tunnel.drops()[reason];
    for sent in 1..=FLOOD {
        stranger.send_to(&message, "10.99.0.1:6783").unwrap();
        if sent % 500 == 0 {
            wait_until("the strangers are refused", || refused("forged") + refused("queue_full") >= sent);
        }
    }
    assert_eq!((refused("forged"), refused("queue_full")), (FLOOD, 0));
}
