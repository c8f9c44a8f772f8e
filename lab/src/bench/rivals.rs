//! Plain pods on the same hosts, joined in three other ways.
//!
//! Each host has one plain pod with an address per way, and a route per way leads out of the host: straight into the fabric,
//! into a VXLAN device, or into wireguard-go's device. So all ways share the pod's link and the fabric.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::bench::Way;
use crate::bench::wireguard::WireGuard;
use crate::error::Result;
use crate::host::Host;
use crate::lab::Lab;
use crate::namespace::Namespace;

/// Link between the plain pod and its host, on either side.
const LINK: &str = "plain";
const VXLAN_DEVICE: &str = "plainvx";
/// The port that VXLAN was assigned, so that hardware and drivers know it.
const VXLAN_PORT: &str = "4789";
const VXLAN_ID: &str = "77";
/// 1,500 less IPv4, UDP, VXLAN and Ethernet headers.
const VXLAN_MTU: &str = "1450";
/// 1,500 less an IPv6, UDP and WireGuard header, as wireguard-go chooses it.
const WIREGUARD_MTU: &str = "1420";

/// What every overlay needs for its pods' way out, and what costs it connection tracking.
const MASQUERADE: &str = "add table ip plain; \
    add chain ip plain out { type nat hook postrouting priority 100; }; \
    add rule ip plain out ip saddr 172.22.0.0/16 ip daddr != 172.22.0.0/16 masquerade fully-random";

/// Plain pods and what joins them.
#[derive(Debug)]
pub(super) struct Rivals {
    pods: [Namespace; 2],
    _wireguard: [WireGuard; 2],
}

impl Rivals {
    pub(super) fn set_up(lab: &Lab, wireguard: &Path) -> Result<Self> {
        let hosts = [lab.host(1), lab.host(2)];
        let pods = [plain_pod(hosts[0])?, plain_pod(hosts[1])?];
        for (host, other) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
            join_by_routing(lab.fabric().namespace(), host)?;
            join_by_vxlan(host, other)?;
        }
        let wireguard =
            [join_by_wireguard(hosts[0], hosts[1], wireguard)?, join_by_wireguard(hosts[1], hosts[0], wireguard)?];
        Ok(Self { pods, _wireguard: wireguard })
    }

    pub(super) fn pods(&self) -> [&Namespace; 2] {
        self.pods.each_ref()
    }

    /// Address of the plain pod on host `number` that is reached by `way`.
    pub(super) fn address(&self, way: Way, number: u16) -> IpAddr {
        pod_address(way, number, 2)
    }
}

fn plain_pod(host: &Host) -> Result<Namespace> {
    let pod = Namespace::create(format!("{}-plain", host.namespace().name()))?;
    let on_host = host.namespace();
    on_host.sysctl("net.ipv4.ip_forward", "1")?;
    ip(on_host, &format!("link add {LINK} type veth peer name {LINK} netns {}", pod.name()))?;
    ip(on_host, &format!("link set {LINK} up"))?;
    ip(&pod, &format!("link set {LINK} up"))?;
    let number = host.number().get();
    let other = 3 - number;
    for (way, mtu) in [(Way::Routing, "1500"), (Way::Vxlan, VXLAN_MTU), (Way::WireguardGo, WIREGUARD_MTU)] {
        let [gateway, own] = [1, 2].map(|end| pod_address(way, number, end));
        ip(on_host, &format!("address add {gateway}/24 dev {LINK}"))?;
        ip(&pod, &format!("address add {own}/24 dev {LINK}"))?;
        ip(&pod, &format!("route add {} via {gateway} src {own} mtu {mtu}", network(way, other)))?;
    }
    Ok(pod)
}

/// The host's default route leads to the fabric already; the fabric has to know the way back.
fn join_by_routing(fabric: &Namespace, host: &Host) -> Result<()> {
    let network = network(Way::Routing, host.number().get());
    ip(fabric, &format!("route add {network} via {}", host.number().address4()))
}

/// One device with a permanent forwarding entry (its `remote`) and a permanent neighbour: nothing is learned or flooded.
fn join_by_vxlan(host: &Host, other: &Host) -> Result<()> {
    let on_host = host.namespace();
    let (own, its) = (host.number(), other.number());
    let between = format!("local {} remote {}", own.address4(), its.address4());
    let mac = |number: u16| format!("02:00:00:00:00:{number:02x}");
    ip(
        on_host,
        &format!(
            "link add {VXLAN_DEVICE} address {} mtu {VXLAN_MTU} type vxlan id {VXLAN_ID} {between} dstport {VXLAN_PORT} \
             nolearning",
            mac(own.get())
        ),
    )?;
    ip(on_host, &format!("link set {VXLAN_DEVICE} up"))?;
    let gateway = pod_address(Way::Vxlan, its.get(), 1);
    ip(on_host, &format!("neighbour add {gateway} lladdr {} dev {VXLAN_DEVICE} nud permanent", mac(its.get())))?;
    let network = network(Way::Vxlan, its.get());
    ip(on_host, &format!("route add {network} via {gateway} dev {VXLAN_DEVICE} onlink"))?;
    on_host.exec(["nft", MASQUERADE]).map(|_| ())
}

fn join_by_wireguard(host: &Host, other: &Host, program: &Path) -> Result<WireGuard> {
    let network = network(Way::WireguardGo, other.number().get());
    let wireguard = WireGuard::start(program, host, other, &network)?;
    ip(host.namespace(), &format!("link set {} mtu {WIREGUARD_MTU} up", wireguard.device()))?;
    ip(host.namespace(), &format!("route add {network} dev {}", wireguard.device()))?;
    Ok(wireguard)
}

fn ip(namespace: &Namespace, words: &str) -> Result<()> {
    namespace.exec(std::iter::once("ip").chain(words.split_whitespace())).map(|_| ())
}

/// `172.2W.H.0/24` belongs to way W on host H: end 1 is the host's, end 2 the pod's.
fn pod_address(way: Way, host: u16, end: u8) -> IpAddr {
    let second = match way {
        Way::Meshwork | Way::Clear | Way::Routing => 21,
        Way::Vxlan => 22,
        Way::WireguardGo => 23,
    };
    let [_, third] = host.to_be_bytes();
    Ipv4Addr::new(172, second, third, end).into()
}

fn network(way: Way, host: u16) -> String {
    format!("{}/24", pod_address(way, host, 0))
}
