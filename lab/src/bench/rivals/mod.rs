//! Plain pods on the same hosts, joined in other ways.
//!
//! Each host has one plain pod with addresses per way, and routes per way lead out of the host: straight into the fabric,
//! into a VXLAN device, or into a rival's device. So all ways share the pod's link and the fabric. A rival that cannot be had
//! or does not work is noted with the reason, and the others are measured.

mod boringtun;
mod kernel;
mod nebula;
mod obtain;
mod tinc;
mod wireguard;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use crate::bench::way::Way;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::lab::Lab;
use crate::namespace::{Namespace, Running};
use crate::ping::Ping;
use crate::wait::{Look, eventually};
use crate::{complain, say};

pub(super) use obtain::{obtain_all, package};
use wireguard::{Kind, WireGuard};

/// Link between the plain pod and its host, on either side.
const LINK: &str = "plain";
/// The slowest of them looks for its peer for some seconds.
const REACHED_DEADLINE: Duration = Duration::from_secs(30);

/// Plain pods and what joins them.
#[derive(Debug)]
pub(super) struct Rivals<'a> {
    lab: &'a Lab,
    pods: [Namespace; 2],
    wireguard: Option<[WireGuard; 2]>,
    missing: Vec<(Way, String)>,
    /// Run until this value ends.
    _boringtun: Option<[WireGuard; 2]>,
    _nebula: Option<[Running; 2]>,
    _tinc: Option<[tinc::Tinc; 2]>,
}

impl<'a> Rivals<'a> {
    pub(super) fn set_up(lab: &'a Lab, cache: &Path) -> Result<Self> {
        let hosts = [lab.host(1), lab.host(2)];
        let pods = [plain_pod(hosts[0], hosts[1])?, plain_pod(hosts[1], hosts[0])?];
        kernel::join_by_vxlan(hosts[0], hosts[1])?;
        kernel::join_by_vxlan(hosts[1], hosts[0])?;
        let mut rivals =
            Self { lab, pods, wireguard: None, missing: Vec::new(), _boringtun: None, _nebula: None, _tinc: None };
        rivals.restore()?;
        rivals.wireguard = rivals.joined(Way::WireguardGo, cache, |folder| {
            join_by_wireguard(folder.join(wireguard::PACKAGE.program), wireguard::KIND, Way::WireguardGo, hosts)
        })?;
        rivals._boringtun = rivals.joined(Way::Boringtun, cache, |folder| {
            join_by_wireguard(folder.join(boringtun::PACKAGE.program), boringtun::KIND, Way::Boringtun, hosts)
        })?;
        let of = |way| hosts.map(|host| networks(way, host));
        rivals._nebula = rivals.joined(Way::Nebula, cache, |folder| nebula::join(folder, hosts, &of(Way::Nebula)))?;
        rivals._tinc = rivals.joined(Way::Tinc, cache, |folder| join_by_tinc(folder, hosts, &of(Way::Tinc)))?;
        rivals.check(Way::Vxlan)?;
        rivals.check(Way::Routing)?;
        Ok(rivals)
    }

    pub(super) fn pods(&self) -> [&Namespace; 2] {
        self.pods.each_ref()
    }

    /// Who is not measured, and why.
    pub(super) fn missing(&self) -> &[(Way, String)] {
        &self.missing
    }

    pub(super) fn has(&self, way: Way) -> bool {
        self.missing.iter().all(|(missing, _)| *missing != way)
    }

    /// Leaves a rival out from now on.
    pub(super) fn give_up(&mut self, way: Way, error: Error) -> Result<()> {
        if matches!(error, Error::Interrupted) {
            return Err(error);
        }
        complain!("{} is missing: {error}", way.shown());
        self.missing.push((way, reason(&error)));
        Ok(())
    }

    /// Address of the plain pod on the second host that is reached by `way`.
    pub(super) fn address(&self, way: Way, ipv6: bool) -> IpAddr {
        let [v4, v6] = addresses(way, self.lab.host(2), 2);
        if ipv6 { v6 } else { v4 }
    }

    /// Makes what a change of the links may have taken away.
    pub(super) fn restore(&self) -> Result<()> {
        [1, 2].into_iter().try_for_each(|host| kernel::route(self.lab.fabric().namespace(), self.lab.host(host)))
    }

    /// Does `work` while wireguard-go's packets travel over IPv6; nothing if there is none.
    pub(super) fn over_ipv6<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let Some(ends) = &self.wireguard else { return Ok(None) };
        let [first, second] = [1, 2].map(|number| self.lab.host(number).underlay());
        let point = |family: usize| {
            ends[0].point_to(second[family])?;
            ends[1].point_to(first[family])
        };
        point(1)?;
        let outcome = work();
        let stayed = ends[0].is_over_ipv6()? && ends[1].is_over_ipv6()?;
        point(0)?;
        if !stayed {
            return Err(Error::Unproven("wireguard-go left IPv6 while it was measured over it".into()));
        }
        outcome.map(Some)
    }

    /// Obtains a rival, joins the hosts by it and sees that packets pass; else notes why not.
    fn joined<T>(&mut self, way: Way, cache: &Path, join: impl FnOnce(&Path) -> Result<T>) -> Result<Option<T>> {
        let Some(package) = package(way) else { return Ok(None) };
        let joined = package.obtain(cache).and_then(|folder| {
            say!("joining h1 and h2 by {}", way.shown());
            let joined = join(&folder)?;
            self.check(way)?;
            Ok(joined)
        });
        match joined {
            Ok(joined) => Ok(Some(joined)),
            Err(error) => self.give_up(way, error).map(|()| None),
        }
    }

    /// Waits until packets pass.
    fn check(&self, way: Way) -> Result<()> {
        [false, true].into_iter().try_for_each(|ipv6| reached(&self.pods[0], self.address(way, ipv6), way))
    }
}

