//! Brings links into the conditions that were asked for, each by the means that the kernel has for it.
//!
//! | condition | means |
//! |---|---|
//! | loss, black hole | rules in the fabric's table, written anew for all links at each change |
//! | rate | a token bucket at both ends of the link |
//! | MTU | the link's own, at both ends: the fabric answers with ICMP, as any router |
//! | delay, reordering, duplication | the [`crate::wire`] |
//! | single packets | `gso_max_segs` 1 where hosts send, as long as any link of the lab needs it |

use meshwork_sys::nft;

use crate::error::{Error, Result};
use crate::link::{DEFAULT_MTU, Link, Rate};
use crate::namespace::Namespace;
use crate::topology::{HOST_LINK, HostNumber, LabName};
use crate::wire::Splice;

/// Segments of one packet that the kernel hands on whole where nothing needs single packets: its own default.
const MOST_SEGMENTS: u32 = 65_535;
/// The kernel's default limit of such a packet, in bytes.
const MOST_BYTES: u32 = 65_536;
/// How long a packet may wait for its turn on a link with a rate.
const PATIENCE: &str = "50ms";
/// Least bytes that a token bucket lets through at once: some packets.
const LEAST_BURST: u64 = 16_000;
/// A bucket is filled by the kernel's clock, which ticks 100 times a second at worst.
const TICKS_PER_SECOND: u64 = 100;

/// The links of a lab.
pub(crate) struct Links<'a> {
    pub(crate) lab: &'a LabName,
    pub(crate) fabric: &'a Namespace,
    /// Every host, with the namespace of the far end of its link.
    pub(crate) hosts: Vec<(HostNumber, Namespace)>,
}

impl Links<'_> {
    /// Gives the link of `host` these conditions and no others.
    pub(crate) fn set(&self, host: HostNumber, link: &Link) -> Result<()> {
        link.check()?;
        let before = self.of(host)?;
        let far = self.far(host)?;
        self.end_rate(host, far)?;
        link.write(&self.lab.directory().join(host.to_string()))?;
        let splice = Splice { lab: self.lab, host, fabric: self.fabric };
        if !link.needs_wire() {
            splice.unsplice()?;
        } else if !before.needs_wire() || wire_differs(&before, link) || !splice.stands()? {
            splice.splice()?;
        }
        self.set_mtu(&splice, far, link.mtu.unwrap_or(DEFAULT_MTU))?;
        link.rate.map_or(Ok(()), |rate| self.begin_rate(host, far, rate))?;
        self.write_rules()
    }

    /// The conditions that the link of `host` has.
    pub(crate) fn of(&self, host: HostNumber) -> Result<Link> {
        Link::read(&self.lab.directory().join(host.to_string()))
    }

    fn far(&self, host: HostNumber) -> Result<&Namespace> {
        let found = self.hosts.iter().find(|(number, _)| *number == host).map(|(_, far)| far);
        found.ok_or_else(|| Error::NoSuchHost { lab: self.lab.to_string(), host: host.to_string() })
    }

    fn set_mtu(&self, splice: &Splice<'_>, far: &Namespace, mtu: u32) -> Result<()> {
        let near = splice.devices()?;
        for (namespace, device) in near.iter().map(|near| (self.fabric, near.as_str())).chain([(far, HOST_LINK)]) {
            let mut netlink = namespace.netlink()?;
            if let Some(link) = netlink.link(device)?.filter(|link| link.mtu != mtu) {
                netlink.set_mtu(link.index, mtu)?;
            }
        }
        Ok(())
    }

    fn begin_rate(&self, host: HostNumber, far: &Namespace, rate: Rate) -> Result<()> {
        let burst = (rate.bits() / 8 / TICKS_PER_SECOND).max(LEAST_BURST).to_string();
        let rate = rate.to_string();
        for (namespace, device) in self.ends(host, far) {
            let line = ["tc", "qdisc", "replace", "dev", &device, "root", "tbf"];
            namespace.exec(line.into_iter().chain(["rate", &rate, "burst", &burst, "latency", PATIENCE]))?;
        }
        Ok(())
    }

    /// Asks what is there, since whoever began a rate may have been interrupted.
    fn end_rate(&self, host: HostNumber, far: &Namespace) -> Result<()> {
        for (namespace, device) in self.ends(host, far) {
            if namespace.exec(["tc", "qdisc", "show", "dev", &device])?.contains("qdisc tbf") {
                namespace.exec(["tc", "qdisc", "delete", "dev", &device, "root"])?;
            }
        }
        Ok(())
    }

    fn ends<'a>(&'a self, host: HostNumber, far: &'a Namespace) -> [(&'a Namespace, String); 2] {
        [(self.fabric, host.to_string()), (far, HOST_LINK.to_owned())]
    }

    /// One transaction for all links, and single packets for as long as one of them needs it.
    fn write_rules(&self) -> Result<()> {
        let links: Vec<_> = self.hosts.iter().map(|(host, _)| Ok((*host, self.of(*host)?))).collect::<Result<_>>()?;
        let script = rules(&links);
        self.fabric.run(|| nft::apply(&script))??;
        let single = links.iter().any(|(_, link)| link.needs_single_packets());
        for (_, far) in &self.hosts {
            let mut netlink = far.netlink()?;
            if let Some(link) = netlink.link(HOST_LINK)? {
                netlink.set_offload_limits(link.index, MOST_BYTES, if single { 1 } else { MOST_SEGMENTS })?;
            }
        }
        Ok(())
    }
}

fn wire_differs(one: &Link, other: &Link) -> bool {
    let of = |link: &Link| (link.delay, link.reorder.to_bits(), link.duplicate.to_bits(), link.seed);
    of(one) != of(other)
}

fn rules(links: &[(HostNumber, Link)]) -> String {
    let mut script = String::from("flush chain inet meshlab conditions\n");
    for (host, link) in links {
        for direction in ["iifname", "oifname"] {
            let mut rule = |words: String| {
                script += &format!("add rule inet meshlab conditions {direction} \"{host}\" {words} counter drop\n");
            };
            if link.loss > 0.0 {
                // Numbers begin at 0, and nft knows that none is a million.
                let last = (link.loss * 10_000.0).round().max(1.0) - 1.0;
                rule(format!("numgen random mod 1000000 <= {last}"));
            }
            if let Some(bytes) = link.black_hole {
                rule(format!("meta length > {bytes}"));
            }
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_of_a_bad_link_has_a_rule_and_a_good_one_has_none() {
        let links = [1, 2].map(|number| HostNumber::new(number).unwrap());
        let links = [(links[0], Link::default()), (links[1], Link::default().loss(2.5).black_hole(1400))];
        let script = rules(&links);
        let expected = "\
flush chain inet meshlab conditions
add rule inet meshlab conditions iifname \"h2\" numgen random mod 1000000 <= 24999 counter drop
add rule inet meshlab conditions iifname \"h2\" meta length > 1400 counter drop
add rule inet meshlab conditions oifname \"h2\" numgen random mod 1000000 <= 24999 counter drop
add rule inet meshlab conditions oifname \"h2\" meta length > 1400 counter drop
";
        assert_eq!(script, expected);
    }
}
