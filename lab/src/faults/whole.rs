//! What a mesh lacks to be whole. Witnesses are `ip` and `ping`; only leases and nodes' own addresses are asked of daemons.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use meshwork_api::model::{Leases, Status};

use crate::error::Result;
use crate::host::Host;
use crate::lab::Lab;
use crate::pod::Pod;

/// Begins the names of the host ends of pods' links.
const POD_LINKS: &str = "mw";

type Pods = BTreeMap<(u16, String), Pod>;

/// The first thing that is missing or too much.
pub(super) fn missing(lab: &Lab, pods: &Pods) -> Result<Option<String>> {
    if let Some(twice) = held_twice(lab, pods)? {
        return Ok(Some(format!("address {twice} is held twice")));
    }
    for host in lab.hosts() {
        let own: Vec<&Pod> =
            pods.iter().filter(|((at, _), _)| *at == host.number().get()).map(|(_, pod)| pod).collect();
        if let Some(wrong) = wrong_on(host, &own)? {
            return Ok(Some(format!("{}: {wrong}", host.number())));
        }
    }
    silent_pair(pods)
}

fn held_twice(lab: &Lab, pods: &Pods) -> Result<Option<IpAddr>> {
    let mut held: Vec<IpAddr> = pods.values().flat_map(|pod| pod.addresses().to_vec()).collect();
    for host in lab.hosts() {
        held.extend(host.get::<Status>("/v1/status")?.overlay);
    }
    held.sort_unstable();
    Ok(held.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]))
}

/// Links, routes and leases against the pods that live on a host.
fn wrong_on(host: &Host, pods: &[&Pod]) -> Result<Option<String>> {
    let addresses: BTreeSet<IpAddr> = pods.iter().flat_map(|pod| pod.addresses().to_vec()).collect();
    let links = pod_links(&host.exec(["ip", "-o", "link", "show"])?);
    if links != pods.len() {
        return Ok(Some(format!("{links} links of {} pods", pods.len())));
    }
    let routes = host.exec(["ip", "-4", "route", "show"])? + &host.exec(["ip", "-6", "route", "show"])?;
    let routed = pod_routes(&routes);
    if routed != addresses {
        return Ok(Some(format!("routes to {routed:?}, pods have {addresses:?}")));
    }
    let leased: BTreeSet<String> =
        host.get::<Leases>("/v1/pods")?.leases.into_iter().map(|lease| lease.sandbox).collect();
    let living: BTreeSet<String> = pods.iter().map(|pod| pod.sandbox().id.clone()).collect();
    Ok((leased != living).then(|| format!("leases of {leased:?}, pods are {living:?}")))
}

/// `7: mw0123456789a@if2: <BROADCAST,…`
fn pod_links(listed: &str) -> usize {
    let names = listed.lines().filter_map(|line| line.split(": ").nth(1));
    names.filter(|name| name.starts_with(POD_LINKS)).count()
}

/// `10.32.4.1 dev mw0123456789a proto 83 scope link`; the networks of the links themselves have a length or are link-local.
fn pod_routes(listed: &str) -> BTreeSet<IpAddr> {
    let to_pods = listed.lines().filter(|line| line.contains(&format!(" dev {POD_LINKS}")));
    to_pods.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

fn silent_pair(pods: &Pods) -> Result<Option<String>> {
    for from in pods.values() {
        for to in pods.values().filter(|to| to.sandbox() != from.sandbox()) {
            for &address in to.addresses() {
                if from.ping(address)?.received == 0 {
                    return Ok(Some(format!(
                        "an answer from {} ({address}) to {}",
                        to.sandbox().id,
                        from.sandbox().id
                    )));
                }
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_routes_of_pods_are_told_from_others() {
        let links =
            "1: lo: <LOOPBACK> mtu 65536\n5: meshwork0: <POINTOPOINT> mtu 1400\n7: mw0123456789a@if2: <BROADCAST>";
        assert_eq!(pod_links(links), 1);
        let routes = "default via 198.18.0.5 dev eth0\n10.32.0.0/22 nhid 5 dev meshwork0 proto 83\n\
                      10.32.4.1 dev mw0123456789a proto 83 scope link\nfe80::/64 dev mw0123456789a proto kernel";
        assert_eq!(pod_routes(routes), [IpAddr::from([10, 32, 4, 1])].into());
    }
}
