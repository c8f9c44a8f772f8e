//! The network between the hosts: a namespace that routes, and a table of its own that says which pairs are cut and what
//! links lose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_sys::netlink::{InterfaceAddress, Netlink, Route, Scope, Veth};
use meshwork_sys::nft;

use crate::error::{Error, Result};
use crate::namespace::Namespace;
use crate::topology::{HOST_LINK, HostNumber, LabName, PREFIX4, PREFIX6};

/// Cut pairs are elements of one set, so that cutting and healing are one transaction each and cost nothing per pair. The
/// rules of [`crate::conditions`] follow.
const TABLE: &str = "\
table inet meshlab {
    set cut { type ifname . ifname; }
    chain conditions { }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @cut counter drop
        jump conditions
    }
}
";

/// The routing namespace between the hosts.
#[derive(Debug)]
pub struct Fabric {
    namespace: Namespace,
}

impl Fabric {
    pub(crate) fn create(lab: &LabName) -> Result<Self> {
        let namespace = Namespace::create(lab.fabric())?;
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        namespace.run(|| nft::apply(TABLE))??;
        Ok(Self { namespace })
    }

    pub(crate) fn existing(lab: &LabName) -> Self {
        Self { namespace: Namespace::existing(lab.fabric()) }
    }

    /// The namespace, where everything between hosts can be seen.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Links a host's namespace to the fabric, with addresses and default routes of both families.
    pub(crate) fn attach(&self, host: HostNumber, namespace: &Namespace) -> Result<()> {
        let link = host.to_string();
        let mut fabric = self.namespace.netlink()?;
        fabric.create_veth(&Veth { peer_netns: Some(&namespace.open()?), ..Veth::new(&link, HOST_LINK) })?;
        configure(&mut fabric, &link, host.gateway4(), host.gateway6())?;

        let mut inside = namespace.netlink()?;
        configure(&mut inside, HOST_LINK, host.address4(), host.address6())?;
        let defaults: [(IpNet, IpAddr); 2] =
            [(Ipv4Net::default().into(), host.gateway4().into()), (Ipv6Net::default().into(), host.gateway6().into())];
        for (destination, gateway) in defaults {
            inside.replace_route(&Route { gateway: Some(gateway), ..Route::new(destination) })?;
        }
        Ok(())
    }

    /// Drops everything between two hosts, both ways and in both families, until [`Self::heal`].
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn cut(&self, one: HostNumber, other: HostNumber) -> Result<()> {
        self.drop_between(&[(one, other), (other, one)])
    }

    /// Drops what `from` sends to `to`, and lets pass what comes back, until [`Self::heal`].
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn cut_one_way(&self, from: HostNumber, to: HostNumber) -> Result<()> {
        self.drop_between(&[(from, to)])
    }

    /// Drops everything between hosts of different groups, until [`Self::heal`]. Within a group all passes; a host of no
    /// group still reaches everybody.
    ///
    /// # Errors
    /// When the kernel refuses the rule.
    pub fn partition(&self, groups: &[Vec<HostNumber>]) -> Result<()> {
        self.drop_between(&across(groups))
    }

    /// All in one transaction: there is no moment of half a partition.
    fn drop_between(&self, pairs: &[(HostNumber, HostNumber)]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let elements: Vec<_> = pairs.iter().map(|(from, to)| format!("\"{from}\" . \"{to}\"")).collect();
        let script = format!("add element inet meshlab cut {{ {} }}\n", elements.join(", "));
        Ok(self.namespace.run(|| nft::apply(&script))??)
    }

    /// Lets everything pass again.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn heal(&self) -> Result<()> {
        Ok(self.namespace.run(|| nft::apply("flush set inet meshlab cut\n"))??)
    }
}

/// Ordered pairs of hosts that are in different groups.
fn across(groups: &[Vec<HostNumber>]) -> Vec<(HostNumber, HostNumber)> {
    let mut pairs = Vec::new();
    for (place, group) in groups.iter().enumerate() {
        let others = groups.iter().enumerate().filter(|(other, _)| *other != place).flat_map(|(_, other)| other);
        pairs.extend(others.flat_map(|&other| group.iter().map(move |&one| (one, other))));
    }
    pairs
}

pub(crate) fn configure(netlink: &mut Netlink, link: &str, address4: Ipv4Addr, address6: Ipv6Addr) -> Result<()> {
    let index = netlink.link(link)?.map(|found| found.index);
    let index = index.ok_or_else(|| Error::Unproven(format!("link {link} vanished while the lab was being made")))?;
    for net in [IpNet::new_assert(address4.into(), PREFIX4), IpNet::new_assert(address6.into(), PREFIX6)] {
        netlink.add_address(index, &InterfaceAddress { net, scope: Scope::Global, nodad: true })?;
    }
    Ok(netlink.set_up(index)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_concerns_pairs_of_different_groups_both_ways() {
        let host = |number| HostNumber::new(number).unwrap();
        let pairs = across(&[vec![host(1), host(2)], vec![host(3)]]);
        let numbers: Vec<_> = pairs.iter().map(|(from, to)| (from.get(), to.get())).collect();
        assert_eq!(numbers, [(1, 3), (2, 3), (3, 1), (3, 2)]);
        assert!(across(&[vec![host(1), host(2)]]).is_empty());
    }
}
