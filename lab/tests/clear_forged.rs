//! Tunnel packets that strangers, pods and hosts forge reach nobody, whatever address they are sent to. A forged packet
//! claims to come from a pod of another host; the pod that it is for counts what comes.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::net::IpAddr;
use std::time::Duration;

use meshwork_api::model::PathKind;
use meshwork_lab::{Host, Lab, Look, Namespace, Ping, Pod, eventually, figure, switching};

const DEADLINE: Duration = Duration::from_secs(20);
const OFF: &[&str] = &["--encryption", "off"];

/// Two hosts that talk in clear, a third one that may not, and a pod on each.
struct Scene {
    lab: Lab,
    victim: Pod,
    claimed: Pod,
    neighbour: Pod,
    far: Pod,
}

impl Scene {
    fn set(name: &str) -> Self {
        let lab = Lab::build(name).unwrap().hosts(3).flags(1, OFF).flags(2, OFF).up().unwrap();
        let [victim, claimed, neighbour, far] = [(1, "victim"), (3, "claimed"), (1, "neighbour"), (2, "far")]
            .map(|(host, pod)| lab.host(host).pod(pod).unwrap());
        switching::wait_for(lab.host(1), lab.host(2), &far, PathKind::Vxlan).unwrap();
        switching::wait_for(lab.host(2), lab.host(1), &victim, PathKind::Vxlan).unwrap();
        Self { lab, victim, claimed, neighbour, far }
    }

    /// Sends a packet for the victim in the name of the claimed pod, out of a place to an outer address.
    fn forge(&self, from: &Namespace, outer: impl ToString) {
        self.send(from, outer, &self.claimed, "");
    }

    /// The same, in the name of another pod.
    fn forge_as(&self, from: &Namespace, outer: impl ToString, claimed: &Pod) {
        self.send(from, outer, claimed, "");
    }

    /// The same, with another tunnel packet around it that has the far pod as its source and `own` as its destination.
    fn forge_nested(&self, from: &Namespace, outer: impl ToString, own: &str) {
        self.send(from, outer, &self.claimed, own);
    }

    fn send(&self, from: &Namespace, outer: impl ToString, claimed: &Pod, own: &str) {
        let [claimed, victim, far] = [claimed, &self.victim, &self.far].map(|pod| pod.ipv4().unwrap().to_string());
        let device = self.lab.host(1).exec(["ip", "-o", "link", "show", "meshwork-vx"]).unwrap();
        let mac = device.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
        from.exec(["python3", "-c", FORGE, mac, &claimed, &victim, &outer.to_string(), &far, own]).unwrap();
    }

    /// Nobody listens at the port of what is forged.
    fn came(&self) -> u64 {
        self.victim.namespace().udp_counter("NoPorts").unwrap()
    }

    /// Sent after what must not come and by the same ways, so that this has come when it is answered.
    fn settle(&self) {
        for pod in [&self.neighbour, &self.far, &self.claimed] {
            assert_eq!(Ping::to(self.victim.ipv4().unwrap()).count(3).run(pod.namespace()).unwrap().received, 3);
        }
    }

    fn underlay(&self, host: u16) -> [IpAddr; 2] {
        self.lab.host(host).underlay()
    }
}

#[test]
fn strangers_reach_nobody_by_any_kind_of_address() {
    let scene = Scene::set("forgestranger");
    let (host, fabric) = (scene.lab.host(1), scene.lab.fabric().namespace());
    let before = scene.came();
    let [own4, own6] = scene.underlay(1);
    // The fabric is on the same wire as every host.
    let addresses = host.exec(["ip", "-4", "-brief", "address", "show", "eth0"]).unwrap();
    let broadcast = broadcast(&addresses);
    let wire = wire_towards(fabric, own4);
    let to = [own4.to_string(), own6.to_string(), broadcast, format!("224.0.0.1%{wire}"), format!("ff02::1%{wire}")];
    for outer in &to {
        scene.forge(fabric, outer);
    }
    scene.forge(scene.lab.host(3).namespace(), own4);
    refused_at_least(host, to.len() as u64 + 1);
    scene.settle();
    assert_eq!(scene.came(), before, "no forged packet reached the pod");
    figure(format_args!("{} forged packets of strangers refused and counted, 0 reached a pod", to.len() + 1));
}