fn reached(from: &Namespace, address: IpAddr, way: Way) -> Result<()> {
    eventually(REACHED_DEADLINE, &format!("{address} by {}", way.shown()), || {
        let answers = Ping::to(address).run(from)?;
        Ok(if answers.received > 0 { Look::Done(()) } else { Look::Missing("an answer".into()) })
    })
}

/// In one line, and without what clients say of where they looked.
fn reason(error: &Error) -> String {
    match error {
        Error::Command { command, status, .. } => format!("`{command}` ended with {status}"),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

fn plain_pod(host: &Host, other: &Host) -> Result<Namespace> {
    let pod = Namespace::create(format!("{}-plain", host.namespace().name()))?;
    let on_host = host.namespace();
    on_host.sysctl("net.ipv4.ip_forward", "1")?;
    on_host.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    ip(on_host, &format!("link add {LINK} type veth peer name {LINK} netns {}", pod.name()))?;
    ip(on_host, &format!("link set {LINK} up"))?;
    ip(&pod, &format!("link set {LINK} up"))?;
    for way in Way::ALL {
        let Some(mtu) = mtu(way) else { continue };
        let ends = addresses(way, host, 1).into_iter().zip(addresses(way, host, 2));
        for ((gateway, own), network) in ends.zip(networks(way, other)) {
            let length = prefix_length(gateway);
            ip(on_host, &format!("address add {gateway}/{length} dev {LINK} nodad"))?;
            ip(&pod, &format!("address add {own}/{length} dev {LINK} nodad"))?;
            ip(&pod, &format!("route add {network} via {gateway} src {own} mtu {mtu}"))?;
        }
    }
    Ok(pod)
}

fn join_by_wireguard(program: impl AsRef<Path>, kind: Kind, way: Way, hosts: [&Host; 2]) -> Result<[WireGuard; 2]> {
    let [first, second] = hosts;
    let join = |host: &Host, other: &Host| -> Result<WireGuard> {
        let networks = networks(way, other);
        let joined = WireGuard::start(program.as_ref(), kind, (host, other), &networks)?;
        lead_into(host, joined.device(), Some(wireguard::MTU), &networks)?;
        Ok(joined)
    };
    Ok([join(first, second)?, join(second, first)?])
}

fn join_by_tinc(folder: &Path, hosts: [&Host; 2], networks: &[[String; 2]; 2]) -> Result<[tinc::Tinc; 2]> {
    let joined = tinc::join(folder, hosts, networks)?;
    let [first, second] = hosts;
    lead_into(first, tinc::DEVICE, None, &networks[1])?;
    lead_into(second, tinc::DEVICE, None, &networks[0])?;
    let pod = Namespace::existing(format!("{}-plain", first.namespace().name()));
    let [address, _] = addresses(Way::Tinc, second, 2);
    joined[0].wait_for_datagrams(first, || Ping::to(address).run(&pod).map(|_| ()))?;
    Ok(joined)
}

/// Leads packets for `networks` into a device.
fn lead_into(host: &Host, device: &str, mtu: Option<&str>, networks: &[String; 2]) -> Result<()> {
    let mtu = mtu.map_or_else(String::new, |mtu| format!("mtu {mtu} "));
    eventually(REACHED_DEADLINE, &format!("device {device}"), || {
        let set = ip(host.namespace(), &format!("link set {device} {mtu}up"));
        Ok(set.map_or_else(|error| Look::Missing(error.to_string()), Look::Done))
    })?;
    networks.iter().try_for_each(|network| ip(host.namespace(), &format!("route add {network} dev {device}")))
}

fn ip(namespace: &Namespace, words: &str) -> Result<()> {
    namespace.exec(std::iter::once("ip").chain(words.split_whitespace())).map(|_| ())
}

/// What fits a way of plain pods; nothing for ways between pods of the mesh.
const fn mtu(way: Way) -> Option<&'static str> {
    match way {
        Way::Meshwork | Way::Clear => None,
        Way::WireguardGo | Way::Boringtun => Some(wireguard::MTU),
        Way::Nebula => Some(nebula::MTU),
        Way::Tinc => Some(tinc::MTU),
        Way::Vxlan => Some(kernel::MTU),
        Way::Routing => Some("1500"),
    }
}

/// `172.2W.H.0/24` and `fd77:0:2W:H::/64` belong to way W on host H: end 1 is the host's, end 2 the pod's.
fn addresses(way: Way, host: &Host, end: u8) -> [IpAddr; 2] {
    let (second, number) = (20 + way as u8, host.number().get());
    let [_, third] = number.to_be_bytes();
    [
        Ipv4Addr::new(172, second, third, end).into(),
        Ipv6Addr::new(0xfd77, 0, second.into(), number, 0, 0, 0, end.into()).into(),
    ]
}

fn networks(way: Way, host: &Host) -> [String; 2] {
    addresses(way, host, 0).map(|address| format!("{address}/{}", prefix_length(address)))
}

const fn prefix_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}