#[test]
fn pods_speak_to_nobodys_tunnel() {
    let scene = Scene::set("forgepod");
    let before = scene.came();
    let own = scene.lab.host(1).get::<meshwork_api::model::Status>("/v1/status").unwrap().overlay[0].to_string();
    let local = scene.underlay(1).map(|address| address.to_string());
    let to = [&local[0], &local[1], &own, "255.255.255.255", "224.0.0.1", "ff02::1%eth0"];
    for outer in to {
        scene.forge(scene.neighbour.namespace(), outer);
    }
    refused_at_least(scene.lab.host(1), to.len() as u64);
    // Under the address of its own host, which the victim's host would take packets from.
    scene.forge(scene.far.namespace(), &local[0]);
    scene.forge(scene.far.namespace(), &own);
    refused_at_least(scene.lab.host(2), 1);
    scene.settle();
    assert_eq!(scene.came(), before, "no forged packet reached the pod");
    figure(format_args!("{} forged packets of pods refused and counted, 0 reached a pod", to.len() + 2));
}

#[test]
fn an_allowed_host_reaches_pods_by_one_tunnel_and_speaks_as_none_of_them() {
    let scene = Scene::set("forgehost");
    let [host, ally] = [scene.lab.host(1), scene.lab.host(2)];
    let own = host.get::<meshwork_api::model::Status>("/v1/status").unwrap().overlay[0].to_string();
    host.meshctl(&["expose"]).unwrap();
    let (before, [outer, _]) = (scene.came(), scene.underlay(1));
    scene.forge_nested(ally.namespace(), outer, &own);
    refused_at_least(host, 1);
    scene.forge_as(ally.namespace(), outer, &scene.neighbour);
    refused_at_least(host, 2);
    scene.settle();
    assert_eq!(scene.came(), before, "no forged packet reached the pod");
    figure("2 forged packets of an allowed host refused and counted, 0 reached a pod");
    // The twin: from where clear is allowed, and as nobody of this host.
    scene.forge(ally.namespace(), outer);
    eventually(DEADLINE, "the twin that is allowed", || {
        Ok(if scene.came() > before { Look::Done(()) } else { Look::Missing("a datagram".into()) })
    })
    .unwrap();
}

fn broadcast(addresses: &str) -> String {
    let net: ipnet::Ipv4Net = addresses.split_whitespace().nth(2).unwrap().parse().unwrap();
    net.broadcast().to_string()
}

/// The interface of the fabric behind which an address is.
fn wire_towards(fabric: &Namespace, address: IpAddr) -> String {
    let route = fabric.exec(["ip", "route", "get", &address.to_string()]).unwrap();
    route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap().to_owned()
}

fn refused_at_least(host: &Host, count: u64) {
    eventually(DEADLINE, "the refusal to be counted", || {
        let listed = host.exec(["nft", "list", "counter", "inet", "meshwork", "clear_refused"])?;
        let mut words = listed.split_whitespace().skip_while(|word| *word != "packets");
        let refused: u64 = words.nth(1).and_then(|number| number.parse().ok()).unwrap();
        Ok(if refused >= count { Look::Done(()) } else { Look::Missing(listed) })
    })
    .unwrap();
}

/// Sends one UDP datagram in a VXLAN packet: Ethernet address of the device, inner source and destination, outer
/// destination with or without an interface; and, where there is a last word, around it another packet from and to the
/// two addresses that come last.
const FORGE: &str = "
import socket, struct, sys
mac, source, destination, outer, around, own = sys.argv[1:7]
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
def tunnelled(source, destination, port, payload):
    datagram = struct.pack('!HHHH', 4000, port, 8 + len(payload), 0) + payload
    head = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    head = head[:10] + struct.pack('!H', checksum(head + addresses)) + addresses
    ethernet = bytes.fromhex(mac.replace(':', '')) + b'\\x02\\0\\0\\0\\0\\x77' + b'\\x08\\0'
    return struct.pack('!II', 0x08000000, 6783 << 8) + ethernet + head + datagram
packet = tunnelled(source, destination, 4001, b'forged')
if own:
    packet = tunnelled(around, own, 6784, packet)
address, _, device = outer.partition('%')
family = socket.AF_INET6 if ':' in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
if device:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
try:
    s.sendto(packet, (address, 6784))
except PermissionError:
    pass
";
